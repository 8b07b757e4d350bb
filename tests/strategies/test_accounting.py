"""The server's account: exact sums per record, check first, and nothing private."""

import json
import math
import sqlite3
from contextlib import closing

import pytest

from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.accounting import prompt_epsilon
from strategies.accounting import PrivacyAccountant
from strategies.composition import gaussian_epsilon
from strategies.events import AggregateEvent, PromptsEvent, TrainingEvent

DELTA, ORDER = 1e-6, 8.0


def event(
    *keys: str,
    epsilon: float = 20.0,
    partition: int = 0,
    server_round: int = 1,
    channel: str = "c",
    reported: float = 0.0,
):
    return PromptsEvent(
        server_round=server_round,
        partition_id=partition,
        record_keys=keys,
        prompt_epsilon=epsilon,
        channel_hash=channel,
        reported_epsilon=reported,
    )


def training(server_round: int = 1, *, partition: int = 0, noise: float = 2.0, arm="a"):
    return TrainingEvent(
        server_round=server_round,
        partition_id=partition,
        noise_multiplier=noise,
        sampling_rate=0.5,
        steps=4,
        arm=arm,
    )


def steps(count: int, noise: float = 2.0, rate: float = 0.5) -> float:
    return gaussian_epsilon({(noise, rate): count}, delta=DELTA, order=ORDER)


@pytest.fixture
def accountant(tmp_path):
    return PrivacyAccountant(tmp_path / "ledger.sqlite", record_epsilon=50.0)


@pytest.fixture
def both(tmp_path):
    """Return an account of prompts and Gaussian steps."""
    return PrivacyAccountant(
        tmp_path / "both.sqlite", record_epsilon=50.0, delta=DELTA, order=ORDER
    )


def rows(accountant, query: str) -> list[tuple]:
    with closing(sqlite3.connect(accountant.path)) as database:
        return database.execute(query).fetchall()


def test_epsilons_add_up_per_record_and_the_largest_counts(accountant):
    accountant.compose(event("a", "b"))
    accountant.compose(event("b", "c", server_round=2))
    accountant.compose(event("a", epsilon=45.0, partition=1))
    assert accountant.get_epsilon(partition_id=0) == 40.0  # b twice
    assert accountant.get_epsilon(partition_id=1) == 45.0  # the key of another client
    assert accountant.get_epsilon(partition_id=2) == 0.0
    spent = accountant.get_privacy_spent()
    assert (spent.epsilon, spent.delta, spent.num_releases) == (45.0, 0.0, 5)
    assert spent.optimal_order is None
    assert accountant.get_privacy_spent(partition_id=0).num_releases == 4
    assert accountant.num_releases == 5


def test_what_would_overspend_changes_nothing(accountant):
    accountant.compose(event("a", "b"))
    accountant.compose(event("a"))
    before = accountant.state_dict()
    over = event("b", "a", "c")  # a would reach 60 of 50
    assert accountant.would_exceed(over)
    with pytest.raises(PrivacyBudgetExhausted, match="Partition 0"):
        accountant.compose(over)
    assert accountant.state_dict() == before
    assert not accountant.would_exceed(event("b", "c"))
    assert accountant.would_exceed(event("b"), count=2)
    assert accountant.would_exceed(event("d"), max_epsilon=19.0)
    keys = rows(accountant, "SELECT record_key FROM releases")
    assert keys == [("a",), ("b",), ("a",)]


def test_a_count_is_that_many_events(accountant):
    accountant.compose(event("a"), count=2)
    assert accountant.get_epsilon() == 40.0
    assert accountant.num_releases == 2
    with pytest.raises(ValueError, match="count"):
        accountant.compose(event("a"), count=0)


def test_the_limit_itself_may_be_spent(tmp_path):
    accountant = PrivacyAccountant(tmp_path / "l", record_epsilon=60.0)
    for _ in range(3):
        accountant.compose(event("a"))
    assert accountant.get_epsilon() == 60.0
    assert accountant.would_exceed(event("a", epsilon=1e-9))


def test_the_account_is_the_ledgers_to_the_nano_nat(tmp_path):
    # A charge of 167999999999 nano-nats travels as a float; it must not grow by one.
    charge = prompt_epsilon(7.999999999952, 21)
    accountant = PrivacyAccountant(tmp_path / "l", record_epsilon=charge)
    assert accountant.grant(event(epsilon=charge))
    accountant.compose(event("a", epsilon=charge))
    assert accountant.get_epsilon() == charge


def test_a_key_that_stands_twice_in_one_event_is_charged_twice(accountant):
    assert accountant.would_exceed(event("a", "a", "a"))


