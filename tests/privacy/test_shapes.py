import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fedcot.errors import ConfigError
from fedcot.privacy.rank import RankChannel, Shape, ramp, top
from fedcot.privacy.shapes import (
    best_ramp,
    best_staircase,
    neighbour_utility,
    shape_utility,
    similarity_utility,
)
from fedcot.privacy.vocabulary import Vocabulary

EPSILONS = st.sampled_from([0.1, 0.5, 1.0, 2.0, 4.0, 6.0])
UTILITIES = st.lists(st.integers(-4, 4), min_size=2, max_size=9)


def mean_utility(weights: np.ndarray, utility: np.ndarray) -> float:
    return float(weights @ utility / weights.sum())


def staircase(epsilon: float, ranks: int, size: int) -> np.ndarray:
    return np.where(np.arange(size) < ranks, math.exp(epsilon), 1.0)


def best_of_all_weights(epsilon: float, utility: np.ndarray) -> float:
    """The optimum over all falling weights, as a linear programme.

    Charnes and Cooper: with y = w / sum(w) and t = 1 / sum(w) the ratio is u . y.
    """
    size = len(utility)
    falling = np.zeros((size - 1, size + 1))
    rows = np.arange(size - 1)
    falling[rows, rows], falling[rows, rows + 1] = -1.0, 1.0
    ends = np.zeros((3, size + 1))
    ends[0, :size] = 1.0
    ends[1, 0], ends[1, size] = 1.0, -math.exp(epsilon)
    ends[2, size - 1], ends[2, size] = 1.0, -1.0
    solved = linprog(
        np.append(-utility, 0.0),
        A_ub=falling,
        b_ub=np.zeros(size - 1),
        A_eq=ends,
        b_eq=[1.0, 0.0, 0.0],
        bounds=(0, None),
    )
    assert solved.success
    return float(-solved.fun)


@settings(max_examples=60)
@given(EPSILONS, UTILITIES)
def test_no_falling_weights_are_better_than_the_best_staircase(
    epsilon: float, worth: list[int]
) -> None:
    utility = np.array(worth, dtype=float)
    shape = best_staircase(epsilon, utility)
    found = mean_utility(staircase(epsilon, len(shape), len(worth)), utility)
    assert set(shape) == {Fraction(1)}
    assert found == pytest.approx(best_of_all_weights(epsilon, utility), abs=1e-7)


@settings(max_examples=60)
@given(EPSILONS, UTILITIES)
def test_the_narrowest_of_the_best_staircases_is_found(
    epsilon: float, worth: list[int]
) -> None:
    utility = np.array(worth, dtype=float)
    size = len(worth)
    means = [
        mean_utility(staircase(epsilon, ranks, size), utility)
        for ranks in range(1, size)
    ]
    nearly_best = np.flatnonzero(np.array(means) >= max(means) - 1e-9)
    assert len(best_staircase(epsilon, utility)) == nearly_best[0] + 1


@settings(max_examples=40)
@given(EPSILONS, UTILITIES)
def test_the_best_ramp_is_the_best_of_all_ramps_and_no_staircase_is_worse(
    epsilon: float, worth: list[int]
) -> None:
    utility = np.array(worth, dtype=float)
    sizes = range(1, len(worth))
    exact = {size: shape_utility(epsilon, ramp(size), utility) for size in sizes}
    found = shape_utility(epsilon, best_ramp(epsilon, utility), utility)
    # The weights are whole numbers over 2**20, the search compares real ones.
    assert float(found) == pytest.approx(float(max(exact.values())), abs=1e-4)
    best = best_staircase(epsilon, utility)
    assert shape_utility(epsilon, best, utility) >= found - Fraction(1, 10**4)


def test_the_best_staircase_for_ten_neighbours_holds_ten_ranks() -> None:
    shape = best_staircase(6.0, neighbour_utility(4002))
    assert shape == top(10)
    share = 10 * math.exp(6) / (10 * math.exp(6) + 3992)
    found = shape_utility(6.0, shape, neighbour_utility(4002))
    assert float(found) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize(
    ("epsilon", "ranks", "share"), [(4.0, 20, 0.36), (6.0, 10, 0.67), (8.0, 5, 0.88)]
)
def test_shares_of_two_thousand_words_agree_with_the_known_table(
    epsilon: float, ranks: int, share: float
) -> None:
    utility = neighbour_utility(2000, ranks)
    found = shape_utility(epsilon, top(ranks), utility)
    assert float(found) == pytest.approx(share, abs=0.006)


def test_the_staircase_narrows_as_epsilon_grows() -> None:
    """With slowly falling worth a small epsilon has to spread, a large one need not."""
    utility = 1 / (1.0 + np.arange(500))
    widths = [len(best_staircase(epsilon, utility)) for epsilon in (1, 2, 4, 6, 8)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 5 * widths[-1]


@pytest.mark.parametrize("shape", [top(3), ramp(5)])
def test_the_utility_is_that_of_the_channel(shape: Shape) -> None:
    words = Vocabulary.of([f"w{chr(97 + place)}" for place in range(20)], 2)
    channel = RankChannel(words, 2.0, shape=shape)
    utility = np.random.default_rng(3).normal(size=channel.size)
    weights = [Fraction(int(weight)) for weight in channel.rank_weights]
    gained = sum(w * Fraction(u) for w, u in zip(weights, utility, strict=True))
    assert shape_utility(2.0, shape, utility) == gained / sum(weights)


def test_similarity_by_rank_is_a_mean_over_the_words() -> None:
    """The true word stands first, even where another scores higher."""
    scores = np.array([[0.5, 0.9, 0.1], [0.2, 1.0, 0.3], [0.0, 0.4, 1.0]])
    expected = [(0.5 + 1 + 1) / 3, (0.9 + 0.3 + 0.4) / 3, (0.1 + 0.2 + 0.0) / 3]
    assert similarity_utility(scores) == pytest.approx(expected)
    many = np.random.default_rng(0).random((150, 150))
    np.fill_diagonal(many, 1.0)
    by_rank = [sorted(row, reverse=True) for row in many.tolist()]
    assert similarity_utility(many) == pytest.approx(np.mean(by_rank, axis=0))


@pytest.mark.parametrize(
    "utility", [[1.0], [], [[1.0, 0.0]], [1.0, math.nan], [1.0, math.inf]]
)
def test_a_bad_utility_is_refused(utility: list[float]) -> None:
    for choose in (best_staircase, best_ramp):
        with pytest.raises(ConfigError, match="`utility` must"):
            choose(2.0, np.array(utility))


def test_a_bad_epsilon_is_refused() -> None:
    for choose in (best_staircase, best_ramp):
        with pytest.raises(ConfigError, match="`token-epsilon` must"):
            choose(0.0, np.array([1.0, 0.0]))
