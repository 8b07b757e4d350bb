"""What the SQLite files of this project share: they are private, and commits whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fedcot.errors import LedgerError

BUSY_SECONDS: Final = 60.0  # that a process waits for another one


def create_private(path: Path) -> None:
    """Make an empty file for its owner only, if there is none.

    Raises
    ------
    OSError
        It cannot be made.
    """
    # SQLite gives the files beside it the same mode. A file that is there must not be
    # opened here: closing it would drop the locks that this process has on it, and
    # another process would then remove the log that this one goes on writing to.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def write_lock(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end, roll back on any error.

    Raises
    ------
    sqlite3.Error
        SQLite fails; nothing of the transaction may be relied on then.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def reading(
    connection: sqlite3.Connection, *, what: str
) -> Iterator[sqlite3.Connection]:
    """Turn what SQLite reports into one error.

    Parameters
    ----------
    connection : sqlite3.Connection
        Without transactions of Python's own (`isolation_level` is None).
    what : str
        What the file holds, as the beginning of a sentence.

    Raises
    ------
    LedgerError
        SQLite fails; nothing may be relied on then.
    """
    try:
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"{what} cannot be used: {error}.") from error


@contextmanager
def transaction(
    connection: sqlite3.Connection, *, what: str
) -> Iterator[sqlite3.Connection]:
    """Hold the write lock as `write_lock` does, with the one error of `reading`.

    Raises
    ------
    LedgerError
        SQLite fails; nothing of the transaction may be relied on then.
    """
    with reading(connection, what=what), write_lock(connection):
        yield connection
