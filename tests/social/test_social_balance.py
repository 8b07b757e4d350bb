"""The balance of labels against the exact tests of SciPy."""

import math

import pytest
from scipy import stats

from fedcot.errors import ConfigError
from fedcot.social.balance import LARGEST_ENUMERATION, class_balance

SPAM, OTHER = "spam", "not spam"
LABELS = (SPAM, OTHER)


@pytest.mark.parametrize("count", range(17))
def test_two_labels_are_the_binomial_test(count: int) -> None:
    chosen = [SPAM] * count + [OTHER] * (16 - count)
    found = class_balance(chosen, LABELS)
    assert found.counts == {SPAM: count, OTHER: 16 - count}
    assert found.expected == {SPAM: 8.0, OTHER: 8.0}
    assert found.skew == pytest.approx(abs(count - 8) / 16)
    assert found.favoured == ("" if count == 8 else SPAM if count > 8 else OTHER)
    assert found.p_value == pytest.approx(stats.binomtest(count, 16).pvalue)
    assert found.is_exact


@pytest.mark.parametrize("count", range(2, 9))
def test_two_labels_of_a_pool_are_fishers_test(count: int) -> None:
    pool = [SPAM] * 10 + [OTHER] * 30
    chosen = [SPAM] * count + [OTHER] * (8 - count)
    found = class_balance(chosen, LABELS, pool=pool)
    table = [[count, 8 - count], [10 - count, 30 - 8 + count]]
    assert found.p_value == pytest.approx(stats.fisher_exact(table).pvalue)
    assert found.expected == {SPAM: 2.0, OTHER: 6.0}
    assert found.skew == pytest.approx(abs(count - 2) / 8)


def test_three_labels_are_the_multinomial_law() -> None:
    found = class_balance(["a", "a", "a", "b"], ["a", "b", "c"])
    # Tables of 4 as unlikely as (3, 1, 0): 6 of weight 4 and 3 of weight 1, of 81.
    assert found.p_value == pytest.approx((6 * 4 + 3) / 81)
    assert found.skew == pytest.approx((5 / 3 + 1 / 3 + 4 / 3) / 8)
    assert class_balance(["a"] * 4, ["a", "b", "c"]).p_value == pytest.approx(3 / 81)


def test_too_many_tables_leave_a_chi_square_test_that_says_so() -> None:
    labels = [f"label {place}" for place in range(12)]
    chosen = labels * 2 + labels[:6]
    assert math.comb(30 + 11, 30) > LARGEST_ENUMERATION
    found = class_balance(chosen, labels)
    assert not found.is_exact
    assert found.p_value == pytest.approx(stats.chisquare([3] * 6 + [2] * 6).pvalue)


def test_what_is_no_label_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="found 1 that") as caught:
        class_balance([SPAM, "my private answer"], LABELS)
    assert "private answer" not in str(caught.value)
    for chosen, labels, pool in [
        ([], LABELS, None),
        ([SPAM], [SPAM], None),
        ([SPAM, SPAM], LABELS, [SPAM, OTHER, OTHER]),
    ]:
        with pytest.raises(ConfigError, match="`chosen`"):
            class_balance(chosen, labels, pool=pool)
