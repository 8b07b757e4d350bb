"""One slot's channel: rows, draws, weights and the sizes that are compared."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcot.privacy.slot_law import (
    BITS,
    STEPS_PER_NAT,
    SlotLaw,
    support_sizes,
    weight_table,
)
from tests.privacy.oracle import keeps, nats_of

SIZE = 6
LIKELY = np.array([0.05, 0.4, 0.1, 0.25, 0.2, 0.0])
SUPPORT = np.array([1, 3, 4, 2])
# Nearest first, itself before all others.
ORDER = np.array(
    [
        [0, 5, 4, 3, 2, 1],
        [1, 2, 3, 4, 5, 0],
        [2, 4, 0, 1, 3, 5],
        [3, 1, 5, 0, 2, 4],
        [4, 3, 2, 1, 0, 5],
        [5, 0, 2, 3, 1, 4],
    ],
    dtype=np.int32,
)
NONE = np.zeros(0, dtype=np.int64)


def law_of(favoured: int, order: NDArray[np.int32] | None = None) -> SlotLaw:
    return SlotLaw(SUPPORT, favoured, 7, 2, NONE, 80, LIKELY, order)


FREE = SlotLaw(np.array([1, 3, 4]), 0, 1, 1, np.array([5, 3, 1]), 0, LIKELY, None)


@pytest.mark.parametrize("order", [None, ORDER])
@pytest.mark.parametrize("favoured", [1, 2, 3])
def test_the_draws_of_a_slot_are_its_row(
    favoured: int, order: NDArray[np.int32] | None
) -> None:
    law = law_of(favoured, order)
    assert law.total == favoured * 7 + (4 - favoured) * 2
    for token in range(SIZE):
        drawn = Counter(law.word(token, draw) for draw in range(law.total))
        assert [drawn[word] for word in range(SIZE)] == law.row(token).tolist()
        assert sum(drawn.values()) == law.total
        assert sorted(drawn.values()) == [2] * (4 - favoured) + [7] * favoured


def test_the_draws_of_a_slot_without_a_budget_are_the_same_for_all_words() -> None:
    assert FREE.total == 9
    assert FREE.epsilon == 0.0
    for token in range(SIZE):
        drawn = [FREE.word(token, draw) for draw in range(9)]
        assert drawn == [1] * 5 + [3] * 3 + [4]
        assert FREE.row(token).tolist() == [0, 5, 0, 3, 1, 0]


def test_the_true_word_is_favoured_and_then_what_is_likely() -> None:
    law = law_of(2)
    assert law.favoured_words(1).tolist() == [1, 3]
    assert law.favoured_words(2).tolist() == [2, 1]
    # Outside the support: what the model finds most likely.
    assert law.favoured_words(5).tolist() == [1, 3]


def test_with_likeness_the_nearest_of_the_support_are_favoured() -> None:
    law = law_of(2, ORDER)
    assert law.favoured_words(2).tolist() == [2, 4]
    assert law.favoured_words(0).tolist() == [4, 3]
    assert law.favoured_words(5).tolist() == [2, 3]


def test_the_epsilon_is_the_log_ratio_of_the_two_weights_rounded_up() -> None:
    law = law_of(1)
    assert keeps(Fraction(7, 2), law.epsilon)
    assert law.epsilon == pytest.approx(math.log(3.5), abs=1e-15)


def test_each_step_s_weights_cost_at_most_the_step_and_hardly_less() -> None:
    table = weight_table(4 * STEPS_PER_NAT)
    assert table[0] == (2**BITS, 2**BITS)
    for steps, (high, low) in enumerate(table):
        assert low == 2**BITS
        assert keeps(Fraction(high, low), steps / STEPS_PER_NAT)
        assert nats_of(Fraction(high + 1, low)) > steps / STEPS_PER_NAT
    assert [high for high, _ in table] == sorted({high for high, _ in table})


@pytest.mark.parametrize("size", [2, 3, 4, 5, 171, 4096, 5000])
def test_sizes_grow_by_half_and_a_third_up_to_all_words(size: int) -> None:
    sizes = support_sizes(size)
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= 2
    assert sizes[-1] == size
    assert all(b <= 1.5 * a for a, b in itertools.pairwise(sizes))


def test_sizes_by_hand() -> None:
    assert support_sizes(13) == [2, 3, 4, 6, 8, 12, 13]
