"""Communities of the built-in world: size, diversity, granularity, coalitions and more.

Each point of `community_plan.py` is a run of the real server and client code in one
process (`strategies.local_grid`) for each seed, into a folder of its own; a point that
is complete is not run again. The provider is made by `partial_provider.py`: it serves
one community badly.

Run as `python benchmarks/community_runs.py`, from the root of the repository.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import community_figures
import community_measures
import torch
from community_plan import BASE, Plan, Point, make_plan

import client_app
import server_app
from fedcot import provenance
from fedcot.comparison import write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.launch import read_summary
from fedcot.models.sources import artefact_hash
from fedcot.rules import Scalar
from fedcot.runs import CONFIG
from strategies.local_grid import LocalGrid

PROVIDER: Final = Path("build/provider")
FEW: Final = 16
CACHE: Final = "provider-answers.sqlite"
# The world in minutes: shows that everything runs, not what comes out.
QUICK: Final[Mapping[str, Scalar]] = {
    "num-records": 128,
    "test-records": 16,
    "hold-out": 16,
    "local-epochs": 2,
}
# Where a run lies says nothing about what it does.
PATHS: Final = ("run-dir", "teacher-cache", "teacher")


class Sweep:
    """The runs of a plan in a folder.

    Parameters
    ----------
    config : Path
        Settings of the base point.
    overrides : mapping of str to value
        Laid over them in every point.
    folder : Path
        Gets ``seed-N/POINT`` run directories and the provider's answers.
    provider : Path
        Folder of the provider's model.
    accepted : sequence of str
        Code hashes of complete points that are kept, beside this code's.
    """

    def __init__(
        self,
        config: Path,
        overrides: Mapping[str, Scalar],
        folder: Path,
        provider: Path,
        accepted: Sequence[str],
    ) -> None:
        self.config = config
        self.folder = folder
        self.overrides: dict[str, Scalar] = {
            **overrides,
            "teacher": str(provider.absolute()),
            "teacher-cache": str(folder / CACHE),
        }
        self.provider_hash = artefact_hash(str(provider.absolute()), "teacher")
        self.code = {provenance.code_hash(), *accepted}
        self.base = load_config(config, self.overrides)
        self.plan: Plan = make_plan(self.base)

    def place(self, seed: int, point: str) -> Path:
        """Return the run directory of a point."""
        return self.folder / f"seed-{seed}" / point

    def settings(self, seed: int, point: Point) -> RunConfig:
        """Return the settings of a point's run."""
        overrides = {
            **self.overrides,
            **point.settings,
            "num-partitions": point.members,
            "seed": seed,
            "run-dir": str(self.place(seed, point.name)),
        }
        if point.tokens_of:
            overrides["pool-tokens"] = community_measures.pool_tokens(
                self.place(seed, point.tokens_of)
            )
        return load_config(self.config, overrides)

    def is_complete(self, seed: int, point: Point) -> bool:
        """Whether a run with these settings finished there with code that is accepted.

        A point that takes its tokens from another waits for that one.
        """
        directory = self.place(seed, point.name)
        path = directory / CONFIG
        if read_summary(directory).get("status") != "completed" or not path.is_file():
            return False
        if point.tokens_of and not self.is_complete(
            seed, self.plan.points[point.tokens_of]
        ):
            return False
        stored = json.loads(path.read_text(encoding="utf-8"))
        wanted = self.settings(seed, point).to_run_config()
        return bool(
            stored.get("code_hash") in self.code
            and _without_paths(stored["run_config"]) == _without_paths(wanted)
            and stored["teacher"]["artefact"] == self.provider_hash
        )

    def run(self, seed: int, point: Point) -> dict[str, Any]:
        """Run one point afresh and return its summary."""
        config = self.settings(seed, point)
        directory = Path(config.run_dir)
        shutil.rmtree(directory, ignore_errors=True)
        nodes = [
            {
                "partition-id": node,
                "num-partitions": point.members,
                "simulation": True,
            }
            for node in range(point.members)
        ]
        settings = config.to_run_config()
        grid = LocalGrid(client_app.app, nodes, settings, seed=seed)
        server_app.run(grid, config)
        return read_summary(directory)


