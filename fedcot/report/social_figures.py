"""Figures of social learning: accuracy by examples, and what became of texts.

Colour is never the only sign: lines have markers and dashes, bars have hatches, so that
both can be told apart in print and by colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedcot.report.figures import COLOURS, STYLE
from fedcot.report.reader import Run
from fedcot.report.social import (
    KINDS,
    MANUAL,
    ORIGINAL,
    PRIVATE_MARK,
    ZERO_SHOT,
    fates,
    listed,
    repeats_of,
    scored_students,
    social_part,
    visible,
)
from fedcot.social.generation import DISCARDED
from fedcot.social.settings import INSTRUCTION

# Kinds without examples are a line across; all others go over numbers of examples.
LEVELS: Final = (INSTRUCTION, MANUAL, ZERO_SHOT)
_LOOKS: Final[Mapping[str, tuple[str, str, Any]]] = {
    ORIGINAL: ("0.25", "s", "--"),
    "random": (COLOURS[0], "o", "-"),
    "voting": (COLOURS[1], "^", "-"),
    "private-voting": (COLOURS[2], "D", "-"),
    f"{INSTRUCTION}+random": (COLOURS[4], "v", "-"),
    f"{INSTRUCTION}+voting": (COLOURS[4], "P", "--"),
    f"{INSTRUCTION}+private-voting": (COLOURS[4], "X", ":"),
    INSTRUCTION: (COLOURS[4], "", "-."),
    MANUAL: (COLOURS[3], "", (0, (6, 1, 1, 1, 1, 1))),
    ZERO_SHOT: ("0.55", "", ":"),
}
_OTHER: Final = (COLOURS[5], "*", "-")
# What the gate refused is warm and hatched, what was not needed is grey.
_FATES: Final[Mapping[str, tuple[str, str]]] = {
    "kept": (COLOURS[0], ""),
    "verbatim": ("#a6485a", "xxx"),
    "normalised": ("#c4717f", "///"),
    "near": (COLOURS[1], "\\\\\\"),
    "run": ("#ecb878", "..."),
    "malformed": ("#6b6b6b", ""),
    "invalid": ("#8c8c8c", "---"),
    "repeated": ("#b4b4b4", "|||"),
    "outranked": ("#dcdcdc", ""),
}
_DODGE: Final = 0.05  # of the space between two numbers of examples
_READABLE: Final = 0.035  # share of a bar that holds a number


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn of one kind of student.

    Attributes
    ----------
    counts : tuple of int
        Examples in a prompt; a kind of `LEVELS` has one, which says nothing.
    means : tuple of float
        Exact match, in [0, 1].
    errors : tuple of float
        Standard errors; 0 where there is none.
    """

    counts: tuple[int, ...]
    means: tuple[float, ...]
    errors: tuple[float, ...]


