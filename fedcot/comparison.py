"""Arms compared over seeds: means, standard errors and paired tests.

One run for each seed; a seed that is done already is not run again.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedcot import provenance
from fedcot.arms import headline_prompt
from fedcot.budget import world_channel
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.evaluation.metrics import mean_and_stderr, paired_p_value
from fedcot.launch import (
    Outcome,
    Progress,
    launch,
    nodes_of,
    read_summary,
    sent_run_config,
)
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.runs import CONFIG, METRICS, write_json

# Each says: the first arm should be right more often than the second.
TESTED_PAIRS = (
    ("fedcot", "standalone"),
    ("fedcot", "random-bank"),
    ("distil", "standalone"),
    ("distil", "self-rationale"),
    ("distil", "shuffled-rationale"),
    ("distil", "fedcot"),
)

Launch = Callable[..., Outcome]


def compare(
    config: RunConfig,
    seeds: Sequence[int],
    *,
    folder: Path,
    command: str,
    num_supernodes: int | None = None,
    on_progress: Progress = lambda line: None,
    run: Launch = launch,
) -> dict[str, Any]:
    """Run every seed and return the comparison.

    Parameters
    ----------
    config : RunConfig
        Its seed is replaced.
    seeds : sequence of int
        Distinct.
    folder : Path
        Gets ``seed-N`` run directories; those that are complete are used again, those
        that failed are renamed to ``seed-N.failed-K`` and run again.
    command : str
        Stands in the result, so that a reader can repeat it.

    Returns
    -------
    dict
        ``command``, ``settings``, ``git_commit``, ``versions``, ``seeds``,
        ``accuracy`` (arm -> mean, stderr, per_seed), ``rationale_validity``,
        ``paired_tests``, ``privacy``, ``traffic`` and ``seconds``.

    Raises
    ------
    ConfigError
        If there are no seeds, one stands twice, or a folder holds another run: other
        settings, code, libraries, artefacts or number of clients.
    FedcotError
        If a run failed.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(
            f"`seeds` must be distinct and at least one, found {list(seeds)}; pass "
            "for example `--seeds 3`."
        )
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    wanted = {seed: replace(config, seed=seed, run_dir="") for seed in seeds}
    nodes = nodes_of(config, num_supernodes)
    # All folders before the first run, so that a refusal costs nobody an hour.
    done = {
        seed: _check_finished(wanted[seed], folders[seed], num_partitions=nodes)
        for seed in seeds
        if read_summary(folders[seed]).get("status") == "completed"
    }
    if len(done) < len(folders):
        for seed, commit in done.items():
            if commit != provenance.git_commit():
                raise _other(folders[seed], "git_commit")
    for seed in seeds:
        if seed not in done:
            _move_aside(folders[seed])
            outcome = run(
                wanted[seed],
                num_supernodes=num_supernodes,
                run_dir=folders[seed],
                on_progress=on_progress,
            )
            if outcome.exit_code:
                raise FedcotError(f"seed {seed} did not finish: {outcome.reason}")
    return collect(config, folders, command=command)


def made_with(config: RunConfig) -> dict[str, Any]:
    """Return what decides a result beside its settings: code, libraries, artefacts."""
    channel = world_channel(config)
    return {
        "code_hash": provenance.code_hash(),
        "versions": provenance.versions(),
        "artefacts": {
            "teacher": artefact_hash(config.teacher, "teacher"),
            "student": artefact_hash(config.student, "student"),
            "vocabulary": vocabulary_hash(config),
            "channel": channel.hash,
        },
    }


def _check_finished(
    config: RunConfig, directory: Path, *, num_partitions: int
) -> str | None:
    """Return the commit of a finished run that may be used again.

    Raises
    ------
    ConfigError
        It was made with other settings, code, libraries, artefacts or clients.
    """
    stored = _stored(directory)
    found = stored.get("run_config", {})
    for key, value in sent_run_config(config, directory).items():
        if key != "run-dir" and found.get(key) != value:
            raise _other(directory, key)
    for key, value in made_with(config).items():
        if stored.get(key) != value:
            raise _other(directory, key)
    if read_summary(directory).get("num_partitions") != num_partitions:
        raise _other(directory, "num-partitions")
    commit: str | None = stored.get("git_commit")
    return commit


