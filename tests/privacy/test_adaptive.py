"""The adaptive mechanism slot by slot: laws, budgets, trust and refusals."""

import math
from collections import defaultdict
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from fedcot.data.banks import load_bank
from fedcot.errors import ConfigError
from fedcot.privacy import adaptive
from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.sampler import RandomSource, TapeRandomSource
from fedcot.privacy.slot_law import STEPS_PER_NAT, SlotLaw
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from tests.privacy.oracle import keeps, nats_of, token_law, worst_ratio
from tests.privacy.public_models import (
    TEXTS,
    TINY,
    ConstantModel,
    SkewedModel,
    tiny_channel,
)

FACTORS = [0.0, 0.02, 0.3, 0.9]
BUDGETS = [(1.0, 1.25), (1.0, 2.0), (3.0, 4.0), (4.0, 6.0), (4.0, 0.0)]
SIMILARITY = np.random.default_rng(3).uniform(size=(5, 5))
PREFIXES = [
    np.array(prefix, dtype=np.int64)
    for length in range(TINY.length)
    for prefix in product(range(5), repeat=length)
]


@cache
def tiny(factor: float, budget: tuple[float, float], alike: int) -> AdaptiveChannel:
    return tiny_channel(
        factor=factor,
        token_epsilon=budget[0],
        prompt_epsilon=budget[1],
        similarity=None if alike == 0 else SIMILARITY,
        neighbours=max(1, alike),
    )


@pytest.mark.parametrize("alike", [0, 2])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("factor", FACTORS)
def test_every_slot_is_exact_after_every_prefix_whatever_the_model_thinks(
    factor: float, budget: tuple[float, float], alike: int
) -> None:
    channel = tiny(factor, budget, alike)
    for prefix in PREFIXES:
        law = channel.slot_law(prefix)
        rows = [law.row(token).tolist() for token in range(5)]
        assert {sum(row) for row in rows} == {law.total}
        possible = [{word for word in range(5) if row[word]} for row in rows]
        assert possible == [set(law.support.tolist())] * 5
        ratio = worst_ratio([token_law(row) for row in rows])
        assert keeps(ratio, law.steps / STEPS_PER_NAT)
        assert keeps(ratio, min(law.epsilon, channel.token_epsilon))
        if law.steps == 0:
            assert rows == rows[:1] * 5
        elif set(range(5)) <= set(law.support.tolist()):
            assert nats_of(ratio) == pytest.approx(law.epsilon, abs=1e-12)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("factor", FACTORS)
def test_no_path_spends_more_than_the_total(
    factor: float, budget: tuple[float, float]
) -> None:
    channel = tiny(factor, budget, 0)
    total = Fraction(channel.prompt_epsilon) * STEPS_PER_NAT
    after = {tuple(prefix.tolist()): channel.slot_law(prefix) for prefix in PREFIXES}
    for path in product(range(5), repeat=3):
        laws = [after[path[:slot]] for slot in range(3)]
        steps = [law.steps for law in laws]
        assert sum(steps) <= total
        if path[2] == 0:
            assert channel.spent(np.array(path)) == sum(steps)
        assert math.fsum(law.epsilon for law in laws) <= channel.prompt_epsilon


def test_the_tested_channels_have_slots_of_every_kind() -> None:
    laws = [
        tiny(factor, budget, 0).slot_law(prefix)
        for factor, budget in product(FACTORS, BUDGETS)
        for prefix in PREFIXES
    ]
    assert {law.steps for law in laws} >= {0, 16, 64, 128, 192, 256}
    assert {len(law.support) for law in laws if law.steps} == {2, 3, 4, 5}
    assert {len(law.support) for law in laws if not law.steps} == {1, 5}


class Recorder(AdaptiveChannel):
    """Notes which law a slot was drawn from after which released words."""

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        self.drawn_from: list[list[SlotLaw]] = []
        return super().sample(ids, source)

    def _draw(
        self, laws: list[SlotLaw], tokens: NDArray[np.int64], source: RandomSource
    ) -> NDArray[np.int64]:
        self.drawn_from.append(laws)
        return super()._draw(laws, tokens, source)


def content(law: SlotLaw) -> tuple[object, ...]:
    return (
        law.support.tolist(),
        law.favoured,
        law.high,
        law.low,
        law.free.tolist(),
        law.steps,
    )


@pytest.mark.parametrize("factor", [0.02, 0.3, 0.9])
def test_a_slot_s_law_follows_from_the_released_words_alone(factor: float) -> None:
    private = np.array(list(product(range(5), repeat=3)) * 2)
    found = defaultdict(list)
    channel = tiny_channel(Recorder, factor=factor, token_epsilon=3, prompt_epsilon=4)
    assert isinstance(channel, Recorder)
    released = channel.sample(private, TapeRandomSource(1))
    for slot, laws in enumerate(channel.drawn_from):
        for row, law in enumerate(laws):
            found[tuple(released[row, :slot].tolist())].append(content(law))
    assert len(found) >= 6
    for prefix, laws in found.items():
        alone = content(channel.slot_law(np.array(prefix, dtype=np.int64)))
        assert all(law == alone for law in laws)


