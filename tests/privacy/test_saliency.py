"""Private budgets: what one public total bounds, by enumeration of every draw."""

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.saliency import (
    SaliencyChannel,
    largest_boost,
    unigram_information,
)
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import (
    TINY,
    ChoiceTape,
    enumerated_law,
    keeps,
    nats_of,
    worst_ratio,
)

TOTAL = 3.0
PROMPTS = list(product(range(5), repeat=3))
EMPTY = (0, 0, 0)
# "fox" is common, "hen" and "3" are rarer, as public counts would say.
INFORMATION = np.array([0.0, 0.5, 0.1, 3.0, 2.0])
LARGE = Vocabulary.of(
    [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(168)], 6
)

Laws = Mapping[tuple[int, ...], dict[tuple[int, ...], Fraction]]


def coarse_channel() -> SaliencyChannel:
    """4 draws for each of 5 words: 20**3 draws a prompt are all the draws there are."""
    return SaliencyChannel(
        TINY, 1.0, removal_epsilon=TOTAL, information=INFORMATION, resolution=4
    )


def fine_channel() -> SaliencyChannel:
    return SaliencyChannel(TINY, 1.0, removal_epsilon=TOTAL, information=INFORMATION)


def enumerated(channel: SaliencyChannel, prompt: tuple[int, ...]) -> dict:
    def release(text: str, copies: int, tape: ChoiceTape) -> list[tuple[int, ...]]:
        drawn = channel.sample(np.tile(np.array(prompt), (copies, 1)), tape)
        assert tape.calls == 1
        return [tuple(ids) for ids in drawn.tolist()]

    totals = [channel.size * channel.resolution] * channel.slots
    return enumerated_law("", totals, release)


@cache
def coarse_laws() -> Laws:
    return {prompt: enumerated(coarse_channel(), prompt) for prompt in PROMPTS}


def check(laws: Laws, total: float) -> None:
    """What is claimed: E against the empty prompt, 2 E between any two prompts."""
    for law in laws.values():
        assert keeps(worst_ratio([law, laws[EMPTY]]), total)
    assert keeps(worst_ratio(laws.values()), 2 * total)


def test_both_claims_hold_for_every_draw_of_every_prompt() -> None:
    laws = coarse_laws()
    assert all(sum(law.values()) == 1 for law in laws.values())
    assert all(len(law) == 125 for law in laws.values())
    check(laws, TOTAL)


def test_an_empty_prompt_follows_the_uniform_law_exactly() -> None:
    assert set(coarse_laws()[EMPTY].values()) == {Fraction(1, 125)}
    for channel in (coarse_channel(), fine_channel()):
        assert channel.budgets(np.array(EMPTY)).tolist() == [0, 0, 0]
        assert set(channel.weights(np.array(EMPTY)).ravel()) == {channel.resolution}


def test_the_enumerated_law_is_the_product_of_the_stated_weights() -> None:
    channel = coarse_channel()
    for prompt in [(3, 2, 0), (1, 4, 4), (2, 2, 2), (0, 0, 3)]:
        rows = channel.weights(np.array(prompt)).tolist()
        assert [sum(row) for row in rows] == [20, 20, 20]
        for output, share in coarse_laws()[prompt].items():
            shares = [Fraction(rows[i][token], 20) for i, token in enumerate(output)]
            assert share == math.prod(shares)