def _other(directory: Path, key: str) -> ConfigError:
    return ConfigError(
        f"{directory} must hold a run of the same settings and code, found another "
        f"`{key}`; choose another folder or delete this one."
    )


def _stored(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    if not path.is_file():
        return {}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def _move_aside(directory: Path) -> None:
    """Rename what a run that did not finish left, so that the seed can run again."""
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    numbers = itertools.count(1)
    names = (f"{directory.name}.failed-{number}" for number in numbers)
    places = (directory.with_name(name) for name in names)
    directory.rename(next(place for place in places if not place.exists()))


def collect(
    config: RunConfig, directories: Mapping[int, Path], *, command: str
) -> dict[str, Any]:
    """Return the comparison of finished runs, one for each seed (see `compare`).

    Raises
    ------
    ConfigError
        The runs come from different commits or libraries.
    """
    made = {seed: _made_by(path) for seed, path in directories.items()}
    first, (commit, versions) = next(iter(made.items()))
    for seed, found in made.items():
        if found != (commit, versions):
            raise ConfigError(
                f"the runs must come from one commit and the same libraries, found "
                f"others in {directories[seed]} than in {directories[first]}; delete "
                "one of them and run again."
            )
    summaries = {seed: read_summary(path) for seed, path in directories.items()}
    every = list(summaries.values())
    arms = list(every[0]["accuracy"])
    settings = config.to_run_config()
    for key in ("seed", "run-dir"):
        del settings[key]
    return {
        "command": command,
        "settings": settings,
        "git_commit": commit,
        "versions": versions,
        "seeds": list(directories),
        "num_partitions": every[0]["num_partitions"],
        "accuracy": {
            arm: _over_seeds([s["accuracy"][arm]["mean"] for s in every])
            for arm in arms
        },
        "rationale_validity": {
            arm: _over_seeds([s["rationale_validity"][arm] for s in every])
            for arm in every[0]["rationale_validity"]
        },
        "paired_tests": _paired_tests(arms, list(directories.values())),
        "privacy": every[0]["privacy"],
        "traffic": every[0]["traffic"],
        "seconds": [round(sum(s["timing"].values()), 1) for s in every],
    }


def _made_by(directory: Path) -> tuple[str | None, dict[str, str] | None]:
    stored = _stored(directory)
    return stored.get("git_commit"), stored.get("versions")


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    estimate = asdict(mean_and_stderr(values))
    del estimate["n"]
    # JSON has no NaN: one seed has no standard error.
    stderr = estimate["stderr"] if len(values) > 1 else None
    return {**estimate, "stderr": stderr, "per_seed": list(values)}


def correct_answers(directory: Path, arm: str) -> list[bool]:
    """Return whether each test record was answered rightly, clients in order.

    The newest round's scores under the arm's declared prompt.
    """
    newest: dict[int, dict[str, Any]] = {}
    prompt = headline_prompt(arm)
    for line in (directory / METRICS).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        wanted = (row.get("arm"), row.get("prompt"), row.get("split"))
        if wanted == (arm, prompt, "test"):
            known = newest.get(row["partition"])
            if known is None or row["round"] >= known["round"]:
                newest[row["partition"]] = row
    bits = "".join(newest[partition]["correct"] for partition in sorted(newest))
    return [bit == "1" for bit in bits]


def _paired_tests(
    arms: Sequence[str], directories: Sequence[Path]
) -> dict[str, dict[str, float]]:
    tests: dict[str, dict[str, float]] = {}
    for first, second in TESTED_PAIRS:
        if first in arms and second in arms:
            ones = [hit for path in directories for hit in correct_answers(path, first)]
            others = [
                hit for path in directories for hit in correct_answers(path, second)
            ]
            tests[f"{first} > {second}"] = {
                "difference": (sum(ones) - sum(others)) / len(ones),
                "p_value": paired_p_value(ones, others),
                "n": len(ones),
            }
    return tests


def write_comparison(result: Mapping[str, Any], path: Path) -> None:
    """Write a comparison as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
