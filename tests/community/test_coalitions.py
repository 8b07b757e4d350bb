"""Coalitions: their order, how they are written and read, and all divisions."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.coalitions import (
    all_coalitions,
    coalition_of,
    label,
    parse_coalitions,
    set_partitions,
)
from fedcot.errors import ConfigError

THREE = ("library", "bakery", "zoo")


def test_a_coalition_stands_in_the_order_of_the_communities():
    assert coalition_of({"zoo", "library"}, THREE) == ("library", "zoo")
    assert coalition_of(["bakery", "bakery"], THREE) == ("bakery",)
    assert label(("library", "zoo")) == "library+zoo"


@pytest.mark.parametrize("members", [(), ("library", "moon")])
def test_nobody_and_strangers_are_no_coalition(members):
    with pytest.raises(ConfigError, match="`members` must be communities"):
        coalition_of(members, THREE)


def test_all_coalitions_come_smallest_first_in_order():
    assert all_coalitions(THREE) == (
        ("library",),
        ("bakery",),
        ("zoo",),
        ("library", "bakery"),
        ("library", "zoo"),
        ("bakery", "zoo"),
        THREE,
    )


@given(st.integers(0, 10))
def test_there_are_two_to_the_n_less_one_coalitions(count):
    names = tuple(f"c{n}" for n in range(count))
    found = all_coalitions(names)
    assert len(found) == len(set(found)) == 2**count - 1
    assert all(len(one) <= len(two) for one, two in pairwise(found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", all_coalitions(THREE)),
        ("alone", (("library",), ("bakery",), ("zoo",))),
        ("grand", (THREE,)),
        ("grand,alone", (("library",), ("bakery",), ("zoo",), THREE)),
        (" zoo + library , zoo ", (("zoo",), ("library", "zoo"))),
        ("zoo+bakery+library,grand", (THREE,)),
    ],
)
def test_coalitions_are_read(text, expected):
    assert parse_coalitions(text, THREE) == expected


@given(st.sets(st.sampled_from(all_coalitions(THREE)), min_size=1))
def test_what_is_written_is_read_back(chosen):
    text = ",".join(label(one) for one in chosen)
    assert set(parse_coalitions(text, THREE)) == chosen


@pytest.mark.parametrize(
    "text", ["", "moon", "zoo+zoo", "zoo+", "library,,zoo", "all+zoo", "Library"]
)
def test_what_is_no_coalition_is_refused(text):
    with pytest.raises(ConfigError, match="`coalitions` must be all, alone, grand"):
        parse_coalitions(text, THREE)


@pytest.mark.parametrize(
    ("count", "bell"), enumerate([1, 1, 2, 5, 15, 52, 203, 877, 4140])
)
def test_partitions_are_as_many_as_the_bell_number(count, bell):
    names = tuple(f"c{n}" for n in range(count))
    found = list(set_partitions(names))
    assert len(found) == bell
    # As sets of sets, so that the same division in another order would show.
    assert len({frozenset(map(frozenset, one)) for one in found}) == bell
    for partition in found:
        assert sorted(name for block in partition for name in block) == list(names)
        assert all(block == coalition_of(block, names) for block in partition)


def test_the_partitions_of_three():
    assert set(set_partitions(("a", "b", "c"))) == {
        (("a", "b", "c"),),
        (("a", "b"), ("c",)),
        (("a", "c"), ("b",)),
        (("a",), ("b", "c")),
        (("a",), ("b",), ("c",)),
    }
