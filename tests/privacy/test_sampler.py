import os

import numpy as np
import pytest

from fedcot.privacy.sampler import (
    LARGEST_BOUND,
    RandomSource,
    SystemRandomSource,
    TapeRandomSource,
    reject_to_bounds,
)


@pytest.mark.parametrize("source", [SystemRandomSource(), TapeRandomSource(0)])
def test_draws_lie_below_their_own_bounds(source: RandomSource) -> None:
    bounds = np.array([[1, 2, 3], [5, 2**40 + 1, LARGEST_BOUND - 1]], dtype=np.int64)
    for _ in range(200):
        draws = source.below(bounds)
        assert draws.shape == bounds.shape
        assert draws.dtype == np.int64
        assert ((draws >= 0) & (draws < bounds)).all()


def test_rejection_gives_each_value_the_same_number_of_words() -> None:
    """Bound 5 masks to 3 bits: of 8 words, 5 are accepted once and 3 are drawn anew.

    A modulo in place of the rejection would return 5, 6, 7 as 0, 1, 2.
    """
    words = list(range(8))
    first = [reject_to_bounds(np.array([5]), _tape(word, 0)) for word in words]
    assert [int(draw[0]) for draw in first] == [0, 1, 2, 3, 4, 0, 0, 0]


def test_high_bits_of_a_word_do_not_reach_the_draw() -> None:
    negative = np.array([-1], dtype=np.int64).view(np.int64)[0]
    draw = reject_to_bounds(np.array([8]), _tape(int(negative)))
    assert draw.tolist() == [7]


def _tape(*words: int):  # type: ignore[no-untyped-def]
    left = list(words)
    return lambda count: np.array([left.pop(0) for _ in range(count)], dtype=np.int64)


@pytest.mark.parametrize(
    "bounds",
    [np.array([0]), np.array([-1]), np.array([LARGEST_BOUND]), np.array([2.5])],
)
def test_a_bound_outside_its_range_is_refused(bounds: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`bounds` must"):
        SystemRandomSource().below(bounds)


def test_nothing_is_drawn_for_no_bounds() -> None:
    empty = SystemRandomSource().below(np.zeros((0, 4), dtype=np.int64))
    assert empty.shape == (0, 4)


def test_draws_are_uniform() -> None:
    """Chi-square of 60,000 draws below 6: 5 degrees of freedom, p = 1e-6 at 35.9."""
    draws = TapeRandomSource(1).below(np.full(60_000, 6))
    counts = np.bincount(draws, minlength=6)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 35.9


def test_large_bounds_use_their_whole_range() -> None:
    bound = LARGEST_BOUND - 1
    draws = TapeRandomSource(2).below(np.full(10_000, bound))
    # Standard error of the mean of a uniform is 0.0029 of the range here.
    assert abs(draws.mean() / bound - 0.5) < 0.015
    assert draws.min() < bound * 0.002
    assert draws.max() > bound * 0.998


def test_a_tape_repeats_and_says_that_it_is_not_private() -> None:
    bounds = np.full(50, 1000)
    first, second = TapeRandomSource(3), TapeRandomSource(3)
    assert first.below(bounds).tolist() == second.below(bounds).tolist()
    assert first.below(bounds).tolist() != TapeRandomSource(4).below(bounds).tolist()
    assert not first.private
    assert SystemRandomSource().private


def test_a_forked_process_does_not_repeat_its_parents_draws() -> None:
    """A generator that buffers would hand parent and child the same noise."""
    source = SystemRandomSource()
    bounds = np.full(16, LARGEST_BOUND - 1)
    source.below(bounds)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.below(bounds).tobytes())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        childs = np.frombuffer(pipe.read(), dtype=np.int64)
    assert childs.size == bounds.size
    assert not (childs == source.below(bounds)).any()
