"""Membership scores against their definitions, curves against counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.evaluation.membership import (
    area_under_curve,
    gains,
    membership,
    min_k,
    min_k_plus_plus,
    true_positive_rate,
)
from fedcot.evaluation.spans import TokenScores

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


def tokens(*log_probabilities: float) -> TokenScores:
    count = len(log_probabilities)
    return TokenScores(np.array(log_probabilities), np.zeros(count), np.ones(count))


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order(
    members: list[float], controls: list[float]
) -> None:
    pairs = [(m > c) + 0.5 * (m == c) for m in members for c in controls]
    area, p_value = area_under_curve(members, controls)
    assert area == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= p_value <= 1


def test_the_p_value_is_that_of_the_order_by_chance() -> None:
    # 3 of 3 members above 3 controls: one of the 20 orders.
    assert area_under_curve([4, 5, 6], [1, 2, 3]) == (1.0, pytest.approx(1 / 20))
    assert area_under_curve([1, 1, 1], [1, 1, 1]) == (0.5, 1.0)
    assert area_under_curve([1, 2, 3], [4, 5, 6])[1] == 1


@pytest.mark.parametrize(
    ("members", "controls"), [([], [1.0]), ([1.0], []), ([1.0, float("nan")], [1.0])]
)
def test_what_cannot_be_compared_is_refused(
    members: list[float], controls: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"one score each|finite"):
        area_under_curve(members, controls)


@pytest.mark.parametrize(
    ("count", "share", "kept"),
    [(3, 0.2, 1), (1, 0.05, 1), (4, 0.2, 1), (10, 0.2, 2), (19, 0.2, 3), (5, 1.0, 5)],
)
def test_a_short_text_keeps_at_least_one_token(
    count: int, share: float, kept: int
) -> None:
    """Failure at 3 tokens would be the mean of none, which is not a number."""
    values = np.random.default_rng(count).permutation(np.arange(count) - 30.0)
    assert min_k(values, share) == np.mean(np.arange(kept) - 30.0)


@pytest.mark.parametrize(("count", "share"), [(0, 0.2), (3, 0.0), (3, 1.1)])
def test_a_share_of_nothing_is_refused(count: int, share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        min_k(np.zeros(count), share)


def test_min_k_plus_plus_is_in_standard_deviations() -> None:
    found = TokenScores(
        np.array([-4.0, -1.0, -9.0]), np.array([-2.0, -1.5, -8.0]), np.full(3, 0.5)
    )
    # (-4 + 2) / 0.5, (-1 + 1.5) / 0.5, (-9 + 8) / 0.5.
    assert min_k_plus_plus(found, 0.34) == -4
    assert min_k_plus_plus(found, 1.0) == pytest.approx((-4 + 1 - 2) / 3)
    sure = TokenScores(np.zeros(2), np.zeros(2), np.zeros(2))
    assert min_k_plus_plus(sure) == 0


def test_a_gain_is_relative_to_the_base() -> None:
    found = gains([tokens(-1, -3), tokens(-5)], [tokens(-4, -4), tokens(-5)])
    assert found.tolist() == [2, 0]
    with pytest.raises(ValueError, match="argument"):
        gains([tokens(-1)], [])


def test_one_control_in_a_hundred_may_be_taken_for_a_member() -> None:
    controls = [*range(99), 500]
    # The threshold is 98, the lowest that only the one at 500 exceeds.
    found = true_positive_rate([98, 98.5, 97, 600], controls)
    assert (found.hits, found.n) == (2, 4)
    # With two of them equal at the top, neither may be exceeded.
    assert true_positive_rate([499, 500, 501], [*range(98), 500, 500]).hits == 1


def test_texts_that_score_alike_are_no_members() -> None:
    assert true_positive_rate([1.0] * 50, [1.0] * 200).hits == 0


@given(st.integers(100, 400), st.integers(0, 2**32 - 1))
def test_the_rate_of_false_positives_is_kept(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    controls = rng.integers(50, size=count).astype(float)
    assert true_positive_rate(controls, controls).rate <= 0.01


def test_too_few_controls_have_no_headline() -> None:
    few, enough = membership([5.0], [1.0] * 99), membership([5.0], [1.0] * 100)
    assert few.tpr_at_one_percent is None
    assert "takes 100 controls, found 99" in few.note
    assert enough.tpr_at_one_percent is not None
    assert (enough.tpr_at_one_percent.rate, enough.note) == (1, "")
    assert (few.members, few.controls, few.auc) == (1, 99, 1)
    with pytest.raises(ValueError, match="at least 100 controls, found 99"):
        true_positive_rate([5.0], [1.0] * 99)
