"""Loss distributions: tight where they are said to be, and never too small."""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy import composition
from fedcot.privacy.channels import build_channel
from fedcot.privacy.composition import (
    MOST_STEPS,
    compose_record,
    epsilon_at_delta,
    training_epsilon,
)
from fedcot.privacy.exact import integer_weight
from fedcot.privacy.exponential import ExponentialChannel
from fedcot.privacy.loss_distributions import (
    DpTraining,
    from_curve,
    from_losses,
    from_pure,
    interval_for,
    prompt_distributions,
    ranked_losses,
    row_probabilities,
    token_distributions,
    training_distribution,
)
from fedcot.privacy.privacy_curves import (
    all_pairs_curve,
    bounded_range,
    bounded_range_curve,
    pure_curve,
)
from fedcot.privacy.rank import RankChannel, ramp, top
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.vocabulary import Vocabulary

WORDS = ["fox", "hen", "owl", "pig"]
VOCABULARY = Vocabulary.of(WORDS, 2)
ORDERS = (-1.5, -0.7, 0.0, 0.3, 0.9, 1.4)


def hockey_stick(
    first: NDArray[np.float64], second: NDArray[np.float64], order: float
) -> float:
    return float(np.maximum(0.0, first - math.exp(order) * second).sum())


@lru_cache
def score_channel(epsilon: float, length: int = 2) -> ExponentialChannel:
    similarity = np.random.default_rng(5).random((6, 6))
    np.fill_diagonal(similarity, 1.0)
    vocabulary = Vocabulary.of(WORDS, length)
    channel = build_channel("exponential", vocabulary, epsilon, similarity=similarity)
    assert isinstance(channel, ExponentialChannel)
    return channel


@pytest.mark.parametrize("weights", [[9, 7, 4, 4, 2], [40, 5, 5, 5, 5], [8, 8, 8, 1]])
def test_no_two_permutations_of_weights_are_easier_to_tell_apart(
    weights: list[int],
) -> None:
    losses, masses = ranked_losses(np.array(weights, dtype=np.int64))
    shares = np.array(weights) / sum(weights)
    for order in ORDERS:
        claimed = float(np.maximum(0, masses * (1 - np.exp(order - losses))).sum())
        worst = max(
            hockey_stick(shares, np.array(other), order)
            for other in itertools.permutations(shares)
        )
        assert claimed == pytest.approx(worst, abs=1e-15)


@pytest.mark.parametrize("width", [0.3, 2.0, 9.0])
def test_the_bounded_range_curve_is_the_worst_of_all_two_point_laws(
    width: float,
) -> None:
    grid = np.linspace(0, width, 37)
    worst = np.zeros(len(grid))
    for upper in np.linspace(0, width, 4001):
        mass = math.expm1(upper - width) / math.expm1(-width)
        other = mass * math.exp(-upper)
        found = np.maximum(0, mass - np.exp(grid) * other)
        worst = np.maximum(
            worst, found + np.maximum(0, (1 - mass) - np.exp(grid) * (1 - other))
        )
    claimed = bounded_range_curve(width)(grid)
    assert (claimed >= worst - 1e-12).all()
    np.testing.assert_allclose(claimed, worst, atol=1e-5)


def test_the_curve_of_all_pairs_is_the_maximum_over_pairs() -> None:
    rows = row_probabilities(score_channel(2.0))
    grid = np.array([0.0, 0.2, 0.9, 1.7, 2.5])
    claimed = all_pairs_curve(rows)(grid)
    worst = [
        max(hockey_stick(one, other, order) for one in rows for other in rows)
        for order in grid
    ]
    np.testing.assert_allclose(claimed, worst, atol=1e-14)


def test_curves_are_ordered_as_the_properties_imply_each_other() -> None:
    channel = score_channel(2.0)
    rows = row_probabilities(channel)
    weights = channel.weights_block(0, channel.size)
    grid = np.linspace(0, channel.token_epsilon, 50)
    exact = all_pairs_curve(rows)(grid)
    assert (exact <= bounded_range_curve(bounded_range(weights))(grid) + 1e-12).all()
    assert (exact <= pure_curve(channel.token_epsilon)(grid) + 1e-12).all()


