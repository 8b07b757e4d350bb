"""What is asked of the tables of a member's traces and written to them.

No decision is taken here. Each question is one statement for a whole batch.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import LedgerError

# Texts are blobs: every string can be written, and no error quotes one of them.
TEXTS: Final = (
    "question",
    "reasoning",
    "answer",
    "provider",
    "model",
    "created",
    "subject",
)
COLUMNS: Final = ", ".join(("key", "scope", "trace_class", *TEXTS))
SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE traces (
    key TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    trace_class TEXT NOT NULL,
    question BLOB NOT NULL,
    reasoning BLOB NOT NULL,
    answer BLOB NOT NULL,
    provider BLOB NOT NULL,
    model BLOB NOT NULL,
    created BLOB NOT NULL,
    subject BLOB NOT NULL);
CREATE TABLE reached (
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    audience TEXT NOT NULL,
    purpose TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (key, model, audience, purpose)) WITHOUT ROWID;
CREATE TABLE tombstones (
    key TEXT PRIMARY KEY,
    time TEXT NOT NULL,
    reason TEXT NOT NULL) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One model that a trace was granted to.

    Attributes
    ----------
    model : str
        Its id.
    audience : str
        Label of the coalition that the model belongs to.
    purpose : str
        What for.
    time : str
        When first; ISO 8601 in UTC.
    """

    model: str
    audience: str
    purpose: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What stays of a trace that was withdrawn.

    Attributes
    ----------
    key : str
        `Trace.key`, by which the trace is known if it is added again.
    time : str
        When it was withdrawn; ISO 8601 in UTC.
    reason : str
        The owner's words, or empty.
    reached : tuple of Reached
        What it had been granted to before.
    """

    key: str
    time: str
    reason: str
    reached: tuple[Reached, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The ids of the models that it had reached, each once, sorted."""
        return tuple(sorted({one.model for one in self.reached}))


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the traces that were to be added.

    Attributes
    ----------
    added : int
        New ones.
    known : int
        There already, or twice in the batch; nothing about them was changed.
    withdrawn : int
        Withdrawn earlier; they were not added.
    """

    added: int
    known: int
    withdrawn: int


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """How many traces there are, for their owner.

    Attributes
    ----------
    scopes : dict of str to dict of str to int
        By scope, then by trace class; every one of them is listed.
    active, withdrawn : int
        In all.
    """

    scopes: dict[str, dict[str, int]]
    active: int
    withdrawn: int


def keys_in(
    database: sqlite3.Connection,
    table: Literal["traces", "tombstones"],
    keys: Collection[str],
) -> set[str]:
    """Return which of some keys a table has."""
    rows = database.execute(
        f"SELECT {table}.key FROM json_each(?) AS asked CROSS JOIN {table}"
        f" ON {table}.key = asked.value",
        (json.dumps(list(keys)),),
    )
    return {key for (key,) in rows}


def keys_like(database: sqlite3.Connection, prefix: str) -> list[str]:
    """Return the keys of traces and tombstones that begin with hex digits, sorted."""
    rows = database.execute(
        "SELECT key FROM traces WHERE key >= :low AND key < :high UNION"
        " SELECT key FROM tombstones WHERE key >= :low AND key < :high ORDER BY key",
        {"low": prefix, "high": f"{prefix}g"},  # g comes after every hex digit
    )
    return [key for (key,) in rows]


def add_traces(database: sqlite3.Connection, traces: Iterable[Trace]) -> None:
    """Write traces that the store does not have."""
    marks = ", ".join("?" * (3 + len(TEXTS)))
    database.executemany(
        f"INSERT INTO traces ({COLUMNS}) VALUES ({marks})",
        [
            (
                trace.key,
                trace.scope.value,
                trace.trace_class.value,
                *(_bytes(getattr(trace, name)) for name in TEXTS),
            )
            for trace in traces
        ],
    )


def read_traces(database: sqlite3.Connection) -> list[Trace]:
    """Return all traces, sorted by key.

    Raises
    ------
    LedgerError
        If one is damaged, has a scope that nobody knows, or was withdrawn.
    """
    rows = database.execute(f"SELECT {COLUMNS} FROM traces ORDER BY key").fetchall()
    traces = [_trace_of(*row) for row in rows]
    if keys_in(database, "tombstones", [trace.key for trace in traces]):
        raise LedgerError("The traces are damaged: one that was withdrawn is there.")
    return traces


def scopes_of(database: sqlite3.Connection, keys: Collection[str]) -> dict[str, Scope]:
    """Return the scopes of active traces; one that is not known counts as own."""
    rows = database.execute(
        "SELECT traces.key, scope FROM json_each(?) AS asked CROSS JOIN traces"
        " ON traces.key = asked.value",
        (json.dumps(list(keys)),),
    )
    return {key: Scope(text) if text in set(Scope) else Scope.OWN for key, text in rows}


def add_reached(
    database: sqlite3.Connection, rows: Sequence[tuple[str, str, str, str, str]]
) -> None:
    """Write down key, model, audience, purpose and time; the first time stays."""
    database.executemany("INSERT OR IGNORE INTO reached VALUES (?, ?, ?, ?, ?)", rows)


def read_reached(
    database: sqlite3.Connection, keys: Collection[str]
) -> dict[str, tuple[Reached, ...]]:
    """Return what each key was granted to, the earliest first."""
    found = defaultdict(list)
    for key, model, audience, purpose, time in database.execute(
        "SELECT reached.* FROM json_each(?) AS asked CROSS JOIN reached"
        " ON reached.key = asked.value ORDER BY time, model, audience, purpose",
        (json.dumps(list(keys)),),
    ):
        found[key].append(
            Reached(model=model, audience=audience, purpose=purpose, time=time)
        )
    return {key: tuple(found[key]) for key in keys}


def bury(
    database: sqlite3.Connection, keys: Collection[str], *, time: str, reason: str
) -> None:
    """Delete traces, overwriting their texts, and leave tombstones."""
    database.executemany(
        "INSERT INTO tombstones VALUES (?, ?, ?)", [(key, time, reason) for key in keys]
    )
    database.executemany("DELETE FROM traces WHERE key = ?", [(key,) for key in keys])


def read_tombstones(database: sqlite3.Connection) -> tuple[Tombstone, ...]:
    """Return all tombstones, the earliest first."""
    rows = database.execute(
        "SELECT key, time, reason FROM tombstones ORDER BY time, key"
    ).fetchall()
    reached = read_reached(database, [key for key, _, _ in rows])
    return tuple(
        Tombstone(key=key, time=time, reason=reason, reached=reached[key])
        for key, time, reason in rows
    )


def count_traces(traces: Sequence[Trace], *, withdrawn: int) -> TraceCounts:
    """Return how many traces there are of each scope and class, for their owner."""
    scopes = {scope.value: {kind.value: 0 for kind in TraceClass} for scope in Scope}
    for trace in traces:
        scopes[trace.scope.value][trace.trace_class.value] += 1
    return TraceCounts(scopes, len(traces), withdrawn)


def _bytes(text: str) -> bytes:
    # An export may hold half a surrogate pair.
    return text.encode("utf-8", "surrogatepass")


def _trace_of(key: str, scope: str, trace_class: str, *texts: bytes) -> Trace:
    """Return a trace as it was written; the error quotes nothing of it."""
    try:
        words = [text.decode("utf-8", "surrogatepass") for text in texts]
        trace = Trace(
            **dict(zip(TEXTS, words, strict=True)),
            trace_class=TraceClass(trace_class),
            scope=Scope(scope),
        )
        is_whole = trace.key == key
    except (ValueError, AttributeError, TypeError):
        is_whole = False
    if not is_whole:
        raise LedgerError(
            f"The trace {str(key)[:8]} is damaged or has a scope that is not known; "
            "restore the traces from a copy, set its scope again or withdraw it."
        )
    return trace
