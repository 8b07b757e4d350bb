"""What a finished run gives away of its clients' texts, whatever its mode.

An audit finds what its attacks find. It never proves that nothing leaks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.evaluation.adapter_audit import BASE, audit_adapters
from fedcot.evaluation.trial_book import TrialBook, plan_digest
from fedcot.node_state import Owner
from fedcot.runs import (
    SUMMARY,
    RunDirectory,
    portable,
    read_config,
    read_members,
    write_json,
)
from fedcot.settings import COMMUNITY, SOCIAL
from fedcot.social.leak_audit import ZERO_SHOT, audit_conversations
from fedcot.social.settings import WORLD_TASK

if TYPE_CHECKING:
    from fedcot.social.client_model import ClientModel
    from fedcot.social.split import Silo

FOLDER: Final = "audit"
RESULT: Final = "memorization.json"
BOOK: Final = "memorization.jsonl"
# Trained on nothing, or told nothing: how often chance alone gives a rank.
NULLS: Final = (BASE, ZERO_SHOT)
LEVEL: Final = 0.05
NO_PROOF: Final = (
    "An audit finds what it finds and is no proof that nothing else leaks."
)
_ENDED: Final = ("completed", "budget-exhausted")
Progress = Callable[[int, int], None]


def audit_run(
    run_dir: Path,
    *,
    size: int = 1000,
    trials: int = 100,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Audit a run and write ``audit/memorization.json`` into its directory.

    Parameters
    ----------
    run_dir : Path
    size : int
        Canary and references together (N), >= 2.
    trials : int
        Canaries (T), >= 1; of adapters at most as many as the run inserted.
    on_progress : callable, optional
        Takes how much is done, and how much there is.

    Returns
    -------
    dict
        What was written: no text, but for one sentence under ``found``.

    Raises
    ------
    ConfigError
        There is no finished run, nothing was inserted that could be found, or a number
        is out of its range.
    """
    if size < 2 or trials < 1:
        raise ConfigError(
            f"`--size` must be >= 2 and `--trials` >= 1, found {size} and {trials}; "
            "pass for example `--size 1000 --trials 100`."
        )
    config = RunConfig.from_run_config(read_config(run_dir)["run_config"])
    with RunDirectory(run_dir).held():
        if config.mode == SOCIAL:
            found = _audit_social(run_dir, config, size, trials, on_progress)
        else:
            found = _audit_adapters(run_dir, config, size, trials, on_progress)
        result = {
            "mode": config.mode,
            "size": size,
            "canaries": config.canaries,
            "canary_pattern": config.canary_pattern,
            "canary_insertion": config.canary_insertion,
            "canary_repeats": config.canary_repeats,
            **found,
        }
        result["found"] = interpretation(result)
        folder = run_dir / FOLDER
        folder.mkdir(exist_ok=True)
        write_json(folder / RESULT, result)
    plain: dict[str, Any] = portable(result)
    return plain


