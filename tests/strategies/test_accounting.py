"""The server's account: exact sums per record, check first, and nothing private."""

import json
import math
import sqlite3
from contextlib import closing

import pytest

from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.accounting import prompt_epsilon
from strategies.accounting import PromptAccountant, PromptsEvent


def event(*keys: str, epsilon: float = 20.0, partition: int = 0, server_round: int = 1):
    return PromptsEvent(
        server_round=server_round,
        partition_id=partition,
        record_keys=keys,
        prompt_epsilon=epsilon,
        channel_hash="c",
    )


@pytest.fixture
def accountant(tmp_path):
    return PromptAccountant(tmp_path / "ledger.sqlite", record_epsilon=50.0)


def test_epsilons_add_up_per_record_and_the_largest_counts(accountant):
    accountant.compose(event("a", "b"))
    accountant.compose(event("b", "c", server_round=2))
    accountant.compose(event("a", epsilon=45.0, partition=1))
    assert accountant.get_epsilon(0) == 40.0  # b twice
    assert accountant.get_epsilon(1) == 45.0  # the same key of another client
    spent = accountant.get_privacy_spent()
    assert (spent.epsilon, spent.delta, spent.num_releases) == (45.0, 0.0, 4)
    assert accountant.num_releases == 5


def test_what_would_overspend_changes_nothing(accountant, tmp_path):
    accountant.compose(event("a", "b"))
    accountant.compose(event("a"))
    before = accountant.state_dict()
    over = event("b", "a", "c")  # a would reach 60 of 50
    assert accountant.would_exceed(over)
    with pytest.raises(PrivacyBudgetExhausted, match="Partition 0"):
        accountant.compose(over)
    assert accountant.state_dict() == before
    assert not accountant.would_exceed(event("b", "c"))
    assert accountant.would_exceed(event("d"), max_epsilon=19.0)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        rows = database.execute("SELECT record_key FROM releases").fetchall()
    assert rows == [("a",), ("b",), ("a",)]


def test_the_limit_itself_may_be_spent(tmp_path):
    accountant = PromptAccountant(tmp_path / "l", record_epsilon=60.0)
    for _ in range(3):
        accountant.compose(event("a"))
    assert accountant.get_epsilon() == 60.0
    assert accountant.would_exceed(event("a", epsilon=1e-9))


def test_the_account_is_the_ledgers_to_the_nano_nat(tmp_path):
    # A charge of 167999999999 nano-nats travels as a float; it must not grow by one.
    charge = prompt_epsilon(7.999999999952, 21)
    accountant = PromptAccountant(tmp_path / "l", record_epsilon=charge)
    assert grant(accountant, charge)
    accountant.compose(event("a", epsilon=charge))
    assert accountant.get_epsilon() == charge


def test_a_key_that_stands_twice_in_one_event_is_charged_twice(accountant):
    assert accountant.would_exceed(event("a", "a", "a"))


def test_no_mechanism_is_infinite_and_fits_an_unlimited_account_only(
    tmp_path, accountant
):
    raw = event("a", epsilon=math.inf)
    assert accountant.would_exceed(raw)
    unlimited = PromptAccountant(tmp_path / "u", record_epsilon=math.inf)
    unlimited.compose(raw)
    assert unlimited.get_epsilon() == math.inf


def grant(accountant, epsilon: float) -> bool:
    return accountant.grant(
        server_round=1,
        partition_id=0,
        token_epsilon=2.0,
        prompt_epsilon=epsilon,
        channel_hash="c",
    )


def test_a_grant_is_written_down_only_if_a_record_may_cost_it(accountant, tmp_path):
    assert grant(accountant, 50.0)
    assert not grant(accountant, 50.1)
    assert not grant(accountant, math.inf)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        rows = database.execute("SELECT prompt_epsilon FROM grants").fetchall()
    assert rows == [(50.0,)]


def test_the_account_can_be_stored_as_json_and_taken_up_again(accountant, tmp_path):
    accountant.compose(event("a", "b"))
    accountant.compose(event("a", partition=2))
    stored = json.loads(json.dumps(accountant.state_dict()))
    other = PromptAccountant(tmp_path / "other", record_epsilon=50.0)
    other.load_state_dict(stored)
    assert other.state_dict() == accountant.state_dict()
    assert other.would_exceed(event("a", epsilon=31.0))
    with pytest.raises(ValueError, match="schema_version"):
        other.load_state_dict({**stored, "schema_version": 0})


def test_a_limit_that_is_no_limit_is_refused(tmp_path):
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be > 0"):
            PromptAccountant(tmp_path / "l", record_epsilon=limit)
