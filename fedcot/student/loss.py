"""Loss of chain-of-thought distillation: labels plus rationales.

Paper: https://arxiv.org/abs/2305.02301 (section 3.2, the multi-task objective).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from fedcot.models.sequences import IGNORE_INDEX, Batch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from fedcot.models.loading import LoadedModel


def supervised_logits(
    model: PreTrainedModel | PeftModel, loaded: LoadedModel, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Return the logits of a batch, and its labels, where there is something to learn.

    Prompts are often longer than targets, and the logits of a large vocabulary are most
    of what a step keeps in memory; so those before the first label are not computed.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        The base itself, or the base with an adapter.
    loaded : LoadedModel
        The base.
    batch : Batch
        Of `fedcot.models.sequences.training_batch`.

    Returns
    -------
    Tensor, shape (batch, places, vocabulary)
    Tensor, shape (batch, places)
        Not shifted.
    """
    given: dict[str, Any] = batch.inputs(model.device)
    labels = batch.labels
    known = inspect.signature(loaded.model.forward).parameters
    if batch.shift and "logits_to_keep" in known:
        given["logits_to_keep"] = batch.needed_logits()
        labels = labels[:, -given["logits_to_keep"] :]
    logits: Tensor = model(**given, use_cache=False).logits
    return logits, labels.to(logits.device)


def example_losses(logits: Tensor, labels: Tensor, *, shift: bool = True) -> Tensor:
    """Return each example's mean cross-entropy over its supervised tokens, in nats.

    The mean is taken inside each example first, so that no example's loss depends on
    another's length: per-example clipping (DP-SGD) bounds one example only then.

    Parameters
    ----------
    logits, labels, shift
        As in `token_losses`.

    Returns
    -------
    Tensor, shape (batch,)

    Raises
    ------
    ValueError
        If an example has no supervised token: it would train on nothing.
    """
    losses, supervised = token_losses(logits, labels, shift=shift)
    counts = supervised.sum(dim=1)
    if bool((counts == 0).any()):
        raise ValueError(
            "every example must have a supervised token, found one without; "
            "check that the maximum length leaves room for the target."
        )
    return losses.sum(dim=1) / counts


def token_losses(
    logits: Tensor, labels: Tensor, *, shift: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each label, in nats, and where one is supervised.

    Parameters
    ----------
    logits : Tensor, shape (batch, length, vocabulary)
        As the model gives them.
    labels : Tensor, shape (batch, length)
        Token ids, `IGNORE_INDEX` where nothing is supervised.
    shift : bool
        Whether place i of the logits predicts the label of place i + 1, as in a causal
        model. A decoder's input is shifted already.

    Returns
    -------
    (Tensor, Tensor of bool), each of shape (batch, places)
        A loss is 0 where nothing is supervised.
    """
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    ).view(labels.shape)
    return losses, labels != IGNORE_INDEX


def multi_task_loss(
    label_loss: Tensor,
    rationale_loss: Tensor,
    *,
    rationale_weight: float,
    label_weight: float = 1.0,
) -> Tensor:
    """Return ``label_weight * label_loss + rationale_weight * rationale_loss``.

    Distilling Step-by-Step, equation 3, where the first weight is 1. FATE-LLM's
    ``alpha`` is the second one divided by (1 + weight); Distilling Step-by-Step's code
    uses the same letter for the other share.
    """
    return label_weight * label_loss + rationale_weight * rationale_loss
