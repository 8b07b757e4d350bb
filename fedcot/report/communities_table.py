"""What communities and levels of detail change, for the README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Nobody should read a level's number without this.
_FAMILIAR: Final = (
    "The base of the built-in student was pretrained on rationales of level 2: its "
    "curve of levels mixes detail with familiarity."
)


def communities_markdown(path: Path) -> str:
    """Return what each community has by itself, in a pair and with all others.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-community` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = result["utility"]["own_test"]
    coalitions = list(next(iter(rows.values()))["coalitions"])
    grand = coalitions[-1]
    pairs = [one for one in coalitions if one.count("+") == 1]
    lines = [
        "| own test of | provider | before | alone | in its best pair | all together |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        found = row["coalitions"]
        with_one = [one for one in pairs if name in one.split("+")]
        best = max(with_one, key=lambda one: float(found[one]["mean"]))
        partner = next(one for one in best.split("+") if one != name)
        cells = (
            name,
            _cell(row["provider"]),
            _cell(row["before"]),
            _cell(found[name]),
            f"{_cell(found[best])}, with {partner}",
            _cell(found[grand]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    problems = result["provider"]["problems"]
    fewest = min(problems, key=lambda name: int(problems[name]))
    note = (
        f"Accuracy of pooled students, mean over {len(result['seeds'])} seeds with its "
        f"{result['interval'].split(' over')[0]}; {len(rows)} communities of the "
        f"built-in world, {len(coalitions)} coalitions. The provider was trained on "
        f"{problems[fewest]} problems of {fewest}. From "
        f"`{path.parent.name}/{path.name}`, written by `make results-community`."
    )
    lines += ["", note, "", _first(result)]
    return "\n".join(lines)


def findings_markdown(path: Path) -> str:
    """Return a sentence on each finding, shown or not, and when one counts as shown.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-community` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"* **{one['factor'].replace('-', ' ')}.** {one['text']}"
        for one in result["findings"]
    ]
    lines += ["", f"{result['rule']} {_FAMILIAR}"]
    return "\n".join(lines)


def levels_markdown(path: Path) -> str:
    """Return what six levels of real rationales teach a small student.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-levels` writes.
    """
    result = json.loads(path.read_text(encoding="utf-8"))
    levels = result["levels"]
    medians = levels["used_tokens"]["medians"]
    lines = [
        "| level | median tokens | accuracy | log-likelihood of the answers, nats |",
        "|---|---:|---:|---:|",
    ]
    for name, variant in result["variants"].items():
        arm = "standalone" if name == "0" else "distil"
        summary = variant["summary"]
        cells = (
            _level(name),
            f"{medians[int(name) - 1]:g}" if name in "123456" else "-",
            _cell(summary["accuracy"][arm]),
            _cell(summary["answer_log_likelihood"][arm], digits=2),
        )
        lines.append(f"| {' | '.join(cells)} |")
    written = levels["written"]
    medians = ", ".join(f"{one:g}" for one in written["medians"])
    longer = ", ".join(f"{one:.2f}" for one in written["longer"])
    settings = result["settings"]
    accuracy = next(iter(result["variants"].values()))["summary"]["accuracy"]
    note = (
        f"A student of 260,032 parameters, {settings['num-records']} questions, mean "
        f"over {next(iter(accuracy.values()))['n']} seeds with its "
        f"{result['confidence']:.0%} t-interval, on {settings['test-records']} test "
        f"questions. {levels['joined']} questions have all six levels; median words as "
        f"written {medians}; each level is longer than the one before for {longer} of "
        f"the questions, all along for {written['monotone']:.2f}. From "
        f"`{path.parent.name}/{path.name}`, written by `make results-levels`."
    )
    lines += ["", note, "", _apart(result["variants"])]
    return "\n".join(lines)


def _apart(variants: Mapping[str, Any]) -> str:
    """Say whether the intervals of any two levels leave each other out."""
    found = {
        _level(name): variant["summary"]["accuracy"]["distil"]
        for name, variant in variants.items()
        if name != "0"
    }
    pairs = [
        f"{better} above {worse}"
        for better, high in found.items()
        for worse, low in found.items()
        if high["low"] > low["high"]
    ]
    if not pairs:
        return (
            "No level is shown to differ from another: all intervals of accuracy "
            "overlap, and so small a student hardly ever answers rightly."
        )
    return f"Accuracies whose intervals do not overlap: level {'; '.join(pairs)}."


def _level(name: str) -> str:
    if name == "0":
        return "0, answers alone"
    first, padded, last = (*name.split("-"), "", "")[:3]
    return f"{first}, padded to the length of {last}" if padded else first


def _cell(found: Mapping[str, Any], digits: int = 3) -> str:
    """Return a mean with its interval; without one for a single seed."""
    mean = f"{found['mean']:.{digits}f}"
    if found.get("low") is None:
        return mean
    return f"{mean} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _first(result: Mapping[str, Any]) -> str:
    """Return the finding on coalitions, which all others are about."""
    return next(
        str(one["text"]) for one in result["findings"] if one["factor"] == "coalitions"
    )
