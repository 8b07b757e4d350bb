import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2

from fedcot.errors import ConfigError
from fedcot.privacy.channels import CHANNELS, Channel, build_channel, exact_epsilon
from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.exact import largest_log_ratio
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.rank import RankChannel, Shape, ramp, top
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.selection import Bank
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import TINY, keeps, nats_of, token_law, worst_ratio

LETTERS = [first + second for first in "abcdef" for second in "uvwxyz"]
SMALL = Vocabulary.of([*LETTERS, *map(str, range(12))], 5)
SIMILARITY = blend_similarity(
    SMALL, np.random.default_rng(5).normal(size=(len(SMALL.words), 8))
)
PRIVATE = ["exponential", "rank"]  # the ones that need nothing but words
SHAPES = [top(1), top(4), ramp(3), ramp(20)]


@cache
def built(mechanism: str, epsilon: float) -> Channel:
    return build_channel(mechanism, SMALL, epsilon, similarity=SIMILARITY)


def oracle_ratio(channel: Channel) -> Fraction | float:
    rows = [token_law(channel.weights_row(token)) for token in range(channel.size)]
    return worst_ratio(rows)


@pytest.mark.parametrize("epsilon", [0.05, 2.0, 4.0, 8.0, 25.0])
@pytest.mark.parametrize("mechanism", PRIVATE)
def test_enumerated_epsilon_is_the_one_asked_for(
    mechanism: str, epsilon: float
) -> None:
    channel = built(mechanism, epsilon)
    ratio = oracle_ratio(channel)
    assert keeps(ratio, epsilon)
    assert nats_of(ratio) >= epsilon - 0.02
    # What is printed is the enumerated epsilon, rounded up and not below it.
    assert keeps(ratio, channel.token_epsilon)
    assert channel.token_epsilon == pytest.approx(nats_of(ratio), abs=1e-12)
    assert channel.token_epsilon <= channel.requested_epsilon == epsilon
    assert exact_epsilon(channel) == channel.token_epsilon


