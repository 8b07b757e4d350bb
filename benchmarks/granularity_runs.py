"""Does the level of detail of a rationale matter to a small student? SVAMP, six levels.

The same questions with the answer alone (level 0), with ChatGPT's rationales at levels
1 to 6, and with those of level 1 padded by filler to the mean length of level 6. One
holder of all records, arm `distil` (level 0: `standalone`), recorded teacher; private
questions are sent as they are, so no run here protects anything. Needs FEDCOT_DATA,
and the student that `fedcot convert` makes of stories260K. A run that is complete is
not run again, and one that was interrupted goes on.

Perplexity is that of a level's own rationales: it says how well they were learnt, and
cannot be compared between levels. Accuracy and the log-likelihood of the answers can.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fedcot import provenance
from fedcot.community.granularity import student_measure
from fedcot.community.level_data import read_levels, write_level_mapping
from fedcot.community.level_statistics import check_levels
from fedcot.community.step_text import Measure
from fedcot.comparison import write_comparison
from fedcot.evaluation.metrics import half_interval, mean_and_stderr
from fedcot.evaluation.rates import CONFIDENCE
from fedcot.launch import read_summary
from fedcot.runs import CONFIG

STUDENT = Path("build/stories260K")
PADDED = "1-padded-6"
VARIANTS = ("0", "1", "2", "3", "4", "5", "6", PADDED)
# Tokens of a reasoning. The context is 512: prompt, reasoning and answer phrase fit at
# every level, so that no level loses more of its texts than another.
LONGEST = 300
# Read from the summary of a run: one number of an arm in each.
MEASURES = {
    "accuracy": "mean",
    "accuracy_flexible": "mean",
    "answer_log_likelihood": "mean",
    "rationale_perplexity": "perplexity",
}
SETTINGS: dict[str, str | int | float] = {
    "teacher": "recorded",
    "num-partitions": 1,
    "num-server-rounds": 1,
    "partitioner": "iid",
    # No arm here sends a perturbed prompt; the default limit is below the default cost.
    "record-epsilon": 400.0,
    "max-sequence-tokens": 512,
    "max-new-tokens": 320,
    "learning-rate": 2e-3,
}


def main() -> None:
    """Run what is missing, then write the result."""
    given = _arguments()
    data = os.environ.get("FEDCOT_DATA")
    if not data:
        sys.exit("FEDCOT_DATA must name the folder of public data, found nothing.")
    if not STUDENT.is_dir():
        _fedcot("convert", str(Path(data) / "stories260K"), str(STUDENT))
    levels = Path(data) / "svamp_levels"
    measure = student_measure(str(STUDENT))
    mappings = {
        name: _mapping(name, levels, given.folder.absolute() / "data", measure)
        for name in VARIANTS
    }
    variants = {}
    for name in given.only or VARIANTS:
        runs = [_run(name, seed, mappings[name], given) for seed in range(given.seeds)]
        variants[name] = {"summary": _summary(runs), "runs": runs}
    read = read_levels(levels)
    result = {
        "variants": variants,
        "levels": {
            "joined": read.joined,
            "questions": len(read.records),
            "dropped": dict(read.dropped),
            "written": read.written.to_dict(),
            "kept": read.kept.to_dict(),
            "used_tokens": _used(mappings, measure),
        },
        "confidence": CONFIDENCE,
        "longest": LONGEST,
        "settings": _settings(given),
        "command": shlex.join(
            ["python", "-P", "benchmarks/granularity_runs.py", *sys.argv[1:]]
        ),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }
    write_comparison(result, given.output)
    print(f"Result: {given.output}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/svamp-levels"))
    parser.add_argument(
        "--output", type=Path, default=Path("results/svamp-levels.json")
    )
    parser.add_argument("--only", action="append", choices=VARIANTS)
    parser.add_argument("--seeds", type=int, default=3, help="0 up to this, 1 or more")
    parser.add_argument("--records", type=int, default=256, help="training questions")
    parser.add_argument("--test-records", type=int, default=126)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    if given.seeds < 1:
        sys.exit(f"`--seeds` must be 1 or more, found {given.seeds}.")
    return given


def _settings(given: argparse.Namespace) -> dict[str, str | int | float]:
    """Return what all runs have in common."""
    return {
        **SETTINGS,
        "num-records": given.records,
        "records-per-round": given.records,
        "test-records": given.test_records,
        "local-epochs": given.epochs,
    }


def _mapping(name: str, levels: Path, out: Path, measure: Measure) -> Path:
    # Level 0 reads no rationale: the arm takes labels, the teacher needs a recording.
    level = max(1, int(name[0]))
    padded_to = 6 if name == PADDED else 0
    return write_level_mapping(
        levels,
        level,
        out,
        padded_to=padded_to,
        longest=LONGEST,
        measure=measure,
    )


def _used(mappings: Mapping[str, Path], measure: Measure) -> dict[str, Any]:
    """Return the statistics of the texts that the runs train on, in tokens."""
    texts = []
    for name in VARIANTS[1:-1]:
        rows = mappings[name].with_suffix(".json").read_text("utf-8")
        texts.append([row["completion"] for row in json.loads(rows)])
    return check_levels(texts, measure=measure).to_dict()


def _run(
    name: str, seed: int, mapping: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Return what a result file holds of a run, after running what is missing of it."""
    folder = (given.folder / f"level-{name}-seed-{seed}").absolute()
    wanted = {
        **_settings(given),
        "name": f"svamp-level-{name}",
        "dataset": str(mapping),
        "data-dir": str(mapping.parent),
        "student": str(STUDENT.absolute()),
        # The student before training is the same in all runs.
        "arms": "zero-shot,standalone" if name == "0" else "distil",
        "seed": seed,
    }
    if not (folder / CONFIG).is_file():
        settings = [["-c", f"{key}={value}"] for key, value in wanted.items()]
        _fedcot("run", *chain.from_iterable(settings), "--run-dir", str(folder))
    elif read_summary(folder).get("status") != "completed":
        _fedcot("resume", str(folder))
    stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    other = [key for key, value in wanted.items() if stated["run_config"][key] != value]
    if other:
        sys.exit(f"{folder} was run with another {other[0]}; name another --folder.")
    summary = read_summary(folder)
    kept = {key: summary[key] for key in (*MEASURES, "seed", "filters", "timing")}
    return {**kept, "student_hash": stated["artefacts"]["student"]}


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return each measure of each arm over the seeds."""
    return {
        measure: {
            arm: _interval([run[measure][arm][key] for run in runs])
            for arm in runs[0][measure]
        }
        for measure, key in MEASURES.items()
    }


def _interval(values: Sequence[float]) -> dict[str, float | int]:
    """Return the mean with the interval of Student's t; none for a single seed.

    The spread is over seeds (weights and order of the records), on one set of test
    questions: it says nothing about other questions.
    """
    found = mean_and_stderr(values)
    result: dict[str, float | int] = {"mean": found.mean, "n": found.n}
    if found.n > 1:
        half = half_interval(found)
        result |= {"low": found.mean - half, "high": found.mean + half}
    return result


def _fedcot(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fedcot.cli", *arguments], check=True)


if __name__ == "__main__":
    main()
