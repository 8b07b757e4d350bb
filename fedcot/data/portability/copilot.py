"""Copilot's export from Microsoft: CSV files with a row for each message, in two forms.

There are no ids and no reasoning. Rows with one name in a row are one conversation.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.reading import order_of, time_of
from fedcot.data.portability.turns import ASSISTANT, USER, Turn, traces_of
from fedcot.data.traces import Trace

PROVIDER: Final = "copilot"
# Where the name of a conversation, the time, the author and the text stand.
_HEADERS: Final = (
    ("Conversation", "Time", "Author", "Message"),
    ("ChatName", "CreatedAt", "Author", "MessageContent"),
)
_MOST_ROWS: Final = 10_000  # of a conversation, since it has to be sorted by time


def columns_of(header: str) -> tuple[int, ...] | None:
    """Return the places of name, time, author and text; None for another header."""
    try:
        names = [name.strip() for name in next(csv.reader([header]), [])]
    except csv.Error:
        return None
    for known in _HEADERS:
        if set(known) <= set(names):
            return tuple(names.index(name) for name in known)
    return None


def traces(lines: Iterable[str], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a file.

    Parameters
    ----------
    lines : iterable of str
        With the header; a message may go over several.
    report : ImportReport
    """
    lines = iter(lines)
    columns = columns_of(next(lines, "").lstrip("\ufeff"))
    if columns is None:
        report.skip(reasons.MALFORMED)
        return
    name, turns = "", list[Turn]()
    for row in _rows(lines, report):
        if len(row) <= max(columns):
            report.skip(reasons.MALFORMED)
            continue
        conversation, time, author, text = (row[place] for place in columns)
        if turns and (conversation != name or len(turns) >= _MOST_ROWS):
            yield from _conversation(turns, report)
            turns = []
        name = conversation
        role = USER if author.strip().lower() in ("user", "human") else ASSISTANT
        turns.append(Turn(role=role, text=text, created=time_of(time)))
    if turns:
        yield from _conversation(turns, report)


def _rows(lines: Iterator[str], report: ImportReport) -> Iterator[list[str]]:
    reader = csv.reader(lines)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            report.skip(reasons.MALFORMED)
            continue
        if row is None:
            return
        if row:
            yield row


def _conversation(turns: list[Turn], report: ImportReport) -> Iterator[Trace]:
    report.conversations += 1
    if all(turn.created for turn in turns):
        # Some exports begin with the newest message. Question and answer can have one
        # time, so equal times keep an order in which the question comes first.
        first, last = (order_of(turns[place].created) for place in (0, -1))
        if first > last:
            turns = turns[::-1]
        turns = sorted(turns, key=lambda turn: order_of(turn.created))
    yield from traces_of(turns, report, provider=PROVIDER)
