"""Channels that break their claim, which the oracle has to notice."""

import numpy as np
import pytest

from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.exact import largest_log_ratio
from fedcot.privacy.exponential import LEVELS, ExponentialChannel
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import keeps, token_law, worst_ratio

EPSILON = 4.0
SMALL = Vocabulary.of([f"w{chr(97 + index)}" for index in range(26)], 8)
SIMILARITY = blend_similarity(SMALL, np.random.default_rng(1).normal(size=(28, 6)))

Rows = list[list[int]]


def holds(rows: Rows) -> bool:
    return keeps(worst_ratio([token_law(row) for row in rows]), EPSILON)


def rows_of(channel: RankChannel | ExponentialChannel) -> Rows:
    return [channel.weights_row(token) for token in range(channel.size)]


def textbook_table(scale: float) -> np.ndarray:
    scores = np.arange(LEVELS) / (LEVELS - 1)
    weights: np.ndarray = np.floor(2**20 * np.exp(scale * scores))
    return weights.astype(np.int64)


def test_the_oracle_accepts_the_real_channel() -> None:
    assert holds(rows_of(RankChannel(SMALL, EPSILON, similarity=SIMILARITY)))


@pytest.mark.parametrize("factor", [1.001, 1.2])
def test_a_larger_exponent_is_noticed(factor: float) -> None:
    assert not holds(rows_of(RankChannel(SMALL, factor * EPSILON)))


def test_rounding_the_weights_up_is_noticed() -> None:
    rows = rows_of(RankChannel(SMALL, EPSILON))
    assert not holds([[w + (w == max(row)) for w in row] for row in rows])


def test_the_neighbours_only_are_noticed() -> None:
    """A row over the nearest words alone excludes every other input."""
    rows = rows_of(RankChannel(SMALL, EPSILON, similarity=SIMILARITY))
    for token, row in enumerate(rows):
        for far in np.argsort(SIMILARITY[token], kind="stable")[:20]:
            row[int(far)] = 0
    assert not holds(rows)
    assert largest_log_ratio(np.array(rows)) == np.inf


def test_an_uncalibrated_score_exponent_is_noticed() -> None:
    """exp(epsilon * score) without a common normaliser exceeds epsilon."""
    levels = np.zeros((28, 28), dtype=np.uint16)
    np.fill_diagonal(levels, LEVELS - 1)
    levels[1, 1:] = LEVELS - 1
    mutant = ExponentialChannel(
        SMALL, levels=levels, table=textbook_table(EPSILON), requested_epsilon=EPSILON
    )
    assert not holds(rows_of(mutant))
    assert mutant.token_epsilon > EPSILON


def test_a_row_that_is_no_permutation_is_noticed() -> None:
    """Two favoured words in one row change its total, so the ratio of the rest."""
    rows = rows_of(RankChannel(SMALL, EPSILON))
    rows[3] = [min(rows[3])] * len(rows[3])
    rows[3][5] = max(rows[4])
    rows[4][6] = max(rows[4])
    assert not holds(rows)


def noise_repeats(make: type[SystemRandomSource] | type["ReseededSource"]) -> bool:
    """Whether two sources, as two processes would make them, draw the same noise."""
    channel = RankChannel(SMALL, 0.5)
    prompt = np.full((4, SMALL.length), 5)
    first, second = (channel.sample(prompt, make()) for _ in range(2))
    return bool((first == second).all())


class ReseededSource(TapeRandomSource):
    """A mutant whose seed is the same each time."""

    def __init__(self) -> None:
        super().__init__(42)


def test_a_seed_that_is_used_again_is_noticed() -> None:
    assert noise_repeats(ReseededSource)
    assert not noise_repeats(SystemRandomSource)
    reseeded: RandomSource = ReseededSource()
    assert not reseeded.private