def reports_of(result: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield student, prompt and report of everything that was ranked."""
    for student, found in result.get("students", {}).items():
        if "exposure" in found:
            yield student, "", found
            continue
        for prompt, report in found.items():
            yield student, prompt, report


def interpretation(result: Mapping[str, Any]) -> str:
    """Return in words what was found; an audit proves no absence.

    A student is named where its canaries have rank 0 more often than chance, at a level
    of 5 % over all students together (Bonferroni).
    """
    tested = [row for row in reports_of(result) if row[0] not in NULLS]
    if not tested:
        return f"No canary was ranked. {NO_PROOF}"
    level = LEVEL / len(tested)
    leaking = [
        f"{student} ({prompt})" if prompt else student
        for student, prompt, report in tested
        if report["exposure"]["rank_zero_p_value"] < level
    ]
    if leaking:
        return (
            "Inserted canaries come out first more often than chance, at a level of "
            f"{LEVEL:.0%} over {len(tested)} comparisons, under: {', '.join(leaking)}. "
            f"{NO_PROOF}"
        )
    fewest = min(report["exposure"]["trials"] for _, _, report in tested)
    return (
        "No student puts inserted canaries first more often than chance, at a level of "
        f"{LEVEL:.0%} over {len(tested)} comparisons of {fewest} canaries or more. "
        f"{NO_PROOF}"
    )


def _audit_social(
    run_dir: Path,
    config: RunConfig,
    size: int,
    trials: int,
    on_progress: Progress | None,
) -> dict[str, Any]:
    """Replay the conversation on the silos that the settings give simulated clients.

    On the built-in world a client's model explains its examples once, before canaries
    are inserted.
    """
    from fedcot.social.configured import (
        client_model_of,
        configured_form,
        prompted_student,
    )
    from fedcot.social.conversation import conversation_settings
    from fedcot.social.planted import SocialTrial, has_steps, social_trial
    from fedcot.social.teacher_silo import steps_hold

    if not (run_dir / "nodes").is_dir():
        raise ConfigError(
            "`RUN_DIR` must hold a simulated run, since deployed teacher clients keep "
            f"their examples, found no clients' folders in `{run_dir}`; pass another."
        )
    count = _num_partitions(run_dir, config)
    # Each trial inserts its own.
    clean = replace(config, canaries=0)
    form = configured_form(clean)
    silos = {p: _readable_silo(clean, p, count) for p in range(count)}
    models: dict[int, ClientModel] = {
        p: client_model_of(clean, p) for p in range(count)
    }
    student = prompted_student(clean)
    with_steps = any(has_steps(clean, silo) for silo in silos.values())

    def trial_of(number: int) -> SocialTrial:
        return social_trial(
            config,
            form,
            number,
            num_partitions=count,
            size=size,
            with_steps=with_steps,
        )

    decisive = {
        "run_config": config.to_run_config(),
        "num_partitions": count,
        "size": size,
        "models": [dict(models[p].describe()) for p in range(count)],
        "student": dict(student.describe()),
    }
    return audit_conversations(
        silos,
        form,
        models,
        student,
        conversation_settings(clean),
        trial_of=trial_of,
        trials=trials,
        seed=config.seed,
        book=TrialBook(run_dir / FOLDER / BOOK, plan_digest(decisive)),
        repeats=config.canary_repeats,
        check=steps_hold if clean.task == WORLD_TASK else None,
        on_progress=on_progress,
    )


def _readable_silo(config: RunConfig, partition_id: int, num_partitions: int) -> Silo:
    """Return what a simulated client's model may be shown, or vote with."""
    from fedcot.social.teacher_silo import TeacherSilo, has_votes

    place = {"partition-id": partition_id, "num-partitions": num_partitions}
    owner = Owner.from_node_config({**place, "simulation": True})
    silo = TeacherSilo(config, owner)
    shown = silo.teaching.demonstrations
    return shown + silo.held_out.demonstrations if has_votes(config) else shown


def _audit_adapters(
    run_dir: Path,
    config: RunConfig,
    size: int,
    trials: int,
    on_progress: Progress | None,
) -> dict[str, Any]:
    summary = _summary(run_dir)
    count = _num_partitions(run_dir, config, summary)
    rounds = int(summary.get("num_rounds", config.num_server_rounds))
    members = _members(run_dir, config, summary, count, rounds, on_progress)
    if not config.canaries and not members:
        remedy = " or `-c audit-members=true`" if config.mode == COMMUNITY else ""
        raise ConfigError(
            "`canaries` must be > 0 in a run whose canaries are to be ranked, found 0; "
            f"start a run with `-c canaries=20`{remedy}."
        )
    students: dict[str, Any] = {}
    if config.canaries:
        students = audit_adapters(
            run_dir,
            config,
            num_partitions=count,
            num_rounds=rounds,
            size=size,
            trials=trials,
            book_path=run_dir / FOLDER / BOOK,
            on_progress=on_progress,
        )
    return {"students": students, "members": members}


def _members(
    run_dir: Path,
    config: RunConfig,
    summary: Mapping[str, Any],
    num_partitions: int,
    num_rounds: int,
    on_progress: Progress | None,
) -> dict[str, Any]:
    """Return the audit of members' own texts, where they can be read again.

    Traces of communities come from a provider, so that the run itself audits them.
    """
    if config.mode == COMMUNITY:
        return dict((summary.get("community") or {}).get("audit") or {})
    if not (run_dir / "nodes").is_dir():
        return {}  # Deployed nodes keep their records.
    from fedcot.evaluation.label_audit import audit_labels

    return audit_labels(
        run_dir,
        config,
        num_partitions=num_partitions,
        num_rounds=num_rounds,
        on_progress=on_progress,
    )


def _summary(run_dir: Path) -> dict[str, Any]:
    place = run_dir / SUMMARY
    found: dict[str, Any] = {}
    if place.is_file():
        found = json.loads(place.read_text(encoding="utf-8"))
    if found.get("status") not in _ENDED:
        raise ConfigError(
            f"`RUN_DIR` must hold a run that came to its end, found `{run_dir}` "
            f"{found.get('status', 'without a summary')}; pass it to `fedcot resume`."
        )
    return found


def _num_partitions(
    run_dir: Path, config: RunConfig, summary: Mapping[str, Any] | None = None
) -> int:
    """Return how many clients the data of a run was split for."""
    stated = (summary or {}).get("num_partitions")
    count = read_members(run_dir) or stated or config.num_partitions
    if not count:
        raise ConfigError(
            f"`RUN_DIR` must say how many clients the run had, found nothing in "
            f"`{run_dir}`; start it again."
        )
    return int(count)
