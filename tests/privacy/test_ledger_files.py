import math
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy import ledger as ledger_module
from fedcot.privacy.database import DATABASE_NAME, require_durable
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.secret import SECRET_NAME, UNFINISHED_NAME


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    with Ledger(tmp_path / "node", record_epsilon=1.0):
        modes = {
            file.name: stat.S_IMODE(file.stat().st_mode)
            for file in (tmp_path / "node").iterdir()
        }
    assert modes[SECRET_NAME] == modes[DATABASE_NAME] == 0o600
    assert set(modes.values()) == {0o600}


def test_durability_is_read_back(tmp_path: Path) -> None:
    in_memory = sqlite3.connect(":memory:")
    with pytest.raises(LedgerError, match="found memory"):
        require_durable(in_memory)
    in_memory.close()
    loose = sqlite3.connect(tmp_path / "loose.sqlite")
    loose.execute("PRAGMA journal_mode=WAL")
    loose.execute("PRAGMA synchronous=NORMAL")
    with pytest.raises(LedgerError, match="found wal and 1"):
        require_durable(loose)
    loose.close()


def test_a_lost_replaced_or_open_secret_stops_the_node(tmp_path: Path) -> None:
    Ledger(tmp_path, record_epsilon=1.0).close()
    secret = tmp_path / SECRET_NAME
    content = secret.read_bytes()
    secret.chmod(0o644)
    with pytest.raises(LedgerError, match="mode 0600"):
        Ledger(tmp_path, record_epsilon=1.0)
    secret.chmod(0o600)
    secret.write_bytes(content[:-1])
    with pytest.raises(LedgerError, match="32 bytes"):
        Ledger(tmp_path, record_epsilon=1.0)
    secret.write_bytes(content[::-1])
    with pytest.raises(LedgerError, match="not the one"):
        Ledger(tmp_path, record_epsilon=1.0)
    secret.unlink()
    # Neither does the leftover of a first start that crashed stand in for it.
    (tmp_path / UNFINISHED_NAME).write_bytes(content[::-1])
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger(tmp_path, record_epsilon=1.0)
    assert not secret.exists()


def test_a_ledger_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).mkdir()
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path, record_epsilon=1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be made"):
        Ledger(tmp_path / "file", record_epsilon=1.0)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DATABASE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "damaged", record_epsilon=1.0)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_bad_limit_is_refused_before_anything_is_written(
    tmp_path: Path, limit: float
) -> None:
    with pytest.raises(ConfigError, match="`record-epsilon` must be > 0"):
        Ledger(tmp_path / "node", record_epsilon=limit)
    assert not (tmp_path / "node").exists()


def test_a_forked_process_may_not_use_its_parents_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        child = os.fork()
        if child == 0:
            try:
                ledger.totals()
            except LedgerError:
                os._exit(17)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 17


def test_a_secret_without_its_database_stops_the_node(tmp_path: Path) -> None:
    """Drawing again under the same keys would let the noise be averaged away."""
    Ledger(tmp_path, record_epsilon=1.0).close()
    (tmp_path / DATABASE_NAME).unlink()
    for _ in range(2):
        with pytest.raises(LedgerError, match=f"restore {DATABASE_NAME}"):
            Ledger(tmp_path, record_epsilon=1.0)


class Crash(Exception):
    """The process dies."""


@pytest.mark.parametrize("moment", ["write_secret", "add_secret_fingerprint"])
def test_a_crash_while_the_secret_is_made_leaves_a_node_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before the fingerprint is committed nothing was keyed: a new secret is fine."""
    original = getattr(ledger_module, moment)

    def dies(*arguments: object) -> None:
        original(*arguments)
        raise Crash

    monkeypatch.setattr(ledger_module, moment, dies)
    with pytest.raises(Crash):
        Ledger(tmp_path, record_epsilon=1.0)
    monkeypatch.undo()
    assert not (tmp_path / SECRET_NAME).exists()
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(["a"])
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert ledger.record_keys(["a"]) == keys
    assert not (tmp_path / UNFINISHED_NAME).exists()


def test_a_crash_before_the_secret_has_its_name_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint is durable, so that very secret must be taken."""

    def dies(folder: Path, known: str) -> None:
        raise Crash

    monkeypatch.setattr(ledger_module, "finish_secret", dies)
    with pytest.raises(Crash):
        Ledger(tmp_path, record_epsilon=1.0)
    monkeypatch.undo()
    content = (tmp_path / UNFINISHED_NAME).read_bytes()
    Ledger(tmp_path, record_epsilon=1.0).close()
    assert (tmp_path / SECRET_NAME).read_bytes() == content
