"""A shared beginning is computed once, and changes nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from fedcot.models import generation
from fedcot.models.generation import generate
from fedcot.models.loading import LoadedModel
from fedcot.models.prefix import SHORTEST_PREFIX, SharedPrefix, common_prefix
from tests.models.kinds import (
    CACHED,
    ENCODER_DECODER,
    WINDOWED,
    one_by_one,
    tiny_kind,
)

SHARED = [7 + (5 * place) % 90 for place in range(SHORTEST_PREFIX + 3)]
RESTS = ([20, 31, 9], [40], [11, 12, 13, 14, 15, 16, 17], [50, 8], [60, 61, 62, 63])
PROMPTS = [SHARED + rest for rest in RESTS]


def test_the_common_prefix_leaves_every_prompt_a_token() -> None:
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 9]]) == 2
    assert common_prefix([[1, 2, 3], [1, 2, 3], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix([[4], [5]]) == 0
    assert common_prefix([[1, 2], []]) == 0
    assert common_prefix([]) == 0


def _without_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation.SharedPrefix, "of", lambda *_: None)


def _texts(loaded: LoadedModel, batch_size: int, **sampling: Any) -> list[str]:
    completions = generate(
        loaded.model,
        loaded,
        PROMPTS,
        batch_size=batch_size,
        max_new_tokens=8,
        **sampling,
    )
    return [completion.text for completion in completions]


@pytest.mark.parametrize("kind", CACHED)
def test_a_computed_prefix_changes_no_completion(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against decoding without any cache, and against the path without a prefix."""
    loaded = tiny_kind(kind, seed=1)
    alone = [one_by_one(loaded, prompt, 8) for prompt in PROMPTS]
    assert min(gap for _, gap in alone) > 1e-4  # Else rounding could decide.
    expected = [
        loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in alone
    ]
    assert SharedPrefix.of(loaded.model, PROMPTS) is not None
    assert _texts(loaded, 1) == expected
    assert _texts(loaded, 3) == expected
    sampled = _texts(loaded, 3, temperature=1.0, seed=5)
    _without_prefix(monkeypatch)
    assert _texts(loaded, 3) == expected
    assert _texts(loaded, 2, temperature=1.0, seed=5) == sampled != expected


def test_a_prefix_is_computed_with_the_adapters_on() -> None:
    base = tiny_kind("llama", seed=1)
    model = get_peft_model(
        base.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"])
    ).eval()
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    adapted = dataclasses.replace(base, model=model)
    alone = [one_by_one(adapted, prompt, 8) for prompt in PROMPTS]
    assert min(gap for _, gap in alone) > 2e-5
    expected = [
        base.tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in alone
    ]
    assert _texts(adapted, 3) == expected
    with model.disable_adapter():
        assert _texts(adapted, 3) != expected


@pytest.mark.parametrize("kind", [*WINDOWED, *ENCODER_DECODER])
def test_other_caches_take_the_plain_path(kind: str) -> None:
    loaded = tiny_kind(kind, seed=1)
    alone = [one_by_one(loaded, prompt, 8) for prompt in PROMPTS]
    assert SharedPrefix.of(loaded.model, PROMPTS) is None
    assert _texts(loaded, 3) == [
        loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in alone
    ]


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_frequencies_that_depend_on_the_length_take_the_plain_path(
    rope_type: str,
) -> None:
    loaded = tiny_kind("llama")
    assert SharedPrefix.of(loaded.model, PROMPTS) is not None
    loaded.model.config.rope_parameters["rope_type"] = rope_type
    assert SharedPrefix.of(loaded.model, PROMPTS) is None


def test_a_short_prefix_or_a_single_prompt_takes_the_plain_path() -> None:
    loaded = tiny_kind("llama")
    beginning = SHARED[: SHORTEST_PREFIX - 1]
    assert SharedPrefix.of(loaded.model, [beginning + rest for rest in RESTS]) is None
    beginning = SHARED[:SHORTEST_PREFIX]
    exact = SharedPrefix.of(loaded.model, [beginning + rest for rest in RESTS])
    assert exact is not None
    assert exact.length == SHORTEST_PREFIX
    assert SharedPrefix.of(loaded.model, PROMPTS[:1]) is None
    assert SharedPrefix.of(loaded.model, []) is None


def _keys(cache: DynamicCache) -> list[torch.Tensor]:
    return [layer.keys for layer in cache.layers]


def test_a_batch_gets_copies_and_leaves_the_shared_cache_alone() -> None:
    loaded = tiny_kind("llama")
    prefix = SharedPrefix.of(loaded.model, PROMPTS)
    assert prefix is not None
    before = [keys.clone() for keys in _keys(prefix.for_batch(1))]
    copied = prefix.for_batch(3)
    for keys, original in zip(_keys(copied), before, strict=True):
        assert torch.equal(keys, original.expand_as(keys))
        keys.zero_()
    loaded.model(input_ids=torch.tensor([[9]] * 3), past_key_values=copied)
    assert copied.get_seq_length() == prefix.length + 1
    for keys, original in zip(_keys(prefix.for_batch(1)), before, strict=True):
        assert torch.equal(keys, original)


def test_the_prefix_is_read_once_and_not_in_any_batch() -> None:
    """What the model is given: the prefix alone, then only what differs."""
    loaded = tiny_kind("llama")
    lengths: list[int] = []

    def count(_module: object, _args: object, given: dict[str, Any]) -> None:
        lengths.append(given["input_ids"].shape[1])

    hook = loaded.model.register_forward_pre_hook(count, with_kwargs=True)
    texts: Sequence[str] = _texts(loaded, 2)
    hook.remove()
    assert len(texts) == 5
    # The closing tokens of the shared beginning stay with the rests.
    assert sorted(length for length in lengths if length > 1) == [2, 4, 7, len(SHARED)]
