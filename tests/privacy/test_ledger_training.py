"""Charges for private training: on the same sum as prompts, before it starts."""

import math
import sqlite3
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.nats import delta_in_femto, delta_of, nats, whole_nano_nats
from fedcot.privacy.sampler import SystemRandomSource
from tests.privacy.books import read_book
from tests.privacy.worker import CHANNEL, prompt

SYSTEM = SystemRandomSource()


def train(
    ledger: Ledger,
    keys: list[str],
    epsilon: float = 0.25,
    *,
    run: str = "run",
    description: str = "dp-sgd",
    delta: float = 1e-6,
) -> list[str]:
    return ledger.charge_training(
        keys, run=run, epsilon=epsilon, description=description, delta=delta
    )


def test_a_training_is_charged_once_to_each_record(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert train(ledger, ["a", "b"]) == ["a", "b"]
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert train(ledger, ["b", "c"]) == ["b", "c"]
        assert [ledger.spent(key) for key in "abcd"] == [0.25, 0.25, 0.25, 0.0]
        totals = ledger.totals()
    assert (totals.records, totals.charges, totals.trainings) == (3, 0, 3)
    assert (totals.max_epsilon, totals.sum_epsilon) == (0.25, 0.75)
    assert 1e-6 <= totals.max_delta < 1e-6 + 2e-15


def test_other_runs_and_other_trainings_add_up(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0, record_delta=1e-4) as ledger:
        train(ledger, ["a", "b"])
        train(ledger, ["a"], run="later")
        train(ledger, ["a"], 0.5, description="more", delta=1e-5)
        assert ledger.spent("a") == 1.0
        assert ledger.totals().max_delta == pytest.approx(1.2e-5, rel=1e-9)
        assert ledger.totals().max_delta >= 1.2e-5
        assert ledger.spent_delta("a") == ledger.totals().max_delta
        assert 1e-6 <= ledger.spent_delta("b") < 1e-6 + 2e-15
        assert ledger.spent_delta("nobody") == 0.0
        # A name cannot run into the next one.
        assert train(ledger, ["b"], run="ru", description="ndp-sgd") == ["b"]
        assert ledger.spent("b") == 0.5


def test_prompts_and_training_share_one_limit(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(["0", "1", "2"])
        made = ledger.release([(keys[0], prompt(0))], CHANNEL, source=SYSTEM)
        # 0.6 of the first is gone; who is over the limit is told apart one by one.
        assert train(ledger, keys[::-1], 0.5) == [keys[2], keys[1]]
        assert ledger.spent(keys[0]) == made[0].prompt_epsilon
        assert ledger.release([(keys[1], prompt(1))], CHANNEL, source=SYSTEM) == []
        assert train(ledger, [keys[0]], 0.3, description="short") == [keys[0]]
        assert ledger.spent(keys[0]) == pytest.approx(0.9, abs=1e-4)
        # What was released stays available.
        again = ledger.release([(keys[0], prompt(0))], CHANNEL, source=SYSTEM)
        assert again[0].ids == made[0].ids


def test_a_refused_record_is_not_charged_and_a_lower_limit_holds(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert train(ledger, ["a"], 1.0) == ["a"]
        assert train(ledger, ["a"], 1e-9, description="one more") == []
        assert ledger.totals().trainings == 1
    with Ledger(tmp_path, record_epsilon=0.5) as ledger:
        assert train(ledger, ["a"], 1.0) == []


def test_the_sum_of_deltas_is_compared_exactly(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1e6) as ledger:
        # The limit that a ledger has by itself is ten runs at the settings' delta.
        for run in range(10):
            assert train(ledger, ["a"], run=str(run)) == ["a"]
        assert ledger.spent_delta("a") == 1e-5
        # What is left is one unit, since the float 1e-5 lies a little above 10**-5.
        # Who is over the limit is told apart one by one, and is not charged.
        assert train(ledger, ["a", "b"], run="more", delta=1.5e-15) == ["b"]
        assert ledger.spent("a") == 2.5
        assert train(ledger, ["a"], run="last", delta=5e-16) == ["a"]
        assert train(ledger, ["a"], run="late", delta=5e-16) == []
        # Prompts have no delta.
        assert ledger.release([("a", prompt(0))], CHANNEL, source=SYSTEM)


@pytest.mark.parametrize("delta", [1e-7, 1e-6, 1e-5, 3e-5, 0.1, 0.97])
def test_a_delta_of_just_the_limit_fits_once(tmp_path: Path, delta: float) -> None:
    with Ledger(tmp_path, record_epsilon=1e6, record_delta=delta) as ledger:
        assert train(ledger, ["a"], delta=delta) == ["a"]
        assert train(ledger, ["a"], run="later", delta=delta) == []


def test_a_delta_near_one_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=math.inf) as ledger:
        assert train(ledger, ["a"], 1e-9, delta=0.97) == []
        assert train(ledger, ["a"], math.inf, delta=0.97) == []
        assert ledger.totals().trainings == 0


def test_a_lower_limit_of_deltas_keeps_what_was_charged(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert train(ledger, ["a"]) == ["a"]
    with Ledger(tmp_path, record_epsilon=1.0, record_delta=1e-7) as ledger:
        # A run that crashed goes on with it; no other one starts.
        assert train(ledger, ["a", "b"]) == ["a"]
        assert train(ledger, ["a"], run="later", delta=1e-9) == []


@pytest.mark.parametrize("limit", [0.0, 1.0, -1e-6, math.nan])
def test_a_limit_of_deltas_out_of_range_is_refused(
    tmp_path: Path, limit: float
) -> None:
    with pytest.raises(ConfigError, match=r"`max-record-delta` must be in \(0, 1\)"):
        Ledger(tmp_path, record_epsilon=1.0, record_delta=limit)


def test_the_same_training_at_another_cost_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        train(ledger, ["a"])
        for epsilon, delta in ((0.5, 1e-6), (0.25, 1e-5)):
            with pytest.raises(LedgerError, match="another epsilon or delta"):
                train(ledger, ["b", "a"], epsilon, delta=delta)
        assert ledger.totals().trainings == 1


def test_a_training_without_a_bound_needs_an_infinite_limit(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1e6) as ledger:
        assert train(ledger, ["a"], math.inf) == []
    with Ledger(tmp_path, record_epsilon=math.inf) as ledger:
        assert train(ledger, ["a"], math.inf) == ["a"]
        assert ledger.spent("a") == ledger.totals().max_epsilon == math.inf
    with Ledger(tmp_path, record_epsilon=1e6) as ledger:
        assert train(ledger, ["a"], description="other") == []


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, -0.1), (1.0, 1.0)],
)
def test_a_cost_out_of_range_is_refused(
    tmp_path: Path, epsilon: float, delta: float
) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        with pytest.raises(ValueError, match="`epsilon` must be > 0"):
            train(ledger, ["a"], epsilon, delta=delta)
        with pytest.raises(ValueError, match="must be distinct"):
            train(ledger, ["a", "a"])
        assert ledger.totals().trainings == 0


