"""Times, thinking and paths, each for itself."""

import dataclasses

import pytest

from fedcot.data.portability.reading import time_of
from fedcot.data.portability.thinking import split_thinking
from fedcot.data.portability.turns import assistant_turn, current_path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_767_225_600, "2026-01-01T00:00:00Z"),
        (1_767_225_600.5, "2026-01-01T00:00:00.500000Z"),
        (0, ""),
        (-1, ""),
        (None, ""),
        (True, ""),
        (float("nan"), ""),
        (float("inf"), ""),
        (10**400, ""),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00", "2026-01-01T00:00:00Z"),
        ("1/31/2026 13:05:09 -01:00", "2026-01-31T14:05:09Z"),
        ("0001-01-01T00:00:00+23:00", ""),
        ("yesterday", ""),
        ({"$date": {"$numberLong": "1767225600000"}}, "2026-01-01T00:00:00Z"),
        ({"$date": 1_767_225_600_000}, "2026-01-01T00:00:00Z"),
        ({"$date": "2026-01-01T00:00:00Z"}, "2026-01-01T00:00:00Z"),
        ({"$date": {"$numberLong": "x"}}, ""),
        ({"$date": {"$date": {}}}, ""),
        ([], ""),
    ],
)
def test_times_become_iso_in_utc(value, expected):
    assert time_of(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", ("", "4", False)),
        ("<think>r</think>4", ("r", "4", False)),
        (" <Thinking >\nr\n</THINKING>\n\n4\n", ("r", "4", False)),
        ("r</think>4", ("r", "4", False)),
        ("<think>a</think>4<think>b</think>5", ("a\n\nb", "4\n\n5", False)),
        ("<think>a<think>b</think>c</think>4", ("a\n\nb\n\nc", "4", False)),
        ("4 <think>r", ("r", "4", True)),
        ("a</think>b</think>4", ("a\n\nb", "4", False)),
        ("<thinker>4", ("", "<thinker>4", False)),
        ("", ("", "", False)),
    ],
)
def test_thinking_is_taken_out(text, expected):
    assert dataclasses.astuple(split_thinking(text)) == expected


def test_no_text_stands_in_a_repr():
    text = "<think>secret steps</think>secret answer"
    turn = assistant_turn(text, model="large")
    assert (turn.reasoning, turn.text) == ("secret steps", "secret answer")
    for one in (turn, split_thinking(text)):
        assert "secret" not in repr(one)
    assert "large" in repr(turn)


def test_a_path_follows_parents_and_else_the_list():
    messages = [("a", ""), ("b", "a"), ("c", "a"), ("d", ""), ("e", "unknown")]
    path = current_path(messages, lambda m: m[0], lambda m: m[1])
    assert path == [0, 2, 3, 4]
    path = current_path(messages, lambda m: m[0], lambda m: m[1], leaf="b")
    assert path == [0, 1]
    circle = [("a", "b"), ("b", "a")]
    assert current_path(circle, lambda m: m[0], lambda m: m[1]) == [0, 1]
    assert current_path([], lambda m: m, lambda m: m) == []
