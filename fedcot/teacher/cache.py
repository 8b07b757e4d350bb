"""What was answered is kept in one file, so that no prompt is paid for twice.

A row is found by a hash over the whole prompt and everything that decides what is
written for it. The file holds completions, never prompts.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedcot.errors import ConfigError, TeacherError
from fedcot.sqlite_files import BUSY_SECONDS, create_private, write_lock
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.teacher import Described, Written

FORMAT: Final = 1
APPLICATION_ID: Final = 0x66634143  # "fcAC"; tells the file from other SQLite files
SMALLEST_DATABASE: Final = 512  # bytes

_SCHEMA: Final = """
CREATE TABLE answers (
    key BLOB PRIMARY KEY,
    text BLOB NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    is_cut INTEGER NOT NULL,
    served_by TEXT NOT NULL,
    answered_at REAL NOT NULL
) STRICT, WITHOUT ROWID
"""


def prompt_hash(prompt: TeacherPrompt) -> str:
    """Return the SHA-256, in hex, over a whole prompt."""
    return hashlib.sha256(_canonical(prompt.messages)).hexdigest()


def answer_key(prompt: TeacherPrompt, stop: Sequence[str], described: Described) -> str:
    """Return the SHA-256, in hex, over all that decides what is written for a prompt.

    Parameters
    ----------
    prompt : TeacherPrompt
        What is asked.
    stop : sequence of str
        Where a completion ends.
    described : mapping
        What `Writer.describe` returns.
    """
    content = {
        "writer": dict(described),
        "prompt": prompt.messages,
        "stop": list(stop),
    }
    return hashlib.sha256(_canonical(content)).hexdigest()


class AnswerCache:
    """Completions by their key, in an SQLite file that several processes may share.

    A row is synced before `put` returns: an answer costs far more than a sync. There is
    no write-ahead log, since it does not work on the network file systems that runs
    often lie on, and so the one file is all there is to copy.

    Parameters
    ----------
    path : Path
        Made for its owner only, with its folder, where there is none.

    Raises
    ------
    ConfigError
        The file cannot be opened, is damaged, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            create_private(path)
            # SQLite takes a few bytes of anything for an empty database of its own.
            if 0 < path.stat().st_size < SMALLEST_DATABASE:
                raise sqlite3.DatabaseError("file is not a database")
            self._connection = sqlite3.connect(
                path,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise self._refused(f"`{path}` ({_reason(error)})") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self._refused(f"`{path}` ({_reason(error)})") from error
        except ConfigError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the cache itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def __len__(self) -> int:
        """Return how many completions are kept."""
        with self._lock:
            rows = self._read("SELECT COUNT(*) FROM answers", ())
        return int(rows[0][0])

    def close(self) -> None:
        """Close the file; what was put stays."""
        with self._lock:
            self._connection.close()

    def get(self, key: str) -> Written | None:
        """Return the completion of a key, or None.

        Raises
        ------
        TeacherError
            The file cannot be read.
        """
        with self._lock:
            return self._find(key)

    def put(self, key: str, written: Written) -> Written:
        """Keep a completion and return the one that is kept: the first of its key.

        Raises
        ------
        TeacherError
            The file cannot be written.
        """
        row = (
            bytes.fromhex(key),
            # A completion may hold what is no valid Unicode; it comes back as it was.
            written.text.encode("utf-8", "surrogatepass"),
            written.prompt_tokens,
            written.completion_tokens,
            int(written.is_cut),
            written.served_by,
            time.time(),
        )
        places = ", ".join("?" * len(row))
        with self._lock:
            try:
                self._connection.execute(
                    f"INSERT OR IGNORE INTO answers VALUES ({places})", row
                )
            except sqlite3.Error as error:
                raise self._failed(error) from error
            return self._find(key) or written

    def _find(self, key: str) -> Written | None:
        rows = self._read(
            "SELECT text, prompt_tokens, completion_tokens, is_cut, served_by"
            " FROM answers WHERE key = ?",
            (bytes.fromhex(key),),
        )
        if not rows:
            return None
        text, prompt_tokens, completion_tokens, is_cut, served_by = rows[0]
        try:
            decoded = text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self._failed(error) from None
        return Written(
            decoded,
            prompt_tokens,
            completion_tokens,
            bool(is_cut),
            served_by,
        )

    def _read(self, query: str, values: tuple[bytes, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _prepare(self) -> None:
        """Make the table, or check that the file is what it should be."""
        run = self._connection.execute
        run("PRAGMA synchronous=FULL")
        # The write lock is held so that two processes do not both make the table.
        with write_lock(self._connection):
            tables = run("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
            if tables == 0:
                run(_SCHEMA)
                run(f"PRAGMA application_id={APPLICATION_ID}")
                run(f"PRAGMA user_version={FORMAT}")
            self._check_kind()
        if run("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise self._refused(f"damage in `{self.path}`")

    def _check_kind(self) -> None:
        """Refuse a file of another kind or version."""
        run = self._connection.execute
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise self._refused(f"an SQLite file of another kind: `{self.path}`")
        version = run("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise self._refused(f"format {version} in `{self.path}`")

    def _refused(self, found: str) -> ConfigError:
        return ConfigError(
            f"`teacher-cache` must name a file of answers in format {FORMAT}, or one "
            f"that can be made, found {found}; name another file, or move "
            "this one away."
        )

    def _failed(self, error: sqlite3.Error | UnicodeDecodeError) -> TeacherError:
        return TeacherError(
            f"The teacher's cache `{self.path}` cannot be used any more "
            f"({_reason(error)}); check the disk, or name another file by "
            "`teacher-cache`."
        )


def _canonical(content: object) -> bytes:
    """Return the one JSON text of some content; any text is ASCII in it."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def _reason(error: Exception) -> str:
    """Say what went wrong on one line, without what a file holds."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, sqlite3.Error):
        return " ".join(str(error).split())
    return "damage"