def test_the_range_of_losses_is_the_exact_one() -> None:
    weights = np.array([[1, 5, 9, 4], [7, 2, 3, 3], [6, 6, 1, 5]], dtype=np.int64)
    widest = Fraction(1)
    for one, other in itertools.permutations(weights.tolist(), 2):
        ratios = [Fraction(a, b) for a, b in zip(one, other, strict=True)]
        widest = max(widest, max(ratios) / min(ratios))
    exact = math.log(widest)
    assert exact <= bounded_range(weights) <= exact + 2e-9
    assert math.isinf(bounded_range(np.array([[1, 0], [1, 1]], dtype=np.int64)))


def test_the_range_of_the_score_mechanism_is_not_twice_its_epsilon() -> None:
    channel = score_channel(2.0)
    width = bounded_range(channel.weights_block(0, channel.size))
    assert channel.token_epsilon < width < 2 * channel.token_epsilon - 0.1


@pytest.mark.parametrize("delta", [1e-2, 1e-4])
def test_two_slots_of_every_pair_of_prompts_stay_within_the_bound(delta: float) -> None:
    """All pairs of prompts of two tokens, by enumeration of all outputs."""
    channel = score_channel(2.0)
    bound = epsilon_at_delta(channel, delta=delta)
    rows = row_probabilities(channel)
    prompts = [np.outer(one, other) for one in rows for other in rows]
    worst = max(hockey_stick(one, other, bound) for one in prompts for other in prompts)
    assert worst <= delta
    near = max(
        hockey_stick(one, other, bound - 0.4) for one in prompts for other in prompts
    )
    assert near > delta


def test_one_slot_of_the_score_mechanism_is_tight() -> None:
    channel = score_channel(2.0, length=1)
    bound = epsilon_at_delta(channel, delta=1e-2)
    rows = row_probabilities(channel)

    def worst(order: float) -> float:
        return max(hockey_stick(one, other, order) for one in rows for other in rows)

    assert worst(bound) <= 1e-2 < worst(bound - 1e-3)


@pytest.mark.parametrize("favoured", [1, 2, 3])
def test_a_selection_costs_its_prompt_once(favoured: int) -> None:
    prompts = np.array([[2, 3], [3, 4], [4, 5], [5, 2], [2, 2]], dtype=np.int64)
    bank = Bank(VOCABULARY, prompts)
    channel = SelectionChannel(VOCABULARY, 1.5, bank=bank, favoured=favoured)
    bound = epsilon_at_delta(channel, delta=0.05)
    high, low, total = channel.high, channel.low, channel.total
    row = np.array([high] * favoured + [low] * (5 - favoured)) / total
    assert hockey_stick(row, row[::-1], bound) <= 0.05
    assert hockey_stick(row, row[::-1], bound - 0.01) > 0.05
    assert compose_record(channel, dp=None, delta=0.05).token_epsilon == bound


def test_thirty_tokens_at_six_on_four_thousand_words_stay_dear_at_delta() -> None:
    """What the README says: 180 nats pure, and 161.9 at delta 1e-6 for a staircase."""
    high = integer_weight(Fraction(6), 20)
    for favoured, published in ((10, 161.88), (1, 71.98)):
        row = [high] * favoured + [1 << 20] * (4000 - favoured)
        losses, masses = ranked_losses(np.array(row, dtype=np.int64))
        prompt = from_losses(losses, masses, 5e-3).self_compose(30)
        found = prompt.get_epsilon_for_delta(1e-6)
        assert found == pytest.approx(published, abs=0.02)


@dataclass
class MovingChannel:
    """Moves its budget between slots, as far as accounting looks at it."""

    name: str = "adaptive"
    requested_epsilon: float = 2.0
    token_epsilon: float = 2.0
    prompt_epsilon: float = 3.0
    guarantee: str = "a filter"
    adjacency: str = "zero-out"
    hash: str = "moving"
    slots: int = 30
    size: int = 6

    def sample(self, ids: NDArray[np.int64], source: object) -> NDArray[np.int64]:
        return ids


def test_budgets_that_move_are_charged_by_their_pure_sum_alone() -> None:
    found = compose_record(MovingChannel(), dp=None, delta=1e-6)
    assert 3.0 - 1e-4 < found.prompt_epsilon <= 3.0
    (prompt,) = prompt_distributions(MovingChannel(), 5e-3)
    # Randomised response: delta = (e^3 - e^a) / (1 + e^3).
    exact = (math.exp(3) - math.exp(1)) / (1 + math.exp(3))
    assert prompt.get_delta_for_epsilon(1.0) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.01, 0.7301, 5.0, 168.3, 900.0])
def test_randomised_response_on_the_grid_is_never_below_the_exact_one(
    epsilon: float,
) -> None:
    interval = interval_for(epsilon, 1)
    coarse = from_pure(epsilon, interval)
    for order in (0.0, 0.31 * epsilon, 0.9 * epsilon):
        exact = float(pure_curve(epsilon)(np.array([order]))[0])
        found = coarse.get_delta_for_epsilon(order)
        assert exact - 1e-15 <= found <= exact + epsilon * 1e-2


def test_a_curve_and_its_two_losses_give_the_same_distribution() -> None:
    epsilon, interval = 1.2, 4e-3
    by_curve = from_curve(pure_curve(epsilon), epsilon, interval).self_compose(7)
    by_losses = from_pure(epsilon, interval).self_compose(7)
    for order in (0.0, 2.0, 5.0):
        assert by_curve.get_delta_for_epsilon(order) == pytest.approx(
            by_losses.get_delta_for_epsilon(order), abs=1e-9
        )


def test_splitting_a_loss_keeps_both_masses() -> None:
    losses = np.array([0.7312, -0.2])
    second = (1 - math.exp(0.2)) / (math.exp(-0.7312) - math.exp(0.2))
    masses = np.array([second, 1 - second])
    found = from_losses(losses, masses, 5e-3)
    # At an order far below all losses: P - e^a Q of everything.
    assert found.get_delta_for_epsilon(-3.0) == pytest.approx(
        1 - math.exp(-3), abs=1e-12
    )


@pytest.mark.parametrize("shape", [top(1), top(3), ramp(4)])
def test_a_finer_grid_changes_nothing_that_matters(shape: tuple[Fraction, ...]) -> None:
    vocabulary = Vocabulary.of(["w" * (index + 1) for index in range(40)], 25)
    channel = RankChannel(vocabulary, 1.5, shape=shape, similarity=np.eye(42))
    (coarse,) = prompt_distributions(channel, 5e-3)
    (fine,) = prompt_distributions(channel, 5e-4)
    wide = coarse.get_epsilon_for_delta(1e-6)
    assert -1e-6 < wide - fine.get_epsilon_for_delta(1e-6) < 1e-3


def test_equal_channels_are_computed_once() -> None:
    first = token_distributions(RankChannel(VOCABULARY, 2.0), 5e-3)
    assert token_distributions(RankChannel(VOCABULARY, 2.0), 5e-3) is first
    assert token_distributions(RankChannel(VOCABULARY, 1.5), 5e-3) is not first


def test_no_steps_cost_nothing_and_more_cost_more() -> None:
    def epsilon(noise: float, rate: float, steps: int) -> float:
        training = DpTraining(noise_multiplier=noise, phases=((rate, steps),))
        found = training_distribution(training, 5e-3).get_epsilon_for_delta(1e-6)
        return float(found)

    assert epsilon(1.0, 0.1, 0) == 0.0
    base = epsilon(1.0, 0.1, 20)
    assert base < epsilon(1.0, 0.1, 40)
    assert base < epsilon(1.0, 0.2, 20)
    assert base < epsilon(0.9, 0.1, 20)


@pytest.mark.parametrize(
    ("noise", "phases"),
    [(0.0, ((0.1, 1),)), (math.inf, ((0.1, 1),)), (1.0, ((0.0, 1),)), (1.0, ((2, 1),))],
)
def test_training_without_a_guarantee_is_refused(
    noise: float, phases: tuple[tuple[float, int], ...]
) -> None:
    with pytest.raises(ConfigError, match="must"):
        DpTraining(noise_multiplier=noise, phases=phases)


def test_very_many_steps_are_bounded_by_their_moments(monkeypatch):
    """Composing their loss distributions would take minutes."""

    def never(training, interval):
        raise AssertionError(training)

    within = DpTraining(noise_multiplier=4.0, phases=((1e-4, MOST_STEPS),))
    exact = training_epsilon(within, delta=1e-6)
    monkeypatch.setattr(composition, "training_distribution", never)
    beyond = DpTraining(noise_multiplier=4.0, phases=((1e-4, MOST_STEPS + 1),))
    found = training_epsilon(beyond, delta=1e-6)
    assert exact < found < 2 * exact
    channel = score_channel(1.0)
    both = compose_record(channel, dp=beyond, delta=1e-6)
    assert both.training_epsilon == found
    assert both.record_epsilon == channel.prompt_epsilon + found
