"""Train an adapter on labels and rationales (Distilling Step-by-Step, FedCoT)."""

import contextlib
import copy
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedcot.models.sequences import (
    fitted,
    prompt_ids,
    target_ids,
    training_batch,
)
from fedcot.models.sources import is_hub_id, public_name, split_revision
from fedcot.seeding import derive_seed
from fedcot.student.base import (
    Adapter,
    Base,
    Student,
    TrainingSettings,
    adapted,
    adapter_state,
)
from fedcot.student.examples import Example
from fedcot.student.files import ADAPTER_WEIGHTS, MODEL_BUFFERS, MODEL_WEIGHTS, is_model
from fedcot.student.loss import example_losses, multi_task_loss, supervised_logits

POOLED_BATCHES = 4


@dataclass(frozen=True)
class TrainingOutcome:
    """What training gave.

    Attributes
    ----------
    adapter : dict of str to Tensor
        PEFT state dict, or every parameter by its name, fp32.
    label_loss, rationale_loss : list of float
        Mean of each epoch, in nats; empty where the task had no example.
    num_examples : int
        Examples of both tasks, each counted once.
    seconds : float
    num_truncated : int
        Examples that were longer than a student reads, and so were cut.
    """

    adapter: dict[str, Tensor]
    label_loss: list[float]
    rationale_loss: list[float]
    num_examples: int
    seconds: float
    num_truncated: int = 0


class Tokenised(NamedTuple):
    """An example's prompt ids and target ids, and whether something was cut off."""

    prompt: list[int]
    target: list[int]
    is_cut: bool


def tokenised(base: Base, example: Example) -> Tokenised:
    """Return an example as ids, the end token included, cut to what is read."""
    prompt = prompt_ids(base, example.prompt)
    target = target_ids(base, example.target)
    kept = fitted(base, prompt, target)
    return Tokenised(*kept, is_cut=kept != (prompt, target))


class _Task:
    """Endless seeded batches of one task's examples, of like length."""

    def __init__(
        self, base: Base, examples: Sequence[Example], size: int, *, seed: int
    ) -> None:
        self.sequences = [tokenised(base, example) for example in examples]
        self.size = size
        self.steps_per_epoch = math.ceil(len(examples) / size)
        self._base = base
        self._generator = torch.Generator().manual_seed(seed)
        self._batches = self._draw_batches()

    def _shuffled(self, count: int) -> list[int]:
        return torch.randperm(count, generator=self._generator).tolist()

    def _draw_batches(self) -> Iterator[list[int]]:
        """Yield each example once a pass; sort within a few batches to save padding."""
        pool = POOLED_BATCHES * self.size
        while True:
            order = self._shuffled(len(self.sequences))
            chunks = [
                sorted(order[start : start + pool], key=self._length)
                for start in range(0, len(order), pool)
            ]
            arranged = [index for chunk in chunks for index in chunk]
            for batch in self._shuffled(self.steps_per_epoch):
                yield arranged[batch * self.size : (batch + 1) * self.size]

    def _length(self, index: int) -> int:
        sequence = self.sequences[index]
        return len(sequence.prompt) + len(sequence.target)

    def loss(self, model: Student) -> Tensor:
        """Return the mean of the next batch's per-example losses."""
        rows = [self.sequences[index] for index in next(self._batches)]
        batch = training_batch([(r.prompt, r.target) for r in rows], self._base)
        device = model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=_has_bf16(device)):
            logits, labels = supervised_logits(model, self._base, batch)
        return example_losses(logits, labels, shift=batch.shift).mean()


