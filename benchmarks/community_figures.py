"""Figures of `community_runs.py`: curves, the utility matrix, and the other choices.

Run as `python benchmarks/community_figures.py results/community.json` to draw again.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CURVES: Final = ("diversity", "examples", "members", "communities", "granularity")
CHOICES: Final = (
    "objective",
    "sharing",
    "filter",
    "provider-reasoning",
    "behaviour",
)
# Arm -> label, colour, line style.
LINES: Final = {
    "pooled": ("student of all", "#2f6f9f", "-"),
    "alone": ("students alone", "#d9822b", "-"),
    "label-only": ("all, answers only", "#4f9d69", "--"),
    "provider": ("provider", "#404040", ":"),
    "before": ("before distilling", "#a0a0a0", ":"),
}
GRID: Final = "#e4e4e4"
STYLE: Final[Any] = {"font.size": 9, "figure.dpi": 130, "axes.titlesize": 9}


def draw(result: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw all figures beside a result file and return their paths."""
    figures = {
        "": _curves(result),
        "-utility": _utility(result),
        "-choices": _choices(result),
    }
    drawn = []
    for ending, figure in figures.items():
        target = path.with_name(f"{path.stem}{ending}.png")
        figure.savefig(target, metadata={"Software": None})
        drawn.append(target)
    return drawn


def _curves(result: Mapping[str, Any]) -> Figure:
    """Draw accuracy against size, diversity and granularity: all, and badly served."""
    low = (result["low_utility"] or [result["points"]["base"]["communities"][-1]])[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 5.6), layout="constrained")
        axes = figure.subplots(2, len(CURVES), sharey="row", squeeze=False)
        for column, name in enumerate(CURVES):
            for row, view in enumerate(("all", low)):
                axis = axes[row][column]
                _curve(axis, result, name, view)
                if row == 1:
                    axis.set_xlabel(result["factors"][name]["axis"])
        axes[0][0].set_ylabel("accuracy, all own tests")
        axes[1][0].set_ylabel(f"accuracy, tests of {low}")
        found: dict[str, Any] = {}
        for axis in figure.axes:
            lines, labels = axis.get_legend_handles_labels()
            found |= dict(zip(labels, lines, strict=True))
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=len(found),
            frameon=False,
        )
        figure.suptitle(_title(result))
    return figure


def _curve(axis: Axes, result: Mapping[str, Any], name: str, view: str) -> None:
    factor = result["factors"][name]
    places = factor["places"]
    amounts = [value for value, _ in places if not isinstance(value, str)]
    is_log = name in ("examples", "members")
    for arm in LINES:
        rows = [
            (value, _seen(result, point, arm, view, factor["communities"]))
            for value, point in places
            if not isinstance(value, str)
        ]
        known = [(value, one) for value, one in rows if one is not None]
        # A baseline that was run at one value only holds for all of them there.
        if name == "granularity" and arm == "alone":
            base = _seen(result, "base", arm, view, [])
            known = [(value, base) for value in amounts if base is not None]
        if known:
            _line(axis, known, arm)
    if name == "members":
        _extra(axis, result, "equal-tokens", "student of all, equal tokens", view)
    for value, point in places:
        if isinstance(value, str):
            one = _seen(result, point, "pooled", view, [])
            # Beside the level that it pads, not upon it.
            _bars(axis, [(1.12, one)], "#a6485a", "s", f"level {value}")
    if is_log:
        axis.set_xscale("log", base=2)
    axis.set_xticks(amounts, [f"{value:g}" for value in amounts])
    axis.minorticks_off()
    if factor["communities"] and view == "all":
        axis.set_title(f"tests of {' and '.join(factor['communities'])} only")
    axis.set_ylim(0, 1)
    axis.grid(axis="y", color=GRID)
    axis.set_axisbelow(True)


def _line(axis: Axes, rows: Sequence[tuple[float, Any]], arm: str) -> None:
    label, colour, style = LINES[arm]
    values = [value for value, _ in rows]
    axis.plot(
        values,
        [one["mean"] for _, one in rows],
        color=colour,
        linestyle=style,
        # A single value is no line.
        marker="o" if style == "-" or len(values) == 1 else None,
        markersize=4,
        label=label,
    )
    if all(one["low"] is not None for _, one in rows):
        axis.fill_between(
            values,
            [one["low"] for _, one in rows],
            [one["high"] for _, one in rows],
            color=colour,
            alpha=0.15 if style == "-" else 0.07,
            linewidth=0,
        )


def _extra(
    axis: Axes, result: Mapping[str, Any], name: str, label: str, view: str
) -> None:
    rows = [
        (value, _seen(result, point, "pooled", view, []))
        for value, point in result["factors"][name]["places"]
    ]
    _bars(axis, rows, "#7b5ea7", "D", label, line=True)


def _bars(
    axis: Axes,
    rows: Sequence[tuple[float, Any]],
    colour: str,
    marker: str,
    label: str,
    *,
    line: bool = False,
) -> None:
    axis.errorbar(
        [value for value, _ in rows],
        [one["mean"] for _, one in rows],
        yerr=_reach([one for _, one in rows]),
        color=colour,
        marker=marker,
        markersize=4,
        linestyle="-" if line else "none",
        linewidth=1,
        capsize=2,
        label=label,
    )


def _seen(
    result: Mapping[str, Any],
    point: str,
    arm: str,
    view: str,
    communities: Sequence[str],
) -> Any:
    """Return an estimate; of some communities, the mean of theirs, seed by seed."""
    row = result["points"][point]["arms"].get(arm)
    if row is None:
        return None
    if view != "all" or not communities:
        return row["own"].get(view)
    key = "+".join(communities)
    return row["own"].get(key)


