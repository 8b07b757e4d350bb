import math
from fractions import Fraction

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.privacy.accounting import (
    DpTraining,
    compose_record,
    epsilon_at_delta,
    plan,
    prompt_epsilon,
    training_epsilon,
)
from fedcot.privacy.channels import build_channel
from fedcot.privacy.rank import RankChannel, Shape, ramp, top
from fedcot.privacy.vocabulary import Vocabulary

SMALL = Vocabulary.of([f"w{chr(97 + index)}" for index in range(23)], 4)
LONG = Vocabulary.of(["w" * (index + 1) for index in range(998)], 30)
SIMILARITY = np.eye(25)


def delta_by_enumeration(channel: RankChannel, slots: int, epsilon: float) -> float:
    """The hockey-stick divergence of the two prompts that are easiest to tell apart.

    One slot: m favoured outputs of the one, m of the other, the rest. The sum over all
    outcomes of `slots` slots, grouped by how many fell in which group.
    """
    weights = channel.rank_weights.tolist()
    high, low, total = weights[0], weights[-1], sum(weights)
    size = sum(weight > low for weight in weights)
    mine, other = size * high / total, size * low / total
    rest = 1 - mine - other
    delta = 0.0
    for up in range(slots + 1):
        for down in range(slots + 1 - up):
            same = slots - up - down
            ways = math.comb(slots, up) * math.comb(slots - up, down)
            first = ways * mine**up * other**down * rest**same
            second = ways * other**up * mine**down * rest**same
            delta += max(0.0, first - math.exp(epsilon) * second)
    return delta


@pytest.mark.parametrize(("epsilon", "shape"), [(1.0, top(1)), (2.0, top(3))])
def test_the_composed_epsilon_is_the_exact_one(epsilon: float, shape: Shape) -> None:
    """Below the enumeration it would claim too much, far above it too little."""
    channel = RankChannel(SMALL, epsilon, shape=shape, similarity=SIMILARITY)
    bound = epsilon_at_delta(channel, delta=1e-3)
    assert delta_by_enumeration(channel, SMALL.length, bound) <= 1e-3
    assert delta_by_enumeration(channel, SMALL.length, bound - 0.02) > 1e-3


def test_published_example_of_thirty_slots() -> None:
    """1000 words, staircase of 20, epsilon 2, 30 slots, delta 1e-6: 27.97 of 60."""
    similarity = np.eye(1000)
    channel = RankChannel(LONG, 2.0, shape=top(20), similarity=similarity)
    assert epsilon_at_delta(channel, delta=1e-6) == pytest.approx(27.97, abs=0.02)


TRAINING = DpTraining(noise_multiplier=1.0, phases=((0.05, 200),))


@pytest.mark.parametrize(("slots", "published"), [(1, 6.86), (10, 16.42)])
def test_published_example_of_a_prompt_beside_dp_sgd(
    slots: int, published: float
) -> None:
    """Staircase of 20 of 1000 at epsilon 2, and DP-SGD of 5.49: less than the sums."""
    vocabulary = Vocabulary(LONG.words, slots)
    similarity = np.eye(1000)
    channel = RankChannel(vocabulary, 2.0, shape=top(20), similarity=similarity)
    found = compose_record(channel, dp=TRAINING, delta=1e-6)
    assert found.training_epsilon == pytest.approx(5.49, abs=0.01)
    assert found.record_epsilon == pytest.approx(published, abs=0.01)
    assert found.token_with_training == pytest.approx(6.86, abs=0.01)
    assert found.record_epsilon < found.prompt_epsilon + found.training_epsilon
    assert found.record_epsilon > max(found.prompt_epsilon, found.training_epsilon)


def test_rounds_of_training_compose() -> None:
    once = training_epsilon(TRAINING, delta=1e-6)
    halves = DpTraining(noise_multiplier=1.0, phases=((0.05, 120), (0.05, 80)))
    assert training_epsilon(halves, delta=1e-6) == pytest.approx(once, abs=1e-6)
    assert math.isinf(training_epsilon(TRAINING, delta=1e-14))


def test_a_prompt_without_a_bound_has_none_beside_training() -> None:
    channel = build_channel("none", SMALL, 6.0)
    found = compose_record(channel, dp=TRAINING, delta=1e-6)
    assert found.prompt_epsilon == found.record_epsilon == math.inf
    assert found.training_epsilon < 6.0


def test_a_dear_prompt_is_added_and_not_convolved() -> None:
    vocabulary = Vocabulary(SMALL.words, 200)
    channel = build_channel("rank", vocabulary, 20.0)
    found = compose_record(channel, dp=TRAINING, delta=1e-6)
    assert found.prompt_epsilon == channel.prompt_epsilon == pytest.approx(4000.0)
    assert found.record_epsilon == found.prompt_epsilon + found.training_epsilon


def test_all_pairs_of_rows_gain_over_epsilon_alone() -> None:
    """The score mechanism at 1 nat: 40 slots cost far less than 40 nats at delta."""
    similarity = np.random.default_rng(0).random((25, 25))
    words = Vocabulary(SMALL.words, 40)
    channel = build_channel("exponential", words, 1.0, similarity=similarity)
    assert epsilon_at_delta(channel, delta=1e-6) < 0.6 * channel.prompt_epsilon


