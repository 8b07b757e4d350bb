"""Who leaves, who blocks, and which divisions hold, on known hedonic games."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.coalitions import all_coalitions, set_partitions
from fedcot.community.incentives import (
    STABILITIES,
    leavers,
    preferences_of,
    stable_partitions,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

A, B, C = ("a",), ("b",), ("c",)
AB, AC, BC, ABC = ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")
THREE = ("a", "b", "c")


def ranked(**orders):
    """Preferences from the coalitions of each player, the best first."""
    return {
        (player, coalition): float(-place)
        for player, order in orders.items()
        for place, coalition in enumerate(order)
    }


# Two is company, three is a crowd, and each runs after the next: no core (the game of
# Banerjee, Konishi and Sönmez 2001 that Bogomolnaia and Jackson 2002 discuss).
CYCLE = ranked(
    a=(AB, AC, ABC, A),
    b=(BC, AB, ABC, B),
    c=(AC, BC, ABC, C),
)
# Everybody likes company.
FRIENDS = ranked(a=(ABC, AB, AC, A), b=(ABC, AB, BC, B), c=(ABC, AC, BC, C))
# a runs after b, who wants to be alone.
CHASE = ranked(a=(AB, A), b=(B, AB))


def test_the_cycle_has_no_core():
    assert stable_partitions(THREE, CYCLE, "core") == ()


def test_the_cycle_holds_together_where_one_moves_at_a_time():
    assert stable_partitions(THREE, CYCLE, "nash") == ((ABC,),)


def test_friends_stay_together():
    for kind in STABILITIES:
        assert stable_partitions(THREE, FRIENDS, kind) == ((ABC,),)


def test_a_chase_has_a_core_and_no_nash_stable_partition():
    assert stable_partitions(("a", "b"), CHASE, "core") == ((A, B),)
    assert stable_partitions(("a", "b"), CHASE, "nash") == ()


def test_who_gains_nothing_does_not_block():
    even = {("a", A): 0.5, ("b", B): 0.5, ("a", AB): 0.5, ("b", AB): 0.75}
    # Both hold; only b would move, from alone to a.
    assert stable_partitions(("a", "b"), even, "core") == ((AB,), (A, B))
    assert stable_partitions(("a", "b"), even, "nash") == ((AB,),)


def test_a_coalition_that_cannot_form_neither_blocks_nor_is_joined():
    # Without the pairs of the cycle only the grand coalition and being alone are left.
    few = {key: value for key, value in CYCLE.items() if len(key[1]) != 2}
    for kind, stable in (("core", ((ABC,),)), ("nash", ((ABC,), (A, B, C)))):
        assert stable_partitions(THREE, few, kind) == stable
        # One member's preference is not enough for it to form.
        assert stable_partitions(THREE, {**few, ("a", AB): 9.0}, kind) == stable


@st.composite
def hedonic(draw, count=4):
    players = tuple("abcd"[:count])
    preferences = {
        (player, one): draw(st.integers(0, 4)) / 4
        for one in all_coalitions(players)
        for player in one
    }
    return players, preferences


@given(hedonic())
def test_stable_partitions_agree_with_the_definitions(drawn):
    players, preferences = drawn
    core, nash = set(), set()
    for partition in set_partitions(players):
        now = {p: preferences[p, block] for block in partition for p in block}
        groups = (
            group
            for size in range(1, len(players) + 1)
            for group in combinations(players, size)
        )
        if not any(
            all(preferences[p, group] > now[p] for p in group) for group in groups
        ):
            core.add(partition)
        moves = [
            (p, tuple(sorted({*block, p})))
            for p in players
            for block in ((), *partition)
            if p not in block
        ]
        if not any(preferences[p, target] > now[p] for p, target in moves):
            nash.add(partition)
    assert set(stable_partitions(players, preferences, "core")) == core
    assert set(stable_partitions(players, preferences, "nash")) == nash


@given(hedonic(3))
def test_a_common_ranking_has_a_core(drawn):
    # All members of a coalition think the same of it: form the best, then go on.
    players, preferences = drawn
    common = {(p, one): preferences[one[0], one] for p, one in preferences}
    assert stable_partitions(players, common, "core")


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ({("a", A): 1.0}, "found nothing for b"),
        ({("a", A): math.nan, ("b", B): 1.0}, "must be finite, found nan"),
    ],
)
@pytest.mark.parametrize("kind", STABILITIES)
def test_what_is_no_game_is_refused(kind, preferences, message):
    with pytest.raises(ConfigError, match=message):
        stable_partitions(("a", "b"), preferences, kind)


@pytest.mark.parametrize("kind", STABILITIES)
def test_nine_players_are_too_many(kind):
    players = tuple(f"c{n}" for n in range(9))
    alone = {(name, (name,)): 1.0 for name in players}
    with pytest.raises(ConfigError, match="at most 8"):
        stable_partitions(players, alone, kind)
    apart = tuple((name,) for name in players[:8])
    assert stable_partitions(players[:8], alone, kind) == (apart,)


# --- from a table


def table(**changes):
    student = {
        ("a", A): 0.5,
        ("b", B): 0.25,
        ("a", AB): 0.4375,
        ("b", AB): 0.625,
        ("b", A): 0.9,
    }
    parts = {
        "communities": ("a", "b"),
        "coalitions": (A, B, AB),
        "student": student,
        "provider": {"a": 0.375, "b": 0.5},
    }
    return UtilityTable(**{**parts, **changes})


def test_who_has_better_outside_leaves():
    # a has 0.5 alone and 0.4375 with b; b has 0.5 of the provider and 0.625 with a.
    assert leavers(table(), AB) == ("a",)


def test_the_provider_is_an_outside_option_too():
    assert leavers(table(provider={"a": 0.0, "b": 0.7}), AB) == ("a", "b")
    # b's own student is worse than the provider, so b leaves it as well.
    assert leavers(table(), B) == ("b",)
    assert leavers(table(), A) == ()


def test_as_good_as_outside_is_enough():
    assert leavers(table(provider={"a": 0.375, "b": 0.625}), AB) == ("a",)


def test_an_outside_option_must_be_known():
    with pytest.raises(ConfigError, match="`provider` must be measured"):
        leavers(table(provider={"a": 0.375}), AB)
    student = {("a", AB): 0.5, ("b", AB): 0.5, ("a", A): 0.5}
    with pytest.raises(ConfigError, match="`alone` must be measured"):
        leavers(table(student=student), AB)
    with pytest.raises(ConfigError, match="`alone` must be measured"):
        preferences_of(table(student=student))


def test_preferences_are_of_members_and_alone_the_outside_option():
    found = preferences_of(table())
    assert found == {
        ("a", A): 0.5,
        ("b", B): 0.5,
        ("a", AB): 0.4375,
        ("b", AB): 0.625,
    }
    assert stable_partitions(("a", "b"), found, "core") == ((A, B),)
