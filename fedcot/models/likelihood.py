"""How likely a model finds given targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from fedcot.models.sequences import (
    fitted,
    prompt_ids,
    target_ids,
    training_batch,
)
from fedcot.student.loss import supervised_logits, token_losses

if TYPE_CHECKING:
    from peft import PeftModel

    from fedcot.models.loading import LoadedModel


def target_likelihoods(
    model: PreTrainedModel | PeftModel,
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int,
) -> list[tuple[float, int]]:
    """Return how likely each target is after its prompt, in the order of the pairs.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        In evaluation mode: the base itself, or the base with an adapter.
    loaded : LoadedModel
        Tokenizer and kind of the base.
    pairs : sequence of (prompt, target)
    batch_size : int
        Pairs for each forward pass.

    Returns
    -------
    list of (float, int)
        Sum of the log-probabilities of the target's tokens, in nats, and their number.
        The end token is one of them. A pair that is too long is cut as in training.
    """
    encoded = [
        fitted(loaded, prompt_ids(loaded, prompt), target_ids(loaded, target))
        for prompt, target in pairs
    ]
    # Pairs of like length share a batch, which then carries little padding.
    order = sorted(range(len(pairs)), key=lambda i: tuple(map(len, encoded[i])))
    found = [(0.0, 0)] * len(pairs)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = training_batch([encoded[row] for row in rows], loaded)
        with torch.inference_mode():
            logits, labels = supervised_logits(model, loaded, batch)
            losses, supervised = token_losses(logits, labels, shift=batch.shift)
        sums = losses.cpu().double().sum(dim=1).tolist()
        counts = supervised.sum(dim=1).tolist()
        for row, loss, count in zip(rows, sums, counts, strict=True):
            found[row] = (-loss, count)
    return found
