"""What is asked of the ledger's tables and written to them; no decision is taken here.

Each question is one statement for a whole batch of records.
"""

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedcot.errors import LedgerError
from fedcot.privacy.layout import has_table
from fedcot.privacy.nats import delta_of, nats

# Without CROSS, SQLite may read a whole table to look for a few records.
ASKED = "FROM json_each(?) AS asked CROSS JOIN {} ON record_key = asked.value"


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over a ledger.

    Attributes
    ----------
    records, charges, releases : int
        Records charged, charges made for prompts, outputs stored.
    trainings : int
        Charges made for private training, one for each record and training.
    seeded : int
        Charges whose draws came from a seed; no guarantee holds for their records.
    exposed : int
        Records of which something went out that no epsilon bounds: the question as it
        is, or an adapter that was trained on it. No epsilon here covers that.
    max_epsilon : float
        Nats charged to the record that was charged most, prompts and training.
    max_delta : float
        The largest sum of deltas of one record; `max_epsilon` holds up to it. Prompts
        have none.
    sum_epsilon : float
        Nats charged to all records together; a measure of use, no guarantee.
    """

    records: int
    charges: int
    releases: int
    trainings: int
    seeded: int
    exposed: int
    max_epsilon: float
    max_delta: float
    sum_epsilon: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where the prompts of one call belong.

    Attributes
    ----------
    artefact : str
        What draws them.
    slot : str
        Which prompt of each record it is.
    """

    artefact: str
    slot: str


@dataclass(frozen=True, slots=True)
class Training:
    """What one training of one run costs each of its records.

    Attributes
    ----------
    run, description : str
        Together they name the training.
    nano_nats : int or None
        Epsilon; None is infinite.
    femto_delta : int
        Delta in units of 1e-15.
    """

    run: str
    description: str
    nano_nats: int | None
    femto_delta: int


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


def keys_in(
    database: sqlite3.Connection,
    table: Literal["charges", "releases"],
    keys: Collection[str],
    place: Place,
) -> set[str]:
    """Return the record keys that a table has a row for."""
    rows = database.execute(
        f"SELECT record_key {ASKED.format(table)} AND artefact = ? AND slot = ?",
        (_list(keys), place.artefact, place.slot),
    )
    return {key for (key,) in rows}


def charged(
    database: sqlite3.Connection, keys: Collection[str]
) -> dict[str, int | None]:
    """Return the nano-nats charged to each record; None if one charge is unbounded."""
    sums: dict[str, int | None] = dict.fromkeys(keys, 0)
    for table in ("charges", "trainings"):
        rows = database.execute(
            "SELECT record_key, COALESCE(SUM(nano_nats), 0),"
            f" COUNT(*) - COUNT(nano_nats) {ASKED.format(table)} GROUP BY record_key",
            (_list(keys),),
        )
        for key, nano_nats, unbounded in rows:
            before = sums[key]
            sums[key] = None if unbounded or before is None else before + nano_nats
    return sums


def charged_deltas(
    database: sqlite3.Connection, keys: Collection[str]
) -> dict[str, int]:
    """Return the deltas charged to each record, in units of 1e-15; prompts have none.

    Parameters
    ----------
    database : sqlite3.Connection
        The ledger's.
    keys : collection of str
        Of the records asked for.
    """
    rows = database.execute(
        f"SELECT record_key, SUM(femto_delta) {ASKED.format('trainings')}"
        " GROUP BY record_key",
        (_list(keys),),
    )
    # A record without a training has no row.
    return {**dict.fromkeys(keys, 0), **dict(rows)}


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


def add_charges(
    database: sqlite3.Connection,
    keys: Iterable[str],
    place: Place,
    *,
    nano_nats: int | None,
    slots: int,
    is_seeded: bool,
) -> None:
    """Charge records that were not charged for this place before."""
    rest = (place.artefact, place.slot, nano_nats, slots, int(is_seeded))
    database.executemany(
        "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?)", [(key, *rest) for key in keys]
    )


