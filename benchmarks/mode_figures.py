"""The figure of `mode_runs.py`: accuracy against bytes, mode by mode."""

import math
from collections.abc import Mapping
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
# Arms that would be written over each other go below their marker.
BELOW: Final = ("fedcot/zero-shot", "social/original", "fedcot/distil")


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Draw every arm of a result: filled where its epsilon is finite."""
    figure, axis = plt.subplots(figsize=(7.2, 4.4))
    for label, arm in result["arms"].items():
        colour, marker = STYLES[arm["mode"]]
        finite = math.isfinite(float(arm["epsilon"]))
        axis.errorbar(
            arm["bytes"]["total"]["mean"],
            arm["accuracy"]["mean"],
            arm["accuracy"]["stderr"] or 0.0,
            color=colour,
            marker=marker,
            markersize=8,
            markerfacecolor=colour if finite else "white",
            capsize=3,
            linestyle="none",
        )
        is_below = label in BELOW
        axis.annotate(
            f"{arm['name']}\n{exposure_shown(arm)}",
            (arm["bytes"]["total"]["mean"], arm["accuracy"]["mean"]),
            xytext=(6, -9 if is_below else 7),
            textcoords="offset points",
            va="top" if is_below else "bottom",
            fontsize=7,
        )
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=0.5)
    axis.set_xlim(-LINEAR / 4, axis.get_xlim()[1] * 4)
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("bytes of one client, both ways and to get the student")
    axis.set_ylabel("accuracy on own test questions")
    axis.grid(alpha=0.3)
    axis.legend(handles=_handles(), fontsize=7, frameon=False, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
    return path


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