def _reach(found: Sequence[Any]) -> Any:
    """Return distances to the ends of intervals; none for one seed."""
    if any(one["low"] is None for one in found):
        return None
    return np.array(
        [
            [one["mean"] - one["low"] for one in found],
            [one["high"] - one["mean"] for one in found],
        ]
    )


def _utility(result: Mapping[str, Any]) -> Figure:
    """Draw the accuracies of communities by coalitions, provider and before."""
    rows = result["utility"]["own_test"]
    names = list(rows)
    labels = list(result["utility"]["hold_out"])
    cells = [
        [
            rows[name]["provider"]["mean"],
            rows[name]["before"]["mean"],
            *(rows[name]["coalitions"][one]["mean"] for one in labels),
        ]
        for name in names
    ]
    held = [
        result["points"]["base"]["arms"][arm]["hold_out"]["mean"]
        for arm in ("provider", "before")
    ]
    held += [result["utility"]["hold_out"][one]["mean"] for one in labels]
    table = np.array([*cells, held])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.6), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            is_member = (
                column >= 2
                and row < len(names)
                and names[row] in labels[column - 2].split("+")
            )
            axis.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value > 0.6 else "black",
                fontweight="bold" if is_member else "normal",
                fontsize=8,
            )
        columns = ["provider", "before", *(one.replace("+", "\n") for one in labels)]
        axis.set_xticks(range(len(columns)), columns, fontsize=7.5)
        axis.set_yticks(range(len(names) + 1), [*names, "hold-out"])
        for edge in (1.5, 1.5 + len(names)):
            axis.axvline(edge, color="white", linewidth=3)
        axis.axhline(len(names) - 0.5, color="white", linewidth=3)
        figure.colorbar(image, ax=axis, label="accuracy", pad=0.01)
        axis.set_title(
            "Accuracy of each coalition's student on each community's own test; bold: "
            f"a member. {_title(result).replace(' and 95 % interval', '')}"
        )
    return figure


def _choices(result: Mapping[str, Any]) -> Figure:
    """Draw what else was varied, value by value, and leverage by the share moved."""
    low = (result["low_utility"] or [result["points"]["base"]["communities"][-1]])[0]
    rows: list[tuple[str, Any, Any]] = []
    for name in CHOICES:
        for value, point in result["factors"][name]["places"]:
            arms = result["points"][point]["arms"]
            arm = arms.get("pooled") or arms["federated"]
            shown = f"{value:g}" if isinstance(value, int | float) else value
            label = f"{result['factors'][name]['axis']}: {shown}"
            rows.append((label, arm["own"]["all"], arm["own"][low]))
        rows.append(("", None, None))
    rows.pop()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 5.6), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=(1.5, 1))
        for place, (colour, view) in enumerate(
            (("#2f6f9f", "all own tests"), ("#a6485a", f"tests of {low}"))
        ):
            known = [(y, row[1 + place]) for y, row in enumerate(rows) if row[1]]
            axes[0].errorbar(
                [one["mean"] for _, one in known],
                [y + (place - 0.5) * 0.34 for y, _ in known],
                xerr=_reach([one for _, one in known]),
                color=colour,
                marker="o",
                markersize=4,
                linestyle="none",
                capsize=2,
                label=view,
            )
        axes[0].set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
        axes[0].tick_params(axis="y", length=0)
        axes[0].invert_yaxis()
        axes[0].set_xlim(0, 1)
        axes[0].set_xlabel("accuracy of the student of all")
        axes[0].grid(axis="x", color=GRID)
        axes[0].set_axisbelow(True)
        _legend_above(axes[0])
        _leverage(axes[1], result["leverage"])
        figure.suptitle(_title(result))
    return figure


def _leverage(axis: Axes, rows: Mapping[str, Any]) -> None:
    styles = (("#2f6f9f", -0.006), ("#d9822b", 0.006))
    for (view, row), (colour, aside) in zip(rows.items(), styles, strict=True):
        found = [(one["fraction"] + aside, one["cdc"]) for one in row["points"]]
        _bars(axis, found, colour, "o", f"contribution, {view}", line=True)
        moved = [
            (
                one["fraction"] + aside,
                one["cdc"]["mean"],
                one["cdc_with_strike"]["mean"],
            )
            for one in row["points"]
            if one["cdc_with_strike"] is not None
        ]
        shares, copied, with_strike = zip(*moved, strict=True) if moved else ((),) * 3
        axis.fill_between(
            shares,
            copied,
            with_strike,
            color=colour,
            alpha=0.15,
            linewidth=0,
            label=f"transfer bonus, {view}",
        )
        axis.plot(
            shares,
            with_strike,
            color=colour,
            linestyle="--",
            marker="s",
            markersize=4,
            label=f"with strike, {view}",
        )
    axis.set_xlim(0, 1.05)
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.set_xlabel("share of every member's traces that move")
    axis.set_ylabel("data leverage power")
    axis.grid(axis="y", color=GRID)
    axis.set_axisbelow(True)
    _legend_above(axis)


def _legend_above(axis: Axes) -> None:
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        fontsize=8,
        frameon=False,
        borderaxespad=0.2,
    )


def _title(result: Mapping[str, Any]) -> str:
    count = len(result["seeds"])
    return f"Mean and 95 % interval over {count} seeds" if count > 1 else "One seed"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for one in draw(json.loads(source.read_text(encoding="utf-8")), source):
        print(f"Figure: {one}")
