"""The table of real questions with recorded rationales, for the README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedcot.report.reader import decimal, nats
from fedcot.report.terminal import mean_and_stderr

_ARMS: Final = ("zero-shot", "standalone", "random-bank", "distil", "fedcot")


def recorded_markdown(path: Path) -> str:
    """Return what runs on recorded rationales gave.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-recorded` writes.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    heads = ("questions", "chance", "arm", "exact match", "most likely choice")
    lines = [
        f"| {' | '.join((*heads, 'answer', 'perplexity'))} |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in result["runs"].values():
        shown = (run["dataset"], f"{run['chance']:.2f}" if run["chance"] else "-")
        for arm in _ARMS:
            if arm not in run["accuracy"]:
                continue
            cells = (
                *shown,
                f"`{arm}`",
                mean_and_stderr(run["accuracy"][arm]),
                decimal(run["accuracy_ranked"].get(arm, {}).get("mean"), 3),
                decimal(run["answer_log_likelihood"].get(arm, {}).get("mean"), 2),
                decimal(run["rationale_perplexity"].get(arm, {}).get("perplexity"), 1),
            )
            lines.append(f"| {' | '.join(cells)} |")
            shown = ("", "")
    lines += ["", _caption(result, path)]
    return "\n".join(lines)


def _caption(result: Mapping[str, Any], path: Path) -> str:
    runs = result["runs"]
    labels = [
        f"{run['dataset']} {counts['right']} of {counts['rows']}"
        for run in runs.values()
        if (counts := run["data"]["teacher_labels"].get("train"))
    ]
    first = next(iter(runs.values()))
    privacy = first["privacy"]
    return (
        f"{first['num_partitions']} clients, a student of "
        f"{result['student_parameters']:,} parameters. Answer: log-likelihood "
        "of the right one, in nats. Perplexity: of the recorded rationales of the test "
        "questions. `zero-shot` is the student before training. `fedcot` spends "
        f"{nats(privacy['prompt_epsilon_max'])} nats per prompt "
        f"({first['mechanism']} from the public share). The recorded teacher's own "
        f"answers are right for {', '.join(labels)} training rows. From "
        f"`{path.parent.name}/{path.name}`, written by `make results-recorded`."
    )
