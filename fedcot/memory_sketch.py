"""A model that takes no memory, built from its configuration alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedConfig, PreTrainedModel

# Bytes of a weight: 8 or 4 bits, and a scale in 32 bits for each row or for each block
# of 64 (QLoRA, https://arxiv.org/abs/2305.14314, section 3).
QUANTIZED_BYTES: Final = {"8bit": 1.01, "4bit": 0.5625}


@dataclass(frozen=True)
class Sketch:
    """A model without weights, on the meta device.

    Attributes
    ----------
    model : nn.Module
        With its adapter, where it has one.
    parameters, adapter_parameters : int
        Of the base, and of what is trained.
    weight_bytes : int
        Of the base in its number format, its linear layers quantised where asked.
    is_full : bool
        Whether all of the base is trained, and not an adapter.
    """

    model: Any
    config: Any
    parameters: int
    adapter_parameters: int
    weight_bytes: int
    is_full: bool = False

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether prompt and target go through different halves."""
        return bool(self.config.is_encoder_decoder)


def sketch(
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    attention: str,
    quantization: str = "none",
    lora: Callable[[PreTrainedModel], LoraConfig] | None = None,
    full: bool = False,
    checkpointing: bool = False,
) -> Sketch:
    """Build a model that takes no memory.

    Parameters
    ----------
    attention : str
        ``eager`` or ``sdpa``, as the model would be loaded.
    quantization : str
        ``none``, ``8bit`` or ``4bit``.
    lora : callable, optional
        Gives the PEFT configuration for a model, as `TrainingSettings.lora`.
    full : bool
        All of the base is trained, without an adapter.
    checkpointing : bool
        Compute activations twice.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    is_pair = config.is_encoder_decoder
    kind: Any = AutoModelForSeq2SeqLM if is_pair else AutoModelForCausalLM
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind.from_config(config, attn_implementation=attention, dtype=dtype)
        model.requires_grad_(False)
        parameters = sum(p.numel() for p in model.parameters())
        weights = _stored_bytes(model, quantization)
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        if full:
            model.requires_grad_(True)
        elif lora is not None:
            from peft import get_peft_model

            model = get_peft_model(model, lora(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Sketch(model, config, parameters, trained, weights, is_full=full)


def _stored_bytes(model: Any, quantization: str) -> int:
    """Return the bytes of the weights; the head stays as it is when quantised."""
    whole: int = sum(p.numel() * p.element_size() for p in model.parameters())
    if quantization == "none":
        return whole
    head = model.get_output_embeddings()
    linear = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    before = sum(weight.numel() * weight.element_size() for weight in linear)
    after = sum(weight.numel() for weight in linear) * QUANTIZED_BYTES[quantization]
    return whole - before + math.ceil(after)
