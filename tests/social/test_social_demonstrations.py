"""Prompts of demonstrations, and how those of a prompt are drawn."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.errors import ConfigError
from fedcot.social.demonstrations import Demonstration, draw_indices, few_shot_prompt
from fedcot.social.formats import format_named

SPAM = format_named("sms-spam")
SHOWN = (Demonstration("Win now", "spam"), Demonstration("See you at 5", "not spam"))


def test_the_repr_of_a_demonstration_holds_no_text():
    shown = repr(Demonstration("my secret", "my answer", "my steps"))
    assert "my" not in shown


def test_a_generating_prompt_is_demonstrations_and_the_opening_without_instruction():
    assert few_shot_prompt(SPAM, SHOWN) == (
        "Text: Win now\nClass: spam\n\nText: See you at 5\nClass: not spam\n\nText:"
    )


def test_a_students_prompt_ends_in_the_question():
    assert few_shot_prompt(SPAM, SHOWN[:1], "Call me") == (
        "Text: Win now\nClass: spam\n\nText: Call me\nClass:"
    )
    assert few_shot_prompt(SPAM, (), "Call me") == "Text: Call me\nClass:"


def test_a_prompt_of_the_world_stands_on_one_line():
    shown = (
        Demonstration("ann trades 2 gold for salt", "6", "2 * 3 = 6"),
        Demonstration("ann says 2 zorp 3", "5"),
    )
    world = format_named("world")
    assert few_shot_prompt(world, shown) == (
        "question: ann trades 2 gold for salt rationale: 2 * 3 = 6 answer: 6 "
        "question: ann says 2 zorp 3 answer: 5 question:"
    )


def test_a_format_without_opening_ends_in_the_separator():
    words = format_named("random-insertion")
    prompt = few_shot_prompt(words, [Demonstration("w.o/r!d ", "word")])
    assert prompt == "w.o/r!d  = word\n\n"


def test_what_a_format_cannot_hold_is_refused_without_its_text():
    with pytest.raises(ConfigError, match="`sms-spam`") as refused:
        few_shot_prompt(SPAM, [Demonstration("my\nsecret", "spam")])
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(refused.value)


@given(st.integers(0, 12), st.data())
def test_indices_are_distinct_and_repeat_by_seed(total, data):
    count = data.draw(st.integers(0, total))
    drawn = draw_indices(total, count, 7, "prompt", 1)
    assert len(drawn) == len(set(drawn)) == count
    assert set(drawn) <= set(range(total))
    assert drawn == draw_indices(total, count, 7, "prompt", 1)


def test_every_ordered_choice_is_equally_likely():
    found = Counter(tuple(draw_indices(4, 2, seed)) for seed in range(2400))
    expected = list(permutations(range(4), 2))
    assert set(found) == set(expected)
    # 12 choices, 200 of each expected.
    assert stats.chisquare([found[choice] for choice in expected]).pvalue > 1e-3


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="`count` must be from 0 to 3"):
        draw_indices(3, 4, 0)