@pytest.mark.parametrize("factor", [0.02, 0.3])
def test_slots_without_a_budget_ignore_the_private_words(factor: float) -> None:
    """One tape, other private words: equal up to the first slot with a budget."""
    channel = tiny(factor, (1.0, 1.25), 0)
    left = np.array(list(product(range(5), repeat=3)))
    ours = channel.sample(left, TapeRandomSource(4))
    theirs = channel.sample((left + 1) % 5, TapeRandomSource(4))
    same = 0
    for one, other in zip(ours, theirs, strict=True):
        for slot in range(3):
            if channel.slot_law(one[:slot]).steps:
                break
            assert one[slot] == other[slot]
            same += 1
    assert same >= (250 if factor == 0.02 else 0)


def test_the_sampler_follows_the_exact_row() -> None:
    channel = tiny(0.3, (3.0, 4.0), 0)
    private = np.array([3, 4, 2])
    released = channel.sample(np.tile(private, (6_000, 1)), TapeRandomSource(11))
    kinds = set()
    common = [
        tuple(prefix.tolist())
        for length in range(3)
        for prefix in np.unique(released[:, :length], axis=0)
        if (released[:, :length] == prefix).all(axis=1).sum() > 300
    ]
    assert {len(prefix) for prefix in common} == {0, 1, 2}
    for prefix in common:
        length = len(prefix)
        law = channel.slot_law(np.array(prefix, dtype=np.int64))
        after = released[(released[:, :length] == prefix).all(axis=1), length]
        row = law.row(int(private[length]))
        seen = np.bincount(after, minlength=5)
        expected = len(after) * row / law.total
        assert not seen[row == 0].any()
        assert chisquare(seen[row > 0], expected[row > 0]).pvalue > 1e-6
        kinds.add(law.steps > 0)
    assert kinds == {True, False}


WORLD = world_vocabulary()


@cache
def world_prompts() -> NDArray[np.int64]:
    return load_bank(WORLD, "world", 300).prompts


@cache
def world_channel(token_epsilon: float, prompt_epsilon: float) -> AdaptiveChannel:
    return AdaptiveChannel(
        WORLD,
        token_epsilon,
        prompt_epsilon=prompt_epsilon,
        model=BigramModel(WORLD, world_prompts()),
        calibration=world_prompts()[:60],
    )


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_a_slot_of_the_world_costs_what_was_asked_for(epsilon: float) -> None:
    channel = world_channel(epsilon, 0.0)
    assert epsilon - 0.02 <= channel.token_epsilon <= epsilon
    law = channel.slot_law(np.zeros(0, dtype=np.int64))
    # The two weights occur in one column, so their ratio is the slot's worst.
    columns = np.stack([law.row(token) for token in range(channel.size)])
    column = columns[:, law.support[0]].tolist()
    assert {law.high, law.low} == set(column)
    ratio = Fraction(max(column), min(column))
    assert keeps(ratio, channel.token_epsilon)
    assert nats_of(ratio) == pytest.approx(channel.token_epsilon, abs=1e-12)


def test_without_a_total_every_slot_has_the_most() -> None:
    channel = world_channel(4.0, 0.0)
    assert channel.prompt_epsilon == 4.0 * channel.slots
    released = channel.sample(world_prompts()[:6], TapeRandomSource(0))
    for row in released:
        steps = [channel.slot_law(row[:slot]).steps for slot in range(channel.slots)]
        assert set(steps) == {256}
    # A total above that changes nothing.
    assert world_channel(4.0, 1000.0).hash == channel.hash


@pytest.mark.parametrize("total", [4.0, 8.0, 16.0, 42.0])
def test_a_total_is_kept_and_used_on_the_world(total: float) -> None:
    channel = world_channel(4.0, total)
    assert channel.prompt_epsilon == total
    released = channel.sample(world_prompts()[100:124], TapeRandomSource(2))
    spent = [channel.spent(row) / STEPS_PER_NAT for row in released]
    assert max(spent) <= total
    assert np.mean(spent) > 0.6 * total


def test_a_larger_total_returns_more_true_words() -> None:
    private = world_prompts()[100:124]
    kept = []
    for total in (8.0, 42.0, 0.0):
        channel = world_channel(4.0, total)
        released = channel.sample(private, TapeRandomSource(2))
        kept.append(float((released == private).mean()))
    assert kept == sorted(kept)
    assert kept[-1] > kept[0] + 0.05


SURE = [0.9, 0.05, 0.02, 0.02, 0.01]


