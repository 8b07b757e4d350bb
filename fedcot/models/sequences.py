"""Prompts and targets as token ids, and as padded tensors.

A causal model reads prompt and target behind each other; an encoder-decoder reads the
prompt and writes the target. The special tokens are those of the model's own tokenizer,
so that a student sees what its base was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fedcot.models.chat import chat_ids, has_chat
from fedcot.plain_text import valid_unicode

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from fedcot.models.loading import LoadedModel

IGNORE_INDEX = -100
# What a prompt ends with decides how a target's first word is split into tokens.
_PROMPT_END = ":"

Sequences = Sequence[tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences for teacher forcing.

    Attributes
    ----------
    input_ids, attention_mask : Tensor, shape (batch, length)
        Prompts and targets of a causal model; the prompts of an encoder-decoder.
    labels : Tensor, shape (batch, length) or (batch, target length)
        Hold `IGNORE_INDEX` on the prompt and on padding; the end token of a target is
        supervised even where the tokenizer pads with it.
    decoder_input_ids : Tensor or None, shape (batch, target length)
        What the decoder of an encoder-decoder reads: the labels, one place later.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    decoder_input_ids: Tensor | None = None

    def inputs(self, device: torch.device | str) -> dict[str, Tensor]:
        """Return what the model is called with."""
        found = {
            "input_ids": self.input_ids.to(device),
            "attention_mask": self.attention_mask.to(device),
        }
        if self.decoder_input_ids is not None:
            found["decoder_input_ids"] = self.decoder_input_ids.to(device)
        return found

    def needed_logits(self) -> int:
        """Return how many places at the end hold every label and what predicts it."""
        supervised = self.labels.ne(IGNORE_INDEX).any(dim=0)
        first = int(supervised.int().argmax()) - (1 if self.shift else 0)
        return self.labels.shape[1] - max(first, 0)

    @property
    def shift(self) -> bool:
        """Whether place i of the logits predicts the label of place i + 1."""
        return self.decoder_input_ids is None


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text, without the tokenizer's own special tokens."""
    given = valid_unicode(text)
    ids: list[int] = tokenizer(given, add_special_tokens=False)["input_ids"]
    return ids


def prompt_ids(loaded: LoadedModel, text: str) -> list[int]:
    """Return the ids of a prompt, with the special tokens that the model expects.

    Where the tokenizer has a chat template (and the options ask for it), the prompt is
    the user's turn. Else a causal model gets what its tokenizer puts in front, but no
    end token: it has to go on. An encoder keeps that as well.
    """
    if has_chat(loaded):
        return chat_ids(loaded, [{"role": "user", "content": text}])
    return text_ids(loaded, text)


def text_ids(loaded: LoadedModel, text: str) -> list[int]:
    """Return the ids of a plain text to go on from, whether or not there is a chat."""
    tokenizer = loaded.tokenizer
    ids: list[int] = tokenizer(valid_unicode(text))["input_ids"]
    if loaded.is_encoder_decoder:
        return ids
    bare = len(token_ids(tokenizer, text))
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    while len(ids) > bare and ids[-1] in ends:
        ids = ids[:-1]
    return ids


def target_ids(loaded: LoadedModel, text: str) -> list[int]:
    """Return the ids of what the model should write, the end token included.

    A causal model's target is a word that goes on from the prompt, so it starts with a
    space; the answer to a chat and the output of a decoder start afresh. A decoder's
    target has the special tokens of its tokenizer (BART writes its first one itself).
    """
    tokenizer = loaded.tokenizer
    end: int = tokenizer.eos_token_id
    if loaded.is_encoder_decoder:
        ids: list[int] = tokenizer(text_target=valid_unicode(text))["input_ids"]
        return ids if ids and ids[-1] == end else [*ids, end]
    if has_chat(loaded):
        return [*token_ids(tokenizer, text), end]
    return [*_following_ids(tokenizer, " " + text), end]


def _following_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text as they stand behind a prompt.

    Some tokenizers put a space in front of every text they are given.
    """
    before = token_ids(tokenizer, _PROMPT_END)
    both = token_ids(tokenizer, _PROMPT_END + text)
    if both[: len(before)] == before:
        return both[len(before) :]
    return token_ids(tokenizer, text)


def position_limit(model: PreTrainedModel | PeftModel) -> int | None:
    """Return the longest sequence that a model has positions for, in tokens.

    None where nothing limits it; some state that as a number that is no length.
    """
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def sequence_limit(loaded: LoadedModel) -> int:
    """Return the longest prompt with target that a student reads, in tokens."""
    limit = position_limit(loaded.model)
    longest = loaded.options.max_sequence_tokens
    return longest if limit is None else min(longest, limit)


def fitted(
    loaded: LoadedModel, prompt: Sequence[int], target: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Cut prompt and target to the longest sequence allowed.

    A target gives way first, to what the prompt leaves, or to half; then the
    prompt loses its beginning, because the question stands at its end.

    Returns
    -------
    (list of int, list of int)
        Shorter than what was given exactly where something was cut.
    """
    limit = sequence_limit(loaded)
    room = max(limit // 2, limit - len(prompt))
    kept = list(target[:room])
    return cut_prompt(loaded, prompt, limit - len(kept)), kept


def cut_prompt(loaded: LoadedModel, prompt: Sequence[int], room: int) -> list[int]:
    """Return a prompt's last tokens, and the token that opens every text if it has one.

    Parameters
    ----------
    room : int
        Tokens that may be kept, >= 1.
    """
    if len(prompt) <= room:
        return list(prompt)
    start = [loaded.tokenizer.bos_token_id, loaded.tokenizer.cls_token_id]
    if room > 1 and prompt[0] in start:
        return [prompt[0], *prompt[len(prompt) - room + 1 :]]
    return list(prompt[len(prompt) - room :])


def training_batch(sequences: Sequences, loaded: LoadedModel) -> Batch:
    """Pad pairs of prompt ids and target ids on the right, for the model's kind.

    Parameters
    ----------
    sequences : sequence of (prompt ids, target ids)
        Targets end with the end token already.
    """
    pad = loaded.tokenizer.pad_token_id
    if not loaded.is_encoder_decoder:
        return causal_batch(sequences, pad)
    input_ids, attention_mask = _padded([prompt for prompt, _ in sequences], pad)
    targets = [target for _, target in sequences]
    start = _decoder_start(loaded)
    decoder_input_ids, _ = _padded([[start, *target[:-1]] for target in targets], pad)
    labels, _ = _padded(targets, IGNORE_INDEX)
    return Batch(input_ids, attention_mask, labels, decoder_input_ids)


def causal_batch(sequences: Sequences, pad: int) -> Batch:
    """Pad prompts with their targets on the right, for a causal model.

    Parameters
    ----------
    pad : int
        Id to pad with.
    """
    input_ids, attention_mask = _padded([p + t for p, t in sequences], pad)
    labels, _ = _padded(
        [[IGNORE_INDEX] * len(prompt) + target for prompt, target in sequences],
        IGNORE_INDEX,
    )
    return Batch(input_ids, attention_mask, labels)


def _padded(rows: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return rows padded on the right, and a mask of what is no padding."""
    length = max(len(row) for row in rows)
    values = torch.full((len(rows), length), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for number, row in enumerate(rows):
        values[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    return values, mask


def _decoder_start(loaded: LoadedModel) -> int:
    """Return the token that a decoder starts from; padding where nothing is stated."""
    for config in (loaded.model.generation_config, loaded.model.config):
        start = getattr(config, "decoder_start_token_id", None)
        if isinstance(start, int):
            return start
    pad: int = loaded.tokenizer.pad_token_id
    return pad
