"""The server's books: every grant and release, written before anything happens."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from strategies.events import AggregateEvent, PrivacyEvent, PromptsEvent, TrainingEvent

Row = tuple[object, ...]
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS grants (
        round INTEGER NOT NULL, partition INTEGER NOT NULL,
        token_epsilon REAL NOT NULL, prompt_epsilon REAL NOT NULL,
        record_epsilon REAL NOT NULL, channel TEXT NOT NULL, time REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS releases (
        round INTEGER NOT NULL, partition INTEGER NOT NULL,
        record_key TEXT NOT NULL, prompt_epsilon REAL NOT NULL,
        channel TEXT NOT NULL, time REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS noised (
        round INTEGER NOT NULL, partition INTEGER NOT NULL,
        kind TEXT NOT NULL, arm TEXT NOT NULL, noise_multiplier REAL NOT NULL,
        sampling_rate REAL NOT NULL, steps INTEGER NOT NULL, time REAL NOT NULL)""",
)
_INSERT: Final = {
    "grants": "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?)",
    "releases": "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)",
    "noised": "INSERT INTO noised VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
}


class AccountBook:
    """An SQLite file that never holds private text.

    Parameters
    ----------
    path : Path
        Created if it is not there.
    record_epsilon : float
        The limit, in nats, that stands beside every grant.
    """

    def __init__(self, path: Path, *, record_epsilon: float) -> None:
        self.path = path
        self.record_epsilon = record_epsilon
        with closing(self._connect()) as database, database:
            for table in _TABLES:
                database.execute(table)

    def write_grant(self, event: PrivacyEvent) -> None:
        """Write down what is about to be asked for."""
        if isinstance(event, PromptsEvent):
            row = (
                event.server_round,
                event.partition_id,
                event.token_epsilon,
                event.prompt_epsilon,
                self.record_epsilon,
                event.channel_hash,
                time.time(),
            )
            self._insert("grants", [row])
        else:
            self._insert("noised", _noised(event, "granted", 1))

    def write_release(self, event: PrivacyEvent, count: int) -> None:
        """Write down what arrived."""
        if isinstance(event, PromptsEvent):
            place = (event.server_round, event.partition_id)
            charge = (event.prompt_epsilon, event.channel_hash, time.time())
            rows = [(*place, key, *charge) for key in event.record_keys] * count
            self._insert("releases", rows)
        else:
            self._insert("noised", _noised(event, "released", count))

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        with closing(self._connect()) as database, database:
            database.executemany(_INSERT[table], rows)

    def _connect(self) -> sqlite3.Connection:
        # One short connection per call: Flower runs the app in a thread of its own.
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA synchronous = FULL")
        return database


def _noised(
    event: TrainingEvent | AggregateEvent, verb: str, count: int
) -> Sequence[Row]:
    sampled = event if isinstance(event, TrainingEvent) else None
    law = (
        event.noise_multiplier,
        sampled.sampling_rate if sampled else 1.0,
        sampled.steps if sampled else 1,
    )
    kind = f"{'training' if sampled else 'aggregate'} {verb}"
    now = time.time()
    return [
        (event.server_round, partition, kind, event.arm, *law, now)
        for partition in event.partitions
    ] * count
