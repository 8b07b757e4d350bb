"""DP-SGD on adapters: what leaves a client after it saw private labels or questions.

Paper: https://arxiv.org/abs/1607.00133. The unit is one record: the gradients of its
label example and its rationale example are added and clipped once. Neighbours differ
in one record that is replaced by the null record, which has no gradient (zero-out).
The guarantee covers the adapter after every step, not the time that a step takes.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcot.errors import ConfigError, FedcotError
from fedcot.privacy.sampler import RandomSource
from fedcot.student.base import (
    Adapter,
    Base,
    TrainingSettings,
    adapted,
    adapter_state,
)
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example
from fedcot.student.noise import ClippedSum, poisson_mask
from fedcot.student.record_gradients import RecordGradients, Row, rows_of
from fedcot.student.training import TrainingOutcome, learning_rate


def train_adapter_privately(
    base: Base,
    records: Sequence[Sequence[Example]],
    settings: TrainingSettings,
    *,
    privacy: DpSettings,
    source: RandomSource,
    seed: int,
    adapter: Adapter | None = None,
) -> TrainingOutcome:
    """Train an adapter by DP-SGD; the base stays as it is.

    Parameters
    ----------
    records : sequence of sequence of Example
        Examples of each record, none for the null record or one that must not be
        used. Examples of one record must depend on no other.
    settings : TrainingSettings
        Of the adapter; its `batch_size` and `local_epochs` are not used.
    privacy : DpSettings
        Public; `num_records` is the number of records here.
    source : RandomSource
        Of the sampling and of the noise; no guarantee holds unless it is private.
    seed : int
        Of a new adapter; it may be public.
    adapter : mapping of str to Tensor, optional
        To go on from.

    Returns
    -------
    TrainingOutcome
        Only `adapter` is covered by the guarantee; the losses, of the records drawn,
        `num_examples` and `num_truncated` are private. Epochs that drew no example of
        a task are left out of its losses.

    Raises
    ------
    ConfigError
        With full tuning: the gradients of single records are had of adapters only.
    ValueError
        If the number of records is not the one that is accounted for.
    FedcotError
        The gradients of single records cannot be had for this student, or its adapter
        does not move.
    """
    _check(records, settings, privacy)
    weight = settings.rationale_weight
    rows = [rows_of(base, examples, rationale_weight=weight) for examples in records]
    epoch = -(-privacy.num_records // privacy.expected_batch)
    history = _History(epoch)
    started = time.perf_counter()
    with adapted(base, settings, seed=seed, adapter=adapter) as model:
        gradients = RecordGradients(model, base)
        gradients.check()
        optimizer = torch.optim.AdamW(gradients.trained, weight_decay=0.0)
        for step in range(privacy.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, privacy.steps, settings.learning_rate)
            mean = noised_mean(gradients, rows, privacy, source, history)
            _set_gradients(gradients.trained, mean)
            before = adapter_state(model) if step == 0 else {}
            optimizer.step()
            if step == 0:
                _check_moved(before, adapter_state(model), gradients.trained)
            optimizer.zero_grad(set_to_none=True)
        state = adapter_state(model)
    return TrainingOutcome(
        adapter=state,
        label_loss=history.means("predict"),
        rationale_loss=history.means("explain"),
        num_examples=sum(len(record) for record in rows),
        seconds=time.perf_counter() - started,
        num_truncated=sum(row.is_cut for record in rows for row in record),
    )


def _check(
    records: Sequence[Sequence[Example]],
    settings: TrainingSettings,
    privacy: DpSettings,
) -> None:
    if settings.is_full:
        raise ConfigError(
            "`tuning` must be lora under DP-SGD, which is checked for adapters only, "
            "found full; pass `-c tuning=lora`."
        )
    if len(records) != privacy.num_records:
        raise ValueError(
            f"`records` must hold the {privacy.num_records} records that are accounted "
            f"for, found {len(records)}."
        )


def noised_mean(
    gradients: RecordGradients,
    records: Sequence[Sequence[Row]],
    privacy: DpSettings,
    source: RandomSource,
    history: "_History | None" = None,
) -> NDArray[np.float64]:
    """Return one step's gradient: the only thing that is learnt from the records.

    An empty draw gives noise alone, and the sum is divided by the expected number of
    records, so that neither shows how many were drawn.

    Parameters
    ----------
    gradients : RecordGradients
        Of the model at hand.
    records : sequence of sequence of Row
        All records, from which the step draws.
    privacy : DpSettings
        Clipping norm, noise and sampling.
    source : RandomSource
        Of the draw and of the noise.
    history : _History, optional
        Gets the losses.

    Returns
    -------
    ndarray of float64, shape (size,)
    """
    mask = poisson_mask(
        privacy.num_records, expected=privacy.expected_batch, source=source
    )
    drawn = [records[int(index)] for index in np.flatnonzero(mask)]
    total = ClippedSum(gradients.size, privacy.max_grad_norm)
    losses: dict[str, list[float]] = {}
    # One at a time, so that memory does not grow with the number drawn.
    for record in drawn:
        found, new = gradients.of([record])
        for gradient in found:
            total.add(gradient)
        for task, values in new.items():
            losses.setdefault(task, []).extend(values)
    if history is not None:
        history.add(losses)
    noised = total.noised(privacy.noise_multiplier, source)
    mean: NDArray[np.float64] = noised / privacy.expected_batch
    return mean


class _History:
    """Losses of the examples drawn, step by step."""

    def __init__(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._steps: list[dict[str, list[float]]] = []

    def add(self, losses: dict[str, list[float]]) -> None:
        """Add a step."""
        self._steps.append(losses)

    def means(self, task: str) -> list[float]:
        """Return the mean loss of each epoch that drew an example of a task."""
        found = []
        for start in range(0, len(self._steps), self._steps_per_epoch):
            steps = self._steps[start : start + self._steps_per_epoch]
            values = [value for step in steps for value in step.get(task, ())]
            if values:
                found.append(sum(values) / len(values))
        return found


def _set_gradients(trained: Sequence[nn.Parameter], mean: NDArray[np.float64]) -> None:
    start = 0
    for parameter in trained:
        part = torch.from_numpy(mean[start : start + parameter.numel()]).float()
        parameter.grad = part.view(parameter.shape).to(parameter)
        start += parameter.numel()


def _check_moved(
    before: dict[str, Tensor], after: dict[str, Tensor], trained: Sequence[nn.Parameter]
) -> None:
    """Refuse an adapter whose exported tensors are not the ones that are trained.

    With noise every trained tensor moves whatever the data, so this tells nothing.
    """
    moved = sum(not torch.equal(before[name], after[name]) for name in before)
    pushed = sum(p.grad is not None and bool(p.grad.any()) for p in trained)
    if moved < pushed:
        raise FedcotError(
            f"The adapter did not follow its gradients: {moved} of {pushed} tensors "
            "moved in the first step; raise `learning-rate` or choose another student."
        )
