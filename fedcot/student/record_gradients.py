"""The gradient of each record by itself, for every trained tensor of an adapter.

Linear layers use the hooks of Opacus (https://arxiv.org/abs/2109.12298). PEFT keeps an
embedding's adapter as bare parameters, which Opacus does not see; its gradient is
written out here.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleHooks
from peft import PeftModel
from peft.tuners.lora.layer import Embedding
from torch import Tensor, nn

from fedcot.errors import FedcotError
from fedcot.models.sequences import training_batch
from fedcot.student.base import Base
from fedcot.student.examples import Example
from fedcot.student.loss import example_losses
from fedcot.student.training import tokenised

# Of the largest entry; what rounding of fp32 leaves between two orders of a sum.
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
    """

    prompt: list[int]
    target: list[int]
    task: Literal["predict", "explain"]
    weight: float


def rows_of(
    base: Base, examples: Sequence[Example], *, rationale_weight: float
) -> list[Row]:
    """Return a record's examples as rows; a rationale's loss has a weight."""
    return [
        Row(
            *tokenised(base, example),
            example.task,
            rationale_weight if example.task == "explain" else 1.0,
        )
        for example in examples
    ]


class RecordGradients:
    """Computes gradients per record; a context that takes its hooks off at the end.

    Parameters
    ----------
    model : PeftModel
        On which the adapter is, in training mode.
    pad : int
        Id to pad with.

    Attributes
    ----------
    trained : list of Parameter
        In the order in which their gradients lie behind each other.
    size : int
        Numbers in one gradient.
    """

    def __init__(self, model: PeftModel, *, pad: int) -> None:
        self._model = model
        self._pad = pad
        self.trained: list[nn.Parameter] = [
            parameter for parameter in model.parameters() if parameter.requires_grad
        ]
        self.size = sum(parameter.numel() for parameter in self.trained)
        layers = [m for m in model.modules() if isinstance(m, Embedding)]
        own = [p for m in layers for p in m.parameters() if p.requires_grad]
        for parameter in own:
            parameter.requires_grad_(False)
        self._hooks = GradSampleHooks(model, loss_reduction="sum", strict=False)
        for parameter in own:
            parameter.requires_grad_(True)
        self._handles = [m.register_forward_hook(_watch_embedding) for m in layers]

    def __enter__(self) -> "RecordGradients":
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._hooks.cleanup()

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
        gradients = torch.zeros(len(records), self.size)
        losses: dict[str, list[float]] = {"predict": [], "explain": []}
        # Task by task: answers are much shorter than rationales.
        for task, found in losses.items():
            owners, rows = [], []
            for number, record in enumerate(records):
                chosen = [row for row in record if row.task == task]
                rows += chosen
                owners += [number] * len(chosen)
            if rows:
                found += self._add(gradients, torch.tensor(owners), rows)
        return gradients.numpy(), losses

    def check(self) -> None:
        """Compare with autograd on two made-up examples, none of them private.

        Raises
        ------
        FedcotError
            A trained tensor's gradient is missing, wrong, or mixes examples: clipping
            it would protect nothing.
        """
        size = self._model.get_input_embeddings().weight.shape[0]
        ids = [7 % size, 11 % size, 5 % size, 9 % size, 3 % size, 11 % size]
        rows = [
            Row(ids[:2], ids[2:4], "predict", 1.0),
            Row(ids[2:], ids[:3], "predict", 1.0),
        ]
        before = [parameter.detach().clone() for parameter in self.trained]
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.trained:
                # Half of an adapter starts at zero and hides the other's gradient.
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * noise.to(parameter.device))
        try:
            for chosen in range(len(rows)):
                self._check_one(rows, chosen)
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.trained, before, strict=True):
                    parameter.copy_(value)

    def _check_one(self, rows: Sequence[Row], chosen: int) -> None:
        """Only the chosen example has a loss; its gradient has to be autograd's."""
        weights = [float(number == chosen) for number in range(len(rows))]
        self._losses(rows, weights).backward()
        for parameter in self.trained:
            found, expected = self._taken(parameter, len(rows)), parameter.grad
            if expected is None:
                raise FedcotError("A part of the adapter takes no part in the model.")
            expected = expected.detach().clone()
            parameter.grad = None
            room = _CHECK_TOLERANCE * float(expected.abs().max()) + 1e-9
            others = [row for row in range(len(rows)) if row != chosen]
            own = float((found[chosen] - expected).abs().max())
            foreign = float(found[others].abs().max())
            # Written so that what is no number fails.
            if not (own <= room and foreign <= room):
                raise FedcotError(
                    "The gradients of single records are wrong for this student, so "
                    "DP-SGD would protect nothing; choose other `target-modules`."
                )

    def _add(
        self, gradients: Tensor, owners: Tensor, rows: Sequence[Row]
    ) -> list[float]:
        """Add each row's gradient to its owner's and return the rows' losses."""
        losses: list[float] = []
        self._losses(rows, [row.weight for row in rows], losses).backward()
        start = 0
        for parameter in self.trained:
            found = self._taken(parameter, len(rows)).flatten(1).float().cpu()
            end = start + parameter.numel()
            gradients[:, start:end].index_add_(0, owners, found)
            parameter.grad = None
            start = end
        return losses

    def _losses(
        self,
        rows: Sequence[Row],
        weights: Sequence[float],
        kept: list[float] | None = None,
    ) -> Tensor:
        """Return the weighted sum of the rows' losses; `kept` gets them one by one."""
        for parameter in self.trained:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        batch = training_batch([(row.prompt, row.target) for row in rows], self._pad)
        device = self._model.device
        with warnings.catch_warnings():
            # The first layer's input has no gradient, and needs none.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            # No autocast: what is clipped is what was computed, in fp32.
            logits = self._model(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
            ).logits
        losses = example_losses(logits, batch.labels.to(device))
        if kept is not None:
            kept += losses.detach().tolist()
        return (losses * losses.new_tensor(weights)).sum()

    def _taken(self, parameter: nn.Parameter, rows: int) -> Tensor:
        """Return a parameter's gradients and forget them."""
        found = getattr(parameter, "grad_sample", None)
        if not isinstance(found, Tensor) or found.shape != (rows, *parameter.shape):
            raise FedcotError(
                "The gradients of single records cannot be had for this student; "
                "choose other `target-modules`."
            )
        parameter.grad_sample = None  # type: ignore[attr-defined]
        return found


