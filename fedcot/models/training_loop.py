"""The optimizer, the learning rates and the loop that train every built-in model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

Curve = list[tuple[int, float]]
StepReport = Callable[[int, int, float], None]
_Item = TypeVar("_Item")


class Steps(Protocol):
    """How many steps a model is trained for, and at which learning rates."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (0-based)."""


class _WarmUpAndCosine:
    """5 % linear warm-up, then half a cosine down to 2 % of the peak."""

    steps: int
    learning_rate: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (0-based)."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.learning_rate * (0.51 + 0.49 * math.cos(math.pi * share))


@dataclass(frozen=True)
class Schedule(_WarmUpAndCosine):
    """How a model is trained on pairs of prompt and target.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Pairs in a step.
    learning_rate : float
        Peak; 5 % linear warm-up, then half a cosine down to 2 % of the peak.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class TokenSchedule(_WarmUpAndCosine):
    """How a model is trained on sequences of very different length.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_tokens : int
        Places of a batch at most, padding included: sequences times the longest.
    learning_rate : float
        Peak; the same curve as that of `Schedule`.
    """

    steps: int
    batch_tokens: int = 4096
    learning_rate: float = 2e-3


def fit(
    model: LlamaForCausalLM,
    batches: Iterator[_Item],
    loss_of: Callable[[LlamaForCausalLM, _Item], Tensor],
    schedule: Steps,
    *,
    report: StepReport | None = None,
) -> Curve:
    """Train a model in place, and leave it in evaluation mode.

    Parameters
    ----------
    model : LlamaForCausalLM
        In fp32.
    batches : iterator
        Endless; one for each step.
    loss_of : callable
        Returns the loss of a batch, a scalar in nats.
    schedule : Steps
    report : callable, optional
        Called every 50 steps with (step, steps, mean loss in nats).

    Returns
    -------
    list of (int, float)
        Step (1-based) and mean loss in nats since the last entry, every 50 steps.
    """
    optimizer = _optimizer(model)
    curve: Curve = []
    recent: list[float] = []
    model.train()
    for step in range(schedule.steps):
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == schedule.steps:
            curve.append((step + 1, round(sum(recent) / len(recent), 4)))
            recent.clear()
            if report is not None:
                report(step + 1, schedule.steps, curve[-1][1])
    model.eval()
    return curve


def _optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Return AdamW that decays the linear layers, not the embedding and the norms.

    A decayed embedding would shrink words that are rare in pretraining.
    """
    embedding = model.get_input_embeddings().weight
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for parameter in model.parameters():
        plain = parameter.ndim < 2 or parameter is embedding
        (others if plain else matrices).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
