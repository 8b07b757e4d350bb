"""The ledger's SQLite file: durable before a commit returns, shared by processes."""

import sqlite3
import time
from contextlib import AbstractContextManager
from pathlib import Path

from fedcot import sqlite_files
from fedcot.errors import LedgerError
from fedcot.privacy.secret import make_folder, sync_folder
from fedcot.sqlite_files import BUSY_SECONDS, create_private

DATABASE_NAME = "ledger.sqlite"
LOG_NAME = f"{DATABASE_NAME}-wal"
# 16 MB: a page that many charges touch is copied to the database once for all of them.
CHECKPOINT_PAGES = 4000


def open_database(folder: Path) -> sqlite3.Connection:
    """Open a folder's ledger, creating it where there is none.

    Raises
    ------
    LedgerError
        If it cannot be opened or cannot promise durability.
    """
    path = folder / DATABASE_NAME
    if not path.exists():
        make_folder(folder)
    try:
        create_private(path)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"The ledger {path} cannot be opened: {error}.") from error
    try:
        _set_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        require_durable(connection)
        # The log is made by the first read, here or in a process that died before the
        # names were durable. It stays while this connection is open.
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        sync_folder(folder)
    except (LedgerError, OSError, sqlite3.Error) as error:
        connection.close()
        raise LedgerError(f"The ledger {path} cannot be used: {error}.") from error
    return connection


def files_of(folder: Path) -> list[tuple[int, int]]:
    """Return what tells a ledger's database and log from other files of those names.

    Raises
    ------
    LedgerError
        If one of them is gone; what is written into an open file without a name is
        lost.
    """
    try:
        found = [(folder / name).stat() for name in (DATABASE_NAME, LOG_NAME)]
    except OSError as error:
        raise LedgerError(f"The ledger in {folder} is gone: {error}.") from error
    return [(file.st_dev, file.st_ino) for file in found]


def require_durable(connection: sqlite3.Connection) -> None:
    """Read back what SQLite really does.

    Raises
    ------
    LedgerError
        Unless it keeps a write-ahead log and syncs it at every commit.
    """
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if journal != "wal" or synchronous != 2:
        raise LedgerError(
            "SQLite must run with journal_mode=wal and synchronous=2, found "
            f"{journal} and {synchronous}; keep the ledger on a local disk."
        )


def transaction(
    connection: sqlite3.Connection,
) -> AbstractContextManager[sqlite3.Connection]:
    """Hold the write lock; commit durably at the end, roll back on any error.

    Raises
    ------
    LedgerError
        If SQLite fails; nothing of the transaction may be relied on then.
    """
    return sqlite_files.transaction(connection, what="The ledger")


def _set_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, waiting for other processes that do the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # SQLite skips its own waiting for this one statement.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
