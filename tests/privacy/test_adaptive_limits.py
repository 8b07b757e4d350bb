"""Corners of the adaptive and selection mechanisms: tiny, huge, wrong and empty."""

import math
import warnings

import numpy as np
import pytest

from fedcot.data.banks import load_bank
from fedcot.errors import ConfigError
from fedcot.models.public_predictor import builtin_public_model
from fedcot.privacy import adaptive, slot_law
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.slot_law import SlotLaw
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from tests.privacy.public_models import TEXTS, TINY, ConstantModel, tiny_channel


def test_a_tiny_prompt_epsilon_is_not_taken_for_none():
    with pytest.raises(ConfigError, match="prompt-epsilon"):
        tiny_channel(token_epsilon=1.0, prompt_epsilon=0.01)


@pytest.mark.parametrize("epsilon", [29.5, 35.0, 50.0])
def test_an_epsilon_whose_weights_do_not_fit_is_a_config_error(epsilon):
    with pytest.raises(ConfigError, match="token-epsilon"):
        tiny_channel(token_epsilon=epsilon, prompt_epsilon=0.0).sample(
            np.array([[2, 3, 4]]), TapeRandomSource(0)
        )


def test_every_similarity_is_counted_in_the_histogram():
    bank = load_bank(world_vocabulary(), "world", 100)
    values = bank.similarity(bank.prompts)
    counts, _ = np.histogram(values, bins=100, range=(0.0, 1.0))
    assert counts.sum() == values.size


@pytest.mark.parametrize(
    "name", ["TRUST", "BELIEVED", "WORTHWHILE", "PROBABILITY_BITS"]
)
def test_the_hash_covers_the_constants_that_decide_the_law(name, monkeypatch):
    before = tiny_channel().hash
    value = getattr(adaptive, name)
    monkeypatch.setattr(adaptive, name, value / 2 if value < 1 else value - 1)
    assert tiny_channel().hash != before


def test_the_hash_covers_the_weights(monkeypatch):
    before = tiny_channel().hash
    monkeypatch.setattr(slot_law, "BITS", 4)
    assert tiny_channel().hash != before


def test_no_prompts_are_no_error():
    ids = np.zeros((0, 3), dtype=np.int64)
    assert tiny_channel().sample(ids, TapeRandomSource(0)).shape == (0, 3)


def test_great_distrust_overflows_no_float():
    vocabulary = Vocabulary.of(["fox", "hen", "3"], 100)
    c = adaptive.AdaptiveChannel(
        vocabulary,
        20.0,
        model=ConstantModel([1.0, 0, 0, 0, 0]),
        calibration=np.zeros((2, 100), dtype=np.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        c.slot_law(np.ones(90, dtype=np.int64))


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_calibration_of_other_slots_is_refused(size):
    with pytest.raises(ConfigError, match="`calibration` must"):
        adaptive.AdaptiveChannel(
            TINY,
            1.0,
            prompt_epsilon=1.0,
            model=ConstantModel([0.2] * 5),
            calibration=np.zeros((2, size), dtype=np.int64),
        )


def test_trust_follows_bayes_rule_where_the_support_is_small():
    c = adaptive.AdaptiveChannel(
        TINY, 2.0, model=ConstantModel([0.9, 0.05, 0.02, 0.02, 0.01]), calibration=TEXTS
    )
    law = c.slot_law(np.zeros(0, dtype=np.int64))
    rows = np.stack([law.row(t) for t in range(5)])
    word = int(law.support[0])
    told, blind = law.likely @ rows[:, word], rows[:, word].mean()
    assert c._after(np.array([word])).log_odds[0] - c._start(1).log_odds[
        0
    ] == pytest.approx(math.log(told / blind))


def test_no_prompts_are_no_error_with_the_shipped_model():
    v = world_vocabulary()
    m = builtin_public_model(v)
    assert m.next_probabilities(np.zeros((0, 3), dtype=np.int64)).shape == (
        0,
        len(v.words),
    )


def test_the_shipped_model_refuses_another_vocabulary():
    with pytest.raises((ConfigError, ValueError)):
        builtin_public_model(TINY)


@pytest.mark.parametrize("favoured", [1, 2, 3])
@pytest.mark.parametrize("has_order", [False, True])
def test_who_favours_a_word_is_what_the_rows_say(favoured, has_order):
    generator = np.random.default_rng(favoured)
    size = 9
    order = None
    if has_order:
        distance = generator.random((size, size))
        np.fill_diagonal(distance, -1)
        order = np.argsort(distance, axis=1).astype(np.int32)
    places = None if order is None else np.argsort(order, axis=1).astype(np.int32)
    for kept in (favoured + 1, 6, size):
        support = generator.permutation(size)[:kept]
        law = SlotLaw(
            support,
            favoured,
            high=7,
            low=1,
            free=np.zeros(0, dtype=np.int64),
            steps=1,
            likely=np.full(size, 1 / size),
            order=order,
        )
        rows = np.stack([law.row(token) for token in range(size)])
        for word in range(size):
            assert (law.favouring(word, places) == (rows[:, word] == 7)).all()
