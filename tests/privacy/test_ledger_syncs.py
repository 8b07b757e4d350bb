"""Every call writes before it returns, so that its commit syncs the log.

A process that was killed may have left rows in the log that are not on the disk yet.
Whoever finds them there and sends them on has to sync them first.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fedcot.errors import LedgerError
from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.secret import SECRET_NAME
from tests.privacy.worker import CHANNEL, prompt


def release(ledger: Ledger) -> None:
    (key,) = ledger.record_keys(["question"])
    ledger.release([(key, prompt(0))], CHANNEL, source=SystemRandomSource())


def expose(ledger: Ledger) -> None:
    ledger.expose(ledger.record_keys(["question"]), run="run")


def train(ledger: Ledger) -> None:
    keys = ledger.record_keys(["question"])
    ledger.charge_training(keys, run="run", epsilon=0.1, description="fedcot")


@pytest.mark.parametrize("call", [release, expose, train])
def test_a_call_that_finds_everything_there_still_writes(
    tmp_path: Path, call: Callable[[Ledger], None]
) -> None:
    with (
        Ledger(tmp_path, record_epsilon=1.0) as ledger,
        closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as other,
    ):

        def version() -> int:
            # Changes with every commit of another connection that wrote something.
            (found,) = other.execute("PRAGMA data_version").fetchone()
            return int(found)

        call(ledger)
        before, totals = version(), ledger.totals()
        assert version() == before  # reading alone changes nothing
        call(ledger)
        assert version() != before
        assert ledger.totals() == totals


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o601])
def test_a_secret_that_anybody_else_may_use_stops_the_node(
    tmp_path: Path, mode: int
) -> None:
    Ledger(tmp_path, record_epsilon=1.0).close()
    (tmp_path / SECRET_NAME).chmod(mode)
    with pytest.raises(LedgerError, match=f"mode 0600, found {mode:04o}"):
        Ledger(tmp_path, record_epsilon=1.0)
