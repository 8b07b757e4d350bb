"""Figures of a run of communities: who is served how well, and at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedcot.errors import ConfigError
from fedcot.report.community import (
    HOLD_OUT,
    LABEL_ONLY,
    View,
    chosen_arm,
    coalitions_of,
    communities_of,
    community_part,
    is_community,
    is_scored,
    short,
    student_view,
)
from fedcot.report.community_sharing import compared_ways, recognition
from fedcot.report.community_utility import badly_served, threshold_of
from fedcot.report.figures import COLOURS, STYLE
from fedcot.report.reader import Run, nats, number, size

_WARN: Final = "#a6485a"
_DARK_ABOVE: Final = 0.55  # of the colour scale: text on it is white
_SMALLEST, _LARGEST = 40.0, 900.0  # areas of points, in square points


def write_community_figures(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Draw the figures of every run of communities among `runs`.

    Returns
    -------
    dict[str, Path]
        `utility`, `served` and `frontier`, where there are numbers for them, to a PNG
        file below `folder`; with several runs the place of the run behind the name.
    """
    drawn = {}
    for place, run in enumerate(runs):
        for name, figure in community_figures(run).items():
            key = figure_name(name, place, len(runs))
            path = folder / f"{key}.png"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
            drawn[key] = path
    return drawn


def figure_name(name: str, place: int, count: int) -> str:
    """Return the name of the figure of one run among several."""
    return name if count == 1 else f"{name}-{place + 1}"


def community_figures(run: Run) -> dict[str, Figure]:
    """Return the figures that a run has numbers for; none for other modes."""
    if not is_community(run.summary):
        return {}
    try:
        arm = chosen_arm(run)
    except ConfigError:
        return {}
    with mpl.rc_context(STYLE):
        figures = {
            "utility": utility_figure(run, arm),
            "served": served_figure(run, arm),
            "frontier": frontier_figure(run),
        }
    return {name: figure for name, figure in figures.items() if figure}


def utility_figure(run: Run, arm: str) -> Figure:
    """Heat map of accuracies: whose student, on whose test and on the hold-out."""
    communities, part = communities_of(run), community_part(run)
    scored = [
        one for one in coalitions_of(run) if is_scored(student_view(run, arm, one))
    ]
    views = [part["provider"], part["before"]]
    views += [student_view(run, arm, one) for one in scored]
    names = ["provider", "before", *(short(one, communities) for one in scored)]
    values = np.array([_row(view, communities) for view in views])
    tested = (*communities, HOLD_OUT)
    figure = Figure(figsize=(2.6 + 0.95 * len(tested), 1.2 + 0.36 * len(views)))
    axes = figure.subplots()
    axes.grid(visible=False)
    colours = mpl.colormaps["Blues"].with_extremes(bad="#f0f0f0")
    image = axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
    low = set(badly_served(run))
    for (row, column), value in np.ndenumerate(values):
        is_low = row == 0 and tested[column] in low
        _write_cell(axes, row, column, float(value), warn=is_low)
    for row, one in enumerate(scored, start=2):
        for member in one:
            _outline(axes, row, communities.index(member))
    # A line under the baselines, and one before the hold-out.
    axes.axhline(1.5, color="white", linewidth=3)
    axes.axvline(len(communities) - 0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(tested)), tested)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(views)), names)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, label="exact match", shrink=0.9, pad=0.02)
    return figure


def _row(view: View, communities: Sequence[str]) -> list[float]:
    own = view.get("own") or {}
    scores = [*(own.get(name) for name in communities), view.get("hold_out")]
    return [_mean(score) for score in scores]


def _mean(score: Mapping[str, Any] | None) -> float:
    found = number((score or {}).get("mean"))
    return math.nan if found is None else found


def _error(score: Mapping[str, Any] | None) -> float:
    found = number((score or {}).get("stderr"))
    return 0.0 if found is None or math.isnan(found) else found


def _write_cell(axes: Axes, row: int, column: int, value: float, *, warn: bool) -> None:
    if math.isnan(value):
        axes.text(column, row, "-", ha="center", va="center", color="0.55")
        return
    axes.text(
        column,
        row,
        f"{value:.2f}" + (" !" if warn else ""),
        ha="center",
        va="center",
        color="white" if value > _DARK_ABOVE else "0.15",
        fontweight="bold" if warn else "normal",
    )


