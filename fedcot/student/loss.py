"""Loss of chain-of-thought distillation: labels plus rationales.

Paper: https://arxiv.org/abs/2305.02301 (section 3.2, the multi-task objective).
"""

import torch.nn.functional as F
from torch import Tensor

from fedcot.models.sequences import IGNORE_INDEX


def example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each example's mean cross-entropy over its supervised tokens, in nats.

    The mean is taken inside each example first, so that no example's loss depends on
    another's length: per-example clipping (DP-SGD) bounds one example only then.

    Parameters
    ----------
    logits : Tensor, shape (batch, length, vocabulary)
        Of a causal model, not shifted: position i predicts token i + 1.
    labels : Tensor, shape (batch, length)
        Token ids, `IGNORE_INDEX` where nothing is supervised.

    Returns
    -------
    Tensor, shape (batch,)

    Raises
    ------
    ValueError
        If an example has no supervised token: it would train on nothing.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    counts = supervised.sum(dim=1)
    if bool((counts == 0).any()):
        raise ValueError(
            "every example must have a supervised token, found one without; "
            "check that the maximum length leaves room for the target."
        )
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    ).view(targets.shape)
    return losses.sum(dim=1) / counts


def multi_task_loss(
    label_loss: Tensor, rationale_loss: Tensor, *, rationale_weight: float
) -> Tensor:
    """Return ``label_loss + rationale_weight * rationale_loss`` (DSS, equation 3).

    FATE-LLM's ``alpha`` is this weight divided by (1 + weight); Distilling
    Step-by-Step's code uses the same letter for the other share.
    """
    return label_loss + rationale_weight * rationale_loss
