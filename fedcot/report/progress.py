"""Turns the lines of `progress.jsonl` into what a person sees while a run works."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from rich.table import Table

from fedcot.report.reader import nats, number

_PLAIN_SECONDS: Final = 5.0
_HIDDEN: Final = frozenset({"time", "phase", "round", "done", "total"})


class ProgressView:
    """The phases seen so far, newest state of each; makes text, prints nothing."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._rows: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._said = 0.0
        self._last: tuple[Any, ...] = ()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one line of the progress file."""
        key = (int(row.get("round", 0)), str(row.get("phase", "")))
        self._rows[key] = {**self._rows.get(key, {}), **row}

    def plain(self, row: Mapping[str, Any]) -> str | None:
        """Return the line as text, or None when it comes too soon after the last.

        The end of a phase is always said.
        """
        now = time.monotonic()
        state = tuple(row.get(key) for key in ("round", "phase", "done", "total"))
        if state == self._last:
            return None
        self._last = state
        ended = row.get("done") == row.get("total")
        if not ended and now - self._said < _PLAIN_SECONDS:
            return None
        self._said = now
        place = f"round {row['round']} · " if row.get("round") else ""
        text = f"[{now - self._started:6.1f} s] {place}{row.get('phase')}"
        return f"{text} {_count(row)} {_details(row)}".rstrip()

    def table(self) -> Table:
        """Return all phases as a table for a live display."""
        seconds = time.monotonic() - self._started
        table = Table(title=f"fedcot · {seconds:.0f} s", title_justify="left")
        table.add_column("round", justify="right")
        table.add_column("phase", no_wrap=True)
        table.add_column("done", justify="right", no_wrap=True)
        table.add_column("")
        for (server_round, phase), row in self._rows.items():
            shown = str(server_round) if server_round else "-"
            ended = row.get("done") == row.get("total")
            style = "dim" if ended else "bold"
            table.add_row(shown, phase, _count(row), _details(row), style=style)
        return table


def _count(row: Mapping[str, Any]) -> str:
    return f"{row['done']}/{row['total']}" if {"done", "total"} <= row.keys() else ""


def _details(row: Mapping[str, Any]) -> str:
    """Show everything else that a line holds: prompts, losses, epsilon."""
    parts = []
    for key, value in row.items():
        if key in _HIDDEN or value in (None, "", [], {}):
            continue
        parts.append(f"{key.replace('_', ' ')} {_value(key, value)}")
    return ", ".join(parts)


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_value(key, item)}" for name, item in value.items())
    if "epsilon" in key:
        return f"{nats(value)} nats"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return f"{number(value[-1]):.3g}" if number(value[-1]) is not None else "-"
    return str(value)
