"""Selection from a bank: likeness, shape, exact law of whole prompts, refusals."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from fedcot.errors import ConfigError
from fedcot.privacy import selection
from fedcot.privacy.sampler import RandomSource, TapeRandomSource
from fedcot.privacy.selection import Bank, SelectionChannel, separating_threshold
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import TINY, keeps, nats_of, token_law, worst_ratio

# 0 padding, 1 unknown, 2 to 7 words, 8 to 10 numbers.
WORDS = Vocabulary.of(["fox", "hen", "cow", "owl", "elk", "bee", "3", "7", "12"], 4)
TINY_BANK = Bank(
    TINY, np.array([[2, 3, 4], [2, 2, 0], [3, 4, 0], [4, 0, 0], [2, 3, 0]])
)
PROMPTS = [np.array(prompt) for prompt in itertools.product(range(5), repeat=3)]


@cache
def words_bank(size: int = 40) -> Bank:
    rng = np.random.default_rng(7)
    drawn = rng.choice(11, size=(4 * size, 4), p=[0.2, 0.05, *[0.1] * 4, *[0.07] * 5])
    _, first = np.unique(drawn, axis=0, return_index=True)
    return Bank(WORDS, drawn[np.sort(first)[:size]])


def feature_set(prompt: NDArray[np.int64]) -> set[str]:
    """What counts in a prompt: its words; numbers are one; nothing else."""
    words = {WORDS.words[token] for token in prompt if token > 1}
    return {"number" if word.isdecimal() else word for word in words}


def slow_parts(bank: Bank, prompt: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Shared weight and both norms, by a loop over sets of words."""
    sets = [feature_set(other) for other in bank.prompts]
    known = Counter(itertools.chain.from_iterable(sets))

    def weight(words: set[str]) -> int:
        return sum(
            round(64 * math.log((len(bank) + 1) / max(1, known[word]))) ** 2
            for word in words
        )

    own = feature_set(prompt)
    return [(weight(own & other), weight(own), weight(other)) for other in sets]


def asked_prompts() -> NDArray[np.int64]:
    rng = np.random.default_rng(1)
    random = rng.integers(0, 11, size=(60, 4))
    nothing = np.array([[0, 0, 0, 0], [1, 1, 0, 0]])
    return np.concatenate([nothing, random, words_bank().prompts[:8]])


def test_likeness_is_the_cosine_of_weighted_sets_of_words() -> None:
    bank = words_bank()
    found = bank.similarity(asked_prompts())
    for prompt, row in zip(asked_prompts(), found, strict=True):
        expected = [
            shared / math.sqrt(own * other) if own * other else 0.0
            for shared, own, other in slow_parts(bank, prompt)
        ]
        assert row == pytest.approx(expected, abs=1e-12)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-12


def test_the_bank_is_ordered_by_likeness_and_ties_by_position() -> None:
    bank = words_bank()
    orders = bank.order(asked_prompts())
    for prompt, order in zip(asked_prompts(), orders, strict=True):
        assert sorted(order.tolist()) == list(range(len(bank)))
        # The squared cosine is a fraction up to the prompt's own norm.
        exact = [
            Fraction(shared**2, other) if other else Fraction(0)
            for shared, _, other in slow_parts(bank, prompt)
        ]
        likeness = bank.similarity(prompt[None])[0]
        for one, other in itertools.pairwise(order.tolist()):
            assert exact[one] >= exact[other] or math.isclose(
                likeness[one], likeness[other]
            )
            if likeness[one] == likeness[other]:
                assert one < other
    # A prompt without a known word is like none: the bank's own order.
    assert orders[0].tolist() == orders[1].tolist() == list(range(len(bank)))


def test_numbers_count_as_one_word_and_padding_and_unknown_as_none() -> None:
    bank = words_bank()
    three, seven = np.array([[2, 8, 3, 0]]), np.array([[3, 1, 10, 2]])
    assert bank.similarity(three).tolist() == bank.similarity(seven).tolist()
    assert not bank.similarity(np.array([[0, 1, 0, 1]])).any()


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0, 8.0, 20.0])
@pytest.mark.parametrize("favoured", [1, 3, 39])
def test_every_row_has_two_weights_and_the_enumerated_epsilon(
    epsilon: float, favoured: int
) -> None:
    channel = SelectionChannel(WORDS, epsilon, bank=words_bank(), favoured=favoured)
    rows = [channel.weights_row(prompt) for prompt in asked_prompts()]
    for prompt, row in zip(asked_prompts(), rows, strict=True):
        assert Counter(row) == {channel.high: favoured, channel.low: 40 - favoured}
        assert sum(row) == channel.total
        best = channel.bank.order(prompt[None])[0, :favoured]
        assert {row[place] for place in best} == {channel.high}
    ratio = worst_ratio(token_law(row) for row in rows)
    assert keeps(ratio, epsilon)
    assert keeps(ratio, channel.prompt_epsilon)
    assert nats_of(ratio) >= epsilon - 1e-5
    assert channel.prompt_epsilon == pytest.approx(nats_of(ratio), abs=2e-9)
    assert channel.token_epsilon == channel.prompt_epsilon <= epsilon
    assert channel.requested_epsilon == epsilon