def _outline(axes: Axes, row: int, column: int) -> None:
    """Frame a cell: the community is a member of the coalition."""
    frame = Rectangle(
        (column - 0.46, row - 0.41),
        0.92,
        0.82,
        fill=False,
        edgecolor=COLOURS[1],
        linewidth=1.8,
        zorder=3,
    )
    axes.add_patch(frame)


def served_figure(run: Run, arm: str) -> Figure | None:
    """Bars of each community's accuracy on its own test under every option it has.

    None where no member told its scores.
    """
    communities, part = communities_of(run), community_part(run)
    widest = coalitions_of(run)[-1]
    shown = short(widest, communities)
    alone = {name: student_view(run, arm, (name,)) for name in communities}
    options: dict[str, Mapping[str, View]] = {
        "before": dict.fromkeys(communities, part["before"]),
        f"{LABEL_ONLY}, {shown}": dict.fromkeys(
            communities, student_view(run, LABEL_ONLY, widest)
        ),
        "alone": alone,
        shown: dict.fromkeys(communities, student_view(run, arm, widest)),
        "provider": dict.fromkeys(communities, part["provider"]),
    }
    if not any(
        view.get("own") for views in options.values() for view in views.values()
    ):
        return None
    colours = ("#c9c9c9", "#9aa5b1", COLOURS[1], COLOURS[0], COLOURS[2])
    figure = Figure(figsize=(max(6.0, 1.0 + 1.7 * len(communities)), 3.4))
    axes = figure.subplots()
    width = 0.84 / len(options)
    for index, (name, views) in enumerate(options.items()):
        scores = [views[one].get("own", {}).get(one) for one in communities]
        offset = (index - (len(options) - 1) / 2) * width
        bars = axes.bar(
            np.arange(len(communities)) + offset,
            [_mean(score) for score in scores],
            width * 0.92,
            yerr=[_error(score) for score in scores],
            color=colours[index],
            ecolor="0.35",
            capsize=2,
            label=name,
        )
        labels = ["" if score is None else f"{_mean(score):.2f}" for score in scores]
        axes.bar_label(bars, labels=labels, padding=2, fontsize=7)
    axes.axhline(
        threshold_of(run),
        color=_WARN,
        linestyle=":",
        linewidth=1.2,
        label=f"badly served below {threshold_of(run):g}",
    )
    axes.set_xticks(range(len(communities)), communities)
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("exact match on the own test")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    return figure


def frontier_figure(run: Run) -> Figure | None:
    """Accuracy against membership AUC of each way of sharing; area is uplink bytes."""
    points = []
    for arm, found in compared_ways(run).items():
        known = recognition(run, arm)
        accuracy = _mean(found["accuracy"])
        if known and not math.isnan(accuracy):
            points.append((arm, known, accuracy, found))
    if not points:
        return None
    most = max(_bytes(found) for *_, found in points) or 1.0
    figure = Figure(figsize=(6.4, 3.8))
    axes = figure.subplots()
    for index, (arm, (mean, low, high), accuracy, found) in enumerate(points):
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(
            mean,
            accuracy,
            xerr=[[mean - low], [high - mean]],
            yerr=_error(found["accuracy"]),
            color=colour,
            linewidth=1,
            alpha=0.55,
        )
        area = _SMALLEST + (_LARGEST - _SMALLEST) * _bytes(found) / most
        axes.scatter(mean, accuracy, s=area, color=colour, alpha=0.75, linewidths=0)
        # Plain text in a legend cannot overlap as notes beside the points would.
        axes.scatter([], [], s=50, color=colour, label=_described(arm, found))
    axes.axvline(0.5, color="0.5", linestyle=":", linewidth=1)
    axes.annotate(
        "chance",
        (0.5, 0.02),
        xycoords=("data", "axes fraction"),
        fontsize=8,
        color="0.4",
        xytext=(3, 0),
        textcoords="offset points",
    )
    axes.set_xlabel("membership AUC: mean over communities; line: smallest to largest")
    axes.set_ylabel("exact match, all own tests")
    axes.margins(x=0.12, y=0.25)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, axis="both")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=8)
    return figure


def _bytes(found: Mapping[str, Any]) -> float:
    return number(found.get("uplink_bytes")) or 0.0


def _described(arm: str, found: Mapping[str, Any]) -> str:
    epsilon = nats(found["record_epsilon_max"])
    return f"{arm}: ε {epsilon}, {size(found.get('uplink_bytes'))} up"
