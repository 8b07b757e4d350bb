"""Shapley, Banzhaf, leave-one-out, core and least core against known games."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.coalitions import Coalition, all_coalitions
from fedcot.community.games import Game
from fedcot.community.solutions import (
    banzhaf_values,
    least_core,
    leave_one_out,
    shapley_values,
)


def game(count: int, worth: Callable[[Coalition], float]) -> Game:
    players = tuple("abcdefgh"[:count])
    return Game(
        players=players, value={one: worth(one) for one in all_coalitions(players)}
    )


def symmetric(sizes: list[float]) -> Game:
    return game(len(sizes), lambda one: sizes[len(one) - 1])


def airport(costs: dict[str, float]) -> Game:
    """A runway that serves the largest of a coalition, as a worth below 0."""
    return game(len(costs), lambda one: -max(costs[name] for name in one))


def glove(left: str, count: int) -> Game:
    return game(
        count,
        lambda one: min(
            sum(name in left for name in one), sum(name not in left for name in one)
        ),
    )


def unanimity(needed: str, count: int) -> Game:
    return game(count, lambda one: float(set(needed) <= set(one)))


def voting(weights: dict[str, int], quota: int) -> Game:
    return game(
        len(weights), lambda one: float(sum(weights[name] for name in one) >= quota)
    )


def by_permutations(played: Game) -> dict[str, float]:
    """The definition of Shapley's value: the mean over all orders of joining."""
    total = dict.fromkeys(played.players, Fraction(0))
    for order in permutations(played.players):
        joined: set[str] = set()
        for player in order:
            before = tuple(one for one in played.players if one in joined)
            joined.add(player)
            after = tuple(one for one in played.players if one in joined)
            total[player] += Fraction(played.worth(after)) - Fraction(
                played.worth(before)
            )
    orders = math.factorial(len(played.players))
    return {player: float(added / orders) for player, added in total.items()}


def is_in_core(played: Game, shares: dict[str, float], slack: float = 1e-6) -> bool:
    """All of it is divided, and no coalition is worth more than it gets."""
    everything = math.fsum(shares.values()) - played.worth(played.grand)
    return abs(everything) <= slack and all(
        math.fsum(shares[name] for name in one) >= played.worth(one) - slack
        for one in all_coalitions(played.players)
    )


def least_core_of_three(played: Game) -> float:
    """Bondareva and Shapley: the worst of the five minimal balanced collections."""
    a, b, c = played.players
    v = played.worth
    total = v(played.grand)
    return max(
        (v((a,)) + v((b,)) + v((c,)) - total) / 3,
        (v((a,)) + v((b, c)) - total) / 2,
        (v((b,)) + v((a, c)) - total) / 2,
        (v((c,)) + v((a, b)) - total) / 2,
        ((v((a, b)) + v((a, c)) + v((b, c))) / 2 - total) / 1.5,
    )


worths = st.floats(-5, 5, allow_subnormal=False)


@st.composite
def games(draw, least: int = 1, most: int = 5) -> Game:
    count = draw(st.integers(least, most))
    values = iter(draw(st.lists(worths, min_size=2**count - 1, max_size=2**count - 1)))
    return game(count, lambda one: next(values))


# --- Shapley's value


def test_airport_game_has_the_closed_form():
    # Each part of the runway is shared by those who need it: 1/4, + 2/3, + 3/2, + 4.
    costs = {"a": 1.0, "b": 3.0, "c": 6.0, "d": 10.0}
    parts = [1 / 4, 2 / 3, 3 / 2, 4]
    found = shapley_values(airport(costs))
    for place, player in enumerate("abcd"):
        assert found[player] == pytest.approx(-sum(parts[: place + 1]))


def test_glove_game_has_the_closed_form():
    # One left glove, two right ones: the left one is third or second with p = 2/3.
    found = shapley_values(glove("a", 3))
    assert found == pytest.approx({"a": 2 / 3, "b": 1 / 6, "c": 1 / 6})
    # As many left as right: alike.
    assert shapley_values(glove("ab", 4)) == pytest.approx(dict.fromkeys("abcd", 0.5))


