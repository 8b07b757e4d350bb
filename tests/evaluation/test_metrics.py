"""Estimates against closed forms, the paired test against enumeration."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.evaluation.metrics import (
    correctness,
    half_interval,
    mean_and_stderr,
    paired_p_value,
    perplexity,
    proportion,
)


def test_a_proportion_has_the_binomial_error() -> None:
    found = proportion(30, 120)
    assert (found.mean, found.n) == (0.25, 120)
    assert found.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 120))


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 4), (5, 4)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="hits"):
        proportion(hits, n)


def test_the_error_of_a_mean_divides_by_n_minus_one() -> None:
    found = mean_and_stderr([1.0, 2.0, 6.0])
    assert found.mean == 3.0
    assert found.stderr == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))


def test_the_interval_of_a_mean_is_students() -> None:
    values = [1.0, 4.0, 7.0, 9.0]
    low, high = stats.t.interval(0.95, 3, 5.25, stats.sem(values))
    half = half_interval(mean_and_stderr(values))
    assert (5.25 - half, 5.25 + half) == pytest.approx((low, high))
    # Of two the quantile is 12.7, of many nearly 1.96.
    assert half_interval(mean_and_stderr([0.0, 2.0])) == pytest.approx(
        12.7062, abs=1e-4
    )
    assert math.isnan(half_interval(mean_and_stderr([3.0])))


def test_right_and_wrong_are_one_digit_each() -> None:
    assert correctness([True, True, False, True]) == "1101"
    assert correctness([]) == ""


def test_one_value_has_no_error_and_none_no_mean() -> None:
    assert math.isnan(mean_and_stderr([0.5]).stderr)
    with pytest.raises(ValueError, match="empty"):
        mean_and_stderr([])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_p_value_is_the_share_of_sign_flips_that_do_as_well(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    signs = [a - b for a, b in pairs if a != b][:12]
    kept = [(a, b) for a, b in pairs if a == b]
    differing = [(a, b) for a, b in pairs if a != b][:12]
    first, second = zip(*(kept + differing), strict=True)
    flips = list(product((1, -1), repeat=len(signs)))
    wins = sum(sign > 0 for sign in signs)
    as_good = sum(sum(s > 0 for s in flip) >= wins for flip in flips)
    expected = as_good / len(flips)
    assert paired_p_value(first, second) == pytest.approx(expected)


def test_the_test_has_a_side() -> None:
    better, worse = [True] * 10 + [False], [False] * 10 + [False]
    assert paired_p_value(better, worse) == pytest.approx(2**-10)
    assert paired_p_value(worse, better) == pytest.approx(1.0)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        paired_p_value([True], [True, False])


def test_perplexity_is_the_size_of_an_even_choice() -> None:
    assert perplexity(-6 * math.log(512), 6) == pytest.approx(512)
    assert perplexity(0.0, 3) == 1.0


def test_perplexity_has_guards() -> None:
    assert math.isnan(perplexity(0.0, 0))
    assert perplexity(-1e6, 1) == math.inf
    assert perplexity(-math.inf, 2) == math.inf
    with pytest.raises(ValueError, match="nats"):
        perplexity(0.1, 1)
    with pytest.raises(ValueError, match="tokens"):
        perplexity(-0.1, -1)