def test_the_row_says_up_to_which_delta_it_holds(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        train(ledger, ["a"], delta=1e-5)
        # Committed when it returns: another process sees it.
        rows = read_book(tmp_path).trainings
    assert rows == {("a", "run", "dp-sgd"): (250_000_000, 10**10 + 1)}
    # 1e-5 as a float lies a little above 10**10 units, and a delta is rounded up.
    assert Fraction(1e-5) * 10**15 > 10**10


def test_a_training_that_cannot_be_written_is_not_allowed(tmp_path: Path) -> None:
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        saboteur = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
        saboteur.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON trainings"
            " BEGIN SELECT RAISE(ABORT, 'disk is gone'); END"
        )
        saboteur.close()
        with pytest.raises(LedgerError, match="disk is gone"):
            train(ledger, ["a"])
        assert ledger.spent("a") == 0.0


@given(st.integers(0, 10**15))
def test_a_charge_survives_its_way_through_a_float(nano_nats: int) -> None:
    assert whole_nano_nats(nats(nano_nats)) == nano_nats


@given(st.floats(0, 1e6))
def test_any_other_float_is_rounded_up(epsilon: float) -> None:
    charge = whole_nano_nats(epsilon)
    assert charge is not None
    assert epsilon <= nats(charge) < epsilon + 1.01e-9


def test_no_bound_stays_no_bound() -> None:
    assert whole_nano_nats(math.inf) is None
    assert nats(None) == math.inf


@given(st.floats(0, 1, exclude_max=True))
def test_a_delta_is_rounded_up(delta: float) -> None:
    assert Fraction(delta) <= Fraction(delta_in_femto(delta), 10**15)
    assert delta <= delta_of(delta_in_femto(delta)) <= delta + 1.01e-15