def test_the_chance_of_a_favoured_rank_is_the_closed_form() -> None:
    channel = SelectionChannel(WORDS, 3.0, bank=words_bank(), favoured=5)
    row = channel.weights_row(asked_prompts()[9])
    order = channel.bank.order(asked_prompts()[9][None])[0]
    found = sum(row[place] for place in order[:5]) / sum(row)
    gain = 5 * math.exp(3)
    assert found == pytest.approx(gain / (gain + 35), abs=1e-6)


class EveryDraw:
    """Hands each of `total` rows another draw."""

    private = True

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        if not (bounds == len(bounds)).all():
            raise ValueError("there must be a row for every draw")
        return np.arange(len(bounds))


def enumerated(
    channel: SelectionChannel, prompt: NDArray[np.int64]
) -> dict[tuple[int, ...], Fraction]:
    copies = np.tile(prompt, (channel.total, 1))
    drawn = channel.sample(copies, EveryDraw())
    return {
        output: Fraction(count, channel.total)
        for output, count in Counter(map(tuple, drawn.tolist())).items()
    }


@pytest.fixture
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "BITS", 3)


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("favoured", [1, 2, 4])
def test_the_claim_holds_for_every_draw_of_every_prompt(favoured: int) -> None:
    channel = SelectionChannel(TINY, 2.0, bank=TINY_BANK, favoured=favoured)
    laws = [enumerated(channel, prompt) for prompt in PROMPTS]
    public = {tuple(prompt) for prompt in TINY_BANK.prompts.tolist()}
    for prompt, law in zip(PROMPTS, laws, strict=True):
        assert set(law) == public
        shares = [law[tuple(row)] for row in TINY_BANK.prompts.tolist()]
        row = channel.weights_row(prompt)
        assert shares == [Fraction(weight, sum(row)) for weight in row]
    ratio = worst_ratio(laws)
    assert ratio == Fraction(channel.high, channel.low)
    assert keeps(ratio, channel.prompt_epsilon)


@pytest.mark.usefixtures("_coarse")
def test_one_token_costs_as_much_as_the_prompt_and_never_more() -> None:
    channel = SelectionChannel(TINY, 2.0, bank=TINY_BANK, favoured=1)
    laws = {tuple(prompt.tolist()): enumerated(channel, prompt) for prompt in PROMPTS}
    worst = Fraction(1)
    for left, right in itertools.combinations(laws, 2):
        if sum(a != b for a, b in zip(left, right, strict=True)) == 1:
            worst = max(worst, worst_ratio([laws[left], laws[right]]))
    assert keeps(worst, channel.token_epsilon)
    assert nats_of(worst) > channel.token_epsilon - 1e-8


class SkipsWhatIsUnlike(SelectionChannel):
    """A mutant that never sends a prompt without a common word."""

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        released = super().sample(ids, source)
        likeness = self.bank.similarity(ids)
        best = self.bank.prompts[likeness.argmax(axis=1)]
        chosen = (self.bank.prompts[None] == released[:, None]).all(axis=2).argmax(1)
        unlike = likeness[np.arange(len(ids)), chosen] == 0
        return np.where(unlike[:, None], best, released)


class KeepsAKnownPrompt(SelectionChannel):
    """A mutant that sends the private prompt itself where the bank holds it."""

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        released = super().sample(ids, source)
        held = (self.bank.prompts[None] == ids[:, None]).all(axis=2).any(axis=1)
        return np.where(held[:, None], ids, released)


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("mutant", [SkipsWhatIsUnlike, KeepsAKnownPrompt])
def test_a_mutant_is_noticed(mutant: type[SelectionChannel]) -> None:
    channel = mutant(TINY, 2.0, bank=TINY_BANK, favoured=2)
    ratio = worst_ratio(enumerated(channel, prompt) for prompt in PROMPTS)
    assert not keeps(ratio, channel.prompt_epsilon)


def test_the_sampler_follows_the_exact_weights() -> None:
    channel = SelectionChannel(WORDS, 2.0, bank=words_bank(), favoured=6)
    prompt = asked_prompts()[5]
    drawn = channel.sample(np.tile(prompt, (20_000, 1)), TapeRandomSource(3))
    places = (channel.bank.prompts[None] == drawn[:, None]).all(axis=2).argmax(axis=1)
    row = np.array(channel.weights_row(prompt))
    seen = np.bincount(places, minlength=40)
    assert chisquare(seen, 20_000 * row / row.sum()).pvalue > 1e-6


