"""How far one community's format carries over to another."""

import math

import pytest

from fedcot.community.compatibility import compatibility_of, format_compatibility
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

PAIR = {("a", "a"): 0.8, ("a", "b"): 0.1, ("b", "a"): 0.2, ("b", "b"): 0.5}


def test_rows_are_trained_on_and_columns_tested_on():
    found = format_compatibility(("a", "b"), PAIR)
    assert found.raw == ((0.8, 0.1), (0.2, 0.5))
    # By the tested community's own student: 0.1 / 0.5 and 0.2 / 0.8.
    assert found.relative[0] == pytest.approx((1, 0.2))
    assert found.relative[1] == pytest.approx((0.25, 1))
    assert found.mean_transfer == pytest.approx(0.225)
    assert found.incompatible_pairs(0.25) == (("a", "b"),)
    assert found.incompatible_pairs(0.3) == (("a", "b"), ("b", "a"))


def test_an_incompatible_pair_has_a_dominant_diagonal():
    assert format_compatibility(("a", "b"), PAIR).diagonal_dominance == 1.0


def test_a_format_that_another_teaches_better_is_seen():
    found = format_compatibility(("a", "b"), {**PAIR, ("a", "b"): 0.6})
    assert found.diagonal_dominance == 0.5
    assert found.relative[0][1] == pytest.approx(1.2)
    # As good still counts for the diagonal.
    even = format_compatibility(("a", "b"), {**PAIR, ("a", "b"): 0.5})
    assert even.diagonal_dominance == 1.0


def test_nothing_is_divided_by_nothing():
    found = format_compatibility(("a", "b"), {**PAIR, ("b", "b"): 0.0})
    assert math.isnan(found.relative[0][1])
    assert math.isnan(found.relative[1][1])
    assert found.mean_transfer == pytest.approx(0.25)
    assert found.incompatible_pairs(1.0) == (("b", "a"),)


def test_one_community_has_nothing_off_the_diagonal():
    found = format_compatibility(("a",), {("a", "a"): 0.5})
    assert math.isnan(found.diagonal_dominance)
    assert math.isnan(found.mean_transfer)
    assert found.incompatible_pairs(1.0) == ()


@pytest.mark.parametrize("value", [None, math.nan, 1.2, -0.1])
def test_every_pair_is_needed(value):
    accuracy = {**PAIR, ("a", "b"): value}
    if value is None:
        del accuracy["a", "b"]
    with pytest.raises(ConfigError, match="trained on a and tested on b"):
        format_compatibility(("a", "b"), accuracy)


def test_a_table_gives_the_students_alone():
    a, b, both = ("a",), ("b",), ("a", "b")
    student = {
        ("a", a): 0.8,
        ("b", a): 0.1,
        ("a", b): 0.2,
        ("b", b): 0.5,
        ("a", both): 0.9,
    }
    table = UtilityTable(
        communities=("a", "b"), coalitions=(a, b, both), student=student
    )
    assert compatibility_of(table) == format_compatibility(("a", "b"), PAIR)
    del student["b", a]
    table = UtilityTable(
        communities=("a", "b"), coalitions=(a, b, both), student=student
    )
    with pytest.raises(ConfigError, match="trained on a and tested on b"):
        compatibility_of(table)
