"""The tokens that all prompts begin with, computed once.

Few-shot prompts share their instruction and demonstrations. Keys and values of a token
depend on the tokens before it alone, so those of a common beginning are the same for
every prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

# With fewer, a small batch gains nothing; a large one gains a quarter with these, and
# more than three times the speed with 300 (`make bench` measures that).
SHORTEST_PREFIX = 32
# Rotary embeddings whose frequencies depend on the length of the whole sequence.
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all prompts share, but for each one's last.

    The last token of a prompt is always left over: its logits give the first token of
    the completion.
    """
    if not prompts:
        return 0
    # Of sorted sequences, the first and the last differ the earliest.
    first, last = min(map(list, prompts)), max(map(list, prompts))
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    return max(0, min(length, *(len(prompt) - 1 for prompt in prompts)))


def _empty_cache(model: PreTrainedModel | PeftModel) -> DynamicCache | None:
    """Return a cache whose keys and values belong to one token each; None if none fits.

    Sliding windows forget tokens, recurrent layers mix them, and an encoder reads the
    whole prompt in both directions.
    """
    config = model.config
    if config.is_encoder_decoder:
        return None
    if model.generation_config is None or model.generation_config.cache_implementation:
        return None
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    per_layer = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if any(one.get("rope_type") in _LENGTH_DEPENDENT for one in per_layer):
        return None
    cache = DynamicCache(config=text)
    if not cache.layers or any(
        type(layer) is not DynamicLayer for layer in cache.layers
    ):
        return None
    return cache


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Keys and values of the tokens that all prompts begin with.

    Attributes
    ----------
    length : int
        Tokens.
    """

    length: int
    _cache: DynamicCache

    @classmethod
    def of(
        cls,
        model: PreTrainedModel | PeftModel,
        prompts: Sequence[Sequence[int]],
        *,
        shortest: int = SHORTEST_PREFIX,
    ) -> SharedPrefix | None:
        """Run the common beginning once; None where that does not pay or does not work.

        Parameters
        ----------
        prompts : sequence of sequence of int
            All prompts that are to be completed.
        shortest : int
            Fewer tokens are not worth it.
        """
        length = common_prefix(prompts)
        if len(prompts) < 2 or length < shortest:
            return None
        cache = _empty_cache(model)
        if cache is None:
            return None
        ids = torch.tensor([list(prompts[0][:length])], device=model.device)
        forward: Any = model
        with torch.inference_mode():
            forward(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                use_cache=True,
            )
        # A model that keeps no such cache leaves it empty.
        return cls(length, cache) if cache.get_seq_length() == length else None

    def for_batch(self, rows: int) -> DynamicCache:
        """Return a copy for a batch, to append to; the original stays as it is."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache
