"""Sections about communities: what they hold, and how a terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fedcot.community.coalitions import Partition
from fedcot.report.community import short
from fedcot.report.reader import number

MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table of text.

    Attributes
    ----------
    title : str
    headings : tuple of str
    rows : tuple of tuple of str
        Each as long as the headings.
    note : str
        What the marks and columns mean.
    words : tuple of int
        Columns that hold words; the others hold numbers.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report on communities.

    Attributes
    ----------
    name : str
        As `--section` takes it.
    title : str
    sheets : tuple of Sheet
    lines : tuple of str
        What is said beside the tables.
    content : mapping
        The same as plain values for JSON.
    problem : str
        Why there is nothing; empty if there is something.
    """

    name: str
    title: str
    sheets: tuple[Sheet, ...] = ()
    lines: tuple[str, ...] = ()
    content: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def rich_table(sheet: Sheet) -> Table:
    """Return a table for a terminal, without title and note; no cell is markup."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, heading in enumerate(sheet.headings):
        if place in sheet.words:
            # As wide as its longest word: names are not cut in the middle.
            words = [word for row in sheet.rows for word in row[place].split()]
            longest = max(map(len, words), default=0)
            table.add_column(Text(heading), overflow="fold", min_width=longest)
        else:
            table.add_column(Text(heading), justify="right")
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def accuracy_cell(score: Mapping[str, Any] | None, *, mark: str = "") -> str:
    """Return a mean with its standard error, two decimals each, and a mark."""
    mean = number((score or {}).get("mean"))
    if score is None or mean is None:
        return MISSING
    error = number(score.get("stderr"))
    shown = f"{mean:.2f}"
    if error is not None and not math.isnan(error):
        shown += f" ± {error:.2f}"
    return shown + mark


def signed(value: float | None) -> str:
    """Return a difference with its sign, two decimals."""
    # Adding 0 makes a -0.0 a 0.0, and rounding first keeps "-0.00" away.
    return MISSING if value is None else f"{round(value, 2) + 0.0:+.2f}"


def plain_number(value: float | None, digits: int = 3) -> str:
    """Return a number, `excluded` for minus infinity, `-` where there is none."""
    if value is None or math.isnan(value):
        return MISSING
    if value == -math.inf:
        return "excluded"
    return f"{round(value, digits) + 0.0:.{digits}f}"


def p_cell(value: float | None) -> str:
    """Return a p-value with three decimals, never smaller than it is."""
    if value is None or math.isnan(value):
        return MISSING
    if value < 0.001:
        return "< 0.001"
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}"


def partition_text(partition: Partition, communities: Sequence[str]) -> str:
    """Return a division of communities: ``library+harbor | bakery``."""
    return " | ".join(short(one, communities) for one in partition)
