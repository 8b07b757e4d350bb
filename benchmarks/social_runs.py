"""Social learning with the built-in in-context pair: what a student learns, and how.

Eight teacher clients hold examples of a rule that no model was trained on. For each
task and seed one run of the real server and client code in one process
(`strategies.local_grid`), into a folder of its own; a run that is complete is not run
again. Every seed draws another rule.

Run as `python benchmarks/social_runs.py`, from the root of the repository.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import social_figures
import social_measures
import torch

import client_app
import server_app
from fedcot import provenance
from fedcot.comparison import write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.launch import read_summary
from fedcot.rules import Scalar
from fedcot.runs import CONFIG
from strategies.local_grid import LocalGrid

TEACHERS: Final = 8
# What each point changes. The larger student is that of the paper: its teachers' models
# are smaller than its own.
POINTS: Final[Mapping[str, Mapping[str, Scalar]]] = {
    "conversion": {"task": "conversion"},
    "operator": {"task": "operator"},
    "labels": {"task": "labels"},
    "operator, larger student": {"task": "operator", "prompted-student": "builtin"},
    "operator, mixed teachers": {
        "task": "operator",
        "client-model": "builtin-small,builtin",
    },
}
# A conversation in a minute: shows that everything runs, not what comes out.
QUICK: Final[Mapping[str, Scalar]] = {
    "hold-out": 16,
    "example-counts": "0,1,4",
    "examples-per-prompt": 4,
    "samples-per-prompt": 2,
}


def settings(
    given: argparse.Namespace, seed: int, point: Mapping[str, Scalar], name: str
) -> RunConfig:
    """Return the settings of one run."""
    return load_config(
        given.config,
        {
            **(QUICK if given.quick else {}),
            **point,
            "num-partitions": TEACHERS,
            "seed": seed,
            "run-dir": str(
                given.folder.absolute() / f"seed-{seed}" / name.replace(", ", "-")
            ),
        },
    )


def is_complete(config: RunConfig, accepted: Sequence[str]) -> bool:
    """Whether a run with these settings finished there with code that is accepted."""
    directory = Path(config.run_dir)
    if read_summary(directory).get("status") != "completed":
        return False
    stored = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    same = stored["run_config"] == config.to_run_config()
    return same and stored["code_hash"] in (provenance.code_hash(), *accepted)


def run(config: RunConfig) -> dict[str, Any]:
    """Run one conversation afresh and return its summary."""
    directory = Path(config.run_dir)
    shutil.rmtree(directory, ignore_errors=True)
    nodes = [
        {"partition-id": node, "num-partitions": TEACHERS, "simulation": True}
        for node in range(TEACHERS)
    ]
    grid = LocalGrid(client_app.app, nodes, config.to_run_config(), seed=config.seed)
    server_app.run(grid, config)
    return read_summary(directory)


def main() -> None:
    """Run what is missing, then write the result and its figure."""
    given = _arguments()
    torch.set_num_threads(1)
    seeds = [given.first_seed + number for number in range(given.seeds)]
    wanted = [
        settings(given, seed, point, name)
        for seed in seeds
        for name, point in POINTS.items()
        if given.only in (None, name)
    ]
    todo = [config for config in wanted if not is_complete(config, given.accept)]
    print(f"{len(wanted) - len(todo)} of {len(wanted)} runs are complete", flush=True)
    for number, config in enumerate([] if given.draw else todo, start=1):
        started = time.monotonic()
        accuracy = run(config)["accuracy"]
        shown = {kind: round(score["mean"], 3) for kind, score in accuracy.items()}
        seconds = time.monotonic() - started
        place = "/".join(Path(config.run_dir).parts[-2:])
        print(f"{number} of {len(todo)}: {place} {shown} {seconds:.0f} s", flush=True)
    if given.only is None:
        write_result(given, seeds)


def write_result(given: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Gather all runs into the result file and draw its figure."""
    runs = {
        name: [Path(settings(given, seed, point, name).run_dir) for seed in seeds]
        for name, point in POINTS.items()
    }
    stated = [
        json.loads((place / CONFIG).read_text(encoding="utf-8"))
        for places in runs.values()
        for place in places
    ]
    base = load_config(given.config, QUICK if given.quick else {}).to_run_config()
    for key in ("seed", "run-dir", "task", "client-model", "prompted-student"):
        del base[key]
    result = {
        "command": shlex.join(["python", "benchmarks/social_runs.py", *_asked()]),
        "settings": base,
        "teachers": TEACHERS,
        "git_commits": sorted({str(one["git_commit"]) for one in stated}),
        "code_hashes": sorted({str(one["code_hash"]) for one in stated}),
        "artefacts": sorted({one["artefacts"]["student"] for one in stated}),
        "versions": stated[0]["versions"],
        "seeds": list(seeds),
        "points": {
            name: {
                "settings": dict(POINTS[name]),
                **social_measures.measure(places, name),
            }
            for name, places in runs.items()
        },
    }
    write_comparison(result, given.output)
    drawn = social_figures.draw(result, given.output.with_suffix(".png"))
    for path in (given.output, drawn):
        print(f"Result: {path}")


def _asked() -> list[str]:
    """Return the arguments that decide what is run."""
    return [word for word in sys.argv[1:] if word != "--draw"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("conf/social-rules.toml"))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/social"))
    parser.add_argument("--output", type=Path, default=Path("results/social.json"))
    parser.add_argument("--only", help="run this point and write nothing")
    parser.add_argument("--quick", action="store_true", help="tiny runs, for a trial")
    parser.add_argument(
        "--draw", action="store_true", help="run nothing, write the result again"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="CODE_HASH",
        help="keep complete runs of this other code too; the result names commits",
    )
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