def write_social_figures(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Draw the figures of every group of repeats among `runs`.

    Returns
    -------
    dict[str, Path]
        `social-accuracy` and `social-texts`, where there are numbers for them, to a PNG
        file below `folder`; with several groups the place of the group behind the name.
    """
    groups = repeats_of(runs)
    drawn = {}
    for place, group in enumerate(groups):
        for name, figure in social_figures(group).items():
            key = social_figure_name(name, place, len(groups))
            path = folder / f"{key}.png"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
            drawn[key] = path
    return drawn


def social_figure_name(name: str, place: int, count: int) -> str:
    """Return the name of the figure of one group of runs among several."""
    return f"social-{name}" if count == 1 else f"social-{name}-{place + 1}"


def social_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return the figures that repeats of a run have numbers for."""
    with mpl.rc_context(STYLE):
        found = {"accuracy": accuracy_figure(runs), "texts": texts_figure(runs)}
    return {name: figure for name, figure in found.items() if figure}


def curves_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Return the values that `accuracy_figure` draws, by kind of student."""
    found: dict[str, Curve] = {}
    students = scored_students(summaries)
    for kind in dict.fromkeys(one.kind for one in students):
        own = [one for one in students if one.kind == kind]
        spread = [one.accuracy.stderr for one in own]
        found[kind] = Curve(
            counts=tuple(one.num_examples for one in own),
            means=tuple(one.accuracy.mean for one in own),
            errors=tuple(0.0 if math.isnan(error) else error for error in spread),
        )
    return found


def accuracy_figure(runs: Sequence[Run]) -> Figure | None:
    """Exact match over examples in the prompt, one line for each kind of student."""
    summaries = [run.summary for run in runs]
    curves = curves_of(summaries)
    lines = {kind: one for kind, one in curves.items() if kind not in LEVELS}
    if not curves:
        return None
    counts = sorted({count for one in lines.values() for count in one.counts}) or [0]
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.subplots()
    # Left to itself, Matplotlib names lines with error bars last.
    handles: list[Any] = []
    for index, (kind, one) in enumerate(lines.items()):
        # Side by side, so that error bars do not hide one another.
        shift = (index - (len(lines) - 1) / 2) * _DODGE
        places = [counts.index(count) + shift for count in one.counts]
        handles.append(_draw_line(axes, kind, one, places))
    handles += [
        _draw_level(axes, kind, curves[kind]) for kind in LEVELS if kind in curves
    ]
    _draw_chance(axes, summaries)
    axes.set_xticks(range(len(counts)), list(map(str, counts)))
    axes.set_xlim(-0.4, len(counts) - 0.6)
    axes.set_xlabel("examples in the student's prompt")
    axes.set_ylim(0, 1.04)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("exact match (share of test questions)")
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=8,
        frameon=False,
    )
    return figure


def _plain(text: str) -> str:
    """Return a text that Matplotlib draws as it stands: a dollar begins no formula."""
    return visible(text).replace("$", r"\$")


def _draw_line(
    axes: Axes, kind: str, curve: Curve, places: Sequence[float]
) -> ErrorbarContainer:
    colour, marker, dashes = _LOOKS.get(kind, _OTHER)
    return axes.errorbar(
        places,
        curve.means,
        yerr=curve.errors,
        color=colour,
        marker=marker,
        markersize=5,
        linestyle=dashes,
        linewidth=1.6,
        elinewidth=1,
        capsize=2.5,
        label=_plain(KINDS.get(kind, kind)).replace(
            f"({PRIVATE_MARK})", f"\n({PRIVATE_MARK})"
        ),
    )


def _draw_level(axes: Axes, kind: str, curve: Curve) -> Line2D:
    colour, _, dashes = _LOOKS[kind]
    mean, error = curve.means[0], curve.errors[0]
    axes.axhspan(mean - error, mean + error, color=colour, alpha=0.12, linewidth=0)
    return axes.axhline(mean, color=colour, linestyle=dashes, linewidth=1.6, label=kind)


def _draw_chance(axes: Axes, summaries: Sequence[Mapping[str, Any]]) -> None:
    sizes = {len(listed(social_part(one).get("labels"))) for one in summaries}
    if len(sizes) == 1 and (size := sizes.pop()) > 1:
        axes.axhline(1 / size, color="0.7", linewidth=0.8)
        axes.annotate(
            "chance",
            (0.995, 1 / size),
            xycoords=("axes fraction", "data"),
            xytext=(0, -8),
            textcoords="offset points",
            fontsize=7,
            color="0.4",
            ha="right",
        )


def texts_figure(runs: Sequence[Run]) -> Figure | None:
    """Bars of what became of sampled texts, one for each run."""
    found = {run.name: fates(run.summary) for run in runs}
    shown = {name: counts for name, counts in found.items() if counts}
    if not shown:
        return None
    reasons = dict.fromkeys(reason for counts in shown.values() for reason in counts)
    known = [reason for reason in ("kept", *DISCARDED) if reason in reasons]
    order = [*known, *(reason for reason in reasons if reason not in known)]
    figure = Figure(figsize=(7.2, 1.2 + 0.45 * len(shown)))
    axes = figure.subplots()
    starts = np.zeros(len(shown))
    totals = np.array([sum(counts.values()) for counts in shown.values()])
    for reason in order:
        colour, hatch = _FATES.get(reason, ("white", "ooo"))
        sizes = np.array([counts.get(reason, 0) for counts in shown.values()])
        bars = axes.barh(
            range(len(shown)),
            sizes,
            left=starts,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor="white" if reason == "kept" else "0.25",
            linewidth=0.5,
            label=_plain(reason),
        )
        fits = sizes >= _READABLE * totals
        labels = [
            f"{size}" if fit else "" for size, fit in zip(sizes, fits, strict=True)
        ]
        for text in axes.bar_label(
            bars, labels=labels, label_type="center", fontsize=8
        ):
            # A hatch would cross the digits.
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        starts += sizes
    axes.set_yticks(range(len(shown)), [_plain(name) for name in shown])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.margins(x=0.01)
    axes.set_xlabel("sampled texts of all teacher clients")
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=5,
        fontsize=8,
        frameon=False,
    )
    return figure
