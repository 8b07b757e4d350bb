"""The ledger's tables, and how the file of an earlier version gets them."""

import sqlite3
from collections.abc import Iterator

from fedcot.errors import LedgerError

VERSION = 1
PROMPT_SLOT = "prompt"

# nano_nats is NULL where no finite epsilon holds. `slot` says which prompt of a record
# it is, `slots` how many tokens the prompt has. Without row ids a row is written once
# and not once more in an index.
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (
    record_key TEXT NOT NULL,
    artefact TEXT NOT NULL,
    slot TEXT NOT NULL,
    nano_nats INTEGER CHECK (nano_nats >= 0),
    slots INTEGER NOT NULL,
    seeded INTEGER NOT NULL,
    PRIMARY KEY (record_key, artefact, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases (
    record_key TEXT NOT NULL,
    artefact TEXT NOT NULL,
    slot TEXT NOT NULL,
    ids TEXT NOT NULL,
    PRIMARY KEY (record_key, artefact, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trainings (
    record_key TEXT NOT NULL,
    run TEXT NOT NULL,
    description TEXT NOT NULL,
    nano_nats INTEGER CHECK (nano_nats >= 0),
    femto_delta INTEGER NOT NULL CHECK (femto_delta >= 0),
    PRIMARY KEY (record_key, run, description)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exposures (
    record_key TEXT NOT NULL,
    run TEXT NOT NULL,
    PRIMARY KEY (record_key, run))
"""

# Version 0 had one prompt of each record and no count of versions.
FROM_VERSION_0 = f"""
INSERT INTO charges
    SELECT record_key, artefact, '{PROMPT_SLOT}', nano_nats, slots, seeded
    FROM charges_0;
INSERT INTO releases
    SELECT record_key, artefact, '{PROMPT_SLOT}', ids FROM releases_0;
DROP TABLE charges_0;
DROP TABLE releases_0
"""


def create_tables(database: sqlite3.Connection) -> None:
    """Give a ledger this version's tables, inside the caller's write transaction.

    The charges and outputs of an earlier version are kept, or nothing changes at all.

    Raises
    ------
    LedgerError
        If a later version of fedcot made the file.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LedgerError(
            f"The ledger has layout {version} and this fedcot knows layouts up to "
            f"{VERSION}; install the version of fedcot that wrote it."
        )
    if version == VERSION:
        return
    is_older = has_table(database, "charges")
    if is_older:
        database.execute("ALTER TABLE charges RENAME TO charges_0")
        database.execute("ALTER TABLE releases RENAME TO releases_0")
    for statement in _statements(SCHEMA):
        database.execute(statement)
    if is_older:
        for statement in _statements(FROM_VERSION_0):
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")


def has_table(database: sqlite3.Connection, name: str) -> bool:
    """Return whether there is a table; a reader may open an older ledger."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(query, (name,)).fetchone() is not None


def _statements(script: str) -> Iterator[str]:
    # `executescript` would commit the caller's transaction first.
    yield from script.split(";")