def test_no_mechanism_is_infinite_and_fits_an_unlimited_account_only(
    tmp_path, accountant
):
    raw = event("a", epsilon=math.inf)
    assert accountant.would_exceed(raw)
    unlimited = PrivacyAccountant(tmp_path / "u", record_epsilon=math.inf)
    unlimited.compose(raw)
    assert unlimited.get_epsilon() == math.inf
    assert unlimited.get_privacy_spent().prompts_epsilon == math.inf


def test_a_grant_is_written_down_only_if_a_record_may_cost_it(accountant):
    assert accountant.grant(event(epsilon=50.0))
    assert not accountant.grant(event(epsilon=50.1))
    assert not accountant.grant(event(epsilon=math.inf))
    assert rows(accountant, "SELECT prompt_epsilon FROM grants") == [(50.0,)]


def test_a_grant_counts_at_once_and_a_second_one_of_its_channel_adds_nothing(
    accountant,
):
    # A record is drawn once per channel; if the reply is lost, nobody says so.
    assert accountant.grant(event())
    assert accountant.get_epsilon() == 20.0
    assert accountant.grant(event(server_round=2))
    assert accountant.get_epsilon() == 20.0
    accountant.compose(event("a", server_round=2))
    assert accountant.get_epsilon() == 20.0
    # Another channel is another draw of the same record.
    assert accountant.grant(event(channel="d", epsilon=25.0))
    assert accountant.get_epsilon() == 45.0
    # The ledger of the client keeps the limit, so a lost reply cannot pass it.
    assert accountant.grant(event(channel="e"))
    assert accountant.get_epsilon() == 50.0


def test_what_is_sent_again_costs_nothing(both):
    both.compose(event("a", epsilon=40.0))
    assert both.grant(training())
    before = both.state_dict()
    both.compose(event(epsilon=40.0))  # no fresh key
    assert both.state_dict() == before


def test_what_a_clients_ledger_remembers_is_not_forgotten(both):
    assert both.grant(event())
    both.observe(event(reported=30.0))
    assert both.get_epsilon() == 30.0
    # It knows its trainings itself; only those that came later are added.
    assert both.grant(training())
    assert both.get_epsilon() == pytest.approx(30.0 + steps(4), abs=1e-8)
    assert both.grant(event())
    both.observe(event(reported=45.0))
    assert both.get_epsilon() == 45.0
    later = steps(8) - steps(4)
    assert later < 5.0
    assert both.grant(training(2))
    assert both.get_epsilon() == pytest.approx(45.0 + later, abs=1e-8)
    # A record that was charged less says nothing about the one that was charged more.
    both.observe(event(reported=45.0))
    assert both.get_epsilon() == pytest.approx(45.0 + later, abs=1e-8)


def test_the_deltas_that_ledgers_state_are_in_what_was_spent(tmp_path):
    stated: dict[int, float] = {}
    accountant = PrivacyAccountant(
        tmp_path / "l",
        record_epsilon=50.0,
        delta=DELTA,
        order=ORDER,
        stated_deltas=lambda: stated,
    )
    accountant.compose(event("a"))
    assert accountant.get_privacy_spent().delta == 0.0
    # Prompts alone are pure; what a ledger remembers of trainings is not.
    stated.update({0: 2e-6, 1: 3e-6})
    assert accountant.get_privacy_spent(partition_id=0).delta == 2e-6
    assert accountant.get_privacy_spent(partition_id=2).delta == 0.0
    assert accountant.get_privacy_spent().delta == 3e-6
    assert accountant.grant(training())
    assert accountant.get_privacy_spent().delta == DELTA + 3e-6


def test_prompts_and_training_of_one_record_add_up(both):
    both.compose(event("a", "b"))
    assert both.grant(training())
    expected = 20.0 + steps(4)
    assert both.get_epsilon() == pytest.approx(expected, abs=1e-8)
    assert both.get_epsilon() >= expected
    both.compose(training())  # arrives: it was charged when it was granted
    assert both.grant(training())  # the same adapter again
    assert both.get_epsilon() == pytest.approx(expected, abs=1e-8)
    # Another round and another arm are releases of their own, composed by order.
    assert both.grant(training(2))
    assert both.grant(training(2, arm="b"))
    assert both.get_epsilon() == pytest.approx(20.0 + steps(12), abs=1e-8)
    assert steps(12) < 3 * steps(4)
    spent = both.get_privacy_spent()
    assert (spent.delta, spent.optimal_order) == (DELTA, ORDER)
    assert spent.prompts_epsilon == 20.0
    assert spent.gaussian_epsilon == pytest.approx(steps(12), abs=1e-8)
    assert both.get_privacy_spent(1e-3).epsilon < spent.epsilon


