"""Filters: nothing that passes sums to more than the total, in any adaptive order."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.errors import ConfigError, PrivacyBudgetExhausted
from fedcot.privacy.filters import PureFilter, RenyiFilter
from fedcot.privacy.renyi import (
    conversion_cost,
    epsilon_of_renyi,
    renyi_of_bounded_range,
    renyi_of_pure,
    renyi_of_rows,
)

EPSILONS = st.floats(min_value=0.0, max_value=3.0)


def moment_divergence(losses: list[float], masses: list[float], order: float) -> float:
    """The Renyi divergence of a law of losses, from its definition."""
    moment = sum(
        mass * math.exp((order - 1) * loss)
        for mass, loss in zip(masses, losses, strict=True)
    )
    return math.log(moment) / (order - 1)


@pytest.mark.parametrize("order", [1.05, 1.5, 2.0, 8.0, 40.0])
@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 8.0])
def test_divergence_of_randomised_response_is_the_definition(
    epsilon: float, order: float
) -> None:
    yes = 1 / (1 + math.exp(-epsilon))
    exact = moment_divergence([epsilon, -epsilon], [yes, 1 - yes], order)
    assert renyi_of_pure(epsilon, order) == pytest.approx(exact, rel=1e-9)
    assert renyi_of_pure(epsilon, order) <= epsilon


@pytest.mark.parametrize("order", [1.05, 1.5, 2.0, 8.0, 40.0])
@pytest.mark.parametrize("width", [0.01, 0.5, 2.0, 8.0])
def test_divergence_of_a_bounded_range_is_the_worst_two_point_law(
    width: float, order: float
) -> None:
    worst = 0.0
    for upper in np.linspace(1e-9, width - 1e-9, 4001):
        mass = math.expm1(upper - width) / math.expm1(-width)
        losses = [upper, upper - width]
        worst = max(worst, moment_divergence(losses, [mass, 1 - mass], order))
    found = renyi_of_bounded_range(width, order)
    assert worst * (1 - 1e-9) <= found <= worst * (1 + 1e-4)


def test_divergence_of_a_bounded_range_near_order_one_is_its_largest_mean() -> None:
    """The Kullback-Leibler limit of Harrison and Manurangsi."""
    for width, published in ((1.0, 0.1233), (4.0, 1.670), (8.0, 4.923)):
        ratio = width / math.expm1(width)
        assert ratio - 1 - math.log(ratio) == pytest.approx(published, abs=1e-3)
        near = renyi_of_bounded_range(width, 1 + 1e-6)
        assert near == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.integers(1, 60), min_size=4, max_size=4), min_size=2, max_size=4
    ),
    st.floats(min_value=1.01, max_value=20.0),
)
def test_no_channel_diverges_more_than_its_properties_allow(
    weights: list[list[int]], order: float
) -> None:
    rows = np.array(weights, dtype=float)
    rows /= rows.sum(axis=1, keepdims=True)
    logs = np.log(rows)
    epsilon = max(float((one - other).max()) for one in logs for other in logs)
    width = max(float(np.ptp(one - other)) for one in logs for other in logs)
    found = renyi_of_rows(rows, order)
    exact = max(
        math.log(float((one**order * other ** (1 - order)).sum())) / (order - 1)
        for one in rows
        for other in rows
    )
    assert found == pytest.approx(max(0.0, exact), abs=1e-9)
    assert found <= renyi_of_pure(epsilon, order) + 1e-9
    assert found <= renyi_of_bounded_range(width, order) + 1e-9


def test_huge_moments_are_no_bound_instead_of_an_overflow() -> None:
    rows = np.array([[1 - 1e-12, 1e-12], [1e-12, 1 - 1e-12]])
    assert renyi_of_rows(rows, 50.0) == math.inf
    assert renyi_of_pure(700.0, 64.0) <= 700.0
    assert renyi_of_bounded_range(700.0, 64.0) <= 700.0
    assert renyi_of_pure(0.0, 2.0) == renyi_of_bounded_range(0.0, 2.0) == 0.0


def test_the_conversion_is_the_published_one() -> None:
    """Gaussian noise of 1: divergence order / 2; dp_accounting gives the same."""
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    for order in (2.0, 5.5, 20.0):
        theirs, _ = compute_epsilon(np.array([order]), np.array([order / 2]), 1e-6)
        assert epsilon_of_renyi(order / 2, order, 1e-6) == pytest.approx(theirs)


@pytest.mark.parametrize("order", [1.0, 0.5, math.inf, math.nan])
def test_an_order_that_is_none_is_refused(order: float) -> None:
    with pytest.raises(ValueError, match="`order`"):
        renyi_of_pure(1.0, order)


@settings(deadline=None, max_examples=60)
@given(st.lists(EPSILONS, max_size=30), st.floats(min_value=1e-6, max_value=9.0))
def test_the_pure_sum_never_passes_the_total(asked: list[float], total: float) -> None:
    """What is asked depends on what is left, as an adversary would choose."""
    keeper, passed = PureFilter(total), Fraction(0)
    for epsilon in asked:
        wanted = min(epsilon, 2 * keeper.remaining)
        if keeper.would_exceed(wanted):
            with pytest.raises(PrivacyBudgetExhausted):
                keeper.spend(wanted)
        else:
            keeper.spend(wanted)
            passed += Fraction(wanted)
        assert passed <= Fraction(keeper.spent) <= Fraction(total)
        assert Fraction(keeper.remaining) <= Fraction(total) - passed


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(EPSILONS, EPSILONS), max_size=30),
    st.sampled_from([2.0, 4.5, 16.0]),
)
def test_the_divergence_never_passes_what_the_total_allows(
    asked: list[tuple[float, float]], order: float
) -> None:
    total, delta = 20.0, 1e-5
    keeper, passed = RenyiFilter(order, total, delta), 0.0
    for epsilon, width in asked:
        if keeper.would_exceed(epsilon, width=width):
            with pytest.raises(PrivacyBudgetExhausted):
                keeper.spend(epsilon, width=width)
            continue
        keeper.spend(epsilon, width=width)
        passed += min(
            renyi_of_pure(epsilon, order), renyi_of_bounded_range(width, order)
        )
    assert epsilon_of_renyi(passed, order, delta) <= total
    assert passed <= keeper.spent <= passed + 31e-9


def test_exactly_the_total_fits_and_a_nano_nat_more_does_not() -> None:
    keeper = PureFilter(84.0)
    for _ in range(21):
        keeper.spend(4.0)
    assert (keeper.spent, keeper.remaining) == (84.0, 0.0)
    assert not keeper.would_exceed(0.0)
    assert keeper.would_exceed(1e-12)


def test_a_release_without_a_bound_never_passes() -> None:
    for keeper in (PureFilter(9.0), RenyiFilter(8.0, 9.0, 1e-3)):
        assert keeper.would_exceed(math.inf)
        with pytest.raises(PrivacyBudgetExhausted, match="no finite bound"):
            keeper.spend(math.inf)
        for bad in (-1.0, math.nan):
            with pytest.raises(ValueError, match="`epsilon`"):
                keeper.spend(bad)
        assert keeper.spent == 0.0


def test_at_a_delta_the_filter_lets_more_through_than_the_pure_sum() -> None:
    """One hundred releases of 0.1 nats are 10 nats pure, and 5.5 at delta 1e-6."""
    keeper = RenyiFilter(9.0, 5.5, 1e-6)
    for _ in range(100):
        keeper.spend(0.1)
    passed = 100
    while not keeper.would_exceed(0.1):
        keeper.spend(0.1)
        passed += 1
    assert passed < 110


def test_a_saved_filter_goes_on_and_gives_nothing_back() -> None:
    keeper = PureFilter(9.0)
    keeper.spend(2.5)
    early = keeper.state_dict()
    keeper.spend(2.5)
    keeper.load_state_dict(early)
    assert keeper.spent == 5.0
    other = PureFilter(9.0)
    other.load_state_dict(keeper.state_dict())
    assert other.remaining == 4.0
    for wrong in (PureFilter(8.0).state_dict(), {**early, "spent": -1}, {}):
        with pytest.raises(ValueError, match="saved state"):
            other.load_state_dict(wrong)
    renyi = RenyiFilter(8.0, 9.0, 1e-3)
    renyi.spend(1.0)
    again = RenyiFilter(8.0, 9.0, 1e-3)
    again.load_state_dict(renyi.state_dict())
    assert again.spent == renyi.spent
    with pytest.raises(ValueError, match="saved state"):
        RenyiFilter(7.0, 9.0, 1e-3).load_state_dict(renyi.state_dict())


@pytest.mark.parametrize("total", [0.0, -1.0, math.inf, math.nan])
def test_a_total_has_to_be_finite_and_positive(total: float) -> None:
    with pytest.raises(ConfigError, match="`total` must"):
        PureFilter(total)
    with pytest.raises(ConfigError, match="`total` must"):
        RenyiFilter(8.0, total, 1e-6)


def test_a_renyi_filter_needs_an_order_that_leaves_something() -> None:
    assert conversion_cost(1.1, 1e-6) > 100
    with pytest.raises(ConfigError, match="`order` must leave"):
        RenyiFilter(1.1, 9.0, 1e-6)
    with pytest.raises(ConfigError, match="`order` must be"):
        RenyiFilter(1.0, 9.0, 1e-6)
    with pytest.raises(ConfigError, match="`delta`"):
        RenyiFilter(8.0, 9.0, 0.0)