def test_plan_names_unit_and_neighbours_of_dp_sgd() -> None:
    channel = build_channel("rank", SMALL, 2.0)
    made = plan(channel, record_epsilon=250.0, rounds=3, delta=1e-6, training=TRAINING)
    assert made.training_epsilon == training_epsilon(TRAINING, delta=1e-6)
    assert made.training_epsilon < made.trained_record_epsilon
    assert made.prompts_allowed == 31
    text = "\n".join(made.lines())
    for part in ("DP-SGD", "one record at delta 1e-06, over 3 rounds", "no gradient"):
        assert part in text
    seeded = plan(
        channel,
        record_epsilon=250.0,
        rounds=3,
        delta=1e-6,
        training=TRAINING,
        is_private=False,
    )
    assert seeded.training_epsilon == seeded.trained_record_epsilon == math.inf


@pytest.mark.parametrize("shape", [top(13), ramp(20)])
def test_a_vocabulary_without_disjoint_lists_has_a_valid_bound(
    shape: Shape,
) -> None:
    """One slot of two real rows, enumerated, is within the bound for one slot."""
    one_slot = Vocabulary(SMALL.words, 1)
    channel = RankChannel(one_slot, 1.0, shape=shape, similarity=SIMILARITY)
    bound = epsilon_at_delta(channel, delta=1e-3)
    rows = [np.array(channel.weights_row(token), dtype=float) for token in (2, 20)]
    first, second = (row / row.sum() for row in rows)
    assert np.maximum(0, first - math.exp(bound) * second).sum() <= 1e-3
    assert 0.9 < bound <= channel.token_epsilon + 1e-4


def test_composition_never_costs_more_than_the_pure_sum() -> None:
    channel = build_channel("exponential", SMALL, 1.0, similarity=SIMILARITY)
    made = plan(channel, record_epsilon=10.0, rounds=1, delta=1e-12)
    assert made.record_epsilon_at_delta <= made.prompt_epsilon


def test_plan_states_units_and_does_not_multiply_by_rounds() -> None:
    channel = build_channel("rank", SMALL, 6.0)
    made = plan(channel, record_epsilon=250.0, rounds=5, delta=1e-6)
    exact = Fraction(channel.token_epsilon) * SMALL.length
    assert made.token_epsilon == channel.token_epsilon <= 6.0
    assert exact <= Fraction(made.prompt_epsilon) <= exact + Fraction(2, 10**9)
    assert made.record_epsilon == made.prompt_epsilon
    assert made.record_epsilon_at_delta <= made.record_epsilon
    assert made.neighboring_relation == "REPLACE_SPECIAL"
    assert made.is_within_limit
    text = "\n".join(made.lines())
    for part in ("one token", "4 slots", "over 5 rounds", "zero-out", "24.0000 nats"):
        assert part in text


def test_plan_says_when_the_limit_refuses_everything() -> None:
    channel = build_channel("rank", SMALL, 6.0)
    made = plan(channel, record_epsilon=23.0, rounds=1, delta=1e-6)
    assert not made.is_within_limit
    assert any("every release is refused" in line for line in made.lines())


@pytest.mark.parametrize(
    ("mechanism", "is_private", "guarantee"),
    [("none", True, "none: raw"), ("rank", False, "none (seeded draws)")],
)
def test_no_finite_epsilon_is_claimed_without_a_guarantee(
    mechanism: str, is_private: bool, guarantee: str
) -> None:
    channel = build_channel(mechanism, SMALL, 6.0)
    made = plan(
        channel, record_epsilon=99.0, rounds=1, delta=1e-6, is_private=is_private
    )
    assert made.guarantee == guarantee
    assert made.token_epsilon == made.prompt_epsilon == made.record_epsilon == math.inf
    assert made.record_epsilon_at_delta == math.inf
    # The ledger books seeded draws like others; a raw prompt it has to refuse.
    assert made.is_within_limit == (mechanism == "rank")


def test_thirty_tokens_at_six_are_180() -> None:
    assert prompt_epsilon(6.0, 30) == 180.0
    assert prompt_epsilon(math.inf, 30) == math.inf


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"delta": 0.0}, "`delta`"),
        ({"delta": 1.0}, "`delta`"),
        ({"delta": math.nan}, "`delta`"),
        ({"rounds": 0}, "`num-server-rounds`"),
        ({"record_epsilon": 0.0}, "`record-epsilon`"),
        ({"record_epsilon": math.nan}, "`record-epsilon`"),
    ],
)
def test_a_bad_plan_is_refused(changes: dict[str, float], parameter: str) -> None:
    channel = build_channel("rank", SMALL, 6.0)
    settings = {"record_epsilon": 250.0, "rounds": 1, "delta": 1e-6, **changes}
    with pytest.raises(ConfigError, match=f"{parameter} must"):
        plan(channel, **settings)  # type: ignore[arg-type]


def test_below_the_smallest_delta_only_the_pure_epsilon_is_stated() -> None:
    """Convolutions of floats are not exact enough there."""
    channel = RankChannel(Vocabulary(SMALL.words, 40), 0.5)
    assert epsilon_at_delta(channel, delta=2e-12) < channel.prompt_epsilon
    assert epsilon_at_delta(channel, delta=5e-13) == channel.prompt_epsilon
    assert training_epsilon(TRAINING, delta=2e-12) < math.inf
    assert training_epsilon(TRAINING, delta=5e-13) == math.inf
