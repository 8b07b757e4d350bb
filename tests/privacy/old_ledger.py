"""A ledger as the first version of fedcot wrote it: one prompt of each record."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.secret import SECRET_NAME, fingerprint

OLD_SCHEMA = """
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
SECRET = bytes(range(32))


def make_old_ledger(
    folder: Path,
    artefact: str,
    charges: Mapping[str, int | None],
    outputs: Mapping[str, tuple[int, ...]],
) -> None:
    """Write charges in nano-nats and outputs, by record key, for prompts of 6 slots."""
    folder.mkdir()
    (folder / SECRET_NAME).write_bytes(SECRET)
    (folder / SECRET_NAME).chmod(0o600)
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database, database:
        database.executescript(OLD_SCHEMA)
        database.execute(
            "INSERT INTO meta VALUES ('secret', ?), ('calls', 3)",
            (fingerprint(SECRET),),
        )
        database.executemany(
            "INSERT INTO charges VALUES (?, ?, ?, 6, 0)",
            [(key, artefact, cost) for key, cost in charges.items()],
        )
        database.executemany(
            "INSERT INTO releases VALUES (?, ?, ?)",
            [(key, artefact, json.dumps(ids)) for key, ids in outputs.items()],
        )
        database.execute("INSERT INTO exposures VALUES ('an exposed key', 'a run')")
    (folder / DATABASE_NAME).chmod(0o600)
