"""Ranks and exposures against closed forms and the numbers of Social Learning."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.evaluation.exposure import (
    exposure,
    mean_rank,
    mean_rank_test,
    null_mean_exposure,
    rank_of,
    summarise_ranks,
    uniformity_p_value,
)
from fedcot.evaluation.rates import exact_rate, excess_p_value


def test_a_tie_counts_against_the_claim_of_leakage() -> None:
    assert rank_of(-1.0, [-2.0, -3.0]) == 0
    assert rank_of(-1.0, [-1.0, -3.0]) == 1
    assert rank_of(-1.0, [-1.0, -0.5, -1.0]) == 3


@pytest.mark.parametrize(
    ("secret", "references"), [(math.nan, [1.0]), (1.0, [0.0, math.nan]), (1.0, [])]
)
def test_a_score_that_is_no_number_is_refused(
    secret: float, references: list[float]
) -> None:
    """Failure would mean that a canary nobody could score has rank 0."""
    with pytest.raises(ValueError, match="score"):
        rank_of(secret, references)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=30))
def test_a_rank_is_the_place_in_the_sorted_order(scores: list[int]) -> None:
    secret, *references = [float(score) for score in scores]
    # References first among equals, so the secret is the last of its score.
    order = sorted([(-s, 0) for s in references] + [(-secret, 1)])
    assert rank_of(secret, references) == order.index((-secret, 1))


def test_exposure_has_its_largest_value_at_rank_zero() -> None:
    assert exposure(0, 1000) == pytest.approx(9.9657843)
    assert exposure(999, 1000) == 0
    assert exposure(499, 1000) == pytest.approx(1)
    with pytest.raises(ValueError, match="rank"):
        exposure(1000, 1000)


@pytest.mark.parametrize("size", [2, 7, 1000])
def test_the_mean_under_the_null_is_the_mean_over_all_ranks(size: int) -> None:
    expected = sum(exposure(rank, size) for rank in range(size)) / size
    assert null_mean_exposure(size) == pytest.approx(expected)


def test_the_mean_under_the_null_is_known_for_a_thousand() -> None:
    assert null_mean_exposure(1000) == pytest.approx(1.436, abs=5e-4)


# Counts of rank 0 in 100 trials with 1,000 strings, Social Learning, table 4.
@pytest.mark.parametrize(
    ("hits", "p_value", "low", "high"),
    [
        (8, 1.7e-13, 0.035, 0.152),
        (7, 1.5e-11, 0.029, 0.139),
        (3, 1.5e-4, 0.006, 0.085),
        (4, 3.6e-6, 0.011, 0.099),
    ],
)
def test_counts_of_rank_zero_give_the_known_intervals(
    hits: int, p_value: float, low: float, high: float
) -> None:
    ranks = [0] * hits + [500] * (100 - hits)
    found = summarise_ranks(ranks, 1000)
    assert found.rank_zero_expected == pytest.approx(0.1)
    assert found.rank_zero_p_value == pytest.approx(p_value, rel=0.04)
    assert (found.rank_zero.hits, found.rank_zero.rate) == (hits, hits / 100)
    assert found.rank_zero.low == pytest.approx(low, abs=5e-4)
    assert found.rank_zero.high == pytest.approx(high, abs=5e-4)


# Mean ranks of the same table.
@pytest.mark.parametrize(
    ("mean", "z", "p_value"),
    [(435, -2.23, 0.013), (463, -1.26, 0.10), (467, -1.13, 0.13), (459, -1.40, 0.08)],
)
def test_mean_ranks_of_the_paper_are_as_far_from_chance_as_known(
    mean: float, z: float, p_value: float
) -> None:
    found, chance = mean_rank_test(mean, 100, 1000)
    assert found == pytest.approx(z, abs=6e-3)
    assert chance == pytest.approx(p_value, abs=6e-3)


def test_a_mean_hides_the_tail_and_the_report_does_not() -> None:
    """A process that leaks in 8 % of the runs and is perfect otherwise."""
    clean = np.linspace(0, 999, 920).round().astype(int).tolist()
    found = summarise_ranks([0] * 80 + clean, 1000)
    assert found.mean_rank.mean == pytest.approx(459.5, abs=0.5)
    assert found.rank_zero.low > 0.06
    assert found.rank_zero_p_value < 1e-90
    assert found.exposure_quantiles["0.95"] == pytest.approx(math.log2(1000))
    assert found.exposure_quantiles["0.5"] < 1.3


def test_exact_intervals_are_quantiles_of_the_beta_law() -> None:
    found = exact_rate(3, 20)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 3, 18))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, 4, 17))
    assert exact_rate(0, 50).high == pytest.approx(1 - 0.025 ** (1 / 50))
    with pytest.raises(ValueError, match="hits"):
        exact_rate(2, 1)


def test_the_p_value_of_an_excess_is_a_sum_of_binomial_terms() -> None:
    expected = sum(math.comb(6, k) * 0.2**k * 0.8 ** (6 - k) for k in range(3, 7))
    assert excess_p_value(3, 6, 0.2) == pytest.approx(expected)
    assert excess_p_value(0, 6, 0.2) == 1


def test_uniform_ranks_look_like_chance() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1000, size=20_000).tolist()
    found = summarise_ranks(ranks, 1000)
    # The standard deviation of an exposure is near 1 / ln 2.
    assert found.mean_exposure == pytest.approx(1.436, abs=0.04)
    assert found.null_mean_exposure == pytest.approx(1.436, abs=5e-4)
    assert found.rank_zero_p_value > 0.01
    assert found.uniformity_p_value > 0.01
    assert found.mean_rank.low < 499.5 < found.mean_rank.high
    assert found.max_exposure == pytest.approx(9.966, abs=5e-4)


def test_the_interval_of_a_mean_rank_is_students() -> None:
    found = mean_rank([1, 4, 7, 9], 20)
    low, high = stats.t.interval(0.95, 3, 5.25, stats.sem([1, 4, 7, 9]))
    assert (found.mean, found.expected) == (5.25, 9.5)
    # No mean rank is negative.
    assert low < 0
    assert (found.low, found.high) == pytest.approx((0, high))
    one = mean_rank([3], 10)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_the_test_of_uniformity_sees_the_largest_distance() -> None:
    # All of 5 ranks are 0 of 10: the distance is 1 - 1/10 after the first number.
    assert uniformity_p_value([0] * 5, 10) == pytest.approx(stats.kstwo.sf(0.9, 5))
    # Each rank once: no distance at all.
    assert uniformity_p_value(list(range(10)), 10) == 1


def test_the_test_of_uniformity_is_never_too_sure() -> None:
    rng = np.random.default_rng(1)
    values = [
        uniformity_p_value(rng.integers(20, size=15).tolist(), 20) for _ in range(400)
    ]
    assert 0.0 < np.mean(np.array(values) < 0.1) <= 0.13


def test_the_rate_among_drawn_canaries_is_counted_apart() -> None:
    drawn = [True, True, False, False, False]
    found = summarise_ranks([0, 4, 3, 2, 1], 5, drawn=drawn)
    assert found.rank_zero.rate == 0.2
    assert found.drawn_rank_zero is not None
    assert (found.drawn_rank_zero.hits, found.drawn_rank_zero.n) == (1, 2)
    assert summarise_ranks([0, 4], 5).drawn_rank_zero is None
    assert summarise_ranks([0, 4], 5, drawn=[False] * 2).drawn_rank_zero is None


@pytest.mark.parametrize(
    ("ranks", "size", "drawn"),
    [([], 5, None), ([5], 5, None), ([-1], 5, None), ([0], 1, None), ([0], 5, [])],
)
def test_what_are_no_ranks_is_refused(
    ranks: list[int], size: int, drawn: list[bool] | None
) -> None:
    with pytest.raises(ValueError, match=r"ranks|drawn"):
        summarise_ranks(ranks, size, drawn=drawn)
