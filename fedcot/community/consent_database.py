"""The SQLite file of a member's traces: one file, durable before a commit returns.

It keeps a rollback journal and no write-ahead log, so that a text that was deleted is
not kept in a second file until somebody tidies up.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from fedcot import sqlite_files
from fedcot.community.consent_tables import SCHEMA
from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy.secret import SECRET_BYTES, make_folder, sync_folder
from fedcot.sqlite_files import BUSY_SECONDS, create_private

DATABASE_NAME: Final = "traces.sqlite"
APPLICATION: Final = 0x66636F74  # "fcot": tells the file from other databases
VERSION: Final = 1
_WHAT: Final = "The traces"


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the database of a folder, making an empty one where there is none.

    Raises
    ------
    LedgerError
        If it cannot be opened, is damaged, is open to other users, or cannot promise
        durability.
    """
    path = folder / DATABASE_NAME
    if not path.exists():
        make_folder(folder)
    try:
        create_private(path)
        mode = path.stat().st_mode & 0o777
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"The traces {path} cannot be opened: {error}.") from error
    try:
        if mode & 0o077:
            raise LedgerError(f"mode must be 0600, found {mode:04o}; run chmod 600")
        require_sound(connection)
        sync_folder(folder)
    except (LedgerError, OSError, sqlite3.Error) as error:
        connection.close()
        raise LedgerError(f"The traces {path} cannot be used: {error}.") from error
    return connection


def file_of(folder: Path) -> tuple[int, int]:
    """Return what tells the traces of a folder from another file of that name.

    Raises
    ------
    LedgerError
        If they are gone.
    """
    try:
        found = (folder / DATABASE_NAME).stat()
    except OSError as error:
        raise LedgerError(f"The traces in {folder} are gone.") from error
    return found.st_dev, found.st_ino


def require_sound(connection: sqlite3.Connection) -> None:
    """Set what SQLite has to do, read back what it does, and check every page.

    Raises
    ------
    LedgerError
        If one of these is not as it must be.
    """
    # EXTRA is FULL, and syncs the folder when the journal goes: otherwise a power cut
    # could bring the journal back and with it the state before a commit.
    wanted = {"journal_mode": "delete", "synchronous": 3, "secure_delete": 1}
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA fullfsync=ON")
    connection.execute("PRAGMA secure_delete=ON")
    # No text in a temporary file.
    connection.execute("PRAGMA temp_store=MEMORY")
    for name, value in wanted.items():
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != value:
            raise LedgerError(
                f"SQLite must run with {name}={value}, found {found}; keep the traces "
                "on a local disk"
            )
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise LedgerError("the database is damaged; restore it from a copy")


def adopt(
    connection: sqlite3.Connection, community: str | None, folder: Path
) -> tuple[str, bytes]:
    """Return community and secret of a store; make it where there is none.

    Parameters
    ----------
    connection : sqlite3.Connection
        Of `open_database`.
    community : str or None
        The member's. None: that of the store, and nothing is made.
    folder : Path
        Where the store lies, for the error.

    Raises
    ------
    ConfigError
        If the store belongs to another community, or there is none to be had.
    LedgerError
        If the file is another program's or a later version's.
    """
    with transaction(connection) as database:
        if is_empty(database):
            if community is None:
                raise no_store(folder)
            # `executescript` would commit first.
            for statement in SCHEMA.split(";"):
                database.execute(statement)
            rows = {
                "community": community,
                "secret": secrets.token_bytes(SECRET_BYTES),
                "grants": 0,
            }
            database.executemany("INSERT INTO meta VALUES (?, ?)", list(rows.items()))
            database.execute(f"PRAGMA application_id = {APPLICATION}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        found, secret = meta_of(database, "community"), meta_of(database, "secret")
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise LedgerError("The traces have no secret; restore them from a copy.")
    if not isinstance(found, str):
        raise LedgerError("The traces have no community; restore them from a copy.")
    if community is not None and found != community:
        raise ConfigError(
            f"`community` must be the one that the traces were added for, {found!r}, "
            f"found {community!r}; pass `--community {found}`, or another folder."
        )
    return found, secret


def no_store(folder: Path) -> ConfigError:
    """Return the error of a folder in which nobody has made a store."""
    return ConfigError(
        f"`folder` must hold traces, found no {DATABASE_NAME} of a member in "
        f"{folder}; make it with `fedcot traces add`."
    )


def is_empty(database: sqlite3.Connection) -> bool:
    """Return whether nothing was ever written to it.

    Raises
    ------
    LedgerError
        If another program, or a later version of this one, wrote it.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return True
    if application != APPLICATION or version != VERSION:
        raise LedgerError(
            f"{DATABASE_NAME} must be a file of traces of layout {VERSION}, found "
            f"application {application:#x} and layout {version}; name another folder, "
            "or install the version of fedcot that wrote it."
        )
    return False


def meta_of(database: sqlite3.Connection, name: str) -> object:
    """Return one value about the whole store; None where there is none."""
    row = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def reading(
    connection: sqlite3.Connection,
) -> AbstractContextManager[sqlite3.Connection]:
    """Turn what SQLite reports into one error.

    Raises
    ------
    LedgerError
        If SQLite fails; nothing may be relied on then.
    """
    return sqlite_files.reading(connection, what=_WHAT)


def transaction(
    connection: sqlite3.Connection,
) -> AbstractContextManager[sqlite3.Connection]:
    """Hold the write lock; commit durably at the end, roll back on any error.

    Raises
    ------
    LedgerError
        If SQLite fails; nothing of the transaction may be relied on then.
    """
    return sqlite_files.transaction(connection, what=_WHAT)


def count_call(database: sqlite3.Connection) -> None:
    """Write something, so that the commit syncs the folder.

    Another process may have died after it removed its journal and before that was
    durable. What it had written is seen here and may be about to be relied on.
    """
    database.execute("UPDATE meta SET value = value + 1 WHERE name = 'grants'")