def test_a_training_that_was_not_granted_is_charged_or_refused(both):
    both.compose(training())
    assert both.get_epsilon() == pytest.approx(steps(4), abs=1e-8)
    with pytest.raises(PrivacyBudgetExhausted, match="Partition 0"):
        both.compose(training(2, noise=0.2))
    assert not both.grant(training(2, noise=0.0))
    assert both.get_epsilon() == pytest.approx(steps(4), abs=1e-8)


def test_training_is_refused_once_a_records_prompts_leave_too_little(tmp_path):
    limit = 20.0 + steps(8)
    accountant = PrivacyAccountant(
        tmp_path / "l", record_epsilon=limit + 1e-6, delta=DELTA, order=ORDER
    )
    assert accountant.grant(event())  # its reply is lost, and counts all the same
    assert [accountant.grant(training(number)) for number in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    # Nor may a record that was not asked yet cost more than is left beside training.
    assert not accountant.grant(event(epsilon=20.1, channel="d"))
    assert accountant.grant(training(3, partition=1))
    assert (
        rows(accountant, "SELECT kind, steps FROM noised WHERE partition = 0")
        == [("training granted", 4)] * 2
    )


def test_without_a_delta_no_noise_is_granted(accountant):
    assert not accountant.grant(training())


def test_a_noised_mean_is_charged_to_its_clients_and_maybe_to_their_records(both):
    def mean(counts: bool, server_round: int):
        return AggregateEvent(
            server_round=server_round,
            partition_ids=(0, 1),
            noise_multiplier=3.0,
            counts_for_records=counts,
        )

    one, two = (
        gaussian_epsilon({(3.0, 1.0): n}, delta=DELTA, order=ORDER) for n in (1, 2)
    )
    assert both.grant(mean(False, 1))
    assert both.get_epsilon() == 0.0
    assert both.get_privacy_spent().client_epsilon == pytest.approx(one, abs=1e-8)
    assert both.grant(mean(True, 2))
    spent = both.get_privacy_spent()
    assert spent.epsilon == pytest.approx(one, abs=1e-8)
    assert spent.client_epsilon == pytest.approx(two, abs=1e-8)
    assert both.get_privacy_spent(partition_id=2).client_epsilon == 0.0
    # It is refused as a whole if one of its clients cannot pay.
    both.compose(event("a", epsilon=49.99 - one, partition=1))
    before = both.state_dict()
    assert not both.grant(mean(True, 3))
    assert both.state_dict() == before


def test_the_account_can_be_stored_as_json_and_taken_up_again(both, tmp_path):
    both.compose(event("a", "b"))
    both.compose(event("a", partition=2, epsilon=3.0))
    both.grant(event(partition=3, channel="d"))
    both.grant(training())
    both.observe(event(reported=30.0))
    stored = json.loads(json.dumps(both.state_dict()))
    other = PrivacyAccountant(
        tmp_path / "other", record_epsilon=50.0, delta=DELTA, order=ORDER
    )
    other.load_state_dict(stored)
    assert other.state_dict() == both.state_dict()
    assert other.get_privacy_spent() == both.get_privacy_spent()
    assert other.would_exceed(event("a", epsilon=31.0))
    with pytest.raises(ValueError, match="schema_version"):
        other.load_state_dict({**stored, "schema_version": 0})


def test_an_infinite_charge_is_stored_as_one(tmp_path):
    one, other = (
        PrivacyAccountant(tmp_path / name, record_epsilon=math.inf) for name in "ab"
    )
    one.compose(event("a", epsilon=math.inf))
    other.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    assert other.get_epsilon() == math.inf


def test_an_account_that_makes_no_sense_is_refused(tmp_path):
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be > 0"):
            PrivacyAccountant(tmp_path / "l", record_epsilon=limit)
    for wrong in ({"delta": 1.0}, {"delta": -0.1}, {"order": 1.0}):
        with pytest.raises(ValueError, match="`delta` must lie"):
            PrivacyAccountant(tmp_path / "l", record_epsilon=1.0, **wrong)


def test_events_that_make_no_sense_are_refused():
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise_multiplier"):
            training(noise=wrong)
        with pytest.raises(ValueError, match="noise_multiplier"):
            AggregateEvent(server_round=1, partition_ids=(0,), noise_multiplier=wrong)
    law = {"server_round": 1, "partition_id": 0, "noise_multiplier": 1.0}
    for rate, count in ((0.0, 1), (1.1, 1), (0.5, 0)):
        with pytest.raises(ValueError, match="sampling_rate"):
            TrainingEvent(**law, sampling_rate=rate, steps=count)
