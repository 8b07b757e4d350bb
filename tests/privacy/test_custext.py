"""CusText: what holds inside a block, and that nothing holds outside."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2

from fedcot.errors import ConfigError
from fedcot.privacy.custext import BLOCK_SIZE, CusTextChannel, similarity_blocks
from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.exact import largest_log_ratio
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import TINY, keeps, nats_of, token_law, worst_ratio

LETTERS = [first + second for first in "abcdefgh" for second in "uvwxyz"]
SMALL = Vocabulary.of([*LETTERS, *map(str, range(12))], 5)
SIMILARITY = blend_similarity(
    SMALL, np.random.default_rng(5).normal(size=(len(SMALL.words), 8))
)
# Two blocks, {0, 1} and {2, 3, 4}, with scores that are easy to normalise by hand.
PAIRED = np.array(
    [
        [1.0, 0.9, 0.0, 0.0, 0.1],
        [0.9, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.2, 0.6],
        [0.0, 0.0, 0.2, 1.0, 0.2],
        [0.1, 0.0, 0.6, 0.2, 1.0],
    ]
)


def channel_of(epsilon: float) -> CusTextChannel:
    return CusTextChannel(SMALL, epsilon, SIMILARITY)


def laws_in(channel: CusTextChannel, block: np.ndarray) -> list[dict]:
    return [token_law(channel.weights_row(int(token))) for token in block]


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_inside_a_block_the_epsilon_asked_for_holds(epsilon: float) -> None:
    channel = channel_of(epsilon)
    ratios = [worst_ratio(laws_in(channel, block)) for block in channel.blocks]
    assert all(keeps(ratio, epsilon) for ratio in ratios)
    assert all(keeps(ratio, channel.block_epsilon) for ratio in ratios)
    worst = max(nats_of(ratio) for ratio in ratios)
    assert channel.block_epsilon == pytest.approx(worst, abs=1e-12)
    assert channel.requested_epsilon == epsilon


def test_between_blocks_an_output_excludes_the_input() -> None:
    channel = channel_of(3.0)
    one, other = (int(block[0]) for block in channel.blocks[:2])
    laws = [token_law(channel.weights_row(token)) for token in (one, other)]
    assert worst_ratio(laws) == math.inf
    rows = [channel.weights_row(token) for token in range(channel.size)]
    assert largest_log_ratio(np.array(rows)) == channel.token_epsilon == math.inf
    assert channel.prompt_epsilon == math.inf
    assert "inside a block only" in channel.guarantee
    assert "own block" in channel.adjacency


def test_blocks_are_disjoint_complete_and_never_small() -> None:
    blocks = similarity_blocks(SIMILARITY)
    assert len(SIMILARITY) == 62
    assert [len(block) for block in blocks] == [BLOCK_SIZE, BLOCK_SIZE, 22]
    assert sorted(np.concatenate(blocks).tolist()) == list(range(62))
    assert all((np.diff(block) > 0).all() for block in blocks)


def test_a_block_is_the_first_free_token_and_its_nearest_free_ones() -> None:
    blocks = similarity_blocks(SIMILARITY)
    free = set(range(62))
    for block in blocks[:-1]:
        seed = min(free)
        by_distance = sorted(free, key=lambda t: (t != seed, -SIMILARITY[seed, t], t))
        assert block.tolist() == sorted(by_distance[:BLOCK_SIZE])
        free -= set(block.tolist())


def test_ties_between_words_go_by_token() -> None:
    blocks = similarity_blocks(np.eye(7), 3)
    assert [block.tolist() for block in blocks] == [[0, 1, 2], [3, 4, 5, 6]]


def test_the_weights_are_the_normalised_scores_of_the_paper() -> None:
    """Token 2 has scores 1, 0.2 and 0.6 in its block, so u is 1, 0 and one half."""
    channel = CusTextChannel(TINY, 4.0, PAIRED, block_size=2)
    assert [block.tolist() for block in channel.blocks] == [[0, 1], [2, 3, 4]]
    row = np.array(channel.weights_row(2), dtype=float)
    assert row[:2].tolist() == [0, 0]
    # Half a level of 1023 is the error that levels make.
    expected = np.exp(4.0 / 2 * np.array([1.0, 0.0, 0.5]))
    assert row[2:] / row[3] == pytest.approx(expected, rel=4.0 / 2 / 1000)
    assert channel.weights_row(0)[:2] == channel.weights_row(1)[1::-1]


def test_each_row_is_normalised_by_itself() -> None:
    shrunk = PAIRED * np.array([1.0, 0.5, 1.0, 0.25, 0.5])[:, None]
    rows = [
        [CusTextChannel(TINY, 4.0, scores, block_size=2).weights_row(t) for t in (1, 3)]
        for scores in (PAIRED, shrunk)
    ]
    assert rows[0] == rows[1]


class Scripted:
    """A source that hands out given draws."""

    private = True

    def __init__(self, draws: list[int]) -> None:
        self.draws = np.array(draws)

    def below(self, bounds: np.ndarray) -> np.ndarray:
        assert (self.draws < bounds).all()
        return self.draws


def test_every_draw_belongs_to_the_interval_of_its_weight() -> None:
    channel = CusTextChannel(TINY, 4.0, PAIRED, block_size=2)
    first, second, third = channel.weights_row(3)[2:]
    draws = [0, first - 1, first, first + second - 1, first + second]
    draws.append(first + second + third - 1)
    drawn = channel.sample(np.full(6, 3), Scripted(draws))
    assert drawn.tolist() == [2, 2, 3, 3, 4, 4]


def test_a_block_of_words_that_are_alike_is_uniform() -> None:
    channel = CusTextChannel(TINY, 4.0, np.ones((5, 5)), block_size=2)
    assert len(set(channel.weights_row(0)[:2])) == 1
    assert channel.block_epsilon == 0.0


def test_a_single_block_is_a_claim_over_the_vocabulary() -> None:
    channel = CusTextChannel(TINY, 4.0, PAIRED)
    ratio = worst_ratio(laws_in(channel, np.arange(5)))
    assert keeps(ratio, 4.0)
    assert channel.token_epsilon == channel.block_epsilon
    assert keeps(ratio, channel.token_epsilon)


@pytest.mark.parametrize("token", [0, 7, 61])
def test_samples_follow_the_integer_weights(token: int) -> None:
    channel = channel_of(3.0)
    count = 30_000
    drawn = channel.sample(np.full((count // 5, 5), token), TapeRandomSource(token))
    weights = np.array(channel.weights_row(token), dtype=float)
    observed = np.bincount(drawn.reshape(-1), minlength=channel.size)
    assert (observed[weights == 0] == 0).all()
    expected = count * weights[weights > 0] / weights.sum()
    statistic = ((observed[weights > 0] - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, len(expected) - 1) > 1e-6


def test_each_slot_is_drawn_from_the_block_of_its_own_token() -> None:
    channel = channel_of(1.0)
    ids = np.random.default_rng(0).integers(0, channel.size, size=(200, 5))
    block_of = np.empty(channel.size, dtype=int)
    for number, block in enumerate(channel.blocks):
        block_of[block] = number
    drawn = channel.sample(ids, TapeRandomSource(3))
    assert (block_of[drawn] == block_of[ids]).all()
    assert (drawn != ids).any()
    assert channel.sample(ids[:0], TapeRandomSource(0)).shape == (0, 5)


def test_the_hash_names_what_decides_a_release() -> None:
    other = SIMILARITY**2
    channels = [
        channel_of(3.0),
        channel_of(3.5),
        CusTextChannel(SMALL, 3.0, other),
        CusTextChannel(SMALL, 3.0, SIMILARITY, block_size=10),
        CusTextChannel(Vocabulary(SMALL.words, 6), 3.0, SIMILARITY),
    ]
    hashes = [channel.hash for channel in channels]
    assert len(set(hashes)) == len(hashes)
    assert channel_of(3.0).hash == hashes[0]


def test_a_larger_epsilon_keeps_more_words() -> None:
    kept = []
    for epsilon in (1.0, 4.0, 8.0):
        row = channel_of(epsilon).weights_row(9)
        kept.append(row[9] / sum(row))
    assert all(low < high for low, high in pairwise(kept))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1000.0])
def test_an_impossible_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"`token-epsilon` must .* found"):
        channel_of(epsilon)


def test_impossible_blocks_and_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="`block_size` must be >= 2, found 1"):
        similarity_blocks(SIMILARITY, 1)
    with pytest.raises(ConfigError, match="`similarity` must be 62 x 62"):
        CusTextChannel(SMALL, 3.0, PAIRED)
    with pytest.raises(ValueError, match="Token ids must be integers"):
        channel_of(3.0).sample(np.array([62]), TapeRandomSource(0))
