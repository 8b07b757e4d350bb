"""What students learn in natural language, for the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

KINDS: Final = ("conversion", "operator", "labels")
MODELS: Final = {
    "in_context_teacher": "in-context teacher",
    "in_context_student": "in-context student",
}
ROWS: Final = {
    "original": "private originals",
    "random": "generated, random",
    "voting": "generated, voting",
}
INSTRUCTION: Final = "instruction"
ZERO_SHOT: Final = "zero-shot"


def in_context_markdown(path: Path) -> str:
    """Return how well the built-in in-context pair reads rules that are held out.

    Parameters
    ----------
    path : Path
        The training record that `fedcot pretrain` writes.
    """
    scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
    counts = list(scores["in_context_teacher"]["answers"]["operator"])
    lines = [
        f"| model | task | {' | '.join(f'n = {n}' for n in counts)} | writes rightly |",
        f"|---|---|{'---:|' * (len(counts) + 1)}",
    ]
    for model, name in MODELS.items():
        for kind in KINDS:
            found = scores[model]
            cells = [f"{100 * found['answers'][kind][n]:.1f}" for n in counts]
            written = f"{100 * found['examples'][kind]:.1f}"
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {written} |")
    note = (
        "Right answers in per cent, greedy, on rules that no model was trained on, by "
        "the number n of right examples in the prompt; and the share of examples "
        "written after eight, at temperature 0.7, that obey the rule. From "
        "`fedcot_weights/training-record.json`, written by `fedcot pretrain`."
    )
    return "\n".join([*lines, "", note])


def social_markdown(path: Path) -> str:
    """Return what students of a conversation with eight teachers reach.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-social` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    points = result["points"]
    counts = _counts(next(iter(points.values()))["students"])
    lines = [
        f"| task | student reads | {' | '.join(f'n = {n}' for n in counts)} |",
        f"|---|---|{'---:|' * len(counts)}",
    ]
    for name, point in points.items():
        students = point["students"]
        for kind, label in ROWS.items():
            cells = [
                _cell(students.get(f"{kind}.{n}" if n else ZERO_SHOT)) for n in counts
            ]
            lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
        if INSTRUCTION in students:
            told = [_cell(students[INSTRUCTION]), *[""] * (len(counts) - 1)]
            lines.append(f"| {name} | an instruction | {' | '.join(told)} |")
    lines += ["", _note(result, path), "", *_compared(points, counts[-1])]
    return "\n".join(lines)


def _note(result: Mapping[str, Any], path: Path) -> str:
    return (
        f"Accuracy in per cent on {result['settings']['hold-out']} questions that "
        f"nobody holds, mean over {len(result['seeds'])} repeats (rules and data "
        f"drawn anew) with its standard error; {result['teachers']} teacher clients. "
        "n = 0 is the student without examples. Private originals are those of one "
        "teacher client each and stay there: a bound for comparison. Points named "
        "after other teachers change `client-model` only. From "
        f"`{path.parent.name}/{path.name}`, written by `make results-social`."
    )


def _compared(points: Mapping[str, Any], most: int) -> list[str]:
    """Return the permutation tests at the most examples, as a table."""
    lines = [
        "| task | compared | difference, points | p (pooled) | p (paired) |",
        "|---|---|---:|---:|---:|",
    ]
    wanted = {
        (f"random.{most}", f"original.{most}"),
        (f"voting.{most}", f"original.{most}"),
        (f"voting.{most}", f"random.{most}"),
        (INSTRUCTION, f"original.{most}"),
    }
    for name, point in points.items():
        for row in point["comparisons"]:
            if (row["first"], row["second"]) in wanted:
                lines.append(
                    f"| {name} | {row['first']} - {row['second']} | "
                    f"{100 * row['difference']:+.1f} | {row['p_pooled']:.3g} | "
                    f"{row['p_paired']:.3g} |"
                )
    return lines


def _counts(students: Mapping[str, Any]) -> Sequence[int]:
    found = {
        int(name.partition(".")[2]) for name in students if name.startswith("original.")
    }
    return [0, *sorted(found)]


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    error = "" if score["stderr"] is None else f" ± {100 * score['stderr']:.1f}"
    return f"{100 * score['mean']:.1f}{error}"
