"""How many bytes a step of a model needs, found by running it without memory.

The model is built from its configuration alone and run on PyTorch's fake tensors
(https://docs.pytorch.org/docs/stable/torch.compiler_fake_tensor.html), which have
shapes and number formats but no content. Every operation of a real step takes place, so
the sum of the storages that live at the same time is exact for every architecture. What
it cannot see is what the allocator and the kernels take beside the tensors.
"""

from __future__ import annotations

import inspect
import math
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fedcot.memory_needs import TUNED
from fedcot.memory_sketch import Sketch
from fedcot.student.loss import token_losses

WEIGHTS: Final = "weights"
ADAPTER: Final = "adapter with gradient and Adam's two moments"
MOMENTS: Final = "Adam's two moments"
GRADIENTS: Final = "gradients"
STEP: Final = "what Adam computes in a step"
LOGITS: Final = "logits"
SCORES: Final = "attention scores"
COPIES: Final = "weights cast to bfloat16"
ACTIVATIONS: Final = "activations"
CACHE: Final = "key/value cache"
VECTORS: Final = "gradient of a record, sum of all and noise"

# Bytes that DP-SGD holds outside the model for each number of an adapter, most while
# noise is drawn: the last record's gradient (4), the sum (8), and eight arrays of three
# 64-bit words for two numbers, with a mask (97.5).
VECTOR_BYTES: Final = 110


def training_peak(
    found: Sketch,
    *,
    batch_size: int,
    lengths: Sequence[tuple[int, int]],
    fused: bool = False,
) -> dict[str, int]:
    """Return the bytes that live at the peak of a training step, by what they are.

    A step runs every task's batch forward before the one backward pass, as
    `fedcot.student.training` does, under autocast to bfloat16.

    Parameters
    ----------
    lengths : sequence of (int, int)
        Tokens of a prompt and of a target, for each batch of a step.
    fused : bool
        Whether Adam takes all tensors at once, as it does on a GPU; matters with full
        tuning, where its step can need more than the backward pass.
    """
    with _running(found, max(map(sum, lengths))) as live:
        model = _filled(found.model).train()
        live.watch(model, is_full=found.is_full)
        losses = [
            _loss(found, model, batch_size, prompt, target)
            for prompt, target in lengths
        ]
        torch.stack(losses).sum().backward()
        peak = live.peak
    if not found.is_full:
        return {**_held(found), **peak}
    step = _adam_step(found, fused=fused)
    largest = max(peak, step, key=lambda parts: sum(parts.values()))
    return {**_held(found), MOMENTS: 8 * found.adapter_parameters, **largest}


def _adam_step(found: Sketch, *, fused: bool) -> dict[str, int]:
    """Return what lives while the optimizer moves the weights, beside its moments.

    Every gradient is there; of a tensor, or of all at once, the root of the second
    moment and its quotient.
    """
    sizes = [p.numel() for p in found.model.parameters() if p.requires_grad]
    scratch = sum(sizes) if fused else 2 * max(sizes)
    return {GRADIENTS: 4 * sum(sizes), STEP: 4 * scratch}


def private_training_peak(found: Sketch, length: tuple[int, int]) -> dict[str, int]:
    """Return the bytes of a step of DP-SGD (`fedcot.student.dp`), by what they are.

    Examples go forward and back one at a time, without autocast or checkpointing. The
    vectors beside the model are counted at their own peak, which comes later.

    Parameters
    ----------
    length : (int, int)
        Tokens of the longest prompt and target.
    """
    with _running(found, sum(length)) as live:
        model = _filled(found.model).eval()
        live.watch(model, is_full=found.is_full)
        _loss(found, model, 1, *length, autocast=False).backward()
        peak = live.peak
    return {**_held(found), VECTORS: VECTOR_BYTES * found.adapter_parameters, **peak}


def _loss(
    found: Sketch,
    model: Any,
    batch_size: int,
    prompt: int,
    target: int,
    *,
    autocast: bool = True,
) -> Tensor:
    """Return the loss of a batch as `fedcot.student.loss` computes it."""
    ids = torch.zeros(batch_size, prompt + target, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(**_inputs(found, ids, target), use_cache=False).logits
    shift = not found.is_encoder_decoder
    labels = ids if shift else ids[:, :target]
    losses, _ = token_losses(logits, labels, shift=shift)
    return losses.mean()


def _inputs(found: Sketch, ids: Tensor, target: int) -> dict[str, Tensor]:
    """Return what the model is called with for prompts with targets."""
    if not found.is_encoder_decoder:
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    prompts = ids[:, target:]
    return {
        "input_ids": prompts,
        "attention_mask": torch.ones_like(prompts),
        "decoder_input_ids": ids[:, :target],
    }


def generation_peak(
    found: Sketch, *, batch_size: int, prompt_tokens: int, new_tokens: int
) -> dict[str, int]:
    """Return the bytes that live at the peak of a batch's generation.

    The whole prompt is read at once, which takes most; then the cache grows by one
    token a step.
    """
    with _running(found, prompt_tokens) as live, torch.no_grad():
        model = _filled(found.model).eval()
        live.watch(model, is_full=found.is_full)
        ids = torch.zeros(batch_size, prompt_tokens, dtype=torch.long)
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "use_cache": True,
        }
        if found.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids[:, :1]
        elif "logits_to_keep" in inspect.signature(_base(model).forward).parameters:
            inputs["logits_to_keep"] = 1
        output = model(**inputs)
        cache = _cache_bytes(output.past_key_values)
        peak = live.peak
    seen = prompt_tokens + int(found.is_encoder_decoder)
    whole = math.ceil(cache * (prompt_tokens + new_tokens) / seen)
    peak[ACTIVATIONS] = max(0, peak.get(ACTIVATIONS, 0) - cache)
    return {**_held(found), CACHE: whole, **peak}


