"""The file of an earlier version opens, keeps every charge and every output."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fedcot.errors import LedgerError
from fedcot.privacy import adoption, layout
from fedcot.privacy.database import DATABASE_NAME, open_database
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.secret import keys_of
from fedcot.privacy.tables import ledger_totals
from tests.privacy.old_ledger import SECRET, make_old_ledger
from tests.privacy.worker import (
    CHANNEL,
    CONTENTS,
    MortalConnection,
    nano_cost,
    prompt,
)

SYSTEM = SystemRandomSource()
COST = nano_cost(CHANNEL)
KEYS = keys_of(SECRET, CONTENTS[:4])
OUTPUT = (6, 5, 4, 3, 2, 1)


def old(folder: Path) -> None:
    """One record released, one charged only, one of unbounded epsilon, one new."""
    charges = {KEYS[0]: COST, KEYS[1]: COST, KEYS[2]: None}
    make_old_ledger(folder, CHANNEL.hash, charges, {KEYS[0]: OUTPUT})


def dump(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        return list(database.iterdump())


def version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def test_charges_and_outputs_are_kept_and_serve(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    old(folder)
    for _ in range(2):
        with Ledger(folder, record_epsilon=1.0) as ledger:
            assert ledger.record_keys(CONTENTS[:4]) == KEYS
            batch = [(key, prompt(i)) for i, key in enumerate(KEYS)]
            made = ledger.release(batch, CHANNEL, source=SYSTEM)
            # The third is over every limit for ever.
            assert [release.record_key for release in made] == [*KEYS[:2], KEYS[3]]
            assert made[0].ids == OUTPUT
            assert not made[0].fresh
            totals = ledger.totals()
            assert (totals.charges, totals.releases, totals.exposed) == (4, 3, 1)
            assert ledger.spent("an exposed key") == float("inf")
            assert ledger.spent(KEYS[1]) == made[1].prompt_epsilon
    assert version(folder) == layout.VERSION
    assert not any("charges_0" in line for line in dump(folder))


def test_a_reader_finds_the_charges_of_a_file_that_nobody_took_over(
    tmp_path: Path,
) -> None:
    old(tmp_path / "node")
    before = dump(tmp_path / "node")
    with closing(sqlite3.connect(tmp_path / "node" / DATABASE_NAME)) as database:
        totals = ledger_totals(database)
        database.execute("DROP TABLE exposures")
        assert ledger_totals(database).exposed == 0
        database.rollback()
    assert (totals.records, totals.charges, totals.releases) == (3, 3, 1)
    assert (totals.trainings, totals.exposed) == (0, 1)
    assert before[:3] == dump(tmp_path / "node")[:3]


class Crash(Exception):
    """The process dies."""


def test_a_death_at_any_statement_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Crash

    reached = set()
    for moment in range(60):
        folder = tmp_path / str(moment)
        old(folder)
        before = dump(folder)
        with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
            database.isolation_level = None
            dying = MortalConnection(database, moment, die)
            with suppress(Crash):
                adoption.adopt_secret(dying, folder)  # type: ignore[arg-type]
            if database.in_transaction:
                database.execute("ROLLBACK")
        reached.add(version(folder))
        if version(folder) == 0:
            assert dump(folder) == before
        with Ledger(folder, record_epsilon=1.0) as ledger:
            made = ledger.release([(KEYS[0], prompt(0))], CHANNEL, source=SYSTEM)
            assert made[0].ids == OUTPUT
            assert (ledger.totals().charges, ledger.totals().releases) == (3, 1)
    assert reached == {0, layout.VERSION}


def test_two_processes_take_over_one_file(tmp_path: Path) -> None:
    """The second finds the first one's tables, however early it opened the file."""
    old(tmp_path / "node")
    with (
        closing(open_database(tmp_path / "node")) as first,
        closing(open_database(tmp_path / "node")) as second,
    ):
        for connection in (first, second):
            assert adoption.adopt_secret(connection, tmp_path / "node") == SECRET
            assert ledger_totals(connection).charges == 3
        assert ledger_totals(first) == ledger_totals(second)


def test_the_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    Ledger(tmp_path, record_epsilon=1.0).close()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as database:
        database.execute("PRAGMA user_version = 9")
    before = dump(tmp_path)
    with pytest.raises(LedgerError, match="layout 9"):
        Ledger(tmp_path, record_epsilon=1.0)
    assert dump(tmp_path) == before
