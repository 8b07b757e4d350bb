"""Steps of a text: cut and joined exactly, taken away from the left, padded."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.step_text import (
    TEXT_FILLER,
    WORLD_FILLER,
    coarsen,
    count_words,
    join_steps,
    pad_all,
    pad_to,
    split_steps,
)
from fedcot.errors import ConfigError
from fedcot.models.tokenizer import build_tokenizer
from fedcot.world import FAMILIES, draw_problems, verify

TOKENIZER = build_tokenizer()
PROSE = st.text(alphabet='aB7 .,!?\n\t)"…e', max_size=60)


def tokens(text: str) -> int:
    return len(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n ", []),
        ("One step", ["One step"]),
        ("It is 3.5 cm. So 7.", ["It is 3.5 cm. ", "So 7."]),
        ("He paid $1.50. Then $2.", ["He paid $1.50. ", "Then $2."]),
        ("Mr. Lee has 3. Dr. Wu has 4.", ["Mr. Lee has 3. ", "Dr. Wu has 4."]),
        ("J. Doe runs, e.g. Monday.", ["J. Doe runs, e.g. Monday."]),
        ("At 5 p.m. it ends. Good.", ["At 5 p.m. it ends. ", "Good."]),
        ("Well... so be it. Yes.", ["Well... so be it. ", "Yes."]),
        ('He said "no." Then left.', ['He said "no." ', "Then left."]),
        ("1. Add 2.\n2. Take 3.", ["1. Add 2.\n", "2. Take 3."]),
        ("A. Add 2. B. Take 3.", ["A. Add 2. ", "B. Take 3."]),
        ("First line\n  second line", ["First line\n  ", "second line"]),
        ("Is it 4? Yes! It is.", ["Is it 4? ", "Yes! ", "It is."]),
        ("12 - 5 = 7 , 7 + 3 = 10", ["12 - 5 = 7 , 7 + 3 = 10"]),
    ],
)
def test_lines_and_sentences_are_steps(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps


@given(PROSE)
def test_joined_steps_are_the_text(text: str) -> None:
    steps = split_steps(text)
    assert "".join(steps) == text.strip()
    assert all(step.strip() for step in steps)
    assert join_steps(steps) == text.strip()


@given(st.lists(st.text("ab", min_size=1), max_size=12), st.integers(1, 8))
def test_coarser_levels_are_ends_of_finer_ones(steps: list[str], levels: int) -> None:
    rows = [coarsen(steps, level, levels) for level in range(levels + 1)]
    assert rows[0] == []
    assert rows[-1] == steps
    for coarse, fine in pairwise(rows):
        assert len(coarse) <= len(fine)
        assert fine[len(fine) - len(coarse) :] == coarse
    if steps:
        assert all(row[-1] == steps[-1] for row in rows[1:])


def test_levels_share_the_steps_evenly() -> None:
    steps = list("abcdef")
    assert [len(coarsen(steps, level, 3)) for level in range(4)] == [0, 2, 4, 6]
    assert [len(coarsen(steps[:4], level, 6)) for level in range(7)] == [
        *(0, 1, 2, 2, 3, 4, 4)
    ]


@pytest.mark.parametrize(("level", "levels"), [(-1, 3), (4, 3), (1, 0)])
def test_unknown_levels_are_refused(level: int, levels: int) -> None:
    with pytest.raises(ConfigError, match="`level`"):
        coarsen(["a"], level, levels)


def test_padding_in_words_is_exact() -> None:
    assert pad_to("so 7", 5, ".", count_words) == ". . . so 7"
    assert pad_to("so 7", 2, ".", count_words) == "so 7"
    assert pad_to("so 7", 1, ".", count_words) == "so 7"
    assert pad_to("", 2, ".", count_words) == ". ."


def test_padding_of_the_world_is_exact_in_tokens_and_passes_the_verifier() -> None:
    for problem in draw_problems("test", tuple(FAMILIES), 90, seed=2):
        for level in (2, 3):
            length = tokens(problem.rationale(4))
            padded = pad_to(problem.rationale(level), length, WORLD_FILLER, tokens)
            assert tokens(padded) == length
            assert padded.endswith(problem.rationale(level))
            assert verify(padded, problem.answer).valid
            before = padded.removesuffix(problem.rationale(level)).split()
            assert set(before) <= {WORLD_FILLER}


def test_filler_is_one_known_word_that_no_rationale_of_the_world_uses() -> None:
    unknown = TOKENIZER.unk_token_id
    assert TOKENIZER(WORLD_FILLER)["input_ids"] != [unknown]
    assert tokens(WORLD_FILLER) == 1
    for problem in draw_problems("test", tuple(FAMILIES), 45, seed=4):
        assert all(
            WORLD_FILLER not in problem.rationale(k).split() for k in (1, 2, 3, 4)
        )


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1))
def test_padding_of_all_makes_the_sums_equal(sizes: list[tuple[int, int]]) -> None:
    texts = [" ".join(["x"] * coarse) for coarse, _ in sizes]
    lengths = [fine for _, fine in sizes]
    if sum(map(count_words, texts)) > sum(lengths):
        with pytest.raises(ConfigError, match="`lengths`"):
            pad_all(texts, lengths, TEXT_FILLER, count_words)
        return
    padded = pad_all(texts, lengths, TEXT_FILLER, count_words)
    assert sum(map(count_words, padded)) == sum(lengths)
    for text, one in zip(texts, padded, strict=True):
        assert one.endswith(text)
        assert set(one.removesuffix(text).split()) <= {TEXT_FILLER}


def test_padding_with_a_filler_of_two_tokens_is_within_one_filler_in_all() -> None:
    def doubled(text: str) -> int:  # A full stop alone counts twice.
        return sum(2 if word == "." else 1 for word in text.split())

    texts, lengths = ["a b", "a", "a b c d e"], [9, 6, 2]
    padded = pad_all(texts, lengths, ".", doubled)
    assert abs(sum(map(doubled, padded)) - sum(lengths)) <= 2
    assert padded[2] == "a b c d e"


def test_padding_needs_one_text_for_each_length_and_a_word() -> None:
    with pytest.raises(ConfigError, match="`lengths`"):
        pad_all(["a"], [3, 3], ".", count_words)
    for filler in ("", "a b", " ."):
        with pytest.raises(ConfigError, match="`filler`"):
            pad_to("a", 3, filler, count_words)
    with pytest.raises(ConfigError, match="`filler`"):
        pad_to("a", 3, ".", lambda text: min(1, len(text)))
