"""Adaptive prompts: the law of a whole prompt, by every draw of what runs.

Coarse weights make all draws few enough to be tried, one by one.
"""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcot.privacy import adaptive, slot_law
from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.choices import ChoiceTree, Outcome
from fedcot.privacy.sampler import RandomSource, TapeRandomSource
from fedcot.privacy.slot_law import SlotLaw
from tests.privacy.oracle import keeps, nats_of, worst_ratio
from tests.privacy.public_models import tiny_channel

Prompt = tuple[int, ...]
Laws = Mapping[Prompt, Mapping[Prompt, Fraction]]

ALL = list(product(range(5), repeat=3))
SOME = list(product([0, 2, 3], repeat=3))
SIMILARITY = np.random.default_rng(3).uniform(size=(5, 5))


class Scripts:
    """Hands each row its own draws, then 0, and notes every bound."""

    private = True

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self._rows = rows
        self.bounds: list[NDArray[np.int64]] = []

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        place = len(self.bounds)
        self.bounds.append(np.array(bounds))
        if place == self._rows.shape[1]:
            return np.zeros(len(bounds), dtype=np.int64)
        draws = self._rows[:, place]
        if not ((draws >= 0) & (draws < bounds)).all():
            raise ValueError("the same draws must lead to the same bounds")
        return draws


def every_draw(channel: AdaptiveChannel, prompt: Prompt) -> dict[Prompt, Fraction]:
    """The exact law of one prompt: each slot's draws are branched on, all of them."""
    scripts = np.zeros((1, 0), dtype=np.int64)
    for slot in range(channel.slots):
        source = Scripts(scripts)
        # Later slots draw 0 until they are branched on.
        _sample_until(channel, prompt, source, slot)
        bounds = source.bounds[slot]
        scripts = np.concatenate(
            [
                np.repeat(scripts, bounds, axis=0),
                np.concatenate([np.arange(bound) for bound in bounds])[:, None],
            ],
            axis=1,
        )
    source = Scripts(scripts)
    released = channel.sample(np.tile(prompt, (len(scripts), 1)), source)
    asked = np.stack(source.bounds, axis=1)
    counts = Counter(
        (tuple(row), tuple(bounds))
        for row, bounds in zip(released.tolist(), asked.tolist(), strict=True)
    )
    law: dict[Prompt, Fraction] = defaultdict(Fraction)
    for (row, bounds), count in counts.items():
        law[row] += Fraction(count, math.prod(bounds))
    return law


class _Enough(Exception):
    """The bound that was wanted is known."""


def _sample_until(
    channel: AdaptiveChannel, prompt: Prompt, source: Scripts, slot: int
) -> None:
    """Run the production code up to the draw of one slot."""
    below = source.below

    def stopping(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        draws = below(bounds)
        if len(source.bounds) > slot:
            raise _Enough
        return draws

    source.below = stopping  # type: ignore[method-assign]
    with pytest.raises(_Enough):
        channel.sample(np.tile(prompt, (len(source._rows), 1)), source)


@pytest.fixture
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_law, "BITS", 1)
    monkeypatch.setattr(adaptive, "PROBABILITY_BITS", 3)


def check(laws: Laws, channel: AdaptiveChannel) -> tuple[float, float]:
    """Both claims; what one changed token and what the whole prompt really cost."""
    for law in laws.values():
        assert sum(law.values()) == 1
    whole = worst_ratio(laws.values())
    assert keeps(whole, channel.prompt_epsilon)
    token = Fraction(1)
    for left, right in combinations(laws, 2):
        if sum(one != other for one, other in zip(left, right, strict=True)) == 1:
            ratio = worst_ratio([laws[left], laws[right]])
            assert keeps(ratio, channel.token_epsilon)
            token = max(token, ratio)
    return nats_of(token), nats_of(whole)


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("factor", [0.02, 0.3, 0.9])
def test_both_claims_hold_for_every_draw_of_every_prompt(factor: float) -> None:
    channel = tiny_channel(factor=factor, prompt_epsilon=2.0)
    prompts = ALL if factor == 0.3 else SOME
    laws = {prompt: every_draw(channel, prompt) for prompt in prompts}
    token, whole = check(laws, channel)
    # The claims are not far off: the high and low weights are 5 and 2.
    assert token == pytest.approx(math.log(2.5), abs=1e-12)
    assert whole == pytest.approx(2 * math.log(2.5), abs=1e-12)


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("neighbours", [1, 2])
def test_both_claims_hold_where_likeness_orders_the_support(neighbours: int) -> None:
    channel = tiny_channel(
        prompt_epsilon=1.25, similarity=SIMILARITY, neighbours=neighbours
    )
    check({prompt: every_draw(channel, prompt) for prompt in SOME}, channel)


@cache
def rows_after(channel: AdaptiveChannel, prefix: Prompt) -> list[list[Fraction]]:
    """The stated probabilities of a slot, for each private word."""
    law = channel.slot_law(np.array(prefix, dtype=np.int64))
    rows = [law.row(token).tolist() for token in range(5)]
    return [[Fraction(weight, law.total) for weight in row] for row in rows]