def test_unanimity_game_is_shared_by_those_needed():
    assert shapley_values(unanimity("bd", 4)) == pytest.approx(
        {"a": 0, "b": 0.5, "c": 0, "d": 0.5}
    )


def test_weighted_voting_game_counts_pivots():
    # [51; 50, 49, 1]: a is needed by both others; 4, 1 and 1 of six orders.
    found = shapley_values(voting({"a": 50, "b": 49, "c": 1}, 51))
    assert found == pytest.approx({"a": 4 / 6, "b": 1 / 6, "c": 1 / 6})


def test_symmetric_game_is_shared_equally():
    assert shapley_values(symmetric([1.0, 5.0, 6.0, 14.0])) == pytest.approx(
        dict.fromkeys("abcd", 3.5)
    )


@given(games())
def test_shapley_agrees_with_all_orders_and_sums_to_the_worth_of_all(played):
    found = shapley_values(played)
    assert found == pytest.approx(by_permutations(played), abs=1e-9)
    assert math.fsum(found.values()) == pytest.approx(
        played.worth(played.grand), abs=1e-9
    )


@given(games(2, 4), st.floats(-3, 3), st.integers(0, 3))
def test_a_dummy_gets_what_it_has_alone(played, own, place):
    # One more player that brings `own` wherever it goes, anywhere in the order.
    players = list(played.players)
    players.insert(min(place, len(players)), "z")
    extended = Game(
        players=tuple(players),
        value={
            one: played.worth(tuple(name for name in one if name != "z"))
            + own * ("z" in one)
            for one in all_coalitions(players)
        },
    )
    found = shapley_values(extended)
    assert found.pop("z") == pytest.approx(own, abs=1e-9)
    assert found == pytest.approx(shapley_values(played), abs=1e-9)
    assert banzhaf_values(extended)["z"] == pytest.approx(own, abs=1e-9)
    assert leave_one_out(extended)["z"] == pytest.approx(own, abs=1e-9)


@given(games(4, 4), games(4, 4))
def test_values_of_a_sum_of_games_are_sums(first, second):
    both = game(4, lambda one: first.worth(one) + second.worth(one))
    for values in (shapley_values, banzhaf_values, leave_one_out):
        one, two = values(first), values(second)
        assert values(both) == pytest.approx(
            {name: one[name] + two[name] for name in one}, abs=1e-9
        )


@given(st.lists(worths, min_size=6, max_size=6))
def test_players_that_are_alike_get_alike(values):
    # Worth depends on how many of a and b are in, and on who else is.
    def worth(one: Coalition) -> float:
        pair = ("a" in one) + ("b" in one)
        return values[pair * 2 + ("c" in one)]

    for solution in (shapley_values, banzhaf_values, leave_one_out):
        found = solution(game(3, worth))
        assert found["a"] == pytest.approx(found["b"], abs=1e-9)


# --- Banzhaf's value and leave-one-out


def test_banzhaf_counts_swings():
    # [51; 50, 49, 1]: a swings in 3 of 4 sets, b and c in one each.
    found = banzhaf_values(voting({"a": 50, "b": 49, "c": 1}, 51))
    assert found == pytest.approx({"a": 3 / 4, "b": 1 / 4, "c": 1 / 4})


def test_three_players_tell_the_solutions_apart():
    value = {
        ("a",): 1.0,
        ("b",): 2.0,
        ("c",): 0.0,
        ("a", "b"): 6.0,
        ("a", "c"): 4.0,
        ("b", "c"): 3.0,
        ("a", "b", "c"): 12.0,
    }
    played = Game(players=("a", "b", "c"), value=value)
    # a: (2*1 + (6-2) + (4-0) + 2*(12-3)) / 6 = 28/6, and so on.
    assert shapley_values(played) == pytest.approx(
        {"a": 28 / 6, "b": 28 / 6, "c": 16 / 6}
    )
    # a: (1 + 4 + 4 + 9) / 4.
    assert banzhaf_values(played) == pytest.approx({"a": 4.5, "b": 4.5, "c": 2.5})
    assert leave_one_out(played) == {"a": 9.0, "b": 8.0, "c": 6.0}