@pytest.mark.parametrize("epsilon", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_shape_is_exact(shape: Shape, epsilon: float) -> None:
    channel = RankChannel(SMALL, epsilon, shape=shape, similarity=SIMILARITY)
    ratio = oracle_ratio(channel)
    assert keeps(ratio, epsilon)
    assert nats_of(ratio) >= epsilon - 0.02
    assert channel.token_epsilon == exact_epsilon(channel)


@pytest.mark.parametrize("shape", SHAPES)
def test_rank_rows_are_permutations_with_one_total(shape: Shape) -> None:
    channel = RankChannel(SMALL, 3.0, shape=shape, similarity=SIMILARITY)
    rows = [channel.weights_row(token) for token in range(channel.size)]
    assert len({tuple(sorted(row)) for row in rows}) == 1
    assert all(row[token] == max(row) for token, row in enumerate(rows))


def test_ranks_follow_similarity_and_ties_go_by_token() -> None:
    channel = RankChannel(SMALL, 3.0, shape=ramp(4), similarity=SIMILARITY)
    five = SMALL.words.index("5")
    row = np.array(channel.weights_row(five))
    # 4 and 6 are equally near, then 3 or 7: the lower token comes first.
    best = [SMALL.words[token] for token in np.argsort(-row, kind="stable")[:4]]
    assert best == ["5", "4", "6", "3"]


@pytest.mark.parametrize("mechanism", PRIVATE)
@pytest.mark.parametrize("token", [0, 1, 7])
def test_samples_follow_the_integer_weights(mechanism: str, token: int) -> None:
    """Chi-square of a fixed tape against the exact law at p > 1e-6."""
    channel = built(mechanism, 2.0)
    count = 60_000
    drawn = channel.sample(np.full((count // 6, 6), token), TapeRandomSource(token))
    weights = np.array(channel.weights_row(token), dtype=float)
    expected = count * weights / weights.sum()
    assert expected.min() > 5
    observed = np.bincount(drawn.reshape(-1), minlength=channel.size)
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, channel.size - 1) > 1e-6


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_a_slot_is_drawn_from_its_own_row(mechanism: str) -> None:
    """At epsilon 25 nearly every token stays; a mixed-up batch would move them."""
    channel = built(mechanism, 25.0)
    ids = np.random.default_rng(0).integers(0, channel.size, size=(50, 5))
    assert (channel.sample(ids, TapeRandomSource(0)) == ids).all()
    assert channel.sample(ids[:0], TapeRandomSource(0)).shape == (0, 5)


def test_without_a_mechanism_epsilon_is_infinite() -> None:
    channel = build_channel("none", SMALL, 8.0)
    ids = np.arange(5)
    assert channel.token_epsilon == exact_epsilon(channel) == math.inf
    assert channel.sample(ids, TapeRandomSource(0)).tolist() == ids.tolist()
    assert channel.guarantee == "none: raw"


@pytest.mark.parametrize("mechanism", PRIVATE)
@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1000.0])
def test_an_impossible_epsilon_is_refused(mechanism: str, epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"`token-epsilon` must .* found"):
        build_channel(mechanism, SMALL, epsilon, similarity=SIMILARITY)


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of exponential, rank, "):
        build_channel("santext", SMALL, 8.0)


def test_scores_that_cannot_reach_the_epsilon_are_refused() -> None:
    flat = np.ones((len(SMALL.words), len(SMALL.words)))
    with pytest.raises(ConfigError, match="must be reachable"):
        build_channel("exponential", SMALL, 4.0, similarity=flat)


@pytest.mark.parametrize(
    "shape", [(), (Fraction(1, 2),), (1, 0, 1), (1, -1), top(len(SMALL.words))]
)
def test_a_bad_rank_shape_is_refused(shape: Shape) -> None:
    with pytest.raises(ConfigError, match="`shape` must"):
        RankChannel(SMALL, 4.0, shape=shape)


@pytest.mark.parametrize("name", [*PRIVATE, "none"])
@pytest.mark.parametrize("ids", [[-1], [len(SMALL.words)], [0.5]])
def test_ids_outside_the_vocabulary_never_pass(name: str, ids: list[int]) -> None:
    channel = built(name, 4.0)
    with pytest.raises(ValueError, match="Token ids must be integers"):
        channel.sample(np.array(ids), TapeRandomSource(0))


def test_the_hash_names_what_decides_a_release() -> None:
    def digest(vocabulary: Vocabulary, epsilon: float, name: str = "rank") -> str:
        return build_channel(name, vocabulary, epsilon).hash

    longer = Vocabulary(SMALL.words, 6)
    hashes = {
        digest(SMALL, 4.0),
        digest(SMALL, 4.5),
        digest(longer, 4.0),
        digest(SMALL, 4.0, "none"),
        built("rank", 4.0).hash,
        built("exponential", 4.0).hash,
        build_channel("exponential", SMALL, 4.0, similarity=SIMILARITY.T**2).hash,
    }
    assert len(hashes) == 7
    assert digest(SMALL, 4.0) in hashes


def test_the_largest_ratio_is_exact_where_totals_differ() -> None:
    """Rows (1, 3) and (2, 2): 1/4 to 1/2 and 3/4 to 1/2, so exactly ln 2."""
    epsilon = largest_log_ratio(np.array([[1, 3], [2, 2]]))
    assert keeps(Fraction(2), epsilon)
    assert epsilon == pytest.approx(math.log(2), abs=1e-15)


def test_weights_that_overflow_or_vanish_are_refused() -> None:
    for rows in ([[2**61, 2**61]], [[0, 0]], [[-1, 5]], [[2**62, 2**62, 2**63 - 1]]):
        with pytest.raises(ValueError, match="total"):
            largest_log_ratio(np.array(rows, dtype=np.int64))


def test_the_smallest_vocabulary_has_an_exact_channel() -> None:
    channel = RankChannel(TINY, math.log(5.5), bits=0)
    assert [channel.weights_row(token)[token] for token in range(5)] == [5] * 5
    assert keeps(Fraction(5), channel.token_epsilon)
    assert channel.token_epsilon == pytest.approx(math.log(5), abs=1e-15)


def bank_of_words() -> Bank:
    prompts = np.random.default_rng(2).integers(2, len(SMALL.words), size=(200, 5))
    return Bank(SMALL, prompts)


@pytest.mark.parametrize("mechanism", [name for name in CHANNELS if name != "none"])
def test_neither_records_nor_slots_share_a_draw(mechanism: str) -> None:
    """Two equal records with one draw would show that they are equal."""
    bank = bank_of_words()
    channel = build_channel(
        mechanism,
        SMALL,
        0.5,
        prompt_epsilon=0.5,
        similarity=SIMILARITY,
        public_model=BigramModel(SMALL, bank.prompts),
        bank=bank,
    )
    drawn = channel.sample(np.full((60, 5), 7), TapeRandomSource(3))
    assert len(np.unique(drawn, axis=0)) > 40
    assert (drawn == drawn[:, :1]).all(axis=1).sum() < 6
