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
        "teacher client each and stay there: a bound for comparison. What stands "
        "behind a comma changes models only: a larger student, or every other teacher "
        "client with a larger model. From "
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


def memorization_markdown(path: Path) -> str:
    """Return how often inserted canaries come out first, honestly and where one leaks.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-memorization` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    headings = (
        *("canaries", "student", "one client hands its canary on", "rank 0"),
        *("95 % interval", "by chance", "p", "mean rank", "median exposure, bits"),
    )
    lines = [
        f"| {' | '.join(headings)} |",
        "|---|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for point in result["points"]:
        for student, found in point["students"].items():
            if student == ZERO_SHOT and point["leak"]:
                continue
            told = found["exposure"]
            rate = told["rank_zero"]
            reader = f"{point['student']}, " + (
                "told nothing" if student == ZERO_SHOT else student
            )
            lines.append(
                f"| {point['pattern']} | {reader} | "
                f"{'yes' if point['leak'] else 'no'} | {rate['hits']} of {rate['n']} | "
                f"{rate['low']:.3f} to {rate['high']:.3f} | "
                f"{told['rank_zero_expected']:.1f} | "
                f"{told['rank_zero_p_value']:.2g} | {told['mean_rank']['mean']:.0f} | "
                f"{told['exposure_quantiles']['0.5']:.2f} |"
            )
    note = (
        f"N = {result['size']}, T = {result['trials']}: chance alone gives T/N = "
        f"{result['trials'] / result['size']:g} canaries rank 0, and a mean rank of "
        f"{(result['size'] - 1) / 2:g}. The repeating student goes on as its prompt "
        "did; the built-in one was trained to read rules off examples and does not "
        "repeat what stands there, so that its likelihoods do not show the leak: ask "
        "with a student that could. Written by `make results-memorization`, in "
        f"`{path.parent.name}/{path.name}`."
    )
    return "\n".join([*lines, "", note])


def sms_markdown(path: Path) -> str:
    """Return what left eight clients with real messages, and what the student reached.

    Parameters
    ----------
    path : Path
        The JSON file that `benchmarks/sms_spam.py --output` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    students = result["run"]["students"]
    counts = _counts(students)
    lines = [
        f"| student reads | {' | '.join(f'n = {n}' for n in counts)} |",
        f"|---|{'---:|' * len(counts)}",
    ]
    for kind, label in ROWS.items():
        cells = [
            _cell(students.get(f"{kind}.{n}" if n else ZERO_SHOT, {}).get("accuracy"))
            for n in counts
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    if INSTRUCTION in students:
        told = [_cell(students[INSTRUCTION]["accuracy"]), *[""] * (len(counts) - 1)]
        lines.append(f"| an instruction | {' | '.join(told)} |")
    return "\n".join([*lines, "", _left(result, path)])


def _left(result: Mapping[str, Any], path: Path) -> str:
    """Return what left the clients, in a sentence."""
    generation, found = result["run"]["generation"], result["inspected"]
    private = sum(result["messages"]["private"].values())
    tested = sum(result["messages"]["tested"].values())
    back = {k: v for k, v in generation["discarded"].items() if v}
    reasons = ", ".join(f"{count} {name}" for name, count in back.items())
    distances, copied = result["distances"], result["copied"]
    balance = result["run"]["chosen"].get("voting", {}).get("balance") or {}
    labels = ", ".join(f"{v} {k}" for k, v in balance.get("counts", {}).items())
    return (
        f"{private} private messages in eight silos, accuracy in per cent on {tested}, "
        "one run with its standard error over questions. Of "
        f"{generation['sampled']} written examples {generation['kept']} left; the "
        f"others: {reasons}. All {found['sent']} messages that left a client are in "
        "the inspector; the distance of a text to the nearest private one is "
        f"{distances['lowest']:.2f} at least, {distances['median']:.2f} at the median. "
        f"{found['copies']} sent texts are a private message, and of what reached a "
        f"student {copied['verbatim'] + copied['normalised']} are one of any client; "
        f"the longest run of private words has {copied['longest_run']}. Votes chose "
        f"{labels or 'nothing'}. From `{path.parent.name}/{path.name}`, written by "
        f"`{result['command']} --output {path.parent.name}/{path.name}`."
    )