def test_a_model_that_is_wrong_is_not_believed_and_slots_share_evenly() -> None:
    vocabulary = Vocabulary.of(["fox", "hen", "3"], 8)
    channel = AdaptiveChannel(
        vocabulary,
        4.0,
        prompt_epsilon=20.0,
        model=ConstantModel(SURE),
        calibration=np.zeros((3, 8), dtype=np.int64),
    )
    wrong, distrusted = np.zeros(8, dtype=np.int64), []
    for slot in range(8):
        state = channel._after(wrong[:slot])
        law = channel.slot_law(wrong[:slot])
        left = channel.total_steps - int(state.spent[0])
        trust = 1 / (1 + math.exp(-state.log_odds[0]))
        if trust < adaptive.BELIEVED:
            assert law.steps == min(256, left // (8 - slot)) > 0
            distrusted.append(slot)
        # The word that the model expects least of those that can come.
        wrong[slot] = law.support[-1]
    assert distrusted == list(range(distrusted[0], 8))
    assert 0 < distrusted[0] <= 4
    assert channel.total_steps - 8 < channel.spent(wrong) <= channel.total_steps
    # Where the model is right it stays believed, and its odds rise.
    right = channel._after(np.zeros(3, dtype=np.int64))
    assert right.log_odds[0] > channel._start(1).log_odds[0]


def test_trust_follows_bayes_rule() -> None:
    flat = [0.3, 0.25, 0.2, 0.15, 0.1]
    channel = AdaptiveChannel(TINY, 4.0, model=ConstantModel(flat), calibration=TEXTS)
    law = channel.slot_law(np.zeros(0, dtype=np.int64))
    assert sorted(law.support.tolist()) == list(range(5))
    odds = adaptive.TRUST / (1 - adaptive.TRUST)
    rows = np.stack([law.row(token) for token in range(5)])
    for word in range(5):
        told, blind = np.array(flat) @ rows[:, word], rows[:, word].mean()
        found = channel._after(np.array([word])).log_odds[0]
        assert found == pytest.approx(math.log(odds * told / blind), abs=1e-12)


def test_without_any_budget_trust_stays() -> None:
    channel = tiny(0.02, (1.0, 1.25), 0)
    assert channel.slot_law(np.zeros(0, dtype=np.int64)).steps == 0
    for word in range(5):
        state = channel._after(np.array([word]))
        assert state.log_odds[0] == channel._start(1).log_odds[0]


def test_the_hash_tells_everything_that_was_passed_apart() -> None:
    base = {"token_epsilon": 1.0, "prompt_epsilon": 1.25}
    hashes = {
        tiny_channel(**base).hash,
        tiny_channel(token_epsilon=0.5, prompt_epsilon=1.25).hash,
        tiny_channel(token_epsilon=1.0, prompt_epsilon=1.5).hash,
        tiny_channel(**base, factor=0.5).hash,
        tiny_channel(**base, similarity=SIMILARITY).hash,
        tiny_channel(**base, similarity=SIMILARITY.T).hash,
        tiny_channel(**base, similarity=SIMILARITY, neighbours=2).hash,
        AdaptiveChannel(
            TINY, 1.0, prompt_epsilon=1.25, model=SkewedModel(5, 0.3),
            calibration=TEXTS[:3],
        ).hash,
        AdaptiveChannel(
            Vocabulary.of(["fox", "cat", "3"], 3), 1.0, prompt_epsilon=1.25,
            model=SkewedModel(5, 0.3), calibration=TEXTS,
        ).hash,
    }  # fmt: skip
    assert len(hashes) == 9
    assert tiny_channel(**base).hash == tiny_channel(**base).hash


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"token_epsilon": 0.01}, "`token-epsilon`"),
        ({"token_epsilon": math.inf}, "`token-epsilon`"),
        ({"token_epsilon": -1.0}, "`token-epsilon`"),
        ({"prompt_epsilon": -1.0}, "`prompt-epsilon`"),
        ({"prompt_epsilon": math.nan}, "`prompt-epsilon`"),
        ({"neighbours": 2}, "`neighbours`"),
        ({"neighbours": 5, "similarity": SIMILARITY}, "`neighbours`"),
        ({"similarity": SIMILARITY[:4]}, "`similarity`"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny_channel(**arguments)  # type: ignore[arg-type]
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


def test_ids_outside_the_vocabulary_are_refused_without_naming_them() -> None:
    with pytest.raises(ValueError, match=r"integers in \[0, 5\)") as raised:
        tiny_channel().sample(np.array([[2, 77, 3]]), TapeRandomSource(0))
    assert "77" not in str(raised.value)


def test_any_leading_shape_is_kept() -> None:
    channel = tiny_channel()
    ids = np.array(list(product(range(5), repeat=3)))[:12]
    flat = channel.sample(ids, TapeRandomSource(5))
    shaped = channel.sample(ids.reshape(2, 6, 3), TapeRandomSource(5))
    assert shaped.shape == (2, 6, 3)
    assert (shaped.reshape(12, 3) == flat).all()
    assert channel.sample(ids[0], TapeRandomSource(5)).shape == (3,)