def _watch_embedding(layer: Embedding, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Note the gradients of an embedding's adapter when its output gets one."""
    if not torch.is_grad_enabled() or not output.requires_grad:
        return
    ids: Tensor = inputs[0]

    def note(backprops: Tensor) -> None:
        for name in layer.active_adapters:
            if name in layer.lora_embedding_A:
                _note_embedding(layer, name, ids, backprops.detach().float())

    output.register_hook(note)


def _note_embedding(
    layer: Embedding, name: str, ids: Tensor, backprops: Tensor
) -> None:
    """Set `grad_sample` of both halves.

    With ids x, output y = W[x] + s * A.T[x] @ B.T and g = dL/dy (batch, length, out):
    dL/dB = s * sum_t g_t a_t', and column x_t of dL/dA gets s * B' g_t.
    """
    half_a, half_b = layer.lora_embedding_A[name], layer.lora_embedding_B[name]
    scale = layer.scaling[name]
    extra = layer._get_embed_scale()
    if extra is not None:
        scale = scale * extra
    if half_b.requires_grad:
        values = half_a.detach().T[ids]
        half_b.grad_sample = scale * torch.einsum("nto,ntr->nor", backprops, values)
    if half_a.requires_grad:
        pulled = scale * (backprops @ half_b.detach())
        padding: int | None = getattr(layer.get_base_layer(), "padding_idx", None)
        if padding is not None:
            # As torch: the padding token's row is never trained.
            pulled = pulled * torch.ne(ids, padding).unsqueeze(-1)
        rank, words = half_a.shape
        columns = pulled.new_zeros(ids.shape[0], words, rank)
        columns.scatter_add_(1, ids.unsqueeze(-1).expand(-1, -1, rank), pulled)
        half_a.grad_sample = columns.transpose(1, 2)
