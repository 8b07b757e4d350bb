"""The figure of `social_runs.py`: accuracy over the number of examples, by task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Colours of Okabe and Ito, which the colour-blind tell apart; markers for print.
LINES: Final = (
    ("original", "private originals", "#000000", "o", "-"),
    ("random", "generated, random", "#0072B2", "s", "--"),
    ("voting", "generated, voting", "#D55E00", "^", ":"),
)
LEVELS: Final = (("instruction", "instruction", "#009E73", "-."),)


def points_of(
    point: Mapping[str, Any], kind: str
) -> tuple[list[int], list[float], list[float]]:
    """Return numbers of examples, mean accuracies and standard errors of a line.

    The student without examples is the first point of every line.
    """
    names = {0: "zero-shot"}
    for student in point["students"]:
        head, _, count = student.partition(".")
        if head == kind:
            names[int(count)] = student
    rows = [(n, point["students"][name]) for n, name in sorted(names.items())]
    return (
        [n for n, _ in rows],
        [score["mean"] for _, score in rows],
        [score["stderr"] or 0.0 for _, score in rows],
    )


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Draw one panel for each point of a result."""
    points = result["points"]
    figure, axes = plt.subplots(
        1, len(points), figsize=(3.2 * len(points), 3.4), sharey=True, squeeze=False
    )
    for axis, (name, point) in zip(axes[0], points.items(), strict=True):
        for kind, label, colour, marker, dashes in LINES:
            counts, means, errors = points_of(point, kind)
            places = range(len(counts))
            axis.errorbar(
                places,
                means,
                errors,
                color=colour,
                marker=marker,
                linestyle=dashes,
                capsize=3,
                markersize=5,
                label=label,
            )
            axis.set_xticks(list(places), [str(count) for count in counts])
        for student, label, colour, dashes in LEVELS:
            score = point["students"].get(student)
            if score is not None:
                axis.axhline(score["mean"], color=colour, linestyle=dashes, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("examples in the prompt")
        axis.set_ylim(0, 1.03)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy on 200 questions")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
