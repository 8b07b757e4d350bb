"""Splits never share a problem, whatever the seed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.world import FAMILIES, draw_problems, split_of

SPLITS = ("pretraining", "train", "validation", "test", "bank")


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), other=st.integers(0, 2**32))
def test_no_two_splits_share_a_problem(seed: int, other: int) -> None:
    drawn = {
        split: {p.hash for p in draw_problems(split, tuple(FAMILIES), 60, seed=s)}
        for split, s in zip(SPLITS, (seed, other, seed, other, seed), strict=True)
    }
    for first in SPLITS:
        for second in SPLITS:
            assert first == second or not drawn[first] & drawn[second]


def test_problems_of_a_draw_are_distinct_and_families_take_turns() -> None:
    problems = draw_problems("train", ("library", "harbor"), 301, seed=0)
    assert len({problem.hash for problem in problems}) == 301
    assert Counter(p.family for p in problems) == {"library": 151, "harbor": 150}


def test_the_same_seed_gives_the_same_problems_and_another_gives_others() -> None:
    first, again, other = (
        draw_problems("train", ("library",), 50, seed=seed) for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other


def test_splits_have_their_shares() -> None:
    """All-zero and all-one hashes land in the first and in the last split."""
    assert split_of("0" * 64) == "pretraining"
    shares = Counter(split_of(f"{i:016x}" + "0" * 48) for i in range(100))
    assert shares == {
        "pretraining": 50,
        "train": 20,
        "validation": 5,
        "test": 10,
        "bank": 15,
    }


def test_more_problems_than_there_are_do_not_hang() -> None:
    with pytest.raises(ValueError, match="`count` must be at most"):
        draw_problems("validation", ("contest",), 5000, seed=0, depths=(1,))