class LeakyChannel(SaliencyChannel):
    """A mutant that gives padding a budget as well."""

    def budgets(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        budgets = super().budgets(ids)
        return np.where(np.asarray(ids) == 0, self.units // 2, budgets)


class SpendingChannel(SaliencyChannel):
    """A mutant whose rare words raise the total instead of sharing it."""

    def budgets(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(self.units, 40 * (np.asarray(ids) >= 3))


@pytest.mark.parametrize("mutant", [LeakyChannel, SpendingChannel])
def test_a_mutant_that_breaks_the_total_is_noticed(
    mutant: type[SaliencyChannel],
) -> None:
    channel = mutant(TINY, 1.0, removal_epsilon=TOTAL, resolution=4)
    laws = {prompt: enumerated(channel, prompt) for prompt in [EMPTY, (3, 4, 3)]}
    laws |= {prompt: enumerated(channel, prompt) for prompt in [(0, 3, 3), (4, 3, 4)]}
    with pytest.raises(AssertionError):
        check(laws, TOTAL)


def slot_ratio(channel: SaliencyChannel, left: tuple, right: tuple) -> Fraction:
    """The worst ratio of two prompts in one direction: slots are independent."""
    pairs = zip(
        channel.weights(np.array(left)).tolist(),
        channel.weights(np.array(right)).tolist(),
        strict=True,
    )
    worst = [
        max(Fraction(*shares) for shares in zip(*pair, strict=True)) for pair in pairs
    ]
    return math.prod(worst, start=Fraction(1))


def test_both_claims_hold_and_are_nearly_reached_with_the_real_weights() -> None:
    channel = fine_channel()
    removal = max(
        max(slot_ratio(channel, prompt, EMPTY), slot_ratio(channel, EMPTY, prompt))
        for prompt in PROMPTS
    )
    replacement = max(slot_ratio(channel, *pair) for pair in product(PROMPTS, PROMPTS))
    assert keeps(removal, TOTAL)
    assert keeps(replacement, 2 * TOTAL)
    assert nats_of(removal) > 0.99 * TOTAL
    assert nats_of(replacement) > 1.2 * TOTAL


def test_one_token_can_cost_more_than_the_whole_prompt_against_its_removal() -> None:
    """Removing the rare word hands its budget to the common one."""
    channel = fine_channel()
    with_rare, without = (3, 2, 0), (0, 2, 0)
    ratio = slot_ratio(channel, with_rare, without)
    budgets = [channel.budgets(np.array(ids)) for ids in (with_rare, without)]
    changed = float((budgets[0][0] + budgets[1][0]) * channel.unit)
    assert not keeps(ratio, changed)
    assert not keeps(ratio, TOTAL)
    assert keeps(ratio, channel.token_epsilon)


def test_one_token_can_cost_nearly_twice_the_total() -> None:
    """Where e**E = N - 1 a slot uses both of its bounds in full."""
    information = np.array([0.0, 1e-3] + [1.0] * 168)
    channel = SaliencyChannel(LARGE, math.log(169) / 6, information=information)
    ratio = slot_ratio(channel, (9, 1, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0))
    assert keeps(ratio, channel.token_epsilon)
    assert nats_of(ratio) > 0.97 * channel.token_epsilon


@pytest.mark.parametrize("size", [2, 5, 171])
@pytest.mark.parametrize("epsilon", ["0", "1/16", "1", "29/10", "31/10", "8", "30"])
def test_the_weights_are_the_largest_that_a_slots_epsilon_allows(
    size: int, epsilon: str
) -> None:
    nats, resolution = Fraction(epsilon), 2**50
    boost = largest_boost(nats, size, resolution)

    def holds(given_up: int) -> bool:
        true = Fraction(resolution + (size - 1) * given_up, resolution)
        other = Fraction(resolution, max(resolution - given_up, 1))
        return keeps(true, float(nats)) and keeps(other, float(nats))

    slack = 0 if float(nats) >= nats else 2
    assert holds(boost - slack)
    assert not holds(boost + 1) or boost == resolution - 1


def test_each_of_the_two_bounds_binds_where_it_should() -> None:
    """Below e**epsilon = N - 1 = 4 the kept word, above it the others."""
    resolution = 10**9
    low, high = (largest_boost(Fraction(e), 5, resolution) for e in ("1.3", "1.5"))
    assert 1 + 4 * low / resolution == pytest.approx(math.exp(1.3), abs=1e-8)
    assert 1 - low / resolution > math.exp(-1.3)
    assert 1 - high / resolution == pytest.approx(math.exp(-1.5), abs=1e-8)
    assert 1 + 4 * high / resolution < math.exp(1.5)


def largest_remainder(weights: list[int], units: int) -> list[int]:
    """The rule, written slowly: quotas, floors, then the largest remainders."""
    total = sum(weights)
    if total == 0:
        return [0] * len(weights)
    quotas = [Fraction(weight * units, total) for weight in weights]
    shares = [math.floor(quota) for quota in quotas]
    order = sorted(range(len(weights)), key=lambda i: (shares[i] - quotas[i], i))
    for slot in order[: units - sum(shares)]:
        shares[slot] += 1
    return shares


@given(st.lists(st.integers(0, 169), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_budgets_are_the_total_shared_by_largest_remainder(ids: list[int]) -> None:
    information = np.arange(170) % 7 / 7
    channel = SaliencyChannel(LARGE, 2.0, information=information)
    budgets = channel.budgets(np.array(ids)).tolist()
    steps = [round(float(information[i] / (6 / 7)) * 2**16) for i in ids]
    assert budgets == largest_remainder(
        [0 if i == 0 else s for i, s in zip(ids, steps, strict=True)], channel.units
    )
    assert sum(budgets) in (0, channel.units)
    assert channel.unit * channel.units == 12


def test_a_batch_shares_out_each_prompt_by_itself() -> None:
    channel = fine_channel()
    batch = channel.budgets(np.array(PROMPTS).reshape(5, 25, 3)).reshape(-1, 3)
    alone = [channel.budgets(np.array(prompt)).tolist() for prompt in PROMPTS]
    assert batch.tolist() == alone
    # Token 3 tells 3 and token 4 tells 2 of 5 nats: 48 units go 3 to 2.
    assert channel.budgets(np.array([3, 0, 4])).tolist() == [29, 0, 19]


def test_rare_words_stay_more_often_and_padding_is_uniform() -> None:
    information = np.array([0.0] + [1.0] * 100 + [4.0] * 69)
    channel = SaliencyChannel(LARGE, 1.0, information=information)
    drawn = channel.sample(
        np.tile([5, 150, 6, 0, 0, 0], (20_000, 1)), TapeRandomSource(1)
    )
    kept = (drawn == [5, 150, 6, 0, 0, 0]).mean(axis=0)
    # Budgets 1, 4 and 1 of 6 nats; a slot keeps its token with probability e**e / N.
    expected = [math.exp(1) / 170, math.exp(4) / 170, math.exp(1) / 170] + [1 / 170] * 3
    assert kept == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 20_000))
    assert kept[3:].max() < 0.012 < kept[0]


class Bounds:
    """A source that notes which bounds were asked for."""

    private = True

    def __init__(self) -> None:
        self.asked: list[NDArray[np.int64]] = []

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        self.asked.append(np.array(bounds))
        return np.zeros_like(bounds)


def test_the_draws_do_not_depend_on_the_prompt() -> None:
    channel = fine_channel()
    for prompt in PROMPTS:
        tape = Bounds()
        channel.sample(np.array([prompt]), tape)
        assert len(tape.asked) == 1
        assert tape.asked[0].tolist() == [[5 * channel.resolution] * 3]


def test_the_epsilons_and_their_neighbours_are_stated() -> None:
    channel = SaliencyChannel(TINY, 1.5)
    assert channel.removal_epsilon == 4.5
    assert channel.prompt_epsilon == channel.token_epsilon == 9.0
    assert channel.requested_epsilon == 1.5
    assert "whole prompt" in channel.adjacency
    assert "half of it" in channel.guarantee
    assert SaliencyChannel(TINY, 1.5, removal_epsilon=3.0).requested_epsilon == 1.0


def test_information_comes_from_smoothed_public_counts() -> None:
    information = unigram_information(np.array([99, 0, 7, 1]))
    # 1, 8 and 2 of 12: every count has one more, and so has everything else.
    assert information.tolist() == pytest.approx(
        [0.0, math.log(12), math.log(12 / 8), math.log(6)]
    )
    with pytest.raises(ValueError, match="`counts` must"):
        unigram_information(np.array([1, -1, 3]))


def test_the_hash_names_what_decides_a_release() -> None:
    channels = [
        fine_channel(),
        coarse_channel(),
        SaliencyChannel(TINY, 1.0),
        SaliencyChannel(TINY, 1.1),
        SaliencyChannel(TINY, 1.0, information=INFORMATION[[0, 1, 2, 4, 3]]),
        SaliencyChannel(Vocabulary(TINY.words, 4), 1.0),
    ]
    hashes = [channel.hash for channel in channels]
    assert len(set(hashes)) == len(hashes)
    # The total decides and not how it was asked for; padding's information is unused.
    same = SaliencyChannel(TINY, 1.0, information=INFORMATION + 5 * np.eye(5)[0])
    assert same.hash == fine_channel().hash


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1000.0])
def test_an_impossible_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"`token-epsilon` must .* found"):
        SaliencyChannel(TINY, epsilon)


