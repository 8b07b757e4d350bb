"""Prompts and targets as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences for teacher forcing.

    Attributes
    ----------
    input_ids, attention_mask, labels : Tensor, shape (batch, length)
        Labels hold `IGNORE_INDEX` on the prompt and on padding; the end token of a
        target is supervised even where the tokenizer pads with it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text, without the tokenizer's own special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def training_batch(sequences: Sequence[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Pad pairs of prompt ids and target ids on the right.

    Parameters
    ----------
    sequences : sequence of (prompt ids, target ids)
        Targets end with the end token already.
    pad : int
        Id to pad with.
    """
    length = max(len(prompt) + len(target) for prompt, target in sequences)
    input_ids = torch.full((len(sequences), length), pad)
    attention_mask = torch.zeros((len(sequences), length), dtype=torch.long)
    labels = torch.full((len(sequences), length), IGNORE_INDEX)
    for row, (prompt, target) in enumerate(sequences):
        end = len(prompt) + len(target)
        input_ids[row, :end] = torch.tensor(prompt + target)
        attention_mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(target)
    return Batch(input_ids, attention_mask, labels)