def add_outputs(
    database: sqlite3.Connection, outputs: Mapping[str, list[int]], place: Place
) -> set[str]:
    """Store outputs; return the keys for which no other process was faster.

    The caller holds the write lock, so nobody can come in between.
    """
    fresh = outputs.keys() - keys_in(database, "releases", outputs.keys(), place)
    # Python writes a list of whole numbers as JSON does, and much faster.
    database.executemany(
        "INSERT INTO releases VALUES (?, ?, ?, ?)",
        [(key, place.artefact, place.slot, str(outputs[key])) for key in sorted(fresh)],
    )
    return fresh


def stored_outputs(
    database: sqlite3.Connection, keys: Collection[str], place: Place
) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Return the stored tokens of each record and the nano-nats charged for them.

    Raises
    ------
    LedgerError
        If an output or its charge is missing.
    """
    rows = database.execute(
        "SELECT record_key, ids, nano_nats FROM json_each(?) AS asked"
        " CROSS JOIN releases ON releases.record_key = asked.value"
        " CROSS JOIN charges USING (record_key, artefact, slot)"
        " WHERE artefact = ? AND slot = ?",
        (_list(keys), place.artefact, place.slot),
    ).fetchall()
    if len(rows) != len(keys):
        raise LedgerError("The ledger is damaged: an output has no charge.")
    every_ids = json.loads("[" + ",".join(ids for _, ids, _ in rows) + "]")
    return {
        key: (tuple(ids), nano_nats)
        for (key, _, nano_nats), ids in zip(rows, every_ids, strict=True)
    }


def trainings_of(
    database: sqlite3.Connection, keys: Collection[str], training: Training
) -> dict[str, tuple[int | None, int]]:
    """Return what records were charged for a training of that name, nats and delta."""
    rows = database.execute(
        f"SELECT record_key, nano_nats, femto_delta {ASKED.format('trainings')}"
        " AND run = ? AND description = ?",
        (_list(keys), training.run, training.description),
    )
    return {key: (nano_nats, femto_delta) for key, nano_nats, femto_delta in rows}


def add_trainings(
    database: sqlite3.Connection, keys: Iterable[str], training: Training
) -> None:
    """Charge records that were not charged for this training before."""
    database.executemany(
        "INSERT INTO trainings VALUES (?, ?, ?, ?, ?)",
        [
            (
                key,
                training.run,
                training.description,
                training.nano_nats,
                training.femto_delta,
            )
            for key in keys
        ],
    )


def ledger_totals(database: sqlite3.Connection) -> LedgerTotals:
    """Return the sums over all records; the database, of any version, is only read."""
    every = "SELECT record_key, nano_nats, seeded, 0 AS femto_delta FROM charges"
    trainings = 0
    if has_table(database, "trainings"):
        every += (
            " UNION ALL SELECT record_key, nano_nats, 0, femto_delta FROM trainings"
        )
        trainings = _count(database, "trainings")
    seeded, unbounded, total = database.execute(
        "SELECT COALESCE(SUM(seeded), 0), COUNT(*) - COUNT(nano_nats),"
        f" COALESCE(SUM(nano_nats), 0) FROM ({every})"
    ).fetchone()
    records, epsilon, delta = database.execute(
        "SELECT COUNT(*), COALESCE(MAX(spent), 0), COALESCE(MAX(delta), 0) FROM"
        " (SELECT SUM(nano_nats) AS spent, SUM(femto_delta) AS delta"
        f" FROM ({every}) GROUP BY record_key)"
    ).fetchone()
    exposed = 0
    if has_table(database, "exposures"):
        exposed = _count(database, "exposures", "DISTINCT record_key")
    return LedgerTotals(
        records=records,
        charges=_count(database, "charges"),
        releases=_count(database, "releases"),
        trainings=trainings,
        seeded=seeded,
        exposed=exposed,
        max_epsilon=math.inf if unbounded else nats(epsilon),
        max_delta=delta_of(delta),
        sum_epsilon=math.inf if unbounded else nats(total),
    )


def _count(database: sqlite3.Connection, table: str, what: str = "*") -> int:
    found = database.execute(f"SELECT COUNT({what}) FROM {table}").fetchone()
    return int(found[0])


def _list(keys: Collection[str]) -> str:
    return json.dumps(list(keys))
