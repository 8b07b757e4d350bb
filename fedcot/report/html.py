"""A self-contained HTML page of one run or several: no script, nothing fetched."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcot.models.sources import public_name
from fedcot.report.community import is_community
from fedcot.report.community_figures import figure_name, write_community_figures
from fedcot.report.community_sections import all_sections
from fedcot.report.figures import write_figures
from fedcot.report.measures import (
    HEADINGS,
    WHAT_MEASURES_ARE,
    chance_line,
    data_lines,
    measure_rows,
    teacher_line,
)
from fedcot.report.reader import ARM_ORDER, Run, nats, number, read_run, size
from fedcot.report.social import (
    is_social,
    model_names,
    repeats_of,
    social_part,
    visible,
)
from fedcot.report.social_figures import social_figure_name, write_social_figures
from fedcot.report.social_sections import run_sections
from fedcot.report.social_view import SocialSection, accuracy_sheet
from fedcot.report.terminal import (
    WHAT_ARMS_ARE,
    WHOSE_STUDENTS,
    audit_run_line,
    mean_and_stderr,
    stated_for,
    uncharged_of,
    worst_arm,
)

_PROMPTS = ("explain", "predict")


def write_report(run_dirs: Sequence[Path], output: Path | None = None) -> Path:
    """Write `report.html` and `figures/*.png` for runs side by side.

    Parameters
    ----------
    run_dirs : Sequence[Path]
        One run directory or more.
    output : Path | None
        Folder to write to; None: the run directory itself, or `comparison` beside
        the first where there are several.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        A directory holds no finished run; nothing was written.
    """
    runs = [read_run(path) for path in run_dirs]
    if output is None:
        first = runs[0].path
        output = first if len(runs) == 1 else first.parent / "comparison"
    folder = output / "figures"
    figures = write_figures(runs, folder) | write_community_figures(runs, folder)
    figures |= write_social_figures(runs, folder)
    page = output / "report.html"
    page.write_text(render(runs, figures), encoding="utf-8")
    return page


def render(runs: Sequence[Run], figures: Mapping[str, Path]) -> str:
    """Return the page; every text from a run is escaped."""
    environment = Environment(
        loader=PackageLoader("fedcot.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = " and ".join(run.name for run in runs)
    return environment.get_template("report.html.jinja").render(
        title=f"fedcot report: {names}",
        runs=runs,
        # Students of social learning have no arms, and a section of their own.
        scored=[run for run in runs if not is_social(run.summary)],
        communities=_communities(runs),
        conversations=_conversations(runs),
        headline=_headline,
        arms=[arm for arm in ARM_ORDER if any(arm in run.arms for run in runs)],
        what=WHAT_ARMS_ARE,
        whose_students=WHOSE_STUDENTS,
        figures={"accuracy": None, "losses": None, "cost": None}
        | {name: _data_url(path) for name, path in figures.items()},
        prompts=_PROMPTS,
        by_prompt=_by_prompt(runs),
        mean_and_stderr=mean_and_stderr,
        nats=nats,
        size=size,
        share=_share,
        uncharged=uncharged_of,
        measures=measure_rows,
        measure_headings=HEADINGS,
        what_measures_are=WHAT_MEASURES_ARE,
        chance=chance_line,
        data_lines=_data_lines,
        worst=lambda run: worst_arm(run.summary),
        shared=_shared,
        total_seconds=_total_seconds,
        settings=_settings,
    )


def _data_url(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:image/png;base64,{content}"


def _by_prompt(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        for arm in run.arms:
            scores = [run.accuracy_by_prompt(arm, prompt) for prompt in _PROMPTS]
            if any(scores):
                cells = [
                    f"{score.mean:.3f} ± {score.stderr:.3f}" if score else "-"
                    for score in scores
                ]
                rows.append({"run": run.name, "arm": arm, "cells": cells})
    return rows


def _shared(run: Run) -> list[str]:
    """Return what is stated for an arm's epsilons, once where arms agree."""
    lines = [f"Stated for: {stated_for(entry)}." for entry in run.privacy.values()]
    left_out = [uncharged_of(entry) for entry in run.privacy.values()]
    lines += [f"Not covered by any ε: {text}." for text in left_out if text]
    if covers := run.summary["privacy"].get("covers"):
        lines.append(f"{covers}.")
    if audited := audit_run_line(run.summary):
        lines.append(f"{audited}.")
    return list(dict.fromkeys(lines))


def _communities(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the sections of every run of communities, and its figures by name."""
    return [
        {
            "run": run.name,
            "sections": all_sections(run),
            "figures": {
                name: figure_name(name, place, len(runs))
                for name in ("utility", "served", "frontier")
            },
        }
        for place, run in enumerate(runs)
        if is_community(run.summary)
    ]


def _conversations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the sections of social learning: repeats of an experiment together."""
    groups = repeats_of(runs)
    found = []
    for place, group in enumerate(groups):
        accuracy = accuracy_sheet([run.summary for run in group])
        of_all = SocialSection(name="accuracy", title="Accuracy", sheets=(accuracy,))
        found.append(
            {
                "names": " and ".join(run.name for run in group),
                "accuracy": of_all,
                "runs": [{"name": run.name, "all": run_sections(run)} for run in group],
                "figures": {
                    name: social_figure_name(name, place, len(groups))
                    for name in ("accuracy", "texts")
                },
            }
        )
    return found


def _headline(run: Run) -> str:
    """Return what a run was made with."""
    summary = run.summary
    if is_social(summary):
        clients, student = model_names(summary)
        models = f"student {student} · teacher clients {clients}"
    else:
        models = f"student {_named(run, 'student')} · teacher {_named(run, 'teacher')}"
    dataset = summary.get("dataset")
    if is_social(summary):
        dataset = visible(social_part(summary).get("task") or "unknown")
    return (
        f"{summary['mode']}"
        + (f" · dataset {dataset}" if dataset else "")
        + f" · {models} · mechanism {summary['mechanism']} · "
        f"{summary['num_partitions']} clients · {summary['num_rounds']} rounds · "
        f"seed {summary['seed']}"
    )


def _data_lines(runs: Sequence[Run]) -> list[str]:
    """Return what became of rows and rationales where a dataset was used."""
    return [
        line
        for run in runs
        if run.summary.get("data")
        for line in (teacher_line(run.summary), *data_lines(run.summary))
        if line
    ]


def _named(run: Run, role: str) -> str:
    """Return what the settings call a model, without a path."""
    return public_name(run.config.get("run_config", {}).get(role))


def _share(value: Any) -> str:
    share = number(value)
    return "-" if share is None else f"{share:.0%}"


def _total_seconds(run: Run) -> str:
    seconds = [number(value) for value in run.summary["timing"].values()]
    return f"{sum(value for value in seconds if value is not None):.0f}"


def _settings(run: Run) -> str:
    return json.dumps(run.config, indent=2, ensure_ascii=False)