def _has_bf16(device: torch.device) -> bool:
    """Whether a device computes faster in bfloat16, without emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu"


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step, counted from 0: 5 % warm-up, then a cosine."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    share = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.55 + 0.45 * math.cos(math.pi * share))


def train_adapter(
    base: Base,
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    seed: int,
    adapter: Adapter | None = None,
) -> TrainingOutcome:
    """Train an adapter, or with full tuning all weights; the base stays as it is.

    An epoch is one pass over the task with more examples; the other task's examples
    are repeated, so that each step sees both.

    Parameters
    ----------
    examples : sequence of Example
        Of either task or both.
    seed : int
        Of a new adapter, of the order of the examples and of dropout.
    adapter : mapping of str to Tensor, optional
        To go on from.

    Raises
    ------
    ValueError
        If there are no examples: nothing could be learnt.
    """
    if not examples:
        raise ValueError(
            "`examples` must not be empty; every rationale was filtered out, or there "
            "are no records."
        )
    tasks = {
        name: _Task(base, chosen, settings.batch_size, seed=derive_seed(seed, name))
        for name in ("predict", "explain")
        if (chosen := [example for example in examples if example.task == name])
    }
    steps_per_epoch = max(task.steps_per_epoch for task in tasks.values())
    steps = steps_per_epoch * settings.local_epochs
    history: dict[str, list[float]] = {"predict": [], "explain": []}
    started = time.perf_counter()
    with (
        adapted(base, settings, seed=seed, adapter=adapter) as model,
        _checkpointing(base),
        _seeded(model.device, derive_seed(seed, "dropout")),
    ):
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, weight_decay=0.0)
        model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, settings.learning_rate)
            losses = {name: task.loss(model) for name, task in tasks.items()}
            _total(losses, settings).backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, loss in losses.items():
                history[name].append(loss.item())
        state = adapter_state(model)
    return TrainingOutcome(
        adapter=state,
        label_loss=_epoch_means(history["predict"], steps_per_epoch),
        rationale_loss=_epoch_means(history["explain"], steps_per_epoch),
        num_examples=len(examples),
        seconds=time.perf_counter() - started,
        num_truncated=sum(s.is_cut for task in tasks.values() for s in task.sequences),
    )


@contextmanager
def _checkpointing(base: Base) -> Iterator[None]:
    """Keep only what enters a layer, and compute its inside again going back."""
    if not base.options.gradient_checkpointing:
        yield
        return
    with warnings.catch_warnings():
        # The newer name is not in every release that is allowed.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing_")
        base.model.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            base.model.gradient_checkpointing_disable()


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw dropout from a seed, and leave the global generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _total(losses: Mapping[str, Tensor], settings: TrainingSettings) -> Tensor:
    """Return the loss of a step; a task that is alone has the weight 1."""
    if len(losses) == 1:
        return next(iter(losses.values()))
    return multi_task_loss(
        losses["predict"],
        losses["explain"],
        rationale_weight=settings.rationale_weight,
        label_weight=settings.label_weight,
    )


def _epoch_means(losses: list[float], steps_per_epoch: int) -> list[float]:
    return [
        sum(losses[start : start + steps_per_epoch]) / steps_per_epoch
        for start in range(0, len(losses), steps_per_epoch)
    ]


def save_adapter(
    base: Base, adapter: Adapter, settings: TrainingSettings, folder: Path
) -> None:
    """Write an adapter in PEFT's format (`PeftModel.from_pretrained` loads it).

    With full tuning: the whole model with its tokenizer, which plain transformers
    loads (`AutoModelForCausalLM.from_pretrained` or that of encoder-decoders).
    """
    with adapted(base, settings, seed=0, adapter=adapter) as model:
        if not isinstance(model, PeftModel):
            _save_model(base, folder)
            return
        name, revision = public_name(base.source), None
        if is_hub_id(base.source):
            name, revision = split_revision(base.source)
        for configuration in model.peft_config.values():
            # The name of the source, never the path it has on this machine.
            configuration.base_model_name_or_path = name
            configuration.revision = revision
        # Left to itself, PEFT asks the Hub whether the vocabulary was changed.
        model.save_pretrained(str(folder), save_embedding_layers=False)


def _save_model(base: Base, folder: Path) -> None:
    """Write the model as `save_pretrained` does, and leave its configuration alone.

    One file of weights however large, with each parameter under the name it has here,
    so that it reads back as the mapping that was trained.
    """
    model, folder = base.model, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = copy.deepcopy(model.config)
    configuration.architectures = [type(model).__name__]
    configuration.dtype = torch.float32
    configuration.save_pretrained(folder)
    if model.generation_config is not None:
        # Some that are published do not pass their own check.
        with contextlib.suppress(ValueError):
            model.generation_config.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    trained = adapter_state(model)
    kept = model.state_dict()
    buffers = {
        name: buffer.detach().to("cpu", copy=True)
        for name, buffer in model.named_buffers()
        if name in kept
    }
    # In the file's header, names beside `format` would stand in any order.
    save_file(trained | buffers, folder / MODEL_WEIGHTS, metadata={"format": "pt"})
    if buffers:
        text = json.dumps(sorted(buffers), indent=2)
        (folder / MODEL_BUFFERS).write_text(text + "\n", encoding="utf-8")


def load_adapter(folder: Path) -> dict[str, Tensor]:
    """Return what `save_adapter` wrote: an adapter's state dict, or all parameters."""
    if not is_model(folder):
        return load_file(folder / ADAPTER_WEIGHTS)
    weights = load_file(folder / MODEL_WEIGHTS)
    if (listed := folder / MODEL_BUFFERS).is_file():
        for name in json.loads(listed.read_text(encoding="utf-8")):
            del weights[name]
    return weights
