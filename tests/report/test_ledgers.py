"""Looking at a ledger changes nothing and finds what was charged."""

import pytest

from fedcot.errors import ConfigError
from fedcot.privacy.channels import build_channel
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.report.ledgers import read_ledgers


def charge(folder, questions):
    """Release some questions from a node's ledger and return its own totals."""
    vocabulary = world_vocabulary()
    channel = build_channel("rank", vocabulary, 2.0)
    with Ledger(folder, record_epsilon=1000.0) as ledger:
        keys = ledger.record_keys(questions)
        ids = [vocabulary.encode(question) for question in questions]
        ledger.release(
            list(zip(keys, ids, strict=True)), channel, source=SystemRandomSource()
        )
        return ledger.totals()


def test_what_is_read_is_what_the_ledger_says_and_the_files_stay(tmp_path):
    totals = charge(tmp_path / "node", ["5 books", "7 books", "7 books"])
    before = sorted(path.name for path in tmp_path.rglob("*"))

    (use,) = read_ledgers(tmp_path)

    assert (use.records, use.releases) == (totals.records, totals.releases) == (3, 3)
    assert use.max_epsilon == totals.max_epsilon
    assert use.max_epsilon == pytest.approx(2.0 * world_vocabulary().length, abs=1e-4)
    assert set(before) <= {path.name for path in tmp_path.rglob("*")}


def test_records_that_went_out_raw_are_counted(tmp_path):
    charge(tmp_path / "node", ["5 books"])
    with Ledger(tmp_path / "node", record_epsilon=1000.0) as ledger:
        ledger.expose(ledger.record_keys(["5 books", "7 books"]), run="a" * 16)

    (use,) = read_ledgers(tmp_path)

    assert use.exposed == 2


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must hold a node's ledger\.sqlite"):
        read_ledgers(tmp_path)


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    file = tmp_path / "ledger.sqlite"
    file.write_text("not a database, and long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="must be a ledger"):
        read_ledgers(file)
