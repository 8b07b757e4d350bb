"""Arms compared over seeds: means, standard errors and paired tests.

One run for each seed; a seed that is done already is not run again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedcot import provenance
from fedcot.arms import headline_prompt
from fedcot.config import RunConfig
from fedcot.errors import ConfigError, FedcotError
from fedcot.evaluation.metrics import mean_and_stderr, paired_p_value
from fedcot.launch import Outcome, Progress, launch, read_summary
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
    on_seed: Callable[[int], None] = lambda seed: None,
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
        Gets ``seed-N`` run directories; those that are complete are used again.
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
        If there are no seeds, one stands twice, or a folder holds another run.
    FedcotError
        If a run failed.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(
            f"`seeds` must be distinct and at least one, found {list(seeds)}; pass "
            "for example `--seeds 3`."
        )
    directories: dict[int, Path] = {}
    for seed in seeds:
        directories[seed] = folder / f"seed-{seed}"
        on_seed(seed)
        _run_once(
            replace(config, seed=seed, run_dir=""),
            directories[seed],
            lambda chosen, where: run(
                chosen,
                num_supernodes=num_supernodes,
                run_dir=where,
                on_progress=on_progress,
            ),
        )
    return collect(config, directories, command=command)


def _run_once(
    config: RunConfig, directory: Path, run: Callable[[RunConfig, Path], Outcome]
) -> None:
    summary = read_summary(directory)
    if summary.get("status") == "completed":
        stored = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        wanted = config.to_run_config()
        found = stored.get("run_config", {})
        differing = [key for key, value in wanted.items() if found.get(key) != value]
        if set(differing) - {"run-dir"}:
            raise ConfigError(
                f"{directory} must hold a run of the same settings, found another "
                f"`{min(set(differing) - {'run-dir'})}`; choose another folder or "
                "delete this one."
            )
        return
    outcome = run(config, directory)
    if outcome.exit_code:
        raise FedcotError(f"seed {config.seed} did not finish: {outcome.reason}")


def collect(
    config: RunConfig, directories: Mapping[int, Path], *, command: str
) -> dict[str, Any]:
    """Return the comparison of finished runs, one for each seed (see `compare`)."""
    summaries = {seed: read_summary(path) for seed, path in directories.items()}
    every = list(summaries.values())
    arms = list(every[0]["accuracy"])
    settings = config.to_run_config()
    for key in ("seed", "run-dir"):
        del settings[key]
    return {
        "command": command,
        "settings": settings,
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
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
