"""Cooperative games: what a table of utilities makes of coalitions."""

import math

import pytest

from fedcot.community.coalitions import all_coalitions
from fedcot.community.games import Game, game_of
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

A, B, AB = ("a",), ("b",), ("a", "b")


def table(**changes):
    parts = {
        "communities": ("a", "b"),
        "coalitions": (A, B, AB),
        "student": {
            ("a", A): 0.5,
            ("b", A): 0.1,
            ("b", B): 0.25,
            ("a", B): 0.2,
            ("a", AB): 0.75,
            ("b", AB): 0.5,
        },
        "provider": {"a": 0.25, "b": 0.75},
        "before": {"a": 0.125, "b": 0.125},
        "label_only": {(name, one): 0.3 for name in "ab" for one in (A, B, AB)},
    }
    return UtilityTable(**{**parts, **changes})


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("none", (0.5, 0.25, 1.25)),
        ("before", (0.375, 0.125, 1.0)),
        ("provider", (0.25, -0.5, 0.25)),
        ("alone", (0.0, 0.0, 0.5)),
    ],
)
def test_worth_is_the_members_utility_above_the_reference(reference, expected):
    game = game_of(table(), reference)
    assert game.players == ("a", "b")
    assert tuple(game.worth(one) for one in (A, B, AB)) == expected
    assert game.worth(()) == 0


def test_gains_are_the_default():
    assert game_of(table()).value == game_of(table(), "before").value


def test_a_game_of_gains_needs_all_four_baselines():
    bare = table(label_only={})
    assert game_of(bare, "none").worth(AB) == 1.25
    for reference in ("before", "provider", "alone"):
        with pytest.raises(ConfigError, match="found no label-only for a in a;"):
            game_of(bare, reference)


def test_every_coalition_must_have_been_run():
    few = table(
        coalitions=(A, AB), student={("a", A): 0.5, ("a", AB): 0.5}, label_only={}
    )
    with pytest.raises(ConfigError, match=r"2 missing, the first b; .*coalitions=all"):
        game_of(few, "none")
    with pytest.raises(ConfigError, match="`reference` must be one of none"):
        game_of(table(), "best")


def test_a_game_keeps_what_it_was_given():
    value = {A: 1.0, B: 2.0, AB: 4.0, (): 0.0}
    game = Game(players=("a", "b"), value=value)
    value[AB] = 9.0
    assert game.worth(game.grand) == 4.0
    with pytest.raises(KeyError):
        game.worth(("b", "a"))


@pytest.mark.parametrize(
    ("players", "value", "message"),
    [
        ((), {}, "1 to 10, each once, found none"),
        (("a", "a"), {A: 1.0}, "each once, found a, a"),
        (("a", "b"), {A: 1.0, B: 1.0}, r"1 missing, the first a\+b"),
        (("a",), {A: math.nan}, "finite"),
        (("a",), {A: 1.0, ("z",): 1.0}, "finite for coalitions of the players"),
        (("a",), {A: 1.0, (): 0.5}, "of nobody must be 0, found 0.5"),
    ],
)
def test_what_is_no_game_is_refused(players, value, message):
    with pytest.raises(ConfigError, match=message):
        Game(players=players, value=value)


def test_eleven_players_are_too_many():
    players = tuple(f"c{n}" for n in range(11))
    with pytest.raises(ConfigError, match="`players` must be 1 to 10"):
        Game(players=players, value={})
    assert len(all_coalitions(players[:10])) == 1023
