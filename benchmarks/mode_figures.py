"""The figure of `mode_runs.py`: accuracy against bytes, mode by mode."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

# Colours of Okabe and Ito, which the colour-blind tell apart; markers for print.
STYLES: Final = {
    "fedcot": ("#0072B2", "o"),
    "community": ("#D55E00", "s"),
    "social": ("#000000", "^"),
}
# Bytes below this are drawn on a linear scale, since some arms send none.
LINEAR: Final = 1000
# Share of the axis between labels of arms that stand one above the other.
APART: Final = 0.06
HIGHEST: Final = 1.05


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Draw every arm of a result: filled where its epsilon is finite."""
    figure, axis = plt.subplots(figsize=(7.6, 4.6))
    heights = label_heights(list(result["arms"].values()))
    for label, arm in result["arms"].items():
        colour, marker = STYLES[arm["mode"]]
        finite = math.isfinite(float(arm["epsilon"]))
        place = (arm["bytes"]["total"]["mean"], arm["accuracy"]["mean"])
        axis.errorbar(
            *place,
            arm["accuracy"]["stderr"] or 0.0,
            color=colour,
            marker=marker,
            markersize=8,
            markerfacecolor=colour if finite else "white",
            capsize=3,
            linestyle="none",
        )
        silent = place[0] == 0
        text = f"{arm['name']}, {exposure_shown(arm)}"
        axis.annotate(
            text if silent else text.replace(", ", "\n", 1),
            place,
            xytext=(10, heights[label]) if silent else (7, 6),
            textcoords=(
                ("offset points", "axes fraction") if silent else "offset points"
            ),
            va="center" if silent else "bottom",
            color=colour,
            fontsize=7,
        )
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=1.4)
    axis.set_xticks([0, *(10**power for power in range(3, 8))])
    axis.set_xlim(-LINEAR / 8, axis.get_xlim()[1] * 4)
    axis.set_ylim(0, HIGHEST)
    axis.set_xlabel("bytes of one client, both ways and to get the student")
    axis.set_ylabel("accuracy on own test questions")
    axis.grid(alpha=0.3)
    axis.legend(handles=_handles(), fontsize=7, frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
    return path


def label_heights(arms: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how high the labels of arms without bytes stand, as shares of the axis.

    They stand above each other, so that none is written over another.
    """
    silent = [arm for arm in arms if arm["bytes"]["total"]["mean"] == 0]
    heights: dict[str, float] = {}
    lowest = APART / 2
    for arm in sorted(silent, key=lambda one: float(one["accuracy"]["mean"])):
        height = max(lowest, arm["accuracy"]["mean"] / HIGHEST)
        heights[f"{arm['mode']}/{arm['name']}"] = height
        lowest = height + APART
    return heights


def exposure_shown(arm: Mapping[str, Any]) -> str:
    """Return how many canaries came first, of how many."""
    found = arm["exposure"]
    if found is None:
        return "not ranked"
    zero = found["rank_zero"]
    return f"rank 0: {zero['hits']} of {zero['n']}"


def _handles() -> list[Line2D]:
    modes = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=mode)
        for mode, (colour, marker) in STYLES.items()
    ]
    fills = [
        Line2D(
            [],
            [],
            color="#777777",
            marker="D",
            markerfacecolor=face,
            linestyle="none",
            label=label,
        )
        for face, label in (
            ("#777777", "epsilon finite"),
            ("white", "no finite epsilon"),
        )
    ]
    return [*modes, *fills]