def test_what_is_released_is_always_a_prompt_of_the_bank() -> None:
    channel = SelectionChannel(WORDS, 1.0, bank=words_bank())
    ids = np.random.default_rng(0).integers(0, 11, size=(3, 500, 4))
    released = channel.sample(ids, TapeRandomSource(0))
    assert released.shape == ids.shape
    public = {tuple(prompt) for prompt in channel.bank.prompts.tolist()}
    assert {tuple(row) for row in released.reshape(-1, 4).tolist()} <= public
    assert channel.sample(ids[0, 0], TapeRandomSource(0)).shape == (4,)


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_separates_best_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.beta(2, 9, size=300), rng.beta(8, 3, size=40 * (seed + 1))
    values = np.concatenate([low, high])
    centres = (np.floor(np.minimum(values, 1 - 1e-12) * 100) + 0.5) / 100

    def between(threshold: float) -> float:
        one, other = centres[centres < threshold], centres[centres >= threshold]
        if not (one.size and other.size):
            return 0.0
        return one.size * other.size * (one.mean() - other.mean()) ** 2

    found = separating_threshold(values)
    edges = np.arange(1, 101) / 100
    assert between(found) == pytest.approx(max(map(between, edges)), rel=1e-9)
    assert 0.2 < found < 0.8


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0, 8.0])
def test_the_number_of_favoured_ranks_is_the_best_by_brute_force(
    epsilon: float,
) -> None:
    bank = words_bank()
    channel = SelectionChannel(WORDS, epsilon, bank=bank)
    likeness = bank.similarity(bank.prompts)
    threshold = separating_threshold(likeness)
    ratio = channel.high / channel.low

    def chance(favoured: int) -> float:
        """A private prompt is like one of the bank, and is not itself in it."""
        total = favoured * ratio + len(bank) - favoured
        found = 0.0
        for row in likeness:
            others = sorted(row, reverse=True)[1:]
            for rank, value in enumerate(others):
                weight = ratio if rank < favoured else 1.0
                found += weight * (value >= threshold) / total
        return found / len(bank)

    chances = {favoured: chance(favoured) for favoured in range(1, len(bank))}
    assert chances[channel.favoured] == pytest.approx(max(chances.values()), rel=1e-9)


def test_a_larger_epsilon_favours_no_more_ranks() -> None:
    bank = words_bank()
    sizes = [
        SelectionChannel(WORDS, epsilon, bank=bank).favoured
        for epsilon in (0.5, 2.0, 4.0, 8.0)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_the_hash_tells_bank_shape_and_epsilon_apart() -> None:
    bank, turned = words_bank(), Bank(WORDS, words_bank().prompts[::-1])
    channels = [
        SelectionChannel(WORDS, 2.0, bank=bank, favoured=2),
        SelectionChannel(WORDS, 2.5, bank=bank, favoured=2),
        SelectionChannel(WORDS, 2.0, bank=bank, favoured=3),
        SelectionChannel(WORDS, 2.0, bank=turned, favoured=2),
        SelectionChannel(WORDS, 2.0, bank=words_bank(30), favoured=2),
    ]
    assert len({channel.hash for channel in channels}) == 5
    again = SelectionChannel(WORDS, 2.0, bank=bank, favoured=2)
    assert again.hash == channels[0].hash


def test_a_large_epsilon_still_fits_in_62_bits_or_is_refused() -> None:
    channel = SelectionChannel(WORDS, 35.0, bank=words_bank(), favoured=3)
    assert channel.total < 2**62
    assert 35 - 1e-3 < channel.prompt_epsilon <= 35
    with pytest.raises(ConfigError, match=r"`prompt-epsilon` must leave"):
        SelectionChannel(WORDS, 45.0, bank=words_bank(), favoured=3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_must_be_given(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="`prompt-epsilon` must be > 0"):
        SelectionChannel(WORDS, epsilon, bank=words_bank())


@pytest.mark.parametrize("favoured", [0, 40, -1])
def test_the_number_of_favoured_ranks_must_leave_others(favoured: int) -> None:
    with pytest.raises(ConfigError, match="`favoured`"):
        SelectionChannel(WORDS, 2.0, bank=words_bank(), favoured=favoured)


def test_a_bank_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="`bank` must be encoded with the run's"):
        SelectionChannel(TINY, 2.0, bank=words_bank())


@pytest.mark.parametrize(
    "prompts",
    [
        np.array([[2, 3, 4]]),
        np.array([[2, 3, 4], [3, 3, 0], [2, 3, 4]]),
        np.array([[2, 3], [3, 4]]),
        np.array([2, 3, 4]),
        np.zeros((0, 3), dtype=np.int64),
    ],
)
def test_a_bank_that_is_none_is_refused(prompts: NDArray[np.int64]) -> None:
    with pytest.raises(ConfigError, match="`bank` must hold") as raised:
        Bank(TINY, prompts)
    assert "\n" not in str(raised.value)


def test_ids_outside_the_vocabulary_are_refused_without_naming_them() -> None:
    channel = SelectionChannel(WORDS, 2.0, bank=words_bank(), favoured=2)
    with pytest.raises(ValueError, match=r"integers in \[0, 11\)") as raised:
        channel.sample(np.array([[2, 3, 77, 0]]), TapeRandomSource(0))
    assert "77" not in str(raised.value)
