"""The ledger's tables and the questions asked of them; no decision is taken here."""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedcot.privacy.nats import nats

# nano_nats is NULL where no finite epsilon holds.
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (
    record_key TEXT NOT NULL,
    artefact TEXT NOT NULL,
    nano_nats INTEGER,
    slots INTEGER NOT NULL,
    seeded INTEGER NOT NULL,
    PRIMARY KEY (record_key, artefact));
CREATE TABLE IF NOT EXISTS releases (
    record_key TEXT NOT NULL,
    artefact TEXT NOT NULL,
    ids TEXT NOT NULL,
    PRIMARY KEY (record_key, artefact));
CREATE TABLE IF NOT EXISTS exposures (
    record_key TEXT NOT NULL,
    run TEXT NOT NULL,
    PRIMARY KEY (record_key, run));
"""


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over a ledger.

    Attributes
    ----------
    records, charges, releases : int
        Records charged, charges made, outputs stored.
    seeded : int
        Charges whose draws came from a seed; no guarantee holds for their records.
    exposed : int
        Records of which something went out that no epsilon bounds: the question as it
        is, or an adapter that was trained on it. No epsilon here covers that.
    max_epsilon : float
        Nats charged to the record that was charged most, for its prompts.
    sum_epsilon : float
        Nats charged to all records together; a measure of use, no guarantee.
    """

    records: int
    charges: int
    releases: int
    seeded: int
    exposed: int
    max_epsilon: float
    sum_epsilon: float


def create_tables(database: sqlite3.Connection) -> None:
    """Create the tables where there are none, inside the caller's transaction."""
    # `executescript` would commit the caller's transaction first.
    for statement in SCHEMA.split(";"):
        database.execute(statement)


def secret_fingerprint(database: sqlite3.Connection) -> str | None:
    """Return the fingerprint of the secret that the keys were made with."""
    row = database.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()
    return None if row is None else str(row[0])


def add_secret_fingerprint(database: sqlite3.Connection, value: str) -> None:
    """Remember the fingerprint of the secret and start counting calls."""
    database.execute("INSERT INTO meta VALUES ('secret', ?), ('calls', 0)", (value,))


def count_call(database: sqlite3.Connection) -> None:
    """Write something, so that the commit syncs the log."""
    database.execute("UPDATE meta SET value = value + 1 WHERE name = 'calls'")


def has_row(
    database: sqlite3.Connection,
    table: Literal["charges", "releases"],
    place: tuple[str, str],
) -> bool:
    """Return whether a table has a row for a record key and an artefact."""
    found = database.execute(
        f"SELECT 1 FROM {table} WHERE record_key = ? AND artefact = ?", place
    )
    return found.fetchone() is not None


def charged(database: sqlite3.Connection, record_key: str) -> int | None:
    """Return the nano-nats charged to a record; None if one charge is unbounded."""
    total, unbounded = database.execute(
        "SELECT COALESCE(SUM(nano_nats), 0), COUNT(*) - COUNT(nano_nats)"
        " FROM charges WHERE record_key = ?",
        (record_key,),
    ).fetchone()
    return None if unbounded else int(total)


def is_exposed(
    database: sqlite3.Connection, record_key: str, *, outside_run: str
) -> bool:
    """Return whether any run but one has sent a record out unprotected."""
    found = database.execute(
        "SELECT 1 FROM exposures WHERE record_key = ? AND run <> ?",
        (record_key, outside_run),
    )
    return found.fetchone() is not None


def add_exposures(
    database: sqlite3.Connection, record_keys: Iterable[str], run: str
) -> None:
    """Note that records go out unprotected in a run."""
    database.executemany(
        "INSERT OR IGNORE INTO exposures VALUES (?, ?)",
        [(key, run) for key in record_keys],
    )


def add_charge(
    database: sqlite3.Connection,
    place: tuple[str, str],
    *,
    nano_nats: int | None,
    slots: int,
    is_seeded: bool,
) -> None:
    """Charge a record for an artefact."""
    database.execute(
        "INSERT INTO charges VALUES (?, ?, ?, ?, ?)",
        (*place, nano_nats, slots, int(is_seeded)),
    )


def add_outputs(
    database: sqlite3.Connection, outputs: Mapping[str, list[int]], artefact: str
) -> set[str]:
    """Store outputs; return the keys for which no other process was faster."""
    return {
        key
        for key, ids in outputs.items()
        if database.execute(
            "INSERT OR IGNORE INTO releases VALUES (?, ?, ?)",
            (key, artefact, json.dumps(ids)),
        ).rowcount
        == 1
    }


def stored_output(
    database: sqlite3.Connection, place: tuple[str, str]
) -> tuple[tuple[int, ...], int | None]:
    """Return the stored tokens and the nano-nats that they were charged."""
    ids, nano_nats = database.execute(
        "SELECT ids, nano_nats FROM releases JOIN charges USING (record_key, artefact)"
        " WHERE record_key = ? AND artefact = ?",
        place,
    ).fetchone()
    return tuple(json.loads(ids)), nano_nats


def ledger_totals(database: sqlite3.Connection) -> LedgerTotals:
    """Return the sums over all records; the database is only read."""
    records, charges, seeded, unbounded, total = database.execute(
        "SELECT COUNT(DISTINCT record_key), COUNT(*), COALESCE(SUM(seeded), 0),"
        " COUNT(*) - COUNT(nano_nats), COALESCE(SUM(nano_nats), 0) FROM charges"
    ).fetchone()
    (largest,) = database.execute(
        "SELECT COALESCE(MAX(spent), 0) FROM"
        " (SELECT SUM(nano_nats) AS spent FROM charges GROUP BY record_key)"
    ).fetchone()
    (releases,) = database.execute("SELECT COUNT(*) FROM releases").fetchone()
    return LedgerTotals(
        records=records,
        charges=charges,
        releases=releases,
        seeded=seeded,
        exposed=_exposed(database),
        max_epsilon=math.inf if unbounded else nats(largest),
        sum_epsilon=math.inf if unbounded else nats(total),
    )


def _exposed(database: sqlite3.Connection) -> int:
    """Return how many records were exposed; a reader may open an older ledger."""
    named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'exposures'"
    if database.execute(named).fetchone() is None:
        return 0
    query = "SELECT COUNT(DISTINCT record_key) FROM exposures"
    return int(database.execute(query).fetchone()[0])
