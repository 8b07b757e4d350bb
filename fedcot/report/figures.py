"""PNG figures of one run or several side by side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedcot.report.reader import ARM_ORDER, Run, number

COLOURS: Final = ("#2f6f9f", "#d9822b", "#4f9d69", "#a6485a", "#7a68a6", "#8c8c8c")
_LINES: Final = ("-", "--", ":", "-.")
STYLE: Final[dict[Any, Any]] = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 130,
    "font.size": 9,
    "grid.color": "#e4e4e4",
}
# Curves per arm: round -> epoch losses of every client.
_Curves = dict[str, dict[int, list[list[float]]]]


def write_figures(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Draw every figure that the runs have numbers for.

    Returns
    -------
    dict[str, Path]
        Figure name (`accuracy`, `losses`, `cost`) to its PNG file below `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with mpl.rc_context(STYLE):
        figures = {
            "accuracy": accuracy_figure(runs)
            if any(run.arms for run in runs)
            else None,
            "losses": loss_figure(runs),
            "cost": cost_figure(runs),
        }
        for name, figure in figures.items():
            if figure is None:
                continue
            path = folder / f"{name}.png"
            figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
            drawn[name] = path
    return drawn


def accuracy_figure(runs: Sequence[Run]) -> Figure:
    """Bars of exact match per arm with one standard error each way."""
    arms = [arm for arm in ARM_ORDER if any(arm in run.arms for run in runs)]
    figure = Figure(figsize=(max(6.0, 1.1 * len(arms)), 3.4))
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for index, run in enumerate(runs):
        offset = (index - (len(runs) - 1) / 2) * width
        for place, arm in enumerate(arms):
            score = run.accuracy(arm)
            if score is None:
                continue
            colour = COLOURS[index % len(COLOURS)]
            bar = axes.bar(
                place + offset,
                score.mean,
                width * 0.92,
                color=colour,
                yerr=0 if math.isnan(score.stderr) else score.stderr,
                capsize=3,
                label=run.name if place == arms.index(run.arms[0]) else None,
            )
            axes.bar_label(bar, labels=[f"{score.mean:.2f}"], padding=2, fontsize=8)
    # A name of two words takes two lines; side by side they would overlap.
    labels = [arm.replace("-", "-\n") for arm in arms]
    axes.set_xticks(range(len(arms)), labels)
    for chance in sorted({number(run.summary.get("chance")) or 0.0 for run in runs}):
        if chance > 0:
            axes.axhline(chance, color="0.5", linestyle=":", linewidth=1)
            end = (len(arms) - 0.5, chance)
            axes.annotate("chance", end, fontsize=8, color="0.4", ha="right")
    axes.set_ylim(0, 1.12)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("exact match (share of test questions)")
    if len(runs) > 1:
        axes.legend(loc="upper right", fontsize=8)
    return figure


def loss_figure(runs: Sequence[Run]) -> Figure | None:
    """Training losses by epoch, mean over clients; a dotted line where a round ends."""
    kinds = ("label_loss", "rationale_loss")
    curves = {kind: [_curves(run, kind) for run in runs] for kind in kinds}
    shown = [kind for kind in kinds if any(curves[kind])]
    if not shown:
        return None
    figure = Figure(figsize=(4.4 * len(shown), 3.2))
    for axes, kind in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
        for index, (run, per_arm) in enumerate(zip(runs, curves[kind], strict=True)):
            name = run.name if len(runs) > 1 else ""
            _draw_curves(axes, per_arm, name, _LINES[index % len(_LINES)])
        axes.set_title(kind.replace("_", " "))
        axes.set_xlabel("epoch, all rounds in a row")
        axes.set_ylabel("nats per token, mean over clients")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def cost_figure(runs: Sequence[Run]) -> Figure | None:
    """Bytes each way and seconds per phase."""
    if not any(run.summary.get("traffic") for run in runs):
        return None
    figure = Figure(figsize=(8.8, 3.0))
    left, right = figure.subplots(1, 2)
    width = 0.8 / len(runs)
    phases = list(dict.fromkeys(p for run in runs for p in run.summary["timing"]))
    for index, run in enumerate(runs):
        offset = (index - (len(runs) - 1) / 2) * width
        colour = COLOURS[index % len(COLOURS)]
        traffic = run.summary["traffic"]
        megabytes = [
            (number(traffic.get(key)) or 0) / 1e6
            for key in ("uplink_bytes", "downlink_bytes")
        ]
        bar = left.bar(np.arange(2) + offset, megabytes, width * 0.92, color=colour)
        left.bar_label(bar, fmt="%.2f", padding=2, fontsize=8)
        seconds = [number(run.summary["timing"].get(phase)) or 0 for phase in phases]
        right.barh(
            np.arange(len(phases)) + offset, seconds, width * 0.92, color=colour
        ).set_label(run.name)
    left.set_xticks((0, 1), ("clients to server", "server to clients"))
    left.set_ylabel("MB, all rounds and arms")
    left.margins(y=0.15)
    right.set_yticks(range(len(phases)), phases)
    right.invert_yaxis()
    right.grid(visible=False, axis="y")
    right.grid(visible=True, axis="x")
    right.set_xlabel("seconds")
    if len(runs) > 1:
        right.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _curves(run: Run, kind: str) -> _Curves:
    """Collect an arm's losses per round from the lines of `metrics.jsonl`."""
    found: _Curves = defaultdict(lambda: defaultdict(list))
    for row in run.metrics:
        losses = row.get(kind)
        if "arm" in row and isinstance(losses, list) and losses:
            epochs = [math.nan if (x := number(y)) is None else x for y in losses]
            found[row["arm"]][int(row.get("round", 0))].append(epochs)
    return found


def _draw_curves(
    axes: Axes, per_arm: Mapping[str, Any], run_name: str, line: str
) -> None:
    ends: set[int] = set()
    for arm in (arm for arm in ARM_ORDER if arm in per_arm):
        points: list[float] = []
        for server_round in sorted(per_arm[arm]):
            clients = per_arm[arm][server_round]
            shortest = min(map(len, clients))
            points.extend(np.mean([epochs[:shortest] for epochs in clients], axis=0))
            ends.add(len(points))
        label = f"{arm} ({run_name})" if run_name else arm
        colour = COLOURS[(ARM_ORDER.index(arm) - 1) % len(COLOURS)]
        axes.plot(
            range(1, len(points) + 1),
            points,
            label=label,
            color=colour,
            linestyle=line,
            marker="." if len(points) == 1 else None,
        )
    for end in sorted(ends)[:-1]:
        axes.axvline(end + 0.5, color="#b0b0b0", linestyle=":", linewidth=1)
