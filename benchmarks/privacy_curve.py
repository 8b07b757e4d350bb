"""Student accuracy against whole-prompt epsilon, for every mechanism with a proof.

Mechanisms that protect a token and one that protects a prompt can be compared on one
axis only: what a whole prompt costs. Each point is a run of the real server and client
code over the same split, in one process (`strategies.local_grid`), into a folder of its
own; a point that is complete is not run again.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import client_app
import server_app
from fedcot import provenance
from fedcot.comparison import correct_answers, write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.evaluation.metrics import mean_and_stderr, paired_p_value
from fedcot.launch import read_summary
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.runs import CONFIG
from fedcot.tasks.world import WorldTask
from fedcot.teacher.prompted import PromptedTeacher
from fedcot.teacher.teacher import Completion
from fedcot.teacher.transformers_writer import TransformersWriter
from strategies.local_grid import LocalGrid

CLIENTS = 5
CONTROLS = ("standalone", "random-bank", "distil")
# Whole-prompt epsilons at which mechanisms meet. A token mechanism divides them by the
# public number of slots; 168 is 8 nats a token.
EPSILONS = {
    "selection": (4.0, 8.0, 16.0),
    "adaptive": (4.0, 8.0, 16.0, 84.0, 168.0),
    "rank": (16.0, 84.0, 168.0),
    "exponential": (16.0, 84.0, 168.0),
}
COLOURS = {
    "selection": "#2f6f9f",
    "adaptive": "#d9822b",
    "rank": "#4f9d69",
    "exponential": "#a6485a",
}


@dataclass(frozen=True, order=True)
class Point:
    """One mechanism at one whole-prompt epsilon, in nats."""

    mechanism: str
    epsilon: float

    @property
    def name(self) -> str:
        """Folder of the point's run."""
        return f"{self.mechanism}-{self.epsilon:g}"

    def settings(self, base: RunConfig) -> RunConfig:
        """Return the settings of the point's run."""
        if self.mechanism == "controls":
            return replace(base, arms=",".join(CONTROLS), mechanism="none")
        if self.mechanism in ("rank", "exponential"):
            token = self.epsilon / world_vocabulary().length
            return replace(
                base, mechanism=self.mechanism, token_epsilon=token, prompt_epsilon=0.0
            )
        return replace(base, mechanism=self.mechanism, prompt_epsilon=self.epsilon)


