"""The gradient of each record by itself, over all trained tensors of an adapter.

Records go through the model one by one, and so do the examples of a record: torch's own
gradient is then that of the record, for any architecture, and no record's padding
touches another. Hooks that take gradients of single records out of a batch (Opacus)
would need a rule for every kind of layer, and layers that keep records apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcot.errors import FedcotError
from fedcot.models.sequences import training_batch
from fedcot.student.base import Base, Student
from fedcot.student.examples import Example
from fedcot.student.loss import example_losses, supervised_logits
from fedcot.student.training import tokenised

# Of the largest entry; what rounding leaves between two orders of one sum on a GPU.
_CHECK_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """One example, ready for the model.

    Attributes
    ----------
    prompt, target : list of int
        Token ids; the target ends with the end token.
    task : str
        ``predict`` or ``explain``.
    weight : float
        Of its loss.
    is_cut : bool
        Whether it was longer than a student reads.
    """

    prompt: list[int]
    target: list[int]
    task: Literal["predict", "explain"]
    weight: float
    is_cut: bool = False


def rows_of(
    base: Base, examples: Sequence[Example], *, rationale_weight: float
) -> list[Row]:
    """Return a record's examples as rows; a rationale's loss has a weight."""
    rows = []
    for example in examples:
        ids = tokenised(base, example)
        weight = rationale_weight if example.task == "explain" else 1.0
        rows.append(Row(ids.prompt, ids.target, example.task, weight, ids.is_cut))
    return rows


class RecordGradients:
    """Computes gradients per record.

    The model is put into evaluation mode: a dropout mask would be drawn for all records
    in turn, so that one record more or less would change the gradients of all that come
    after it. `check` shows that nothing else is drawn either.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        On which the adapter is.
    base : LoadedModel
        Below it.

    Attributes
    ----------
    trained : list of Parameter
        In the order in which their gradients lie behind each other.
    size : int
        Numbers in one gradient.
    """

    def __init__(self, model: Student, base: Base) -> None:
        self._model = model.eval()
        self._base = base
        self.trained: list[nn.Parameter] = [
            parameter for parameter in model.parameters() if parameter.requires_grad
        ]
        self.size = sum(parameter.numel() for parameter in self.trained)

    def of(
        self, records: Sequence[Sequence[Row]]
    ) -> tuple[NDArray[np.float32], dict[str, list[float]]]:
        """Return the gradient of each record's weighted sum of losses.

        Parameters
        ----------
        records : sequence of sequence of Row
            At least one record; one without rows has a zero gradient.

        Returns
        -------
        ndarray of float32, shape (records, size)
        dict of str to list of float
            Losses of the rows by task, in nats; private.
        """
        gradients = np.zeros((len(records), self.size), dtype=np.float32)
        losses: dict[str, list[float]] = {"predict": [], "explain": []}
        for number, record in enumerate(records):
            for row in record:
                loss = self._loss(row)
                (row.weight * loss).backward()
                losses[row.task].append(loss.item())
            gradients[number] = self._taken()
        return gradients, losses

    def check(self) -> None:
        """Compute two made-up records, none of them private, and one of them again.

        Raises
        ------
        FedcotError
            A trained tensor has no gradient or one that is no number, or what a record
            gives depends on chance or on the record before it: clipping would protect
            nothing.
        """
        size = self._model.get_input_embeddings().weight.shape[0]
        ids = [7 % size, 11 % size, 5 % size, 9 % size, 3 % size, 11 % size]
        first = [Row(ids[:2], ids[2:4], "predict", 1.0)]
        second = [Row(ids[2:], ids[:3], "predict", 1.0)]
        before = [parameter.detach().clone() for parameter in self.trained]
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.trained:
                # Half of an adapter starts at zero and hides the other's gradient.
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * noise.to(parameter.device))
        try:
            self._check_used([*first, *second])
            self._check_repeats(first, second)
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.trained, before, strict=True):
                    parameter.copy_(value)

    def _check_used(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._loss(row).backward()
        unused = any(parameter.grad is None for parameter in self.trained)
        self._forget()
        if unused:
            raise FedcotError(
                "A part of the adapter takes no part in the model; choose other "
                "`target-modules`."
            )

    def _check_repeats(self, first: Sequence[Row], second: Sequence[Row]) -> None:
        """Compare the first record behind itself with the first behind the second."""
        found, losses = self.of([first, first, second, first])
        _, behind_itself, _, behind_another = losses["predict"]
        room = _CHECK_TOLERANCE * float(abs(found[1]).max()) + 1e-9
        apart = float(abs(found[1] - found[3]).max())
        # Written so that what is no number fails.
        if not (behind_itself == behind_another and apart <= room):
            raise FedcotError(
                "The gradients of single records are wrong for this student, so "
                "DP-SGD would protect nothing: they depend on chance or on other "
                "records; choose another student or other `target-modules`."
            )

    def _loss(self, row: Row) -> Tensor:
        """Return the loss of one example alone, without padding."""
        batch = training_batch([(row.prompt, row.target)], self._base)
        # No autocast: what is clipped is what was computed, in the base's own format.
        logits, labels = supervised_logits(self._model, self._base, batch)
        return example_losses(logits, labels, shift=batch.shift)[0]

    def _taken(self) -> NDArray[np.float32]:
        """Return the gradient that was added up, and forget it."""
        parts = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.trained
        ]
        taken: NDArray[np.float32]
        taken = torch.cat([part.flatten().float().cpu() for part in parts]).numpy()
        self._forget()
        return taken

    def _forget(self) -> None:
        for parameter in self.trained:
            parameter.grad = None
