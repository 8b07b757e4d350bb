"""Real questions with recorded rationales, end to end through `fedcot run`.

Needs FEDCOT_DATA, and the student that `fedcot convert` makes of stories260K. Each
configuration is one run of eight clients; a run that is complete is not run again.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedcot import provenance
from fedcot.comparison import write_comparison
from fedcot.launch import read_summary
from fedcot.models.loading import load_model

CONFIGURATIONS = (
    "commonsense-qa-recorded",
    "svamp-recorded",
    "gsm8k-recorded",
    "strategyqa-recorded",
)
STUDENT = Path("build/stories260K")
KEPT = (
    "dataset",
    "mechanism",
    "seed",
    "num_partitions",
    "num_rounds",
    "accuracy",
    "chance",
    "accuracy_flexible",
    "accuracy_ranked",
    "answer_log_likelihood",
    "rationale_perplexity",
    "rationale_chrf",
    "filters",
    "data",
    "privacy",
    "timing",
    "git_commit",
)


def main() -> None:
    """Run what is missing, then write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/recorded"))
    parser.add_argument("--output", type=Path, default=Path("results/recorded.json"))
    parser.add_argument("--only", action="append", choices=CONFIGURATIONS)
    given = parser.parse_args()
    data = os.environ.get("FEDCOT_DATA")
    if not data:
        sys.exit("FEDCOT_DATA must name the folder of public data, found nothing.")
    if not STUDENT.is_dir():
        source = str(Path(data) / "stories260K")
        _fedcot("convert", source, str(STUDENT))
    runs = {}
    for name in given.only or CONFIGURATIONS:
        folder = (given.folder / name).absolute()
        if read_summary(folder).get("status") != "completed":
            _fedcot("run", "--config", f"conf/{name}.toml", "--run-dir", str(folder))
        runs[name] = _kept(folder)
    student = load_model(str(STUDENT.absolute()), "student")
    result = {
        "runs": runs,
        "student_parameters": student.model.num_parameters(),
        "command": shlex.join(["python", "-P", "benchmarks/recorded_runs.py"]),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }
    write_comparison(result, given.output)
    print(f"Result: {given.output}")


def _fedcot(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fedcot.cli", *arguments], check=True)


def _kept(folder: Path) -> dict[str, Any]:
    """Return what a result file holds of a run: no machine's paths."""
    summary = read_summary(folder)
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: summary[key] for key in KEPT}
    kept["privacy"] = summary["privacy"]["per_arm"]["fedcot"]
    kept["student_hash"] = stated["artefacts"]["student"]
    kept["teacher"] = {
        key: value
        for key, value in summary["teacher"].items()
        if key in ("writer", "dataset", "recording", "recorded")
    }
    return kept


if __name__ == "__main__":
    main()