class RememberingTeacher(PromptedTeacher):
    """Answers a question once for all points of a process."""

    def __init__(self, source: str, **settings: Any) -> None:
        super().__init__(WorldTask(), TransformersWriter(source, **settings))
        self._known: dict[str, Completion] = {}

    def answer(
        self,
        questions: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Return one completion for each question, in the order of the questions."""
        new = [q for q in dict.fromkeys(questions) if q not in self._known]
        if new:
            given = super().answer(new, on_progress=on_progress)
            self._known.update(zip(new, given, strict=True))
        return [self._known[question] for question in questions]


def main() -> None:
    """Run what is missing, then write the result and its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path("conf/results-privacy.toml")
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/results-privacy"))
    parser.add_argument(
        "--output", type=Path, default=Path("results/privacy-curve.json")
    )
    parser.add_argument("--only", type=int, help="run this seed and write nothing")
    parser.add_argument("--mechanism", help="run this one's points and write nothing")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="CODE_HASH",
        help="keep complete points of this other code too; the result names commits",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = load_config(given.config)
    points = [Point("controls", 0.0)] + [
        Point(mechanism, epsilon)
        for mechanism, epsilons in EPSILONS.items()
        for epsilon in epsilons
    ]
    seeds = range(given.seeds) if given.only is None else [given.only]
    folder = given.folder.absolute()
    wanted = [p for p in points if given.mechanism in (None, p.mechanism)]
    run_missing(base, wanted, seeds, folder, accepted=given.accept)
    if given.only is None and given.mechanism is None:
        command = shlex.join(
            ["python", "-P", "benchmarks/privacy_curve.py", *sys.argv[1:]]
        )
        result = collect(base, points, seeds, folder, command=command)
        write_comparison(result, given.output)
        draw(result, given.output.with_suffix(".png"))
        print(f"Result: {given.output}")


def run_missing(
    base: RunConfig,
    points: Sequence[Point],
    seeds: Sequence[int],
    folder: Path,
    *,
    accepted: Sequence[str] = (),
) -> None:
    """Run every point of every seed that is not complete."""
    code = {provenance.code_hash(), *accepted}
    wanted = [(seed, point) for seed in seeds for point in points]
    todo = [item for item in wanted if not is_complete(place(folder, *item), code)]
    print(f"{len(wanted) - len(todo)} of {len(wanted)} points are complete", flush=True)
    teacher: RememberingTeacher | None = None
    for number, (seed, point) in enumerate(todo, start=1):
        if teacher is None:
            teacher = RememberingTeacher(
                base.teacher,
                batch_size=base.teacher_batch_size,
                max_new_tokens=base.max_new_tokens,
            )
        started = time.monotonic()
        directory = place(folder, seed, point)
        shutil.rmtree(directory, ignore_errors=True)
        config = replace(point.settings(base), seed=seed, run_dir=str(directory))
        nodes = [
            {"partition-id": node, "num-partitions": CLIENTS, "simulation": True}
            for node in range(CLIENTS)
        ]
        settings = config.to_run_config()
        grid = LocalGrid(client_app.app, nodes, settings, seed=seed)
        server_app.run(grid, config, teacher)
        accuracy = read_summary(directory)["accuracy"]
        shown = {arm: round(a["mean"], 3) for arm, a in accuracy.items()}
        seconds = time.monotonic() - started
        print(
            f"{number} of {len(todo)}: seed {seed} {point.name} {shown} "
            f"{seconds:.0f} s",
            flush=True,
        )


def place(folder: Path, seed: int, point: Point) -> Path:
    """Return the run directory of a point."""
    return folder / f"seed-{seed}" / point.name


def is_complete(directory: Path, code: set[str]) -> bool:
    """Whether a run finished there with code that is accepted."""
    path = directory / CONFIG
    if read_summary(directory).get("status") != "completed" or not path.is_file():
        return False
    stored = json.loads(path.read_text(encoding="utf-8"))
    return stored.get("code_hash") in code


def collect(
    base: RunConfig,
    points: Sequence[Point],
    seeds: Sequence[int],
    folder: Path,
    *,
    command: str,
) -> dict[str, Any]:
    """Return accuracy and validity of every point, and the tests between them."""

    def summaries(point: Point) -> list[dict[str, Any]]:
        return [read_summary(place(folder, seed, point)) for seed in seeds]

    def estimate(point: Point, arm: str, key: str = "accuracy") -> dict[str, Any]:
        found = [summary[key][arm] for summary in summaries(point)]
        values = [x["mean"] if isinstance(x, dict) else x for x in found]
        spread = mean_and_stderr(values)
        stderr = spread.stderr if len(values) > 1 else None
        return {"mean": spread.mean, "stderr": stderr, "per_seed": values}

    def commits(point: Point) -> list[str]:
        paths = [place(folder, seed, point) / CONFIG for seed in seeds]
        stored = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return sorted({str(made["git_commit"]) for made in stored})

    def hits(point: Point, arm: str = "fedcot") -> list[bool]:
        return [
            hit
            for seed in seeds
            for hit in correct_answers(place(folder, seed, point), arm)
        ]

    controls = points[0]
    listed = []
    for point in points[1:]:
        privacy = summaries(point)[0]["privacy"]["per_arm"]["fedcot"]
        listed.append(
            {
                "mechanism": point.mechanism,
                "token_epsilon": privacy["token_epsilon"],
                "prompt_epsilon": privacy["prompt_epsilon_max"],
                "asked_prompt_epsilon": point.epsilon,
                "git_commits": commits(point),
                "guarantee": privacy["guarantee"],
                "adjacency": privacy["adjacency"],
                "accuracy": estimate(point, "fedcot"),
                "rationale_validity": estimate(point, "fedcot", "rationale_validity"),
            }
        )
    lines = {
        arm.replace("-", "_"): {
            "accuracy": estimate(controls, arm),
            "rationale_validity": estimate(controls, arm, "rationale_validity"),
        }
        for arm in CONTROLS
    }
    stored = json.loads(
        (place(folder, seeds[0], controls) / CONFIG).read_text(encoding="utf-8")
    )
    settings = base.to_run_config()
    for key in ("seed", "run-dir", "mechanism", "arms"):
        del settings[key]
    return {
        "command": command,
        "settings": settings,
        "num_partitions": CLIENTS,
        "git_commit": stored["git_commit"],
        "git_commits_of_the_controls": commits(controls),
        "versions": stored["versions"],
        "seeds": list(seeds),
        "unit": "nats, pure epsilon of one whole prompt, which one record asks once",
        "points": listed,
        **lines,
        "paired_tests": paired_tests(points, hits),
        "recovered": recovered(listed, lines),
    }


def paired_tests(
    points: Sequence[Point], hits: Callable[..., list[bool]]
) -> dict[str, dict[str, float]]:
    """Return exact McNemar tests between mechanisms at one whole-prompt epsilon."""
    tests: dict[str, dict[str, float]] = {}
    known = set(points)
    for epsilon in sorted({point.epsilon for point in points[1:]}):
        for first, second in (
            ("adaptive", "exponential"),
            ("adaptive", "rank"),
            ("selection", "adaptive"),
            ("selection", "rank"),
        ):
            ours, theirs = Point(first, epsilon), Point(second, epsilon)
            if ours in known and theirs in known:
                name = f"{first} > {second} at {epsilon:g}"
                tests[name] = _test(hits(ours), hits(theirs))
        chosen = Point("selection", epsilon)
        if chosen in known:
            name = f"selection > random-bank at {epsilon:g}"
            tests[name] = _test(hits(chosen), hits(points[0], "random-bank"))
    return tests


def _test(ones: Sequence[bool], others: Sequence[bool]) -> dict[str, float]:
    return {
        "difference": (sum(ones) - sum(others)) / len(ones),
        "p_value": paired_p_value(ones, others),
        "n": len(ones),
    }


def recovered(
    points: Sequence[dict[str, Any]], lines: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Return which share of the way from random-bank to distil each point goes."""
    low = lines["random_bank"]["accuracy"]["mean"]
    high = lines["distil"]["accuracy"]["mean"]
    shares: dict[str, dict[str, float]] = {}
    for point in points:
        share = (point["accuracy"]["mean"] - low) / (high - low)
        place_of = shares.setdefault(point["mechanism"], {})
        place_of[f"{point['asked_prompt_epsilon']:g}"] = share
    return shares


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw accuracy and rationale validity against whole-prompt epsilon."""
    with mpl.rc_context({"font.size": 9, "figure.dpi": 130}):
        figure = Figure(figsize=(10.5, 3.8), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, key, title in (
            (axes[0], "accuracy", "Student accuracy"),
            (axes[1], "rationale_validity", "Valid rationales"),
        ):
            for mechanism in EPSILONS:
                rows = [p for p in result["points"] if p["mechanism"] == mechanism]
                axis.errorbar(
                    [row["prompt_epsilon"] for row in rows],
                    [row[key]["mean"] for row in rows],
                    yerr=[row[key]["stderr"] or 0.0 for row in rows],
                    label=mechanism,
                    color=COLOURS[mechanism],
                    marker="o",
                    markersize=4,
                    capsize=2,
                )
            for arm, style in (
                ("distil", "-"),
                ("random_bank", "--"),
                ("standalone", ":"),
            ):
                if key == "rationale_validity" and arm == "standalone":
                    continue  # trained on labels alone
                axis.axhline(
                    result[arm][key]["mean"],
                    color="#8c8c8c",
                    linestyle=style,
                    linewidth=1,
                    label=arm.replace("_", "-"),
                )
            axis.set_xscale("log")
            axis.set_xticks([4, 8, 16, 84, 168], ["4", "8", "16", "84", "168"])
            axis.minorticks_off()
            axis.set_xlabel("epsilon of one whole prompt, nats (log scale)")
            axis.set_title(title)
            axis.set_ylim(bottom=0)
            axis.grid(axis="y", color="#e4e4e4")
            axis.set_axisbelow(True)
        lines, labels = axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside right center", fontsize=8)
        figure.suptitle(
            f"Mean and standard error over {len(result['seeds'])} seeds, "
            f"{result['num_partitions']} clients with 128 questions each"
        )
        figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