def product_law(channel: AdaptiveChannel, prompt: Prompt) -> dict[Prompt, Fraction]:
    """The law of a prompt as the stated rows of its slots give it."""
    shares = {
        output: math.prod(
            (rows_after(channel, output[:i])[prompt[i]][output[i]] for i in range(3)),
            start=Fraction(1),
        )
        for output in ALL
    }
    return {output: share for output, share in shares.items() if share}


@pytest.mark.usefixtures("_coarse")
def test_what_is_drawn_is_the_product_of_the_stated_rows() -> None:
    for factor in (0.02, 0.3):
        channel = tiny_channel(factor=factor, prompt_epsilon=1.25)
        for prompt in [(0, 0, 0), (3, 2, 4), (1, 4, 4), (4, 3, 2)]:
            assert every_draw(channel, prompt) == product_law(channel, prompt)


def test_the_real_weights_give_the_same_laws_by_intervals() -> None:
    channel = tiny_channel(prompt_epsilon=2.0)
    prompts = {"000": (0, 0, 0), "324": (3, 2, 4), "321": (3, 2, 1)}

    def release(names: Sequence[str], source: RandomSource) -> list[Outcome]:
        drawn = channel.sample(np.array([prompts[name] for name in names]), source)
        return [tuple(row) for row in drawn.tolist()]

    laws = ChoiceTree(TapeRandomSource(9)).laws(release, list(prompts))
    for name, prompt in prompts.items():
        assert laws[name] == product_law(channel, prompt)


def test_both_claims_hold_and_are_nearly_reached_with_the_real_weights() -> None:
    for budget in [(1.0, 1.25), (1.0, 2.0), (2.0, 5.0)]:
        channel = tiny_channel(token_epsilon=budget[0], prompt_epsilon=budget[1])
        laws = {prompt: product_law(channel, prompt) for prompt in SOME}
        token, whole = check(laws, channel)
        assert token > channel.token_epsilon - 1e-5
        assert whole > 0.75 * channel.prompt_epsilon


class ReadsPrivateWords(AdaptiveChannel):
    """A mutant whose context is the private prompt instead of the released one."""

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        self._private = np.asarray(ids).reshape(-1, self.slots)
        return super().sample(ids, source)

    def _laws(self, state: adaptive._Prompts, slot: int) -> list[SlotLaw]:
        seen = dataclasses.replace(state, released=self._private)
        return super()._laws(seen, slot)


class ForgetsWhatItSpent(AdaptiveChannel):
    """A mutant without the filter."""

    def _account(
        self,
        state: adaptive._Prompts,
        slot: int,
        laws: list[SlotLaw],
        words: NDArray[np.int64],
    ) -> None:
        super()._account(state, slot, laws, words)
        state.spent[:] = 0


class KeepsThePrivateWordPossible(AdaptiveChannel):
    """A mutant whose support takes in the private word where it was not."""

    def _draw(
        self, laws: list[SlotLaw], tokens: NDArray[np.int64], source: RandomSource
    ) -> NDArray[np.int64]:
        return super()._draw(
            [
                law
                if law.favoured == 0 or token in law.support
                else dataclasses.replace(
                    law, support=np.append(law.support[:-1], token)
                )
                for law, token in zip(laws, tokens, strict=True)
            ],
            tokens,
            source,
        )


class AsksWhatThePrivateWordIsWorth(AdaptiveChannel):
    """A mutant that gives a budget where the private word is a rare one."""

    def _draw(
        self, laws: list[SlotLaw], tokens: NDArray[np.int64], source: RandomSource
    ) -> NDArray[np.int64]:
        trust = adaptive.TRUST
        return super()._draw(
            [
                self._law(law.likely, trust, 64, True)
                if law.likely[token] < 0.1
                else self._law(law.likely, trust, 0, False)
                for law, token in zip(laws, tokens, strict=True)
            ],
            tokens,
            source,
        )


class TrustsByThePrivateWord(AdaptiveChannel):
    """A mutant whose trust in the model follows from the private words."""

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        self._private = np.asarray(ids).reshape(-1, self.slots)
        return super().sample(ids, source)

    def _account(
        self,
        state: adaptive._Prompts,
        slot: int,
        laws: list[SlotLaw],
        words: NDArray[np.int64],
    ) -> None:
        super()._account(state, slot, laws, words)
        state.log_odds[self._private[:, slot] == 3] -= 9.0


MUTANTS = [
    ReadsPrivateWords,
    ForgetsWhatItSpent,
    KeepsThePrivateWordPossible,
    AsksWhatThePrivateWordIsWorth,
    TrustsByThePrivateWord,
]


@pytest.mark.usefixtures("_coarse")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_that_breaks_the_argument_is_noticed(
    mutant: type[AdaptiveChannel],
) -> None:
    sound, channel = tiny_channel(), tiny_channel(mutant)
    check({prompt: every_draw(sound, prompt) for prompt in SOME}, sound)
    laws = {prompt: every_draw(channel, prompt) for prompt in SOME}
    with pytest.raises(AssertionError):
        check(laws, channel)
