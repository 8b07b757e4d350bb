"""The one secret of a ledger, made by whichever process came first."""

import sqlite3
from pathlib import Path

from fedcot.errors import LedgerError
from fedcot.privacy.database import DATABASE_NAME, transaction
from fedcot.privacy.layout import create_tables
from fedcot.privacy.secret import (
    SECRET_NAME,
    fingerprint,
    finish_secret,
    read_secret,
    write_secret,
)
from fedcot.privacy.tables import add_secret_fingerprint, secret_fingerprint


def adopt_secret(connection: sqlite3.Connection, folder: Path) -> bytes:
    """Return the node's secret; make it and the tables where there are none.

    Raises
    ------
    LedgerError
        If the secret was replaced, or the database is gone while the secret is there.
    """
    # The write lock keeps two processes from making two secrets.
    with transaction(connection) as database:
        create_tables(database)
        known = secret_fingerprint(database)
        if known is None:
            known = _make_secret(database, folder)
    # The fingerprint is on the disk; only now may the secret get its name.
    with transaction(connection):
        finish_secret(folder, known)
        secret = read_secret(folder)
    if known != fingerprint(secret):
        # New keys would let every record be released afresh.
        raise LedgerError(
            f"The secret in {folder} is not the one that the ledger was made with; "
            "restore it."
        )
    return secret


def _make_secret(database: sqlite3.Connection, folder: Path) -> str:
    """Make the secret of a new ledger and return its fingerprint."""
    if (folder / SECRET_NAME).exists():
        # Drawing again under the same keys would average the noise away.
        raise LedgerError(
            f"{folder} holds a node's secret and no ledger made with it: what was "
            f"released is not known any more; restore {DATABASE_NAME} from a copy."
        )
    made = fingerprint(write_secret(folder))
    add_secret_fingerprint(database, made)
    return made
