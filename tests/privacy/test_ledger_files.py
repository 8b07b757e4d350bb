import math
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy import adoption, database, secret
from fedcot.privacy.database import DATABASE_NAME, LOG_NAME, require_durable
from fedcot.privacy.ledger import Ledger, Release
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.secret import SECRET_NAME, UNFINISHED_NAME
from tests.privacy.worker import CHANNEL, prompt

ROOT = Path(__file__).parents[2]


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
    path = tmp_path / SECRET_NAME
    content = path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="mode 0600"):
        Ledger(tmp_path, record_epsilon=1.0)
    path.chmod(0o600)
    path.write_bytes(content[:-1])
    with pytest.raises(LedgerError, match="32 bytes"):
        Ledger(tmp_path, record_epsilon=1.0)
    path.write_bytes(content[::-1])
    with pytest.raises(LedgerError, match="not the one"):
        Ledger(tmp_path, record_epsilon=1.0)
    path.unlink()
    # Neither does the leftover of a first start that crashed stand in for it.
    (tmp_path / UNFINISHED_NAME).write_bytes(content[::-1])
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger(tmp_path, record_epsilon=1.0)
    assert not path.exists()


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
    original = getattr(adoption, moment)

    def dies(*arguments: object) -> None:
        original(*arguments)
        raise Crash

    monkeypatch.setattr(adoption, moment, dies)
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

    monkeypatch.setattr(adoption, "finish_secret", dies)
    with pytest.raises(Crash):
        Ledger(tmp_path, record_epsilon=1.0)
    monkeypatch.undo()
    content = (tmp_path / UNFINISHED_NAME).read_bytes()
    Ledger(tmp_path, record_epsilon=1.0).close()
    assert (tmp_path / SECRET_NAME).read_bytes() == content


def opened_elsewhere(folder: Path) -> int:
    """Open and close the ledger in another process; return the charges found there."""
    code = (
        "import sys; from pathlib import Path; from fedcot.privacy.ledger import Ledger"
        "\nwith Ledger(Path(sys.argv[1]), record_epsilon=1.0) as ledger:"
        "\n    sys.stdout.write(str(ledger.totals().charges))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    return int(done.stdout)


def charge(ledger: Ledger, content: str) -> list[Release]:
    (key,) = ledger.record_keys([content])
    return ledger.release([(key, prompt(0))], CHANNEL, source=SystemRandomSource())


def test_a_second_ledger_in_one_process_does_not_undo_the_locks_of_the_first(
    tmp_path: Path,
) -> None:
    """Without its locks another process would remove the log that is written to."""
    with Ledger(tmp_path, record_epsilon=1.0) as first:
        charge(first, "a")
        with Ledger(tmp_path, record_epsilon=1.0):
            assert opened_elsewhere(tmp_path) == 1
            charge(first, "b")
            assert opened_elsewhere(tmp_path) == 2
        charge(first, "c")
        assert opened_elsewhere(tmp_path) == 3


@pytest.mark.parametrize("lost", [DATABASE_NAME, LOG_NAME])
@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_sent_once_the_files_have_lost_their_names(
    tmp_path: Path, lost: str, replaced: bool
) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        charge(ledger, "a")
        (tmp_path / lost).rename(tmp_path / "elsewhere")
        if replaced:
            (tmp_path / lost).write_bytes((tmp_path / "elsewhere").read_bytes())
        found = "was replaced" if replaced else "is gone|cannot be used"
        with pytest.raises(LedgerError, match=found):
            charge(ledger, "b")
        with pytest.raises(LedgerError, match=found):
            charge(ledger, "a")
        with pytest.raises(LedgerError, match=found):
            ledger.expose(["a"], run="run")
        with pytest.raises(LedgerError, match=found):
            ledger.charge_training(["a"], run="run", epsilon=0.1, description="dp-sgd")


def test_a_full_disk_sends_nothing_and_is_made_good(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        charge(ledger, "a")
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count={pages}")
        keys = ledger.record_keys([f"record {index}" for index in range(200)])
        batch = [(key, prompt(0)) for key in keys]
        with pytest.raises(LedgerError, match="full"):
            ledger.release(batch, CHANNEL, source=SystemRandomSource())
        assert ledger.totals().charges == 1
        ledger._connection.execute(f"PRAGMA max_page_count={1 << 20}")
        assert len(ledger.release(batch, CHANNEL, source=SystemRandomSource())) == 200


def test_the_names_of_new_folders_and_of_the_log_are_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not take the folder away, or the log with the charges."""
    synced: list[tuple[Path, bool]] = []

    def note(folder: Path) -> None:
        synced.append((folder, (folder / LOG_NAME).exists()))

    monkeypatch.setattr(secret, "sync_folder", note)
    monkeypatch.setattr(database, "sync_folder", note)
    node = tmp_path / "state" / "node"
    Ledger(node, record_epsilon=1.0).close()
    assert {tmp_path, tmp_path / "state"} <= {folder for folder, _ in synced}
    assert (node, True) in synced
