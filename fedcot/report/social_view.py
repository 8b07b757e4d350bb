"""Sections about social learning, with warnings, and the table of students."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from fedcot.evaluation.metrics import Estimate
from fedcot.report.community_view import MISSING, Section, Sheet, rich_table
from fedcot.report.social import (
    KINDS,
    ORIGINAL,
    Scored,
    model_names,
    scored_students,
    social_part,
    visible,
)


@dataclass(frozen=True, kw_only=True)
class SocialSection(Section):
    """A section that may have something to warn of.

    Attributes
    ----------
    warnings : tuple of str
        Shown in red.
    """

    warnings: tuple[str, ...] = ()


def accuracy_text(score: Estimate | None) -> str:
    """Return a mean with its standard error, two decimals each."""
    if score is None:
        return MISSING
    spread = "" if math.isnan(score.stderr) else f" ± {score.stderr:.2f}"
    return f"{score.mean:.2f}{spread}"


def accuracy_sheet(summaries: Sequence[Mapping[str, Any]]) -> Sheet:
    """Return students by kind in rows and numbers of examples in columns.

    Parameters
    ----------
    summaries : sequence of mapping
        Of one run, or of repeats that differ in their seed.
    """
    students = scored_students(summaries)
    counts = sorted({one.num_examples for one in students})
    kinds = dict.fromkeys(one.kind for one in students)
    cells = {(one.kind, one.num_examples): one for one in students}
    rows = tuple(
        (
            visible(KINDS.get(kind, kind)),
            *(_cell(cells.get((kind, count))) for count in counts),
        )
        for kind in kinds
    )
    return Sheet(
        title=f"Exact match of the student by examples in its prompt{_of(summaries)}",
        headings=("student", *map(str, counts)),
        rows=rows,
        note=_note(summaries, is_original=ORIGINAL in kinds),
    )


def _cell(found: Scored | None) -> str:
    return accuracy_text(found.accuracy if found else None)


def _of(summaries: Sequence[Mapping[str, Any]]) -> str:
    tasks = dict.fromkeys(
        visible(task) for one in summaries if (task := social_part(one).get("task"))
    )
    return f": {', '.join(tasks)}" if tasks else ""


def _note(summaries: Sequence[Mapping[str, Any]], *, is_original: bool) -> str:
    parts = ["± one standard error over the test questions of the run"]
    if len(summaries) > 1:
        seeds = ", ".join(visible(one.get("seed", "?")) for one in summaries)
        over = f"Mean over {len(summaries)} runs (seeds {seeds})"
        parts = [f"{over}, ± one standard error over runs"]
    if is_original:
        parts.append(
            "original: private examples of one teacher client each, which no student "
            "may read outside a simulation"
        )
    clients, student = model_names(summaries[0])
    parts.append(f"teacher clients' models: {clients}; student: {student}")
    return ". ".join(parts) + "."


def social_table(summary: Mapping[str, Any]) -> Table:
    """Return the table that a run ends with; no text in it is markup."""
    sheet = accuracy_sheet([summary])
    table = rich_table(sheet)
    table.title = Text(sheet.title, style="bold")
    table.caption = Text(sheet.note)
    table.caption_justify = "left"
    return table
