"""Data leverage power against the numbers of Vincent and Hecht 2021."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedcot.community.leverage import (
    achieves_at,
    both_views,
    extremes,
    leverage,
    leverage_curve,
)
from fedcot.errors import ConfigError

# Rows at a share of 0.2, recomputed from the published CSV files of the source: small,
# large, worst, best, whether higher is better, then CDC, CDC with strike and strike.
ROWS = {
    "cifar10_hidden": (
        (0.8363, 0.9276, 0.038462, 0.944026, True),
        (0.881040, 0.897316, 0.018139),
    ),
    "toxic_hidden": (
        (0.954971, 0.970222, 0.870569, 0.974509, True),
        (0.812023, 0.846958, 0.041248),
    ),
    "ml-10m_hidden": (
        (0.926995, 0.817183, 0.99, 0.774372, False),
        (0.292194, 0.364578, 0.198543),
    ),
    "pinterest_hidden": (
        (0.264896, 0.589776, 0.165637, 0.699966, True),
        (0.185764, 0.234025, 0.206221),
    ),
    "pinterest_company": (
        (0.657280, 0.695520, 0.165637, 0.699966, True),
        (0.920114, 0.927834, 0.008320),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_the_source(name):
    (small, large, worst, best, higher), expected = ROWS[name]
    found = leverage(small, large, worst, best, 0.2, higher_is_better=higher)
    cdc, with_strike, strike = expected
    assert found.cdc == pytest.approx(cdc, abs=1e-5)
    assert found.cdc_with_strike == pytest.approx(with_strike, abs=1e-5)
    assert found.strike == pytest.approx(strike, abs=1e-5)
    assert found.transfer_bonus == pytest.approx(with_strike - cdc, abs=1e-5)
    assert found.undefined == ""
    assert found.fraction == 0.2


def test_by_hand():
    # iow: small 0.3, large 0.6, best 0.8.
    found = leverage(0.4, 0.7, 0.1, 0.9, 0.5)
    assert found.cdc == pytest.approx(0.375)
    assert found.cdc_with_strike == pytest.approx(0.5)
    assert found.strike == pytest.approx(0.25)
    assert found.transfer_bonus == pytest.approx(0.125)


accuracy = st.floats(0, 1, allow_subnormal=False)


@given(accuracy, accuracy, accuracy, accuracy, st.floats(0, 1))
def test_errors_and_accuracies_give_the_same(small, large, worst, best, fraction):
    assume(best - worst > 1e-6)
    one = leverage(small, large, worst, best, fraction)
    two = leverage(
        *(1 - x for x in (small, large, worst, best)), fraction, higher_is_better=False
    )
    assert two.cdc == pytest.approx(one.cdc, rel=1e-6, abs=1e-6)
    assert two.strike == pytest.approx(one.strike, rel=1e-6, abs=1e-6)


@given(accuracy, accuracy, accuracy, accuracy, st.floats(0, 1))
def test_nothing_is_infinite_and_not_a_number_has_a_reason(
    small, large, worst, best, fraction
):
    assume(best - worst > 1e-300)
    found = leverage(small, large, worst, best, fraction)
    assert math.isfinite(found.cdc)
    assert not math.isinf(found.cdc_with_strike)
    assert math.isnan(found.cdc_with_strike) == bool(found.undefined)
    assert math.isnan(found.cdc_with_strike) == math.isnan(found.transfer_bonus)


def test_a_strike_that_leaves_nothing_has_no_ratio():
    for large in (0.1, 0.1 + 0.8 * 0.0099, 0.05):
        found = leverage(0.4, large, 0.1, 0.9, 0.2)
        assert math.isnan(found.cdc_with_strike)
        assert math.isnan(found.transfer_bonus)
        assert "next to no improvement" in found.undefined
        assert found.strike == pytest.approx(1 - (large - 0.1) / 0.8)
    assert leverage(0.4, 0.1 + 0.8 * 0.0101, 0.1, 0.9, 0.2).undefined == ""


def test_moving_more_than_half_is_undefined():
    assert leverage(0.4, 0.7, 0.1, 0.9, 0.5).undefined == ""
    found = leverage(0.4, 0.7, 0.1, 0.9, 0.51)
    assert math.isnan(found.cdc_with_strike)
    assert "at most 0.5" in found.undefined
    assert found.cdc == pytest.approx(0.375)
    assert found.strike == pytest.approx(0.25)


def test_without_a_strike_only_contribution_is_known():
    found = leverage(0.4, None, 0.1, 0.9, 0.2)
    assert found.cdc == pytest.approx(0.375)
    assert math.isnan(found.strike)
    assert math.isnan(found.cdc_with_strike)
    assert found.undefined == "no strike was simulated"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.4, 0.7, 0.5, 0.5, 0.2), "`best` must differ from `worst`, found 0.5"),
        ((0.4, 0.7, 0.9, 0.1, 0.2), "`best` must be better than `worst`"),
        ((0.4, 0.7, 0.1, 0.9, 1.2), r"`fraction` must be in \[0, 1\], found 1.2"),
        ((math.nan, 0.7, 0.1, 0.9, 0.2), "`small` must be finite"),
        ((0.4, math.inf, 0.1, 0.9, 0.2), "`large` must be finite"),
        ((1.0, 0.0, 0.0, 1e-320, 0.2), "more than rounding"),
        ((0.0, 1.0, 0.0, 1e-320, 0.2), "more than rounding"),
    ],
)
def test_bad_input_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        leverage(*values)


def test_an_error_that_is_called_an_accuracy_is_noticed():
    with pytest.raises(ConfigError, match="direction"):
        leverage(0.93, 0.82, 0.99, 0.77, 0.2)
    with pytest.raises(ConfigError, match="direction"):
        leverage(0.4, 0.7, 0.1, 0.9, 0.2, higher_is_better=False)


def test_the_smallest_share_that_passes():
    shares = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    dlp = (0.3, 0.5, 0.62, 0.8, 0.79, 0.88, 0.95)
    # Strictly above: 0.5 at 0.05 does not pass 0.5, nor 0.8 at 0.2 pass 0.8.
    assert achieves_at(shares, dlp, (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)) == {
        0.5: 0.1,
        0.6: 0.1,
        0.7: 0.2,
        0.8: 0.4,
        0.9: 0.5,
        0.95: None,
    }


def test_the_order_tested_does_not_matter_and_unknown_passes_nothing():
    assert achieves_at((0.5, 0.1, 0.05), (0.9, 0.9, math.nan), (0.8,)) == {0.8: 0.1}
    assert achieves_at((), (), (0.8,)) == {0.8: None}
    # A dip afterwards does not count.
    assert achieves_at((0.1, 0.2), (0.9, 0.1), (0.8,)) == {0.8: 0.1}
    with pytest.raises(ConfigError, match="`dlp` must be one per share"):
        achieves_at((0.1,), (), (0.5,))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(-1, 2)), max_size=8),
    st.floats(-1, 2),
    st.floats(-1, 2),
)
def test_a_higher_threshold_is_never_reached_earlier(points, first, second):
    low, high = sorted((first, second))
    shares, dlp = [f for f, _ in points], [d for _, d in points]
    found = achieves_at(shares, dlp, (low, high))
    if found[high] is not None:
        assert found[low] is not None
        assert found[low] <= found[high]


def test_a_curve_stands_by_rising_share():
    curve = leverage_curve(
        "own-test", {0.2: 0.5, 0.1: 0.3}, {0.1: 0.9, 0.2: 0.7}, worst=0.1, best=0.9
    )
    assert curve.fractions == (0.1, 0.2)
    assert curve.cdc == pytest.approx((0.25, 0.5))
    assert [point.strike for point in curve.points] == pytest.approx([0, 0.25])
    assert curve.achieves_at((0.2, 0.3, 0.6)) == {0.2: 0.1, 0.3: 0.2, 0.6: None}


@pytest.mark.parametrize(
    ("small", "large"), [({}, None), ({0.1: 0.3}, {}), ({0.1: 0.3}, {0.2: 0.3})]
)
def test_both_models_are_tested_at_the_same_shares(small, large):
    with pytest.raises(ConfigError, match="same shares"):
        leverage_curve("own-test", small, large, worst=0.1, best=0.9)


def test_both_views_lie_between_the_same_ends():
    own_test = ({0.1: 0.8, 0.2: 0.85}, {0.1: 0.9, 0.2: 0.9})
    hold_out = ({0.1: 0.4, 0.2: 0.5}, None)
    own, held = both_views(own_test, hold_out)
    assert (own.view, held.view) == ("own-test", "hold-out")
    assert (own.worst, own.best) == (held.worst, held.best) == (0.4, 0.9)
    assert own.cdc == pytest.approx((0.8, 0.9))
    assert held.cdc == pytest.approx((0, 0.2))
    assert math.isnan(held.points[0].strike)
    # The same contribution passes 0.7 in one view only: both have to be shown.
    assert own.achieves_at((0.7,)) == {0.7: 0.1}
    assert held.achieves_at((0.7,)) == {0.7: None}


def test_known_ends_and_errors_in_both_views():
    # As RMSE with worst 1.0: (1 - 0.9) / (1 - 0.5) and (1 - 0.8) / (1 - 0.5).
    own, held = both_views(
        ({0.1: 0.8}, {0.1: 0.5}),
        ({0.1: 0.9}, {0.1: 0.6}),
        worst=1.0,
        higher_is_better=False,
    )
    assert (own.worst, own.best) == (1.0, 0.5)
    assert own.cdc == pytest.approx((0.4,))
    assert held.cdc == pytest.approx((0.2,))
    own, _ = both_views(({0.1: 0.5}, None), ({0.1: 0.5}, None), worst=0.0, best=1.0)
    assert own.cdc == (0.5,)


def test_extremes_follow_the_direction():
    assert extremes((0.2, 0.5), (0.9,)) == (0.2, 0.9)
    assert extremes((0.2, 0.5), (0.9,), higher_is_better=False) == (0.9, 0.2)
    with pytest.raises(ConfigError, match="at least one"):
        extremes((), ())