@pytest.mark.parametrize("total", [-1.0, math.nan, math.inf])
def test_an_impossible_total_is_refused(total: float) -> None:
    with pytest.raises(ConfigError, match="`prompt-epsilon` must"):
        SaliencyChannel(TINY, 1.0, removal_epsilon=total)


@pytest.mark.parametrize(
    "values", [[1.0] * 4, [0.0] * 5, [1, -1, 1, 1, 1], [9, 0, 0, 0, 0]]
)
def test_impossible_information_is_refused(values: list[float]) -> None:
    with pytest.raises(ConfigError, match="`information` must"):
        SaliencyChannel(TINY, 1.0, information=np.array(values))


@pytest.mark.parametrize("resolution", [1, 2**62])
def test_an_impossible_resolution_is_refused(resolution: int) -> None:
    with pytest.raises(ConfigError, match="`resolution` must"):
        SaliencyChannel(TINY, 1.0, resolution=resolution)


@pytest.mark.parametrize("ids", [[-1, 0, 0], [5, 0, 0], [0.5, 0, 0]])
def test_ids_outside_the_vocabulary_never_pass(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="Token ids must be integers"):
        fine_channel().sample(np.array(ids), TapeRandomSource(0))


def test_prompts_of_another_length_never_pass() -> None:
    with pytest.raises(ValueError, match="must have 3 slots"):
        fine_channel().sample(np.array([0, 0]), TapeRandomSource(0))