def scoring_peak(
    found: Sketch, *, batch_size: int, prompt: int, target: int
) -> dict[str, int]:
    """Return the bytes that live when the likelihood of targets is computed.

    Parameters
    ----------
    prompt, target : int
        Tokens of each. Every position of a causal model has logits here.
    """
    with _running(found, prompt + target) as live, torch.no_grad():
        model = _filled(found.model).eval()
        live.watch(model, is_full=found.is_full)
        _loss(found, model, batch_size, prompt, target)
        peak = live.peak
    return {**_held(found), **peak}


def _held(found: Sketch) -> dict[str, int]:
    """Return what stays in memory between steps."""
    if found.is_full:
        # The base keeps its own weights, so that it can have them back.
        return {WEIGHTS: found.weight_bytes, TUNED: 4 * found.adapter_parameters}
    # Weight, gradient and two moments, fp32.
    adapter = {ADAPTER: 16 * found.adapter_parameters}
    return {WEIGHTS: found.weight_bytes, **(adapter if adapter[ADAPTER] else {})}


class _Live(TorchDispatchMode):
    """Adds up the storages that are alive, and keeps what they were at the most."""

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._most = 0
        self._vocabulary = vocabulary
        self._length = length
        self._known: set[int] = set()
        self._weights: set[tuple[int, ...]] = set()
        self._tuned: set[tuple[int, ...]] = set()

    def watch(self, model: nn.Module, *, is_full: bool) -> None:
        """Count from here on; the weights of the model are known apart."""
        every = list(model.parameters())
        if is_full:
            self._tuned = {tuple(p.shape) for p in every}
        base = [p for p in every if is_full or not p.requires_grad]
        self._weights = {tuple(p.shape) for p in base if p.dim() > 1}
        self._now, self.peak, self._most = {}, {}, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count the storages that it made."""
        output = func(*args, **(kwargs or {}))
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return output

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        kind, size = self._kind(tensor), storage.nbytes()
        self._now[kind] = self._now.get(kind, 0) + size
        total = sum(self._now.values())
        if total > self._most:
            self._most, self.peak = total, dict(self._now)
        weakref.finalize(storage, self._drop, key, kind, size, self._now)

    def _drop(self, key: int, kind: str, size: int, counted: dict[str, int]) -> None:
        self._known.discard(key)
        counted[kind] -= size

    def _kind(self, tensor: Tensor) -> str:
        shape = tuple(tensor.shape)
        if shape in self._tuned and tensor.dtype == torch.float32:
            return GRADIENTS
        if shape in self._weights or shape[::-1] in self._weights:
            return COPIES
        if len(shape) > 1 and shape[-1] == self._vocabulary:
            return LOGITS
        if len(shape) == 4 and shape[-2:] == (self._length, self._length):
            return SCORES
        return ACTIVATIONS


@contextmanager
def _running(found: Sketch, length: int) -> Iterator[_Live]:
    """Run on fake tensors, and count."""
    vocabulary = int(found.config.get_text_config().vocab_size)
    live = _Live(vocabulary, length)
    with warnings.catch_warnings(), FakeTensorMode(), live:
        warnings.simplefilter("ignore")
        yield live


def _filled(model: nn.Module) -> nn.Module:
    """Give the model fake tensors on the CPU in place of those on the meta device."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                if id(old) not in made:
                    empty = torch.empty(old.shape, dtype=old.dtype)
                    made[id(old)] = nn.Parameter(empty, old.requires_grad)
                module._parameters[name] = made[id(old)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return model


def _base(model: Any) -> Any:
    """Return the model below an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _cache_bytes(cache: Any) -> int:
    """Return the bytes of keys and values, cross-attention included."""
    halves = [
        part
        for name in ("self_attention_cache", "cross_attention_cache")
        if (part := getattr(cache, name, None)) is not None
    ] or [cache]
    tensors: list[Tensor] = [
        tensor
        for half in halves
        for layer in half.layers
        for tensor in (layer.keys, layer.values)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
