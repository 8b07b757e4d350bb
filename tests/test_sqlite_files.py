"""What the SQLite files of the project share."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fedcot.errors import LedgerError
from fedcot.sqlite_files import create_private, reading, transaction, write_lock


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute("CREATE TABLE rows (value UNIQUE)")
        yield opened


def rows(connection: sqlite3.Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM rows")]


def insert(
    connection: sqlite3.Connection, *values: int, then: Exception | None = None
) -> None:
    with transaction(connection, what="The rows") as database:
        assert database.in_transaction
        for value in values:
            database.execute("INSERT INTO rows VALUES (?)", (value,))
        if then is not None:
            raise then


def test_a_file_is_made_for_its_owner_and_one_that_is_there_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.sqlite"
    old = os.umask(0)
    try:
        create_private(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"content")
    create_private(path)
    assert path.read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        create_private(tmp_path / "none" / "rows.sqlite")


def test_a_transaction_is_whole_or_nothing(connection: sqlite3.Connection) -> None:
    insert(connection, 1)
    assert not connection.in_transaction
    with pytest.raises(KeyError):
        insert(connection, 2, then=KeyError())
    assert not connection.in_transaction
    assert rows(connection) == [1]


def test_what_sqlite_reports_is_one_error_that_names_what_failed(
    connection: sqlite3.Connection,
) -> None:
    insert(connection, 1)
    with pytest.raises(LedgerError, match=r"^The rows cannot be used: UNIQUE"):
        insert(connection, 2, 1)
    assert rows(connection) == [1]
    with (
        pytest.raises(LedgerError, match=r"^The rows cannot be used: no such table"),
        reading(connection, what="The rows"),
    ):
        connection.execute("SELECT * FROM none")
    # Others make an error of their own of it.
    with pytest.raises(sqlite3.OperationalError), write_lock(connection):
        connection.execute("SELECT * FROM none")
    assert not connection.in_transaction
