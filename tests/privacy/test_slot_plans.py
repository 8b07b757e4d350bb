"""The plan of the adaptive mechanism: closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fedcot.privacy.slot_plans import (
    COVERED,
    KEPT,
    OWN_SHARE,
    best_support,
    demand,
    entropy,
    importance,
    importance_threshold,
)
from tests.privacy.public_models import ConstantModel

Shares = NDArray[np.float64]


class TableModel:
    """The next word depends on the last one, as a table says."""

    hash = "table"

    def __init__(self, table: Shares) -> None:
        self.table = table

    def next_probabilities(self, prefixes: NDArray[np.int64]) -> Shares:
        return self.table[np.asarray(prefixes)[:, -1]]


def random_shares(rows: int, size: int, seed: int) -> Shares:
    return np.random.default_rng(seed).dirichlet(np.full(size, 0.5), size=rows)


def test_entropy_is_that_of_a_second_library() -> None:
    shares = random_shares(20, 7, 0)
    assert entropy(shares) == pytest.approx(stats.entropy(shares, axis=1), abs=1e-12)
    assert entropy(np.eye(3)).tolist() == [0, 0, 0]
    assert entropy(np.full((2, 3, 5), 0.2)) == pytest.approx(
        np.full((2, 3), math.log(5))
    )


def test_importance_is_the_mutual_information_with_the_next_word() -> None:
    table = random_shares(5, 5, 1)
    likely = random_shares(3, 5, 2)
    found = importance(TableModel(table), np.zeros((3, 1), dtype=np.int64), likely)
    for row, prior in enumerate(likely):
        joint = prior[:, None] * table
        independent = prior[:, None] * joint.sum(axis=0)[None, :]
        information = float((joint * np.log(joint / independent)).sum())
        own = OWN_SHARE * stats.entropy(prior)
        assert found[row] == pytest.approx(information + own, abs=1e-12)


def test_importance_of_a_word_that_decides_the_next_and_of_one_that_does_not() -> None:
    even = np.full((1, 4), 0.25)
    prefix = np.zeros((1, 0), dtype=np.int64)
    own = OWN_SHARE * math.log(4)
    decides = importance(TableModel(np.eye(4)), prefix, even)
    assert decides[0] == pytest.approx(math.log(4) + own)
    nothing = importance(ConstantModel([0.7, 0.1, 0.1, 0.1]), prefix, even)
    assert nothing[0] == pytest.approx(own)
    # A word that is certain is worth nothing.
    sure = np.array([[0.0, 1.0, 0.0, 0.0]])
    assert importance(TableModel(np.eye(4)), prefix, sure)[0] == 0


def test_only_the_likeliest_continuations_are_looked_at() -> None:
    size = 12
    likely = np.array([[0.1] * 8 + [0.05] * 4])
    table = np.full((size, size), 1 / size)
    prefix = np.zeros((1, 0), dtype=np.int64)
    table[8:] = np.eye(size)[8:]
    own = OWN_SHARE * stats.entropy(likely[0])
    assert importance(TableModel(table), prefix, likely)[0] == pytest.approx(own)
    table[0] = np.eye(size)[0]
    assert importance(TableModel(table), prefix, likely)[0] > own + 0.1


def test_demand_is_what_randomised_response_needs() -> None:
    mixed = np.array(
        [
            [0.96, 0.02, 0.01, 0.01],
            [0.6, 0.3, 0.06, 0.04],
            [0.25, 0.25, 0.25, 0.25],
            [0.04, 0.3, 0.06, 0.6],
        ]
    )
    needed = demand(mixed)
    assert needed[0] == 0
    assert needed[1] == needed[3]
    for epsilon, covering in zip(needed[1:], [3, 4, 3], strict=True):
        kept = math.exp(epsilon) / (math.exp(epsilon) + covering - 1)
        assert kept == pytest.approx(KEPT, abs=1e-12)


def test_demand_covers_the_stated_share() -> None:
    mixed = np.full((1, 100), 0.01)
    covering = math.exp(float(demand(mixed)[0])) * (1 - KEPT) / KEPT + 1
    assert covering == pytest.approx(100 * COVERED, abs=1.001)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 30))
def test_the_threshold_is_the_smallest_that_can_be_afforded(
    seed: int, total: float
) -> None:
    rng = np.random.default_rng(seed)
    texts = int(rng.integers(1, 5))
    worth = rng.permutation(texts * 6).reshape(texts, 6) / 7
    needed = rng.uniform(0.1, 4, size=(texts, 6))
    found = importance_threshold(worth, needed, total=total)

    def cost(threshold: float) -> float:
        return float(needed[worth >= threshold].sum() / texts)

    affordable = [value for value in worth.ravel() if cost(value) <= total]
    assert found == min(affordable, default=worth.max())


def chance_by_hand(
    mixed: Shares, support: set[int], near: NDArray[np.int64], m: int, ratio: float
) -> float:
    """Expected hits: m words of the support at `ratio`, nearest first."""
    total = m * ratio + len(support) - m
    expected = 0.0
    for word, share in enumerate(mixed):
        inside = sum(int(other) in support for other in near[word])
        boosted = min(inside, m)
        expected += share * (boosted * ratio + (inside - boosted)) / total
    return expected


@pytest.mark.parametrize("near", [1, 2, 4])
@pytest.mark.parametrize("ratio", [1.2, 3.0, 20.0, 400.0])
def test_the_best_support_is_the_best_of_all(near: int, ratio: float) -> None:
    rng = np.random.default_rng(near)
    size = 9
    for sharpness in (0.05, 0.3, 1.0, 10.0):
        mixed = rng.dirichlet(np.full(size, sharpness)) * 0.99 + 0.01 / size
        order = np.argsort(-mixed, kind="stable")
        neighbours = np.array(
            [
                [word, *rng.permutation([w for w in range(size) if w != word])]
                for word in range(size)
            ]
        )[:, :near]
        sizes = list(range(2, size + 1))
        found = best_support(mixed, order, ratio, neighbours=neighbours, sizes=sizes)
        tried = {
            (k, m): chance_by_hand(mixed, set(order[:k].tolist()), neighbours, m, ratio)
            for k, m in itertools.product(sizes, range(1, near + 1))
            if m < k
        }
        assert found.hits == pytest.approx(max(tried.values()), abs=1e-9)
        assert found.hits == pytest.approx(tried[found.size, found.favoured], abs=1e-12)
        # Ties go to the smaller support and the fewer favoured words.
        best = [pair for pair, hits in tried.items() if hits > found.hits - 1e-12]
        assert (found.size, found.favoured) == min(best)


def test_only_the_sizes_given_are_compared() -> None:
    mixed = np.array([0.4, 0.3, 0.2, 0.1])
    found = best_support(
        mixed, np.arange(4), 2.0, neighbours=np.arange(4)[:, None], sizes=[3]
    )
    assert (found.size, found.favoured) == (3, 1)
    assert found.hits == pytest.approx(0.9 * 2 / 4)
