"""The public language model as a mechanism sees it."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from fedcot.data.banks import load_bank
from fedcot.models import public_predictor
from fedcot.models.public_predictor import CausalPublicModel, builtin_public_model
from fedcot.models.sources import artefact_hash
from fedcot.privacy.public_model import BigramModel, PublicModel
from fedcot.privacy.vocabulary import PAD_ID, world_vocabulary

SIZE = 9


@pytest.fixture(scope="module")
def causal() -> LlamaForCausalLM:
    """A random model whose table is larger than the vocabulary."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=SIZE + 4,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    with torch.no_grad():
        # Random tables of the usual size give nearly flat probabilities.
        model.get_output_embeddings().weight.mul_(30)
    return model


@pytest.fixture(scope="module")
def model(causal: LlamaForCausalLM) -> CausalPublicModel:
    return CausalPublicModel(causal, size=SIZE, content_hash="of the files")


PREFIXES = np.random.default_rng(2).integers(1, SIZE, size=(30, 4))


def test_rows_are_the_model_s_softmax_over_the_vocabulary_after_padding(
    model: CausalPublicModel, causal: LlamaForCausalLM
) -> None:
    found = model.next_probabilities(PREFIXES)
    assert found.shape == (30, SIZE)
    assert found.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-12)
    for prefix, row in zip(PREFIXES, found, strict=True):
        ids = torch.tensor([[PAD_ID, *prefix.tolist()]])
        with torch.inference_mode():
            powers = np.exp(causal(input_ids=ids).logits[0, -1].double().numpy())
        assert row == pytest.approx(powers[:SIZE] / powers[:SIZE].sum(), abs=1e-5)
    # The probabilities are far from flat, so a wrong opening would show.
    assert found.max() > 3 / SIZE


def test_nothing_released_is_the_opening_alone(
    model: CausalPublicModel, causal: LlamaForCausalLM
) -> None:
    found = model.next_probabilities(np.zeros((3, 0), dtype=np.int64))
    with torch.inference_mode():
        logits = causal(input_ids=torch.tensor([[PAD_ID]])).logits[0, -1, :SIZE]
    expected = torch.softmax(logits.double(), dim=-1).numpy()
    assert found.shape == (3, SIZE)
    assert found[0] == pytest.approx(expected, abs=1e-5)
    assert (found == found[0]).all()


def test_after_the_end_only_padding_follows(model: CausalPublicModel) -> None:
    prefixes = np.array([[2, 3, 0], [2, 0, 0], [2, 0, 3], [0, 0, 0]])
    found = model.next_probabilities(prefixes)
    only_padding = np.eye(SIZE)[PAD_ID]
    for row in (0, 1, 3):
        assert (found[row] == only_padding).all()
    # A word that noise put after padding goes on.
    assert (found[2] > 0).all()


def test_equal_prefixes_have_equal_rows_wherever_they_stand(
    model: CausalPublicModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model.next_probabilities(PREFIXES)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 2))
    assert (model.next_probabilities(PREFIXES[order]) == found[order]).all()
    # Other company may change the last digit of a float, not more.
    alone = [model.next_probabilities(prefix[None])[0] for prefix in PREFIXES]
    assert np.array(alone) == pytest.approx(found, abs=1e-5)
    monkeypatch.setattr(public_predictor, "BATCH", 7)
    assert model.next_probabilities(PREFIXES) == pytest.approx(found, abs=1e-5)


def perplexity(model: PublicModel, prompts: NDArray[np.int64]) -> float:
    """Of the words up to the first padding, which ends a text."""
    surprise, words = 0.0, 0
    for slot in range(prompts.shape[1]):
        running = (prompts[:, :slot] != PAD_ID).all(axis=1)
        shares = model.next_probabilities(prompts[running, :slot])
        chosen = shares[np.arange(running.sum()), prompts[running, slot]]
        surprise -= float(np.log(chosen).sum())
        words += int(running.sum())
    return math.exp(surprise / words)


def test_the_shipped_model_knows_public_questions_better_than_counts() -> None:
    vocabulary = world_vocabulary()
    prompts = load_bank(vocabulary, "world", 340).prompts
    asked, counted = prompts[300:], prompts[:300]
    shipped = builtin_public_model(vocabulary)
    assert shipped.hash == artefact_hash("builtin", "public-lm")
    assert shipped.next_probabilities(asked[:2, :3]).shape == (2, len(vocabulary.words))
    known = perplexity(shipped, asked)
    pairs = perplexity(BigramModel(vocabulary, counted), asked)
    assert 1 < known < 0.75 * pairs
    assert pairs < 0.25 * len(vocabulary.words)