def main() -> None:
    """Run what is missing, then write the result and its figures."""
    given = _arguments()
    torch.set_num_threads(1)
    make_provider(given.provider, given.few)
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    overrides = QUICK if given.quick else {}
    sweep = Sweep(given.config, overrides, folder, given.provider, given.accept)
    names = [factor.name for factor in sweep.plan.factors]
    if given.factor is not None and given.factor not in names:
        sys.exit(f"--factor must be one of {', '.join(names)}, found {given.factor}.")
    seeds = [given.first_seed + number for number in range(given.seeds)]
    if given.only is not None:
        seeds = [given.only]
    points = (
        list(sweep.plan.points.values())
        if given.factor is None
        else sweep.plan.points_of(given.factor)
    )
    if not given.draw:
        run_missing(sweep, points, seeds)
    if given.only is None and given.factor is None:
        write_result(sweep, seeds, given)


def run_missing(sweep: Sweep, points: Sequence[Point], seeds: Sequence[int]) -> None:
    """Run every point of every seed that is not complete."""
    wanted = [(seed, point) for seed in seeds for point in points]
    todo = [item for item in wanted if not sweep.is_complete(*item)]
    print(f"{len(wanted) - len(todo)} of {len(wanted)} points are complete", flush=True)
    for number, (seed, point) in enumerate(todo, start=1):
        started = time.monotonic()
        accuracy = sweep.run(seed, point)["accuracy"]
        shown = {arm: round(score["mean"], 3) for arm, score in accuracy.items()}
        seconds = time.monotonic() - started
        print(
            f"{number} of {len(todo)}: seed {seed} {point.name} {shown} "
            f"{seconds:.0f} s",
            flush=True,
        )


def make_provider(folder: Path, few: int) -> None:
    """Train the provider if it is not there."""
    made = folder / "provider.json"
    if made.is_file():
        counts = json.loads(made.read_text(encoding="utf-8"))["problems"]
        if min(counts.values()) != few:
            sys.exit(
                f"--provider must be a folder made with --few {few}, found "
                f"{min(counts.values())} in {folder}; name another folder."
            )
        return
    script = Path(__file__).with_name("partial_provider.py")
    subprocess.run(
        [sys.executable, "-P", str(script), "--output", str(folder), "--few", str(few)],
        check=True,
    )


def write_result(sweep: Sweep, seeds: Sequence[int], given: argparse.Namespace) -> None:
    """Gather all points into the result file and draw its figures."""
    stated = [
        json.loads((sweep.place(seed, name) / CONFIG).read_text(encoding="utf-8"))
        for seed in seeds
        for name in sweep.plan.points
    ]
    settings = sweep.base.to_run_config()
    for key in ("seed", *PATHS):
        del settings[key]
    made = (given.provider / "provider.json").read_text(encoding="utf-8")
    result = {
        "command": shlex.join(
            ["python", "benchmarks/community_runs.py", *sys.argv[1:]]
        ),
        "settings": settings,
        "git_commits": sorted({str(one["git_commit"]) for one in stated}),
        "code_hashes": sorted({str(one["code_hash"]) for one in stated}),
        "versions": stated[0]["versions"],
        "seeds": list(seeds),
        "base_point": BASE,
        "provider": {**json.loads(made), "artefact": sweep.provider_hash},
        **community_measures.measure(sweep.plan, sweep.base, sweep.place, seeds),
    }
    write_comparison(result, given.output)
    drawn = community_figures.draw(result, given.output)
    for path in (given.output, *drawn):
        print(f"Result: {path}")


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in PATHS}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path("conf/community-world.toml")
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/community"))
    parser.add_argument("--output", type=Path, default=Path("results/community.json"))
    parser.add_argument("--provider", type=Path, default=PROVIDER)
    parser.add_argument(
        "--few", type=int, default=FEW, help="problems that it saw of the harbor"
    )
    parser.add_argument("--only", type=int, help="run this seed and write nothing")
    parser.add_argument("--factor", help="run this one's points and write nothing")
    parser.add_argument("--quick", action="store_true", help="tiny runs, for a trial")
    parser.add_argument(
        "--draw", action="store_true", help="run nothing, write the result again"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="CODE_HASH",
        help="keep complete points of this other code too; the result names commits",
    )
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