def test_leave_one_out_misses_what_can_be_replaced():
    # Either of b and c will do, so neither is missed, and Shapley still pays both.
    assert leave_one_out(glove("a", 3)) == {"a": 1.0, "b": 0.0, "c": 0.0}


# --- The core


def test_core_of_the_glove_game_is_one_point():
    played = glove("a", 3)
    found = least_core(played)
    assert found.epsilon == pytest.approx(0, abs=1e-7)
    assert not found.core_is_empty
    assert found.allocation == pytest.approx({"a": 1, "b": 0, "c": 0}, abs=1e-6)


def test_majority_of_three_has_no_core():
    # Any two of three: x(S) = 2/3 of 1 is the best that all pairs can get.
    found = least_core(voting({"a": 1, "b": 1, "c": 1}, 2))
    assert found.epsilon == pytest.approx(1 / 3)
    assert found.core_is_empty
    assert found.allocation == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-6)


def test_a_veto_player_has_the_core_for_itself():
    played = voting({"a": 50, "b": 49, "c": 1}, 51)
    found = least_core(played)
    assert not found.core_is_empty
    assert found.allocation == pytest.approx({"a": 1, "b": 0, "c": 0}, abs=1e-6)


def test_airport_shares_are_in_the_core():
    # The cost game is concave, so its worth is convex, and Shapley's is in the core.
    played = airport({"a": 1.0, "b": 3.0, "c": 6.0, "d": 10.0})
    assert is_in_core(played, shapley_values(played))
    assert not least_core(played).core_is_empty


def test_unanimity_of_two_leaves_the_third_nothing():
    # a and b can have all of it, so nothing is left to give c more than its 0.
    found = least_core(unanimity("ab", 3))
    assert found.epsilon == pytest.approx(0, abs=1e-7)
    assert found.allocation["c"] == pytest.approx(0, abs=1e-6)
    assert not found.core_is_empty
    # All three are needed: each can be given 1/3 more than it can claim.
    found = least_core(unanimity("abc", 3))
    assert found.epsilon == pytest.approx(-1 / 3)
    assert found.allocation == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-6)


@given(st.lists(worths, min_size=2, max_size=5))
def test_least_core_of_symmetric_games_has_the_closed_form(sizes):
    # Equal shares are among the best, by symmetry and convexity.
    count = len(sizes)
    expected = max(
        sizes[size - 1] - size * sizes[-1] / count for size in range(1, count)
    )
    assert least_core(symmetric(sizes)).epsilon == pytest.approx(expected, abs=1e-6)


@given(games(3, 3))
def test_least_core_of_three_agrees_with_balanced_collections(played):
    found = least_core(played)
    assert found.epsilon == pytest.approx(least_core_of_three(played), abs=1e-6)


@given(games(2, 5))
def test_the_allocation_reaches_epsilon_and_no_division_is_better_if_empty(played):
    found = least_core(played)
    assert math.fsum(found.allocation.values()) == pytest.approx(
        played.worth(played.grand), abs=1e-6
    )
    excess = [
        played.worth(one) - math.fsum(found.allocation[name] for name in one)
        for one in all_coalitions(played.players)[:-1]
    ]
    assert max(excess) == pytest.approx(found.epsilon, abs=1e-5)
    if found.epsilon < -1e-4:
        assert is_in_core(played, found.allocation)
    if found.epsilon > 1e-4:
        assert found.core_is_empty
        assert not is_in_core(played, found.allocation)
        assert not is_in_core(played, shapley_values(played))


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e9])
def test_the_unit_of_worth_does_not_matter(unit):
    found = least_core(symmetric([0.0, unit, unit]))
    assert found.epsilon == pytest.approx(unit / 3)
    assert found.core_is_empty


def test_one_player_and_a_game_of_nothing():
    alone = game(1, lambda one: 2.0)
    assert shapley_values(alone) == banzhaf_values(alone) == {"a": 2.0}
    assert leave_one_out(alone) == {"a": 2.0}
    found = least_core(alone)
    assert (found.epsilon, found.allocation) == (0.0, {"a": 2.0})
    assert not found.core_is_empty
    assert least_core(symmetric([0.0, 0.0])).epsilon == pytest.approx(0, abs=1e-9)
