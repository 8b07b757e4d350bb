"""The three modes on one split: accuracy, exposure, bytes and epsilon of each student.

Five clients hold the same questions of one domain each, and the same number of
canaries, in every mode. For each seed, the parts of `mode_plan.py` run the real server
and client code in one process (`strategies.local_grid`), each in a folder of its own,
and are audited. What is complete is not run again.

Run as `python benchmarks/mode_runs.py`, from the root of the repository.
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
from typing import Any

import mode_figures
import mode_measures
import torch
from mode_exposure import rank_one_run
from mode_plan import (
    ARMS,
    CLIENTS,
    COMMON,
    COMMUNITY,
    PARTS,
    QUICK,
    QUICK_OF,
    SOCIAL,
    Part,
)
from social_runs import is_complete

import client_app
import server_app
from fedcot.comparison import write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.evaluation.run_audit import audit_run
from fedcot.launch import read_summary
from fedcot.rules import Scalar
from fedcot.runs import CONFIG
from strategies.local_grid import LocalGrid


def settings(given: argparse.Namespace, seed: int, name: str) -> RunConfig:
    """Return the settings of one part's run."""
    part = PARTS[name]
    folder = given.folder.absolute() / f"seed-{seed}"
    return load_config(
        part.config,
        {
            **COMMON,
            **part.settings,
            **_quick(given, part),
            **_models(given, part),
            "seed": seed,
            "run-dir": str(folder / name),
        },
    )


def run(config: RunConfig) -> dict[str, Any]:
    """Run one part afresh and return its summary."""
    directory = Path(config.run_dir)
    shutil.rmtree(directory, ignore_errors=True)
    nodes = [
        {"partition-id": node, "num-partitions": CLIENTS, "simulation": True}
        for node in range(CLIENTS)
    ]
    grid = LocalGrid(client_app.app, nodes, config.to_run_config(), seed=config.seed)
    server_app.run(grid, config)
    return read_summary(directory)


def audited(config: RunConfig, *, size: int, trials: int) -> None:
    """Rank the canaries of a finished run; ranks that are known are kept.

    Parameters
    ----------
    trials : int
        Conversations of mode social that are replayed; the canaries of adapters are
        all ranked, and so are those of the social run itself.
    """
    place = Path(config.run_dir)
    if config.mode == SOCIAL:
        rank_one_run(place, config, size=size, clients=CLIENTS)
    else:
        trials = config.canaries
    path = place / mode_measures.AUDIT
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        reports = known["students"].values()
        first = next(iter(reports))
        first = first if "ranks" in first else next(iter(first.values()))
        if (known["size"], len(first["ranks"])) == (size, trials):
            return
    audit_run(place, size=size, trials=trials)


def main() -> None:
    """Run and audit what is missing, then write the result and its figure."""
    given = _arguments()
    torch.set_num_threads(1)
    seeds = [given.first_seed + number for number in range(given.seeds)]
    names = [name for name in PARTS if given.only in (None, name)]
    for seed in [] if given.draw else seeds:
        for name in names:
            config = settings(given, seed, name)
            started = time.monotonic()
            place = f"seed {seed}, {name}:"
            if not is_complete(config, given.accept):
                accuracy = run(config)["accuracy"]
                shown = {arm: round(one["mean"], 3) for arm, one in accuracy.items()}
                seconds = time.monotonic() - started
                print(f"{place} {shown} {seconds:.0f} s", flush=True)
                started = time.monotonic()
            audited(config, size=given.size, trials=given.trials)
            seconds = time.monotonic() - started
            print(f"{place} audited in {seconds:.0f} s", flush=True)
    if given.only is None:
        write_result(given, seeds)


def write_result(given: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Gather all runs into the result file and draw its figure."""
    places = {
        name: [Path(settings(given, seed, name).run_dir) for seed in seeds]
        for name in PARTS
    }
    stated = [
        json.loads((place / CONFIG).read_text(encoding="utf-8"))
        for some in places.values()
        for place in some
    ]
    audits = [
        mode_measures.read_audit(place / mode_measures.AUDIT, given.size)
        for place in places[SOCIAL]
    ]
    social = [read_summary(place) for place in places[SOCIAL]]
    result = {
        "command": shlex.join(
            [
                *("python", "benchmarks/mode_runs.py"),
                *(word for word in sys.argv[1:] if word != "--draw"),
            ]
        ),
        "clients": CLIENTS,
        "parts": {name: _stated_settings(given, seeds, name) for name in PARTS},
        "git_commits": sorted({str(one["git_commit"]) for one in stated}),
        "code_hashes": sorted({str(one["code_hash"]) for one in stated}),
        "versions": stated[0]["versions"],
        "seeds": list(seeds),
        "size": given.size,
        "canaries_per_seed": settings(given, seeds[0], SOCIAL).canaries,
        "replays_per_seed": given.trials,
        "arms": {
            arm.label: {
                "mode": arm.mode,
                "name": arm.name,
                "part": arm.part,
                "holder": arm.holder,
                "teacher": arm.teacher,
                **mode_measures.joined(
                    [
                        mode_measures.read_arm(place, arm, given.size)
                        for place in places[arm.part]
                    ],
                    given.size,
                ),
            }
            for arm in ARMS
        },
        "texts": mode_measures.texts_of(
            [read_summary(place) for place in places[COMMUNITY]], social
        ),
        "social_students": mode_measures.counts_of(social),
        "social_replays": mode_measures.replays_of(audits),
        "failures": sum(
            len(read_summary(place)["failures"])
            for some in places.values()
            for place in some
        ),
    }
    write_comparison(result, given.output)
    drawn = mode_figures.draw(result, given.output.with_suffix(".png"))
    for path in (given.output, drawn):
        print(f"Result: {path}")


def _stated_settings(
    given: argparse.Namespace, seeds: Sequence[int], name: str
) -> dict[str, Any]:
    stated = settings(given, seeds[0], name).to_run_config()
    return {key: one for key, one in stated.items() if key not in ("seed", "run-dir")}


def _quick(given: argparse.Namespace, part: Part) -> Mapping[str, Scalar]:
    return {**QUICK, **QUICK_OF[part.mode]} if given.quick else {}


def _models(given: argparse.Namespace, part: Part) -> Mapping[str, Scalar]:
    """Return the models of mode social, where others than the built-in are named."""
    if part.mode != SOCIAL:
        return {}
    named = {
        "client-model": given.client_model,
        "prompted-student": given.prompted_student,
    }
    return {key: source for key, source in named.items() if source}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/modes"))
    parser.add_argument("--output", type=Path, default=Path("results/modes.json"))
    parser.add_argument("--size", type=int, default=1000, help="N of all ranks")
    parser.add_argument(
        "--trials", type=int, default=2, help="conversations replayed for each seed"
    )
    parser.add_argument("--only", help="run this part and write nothing")
    parser.add_argument("--quick", action="store_true", help="tiny runs, for a trial")
    parser.add_argument("--client-model", help="in mode social, in place of builtin")
    parser.add_argument("--prompted-student", help="likewise, of builtin-small")
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
