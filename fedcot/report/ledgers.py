"""What the ledgers of a run directory or of a node have charged, read without writing.

A ledger that is in use is opened read-only, so looking at it cannot block or change it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedcot.errors import ConfigError
from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.tables import ledger_totals


@dataclass(frozen=True, slots=True)
class LedgerUse:
    """Sums over one node's ledger.

    Attributes
    ----------
    path : Path
        The SQLite file.
    records, charges, releases, seeded : int
        Records charged, charges made, outputs stored, charges drawn from a seed.
    max_epsilon : float
        Nats charged to the record that was charged most, for prompts and for private
        training, over all rounds and runs.
    trainings : int
        Private trainings charged.
    max_delta : float
        Sum of the deltas at which the trainings of one record are stated, the largest.
    exposed : int
        Records that also left the node without protection: no epsilon bounds those.
    """

    path: Path
    records: int
    charges: int
    releases: int
    seeded: int
    max_epsilon: float
    trainings: int
    max_delta: float
    exposed: int


def read_ledgers(path: Path) -> list[LedgerUse]:
    """Read a node's ledger, or all node ledgers below a folder.

    Raises
    ------
    ConfigError
        There is none.
    """
    files = [path] if path.is_file() else sorted(path.rglob(DATABASE_NAME))
    found = [use for file in files if (use := _read(file)) is not None]
    if not found:
        raise ConfigError(
            f"`RUN_DIR_OR_LEDGER` must hold a node's {DATABASE_NAME}, found none in "
            f"`{path}`; pass a run directory or a node's state folder."
        )
    return found


def _read(path: Path) -> LedgerUse | None:
    """Return the sums of a node's ledger; None for any other SQLite file."""
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if not {"charges", "releases"} <= tables:
                return None
            totals = ledger_totals(db)
    except sqlite3.Error as error:
        raise ConfigError(f"`{path}` must be a ledger, found {error}.") from error
    return LedgerUse(
        path=path,
        records=totals.records,
        charges=totals.charges,
        releases=totals.releases,
        seeded=totals.seeded,
        max_epsilon=totals.max_epsilon,
        trainings=totals.trainings,
        max_delta=totals.max_delta,
        exposed=totals.exposed,
    )
