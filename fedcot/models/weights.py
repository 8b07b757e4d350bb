"""Read a model's configuration and weights: kind, number format, bits and device."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)
from transformers.utils import logging

from fedcot.errors import ConfigError, FedcotError
from fedcot.models.options import ModelOptions
from fedcot.models.sources import BUILTIN, Role
from fedcot.out_of_memory import is_out_of_memory

# On a CPU, the backward pass of torch's fused attention takes twice the time of plain
# attention for the lengths used here (`make bench` measures it).
CPU_ATTENTION = "eager"


@dataclass(frozen=True)
class ModelKind:
    """A model's configuration, and how it reads.

    Attributes
    ----------
    config : PretrainedConfig
    is_encoder_decoder : bool
    """

    config: PretrainedConfig
    is_encoder_decoder: bool

    @classmethod
    def of_folder(cls, folder: Path, *, source: str, role: Role) -> Self:
        """Read the configuration of a folder.

        Raises
        ------
        ConfigError
            The model needs code of its own, or does not write text.
        """
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"`{role}` must be a model that transformers knows, because no code "
                f"of a model is run, found another one: {source!r} "
                f"({_first_line(error)}); choose another model."
            ) from error
        masked = any("MaskedLM" in name for name in config.architectures or ())
        if (
            config.is_encoder_decoder
            and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        ):
            return cls(config, True)
        if (
            config.is_encoder_decoder
            or masked
            or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
        ):
            raise ConfigError(
                f"`{role}` must be a causal language model or an encoder-decoder, "
                f"found another kind (model type {config.model_type!r}): {source!r}; "
                "choose one that AutoModelForCausalLM or AutoModelForSeq2SeqLM loads."
            )
        return cls(config, False)


def resolved_device(name: str) -> torch.device:
    """Return a device by its name; ``auto``: a GPU if there is one.

    Raises
    ------
    ConfigError
        There is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= there.get(device.type, 0):
        raise ConfigError(
            f"`device` must name a device of this machine, found {name!r}, which it "
            "does not have; pass `-c device=auto`."
        )
    return device


def read_weights(
    folder: Path, kind: ModelKind, options: ModelOptions, *, source: str, role: Role
) -> PreTrainedModel:
    """Return the model of a folder on its device.

    Raises
    ------
    ConfigError
        There are no weights in safetensors, some are missing, or what the options ask
        for is not there.
    FedcotError
        There is not enough memory.
    """
    device = resolved_device(options.device)
    loader: Any = (
        AutoModelForSeq2SeqLM if kind.is_encoder_decoder else AutoModelForCausalLM
    )
    given: dict[str, Any] = {"dtype": _dtype(options.dtype)}
    if device.type == "cpu":
        given["attn_implementation"] = CPU_ATTENTION
    if options.quantization != "none":
        given["quantization_config"] = _bits(options, role)
        given["device_map"] = {"": device}
    try:
        with _quietly(source):
            model, report = loader.from_pretrained(
                folder,
                config=kind.config,
                trust_remote_code=False,
                # Other formats are pickles, which may run code when they are read.
                use_safetensors=True,
                output_loading_info=True,
                **given,
            )
            if options.quantization == "none":
                model = model.to(device)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(source, role, device) from error
        raise
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"`{role}` must have weights in safetensors that can be loaded as asked, "
            f"found {source!r} without ({_first_line(error)}); save it with "
            "`save_pretrained`, or choose another model."
        ) from error
    if report["missing_keys"]:
        raise ConfigError(
            f"`{role}` must come with all of its weights, found {source!r} without "
            f"{min(report['missing_keys'])!r}; choose a model that was saved to write "
            "text."
        )
    loaded: PreTrainedModel = model
    return loaded


def _dtype(name: str) -> torch.dtype | str:
    found: torch.dtype | str = "auto" if name == "auto" else getattr(torch, name)
    return found


def check_quantization(quantization: str, role: Role) -> None:
    """Refuse 8 or 4 bits where the library for them is missing.

    Raises
    ------
    ConfigError
        It is.
    """
    if quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"`{role}-quantization` must be `none` without bitsandbytes, found "
            f"{quantization!r}; install it with `pip install 'fedcot[quantized]'`."
        )


def _bits(options: ModelOptions, role: Role) -> BitsAndBytesConfig:
    check_quantization(options.quantization, role)
    if options.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    stated = _dtype(options.dtype)
    # As QLoRA (https://arxiv.org/abs/2305.14314): normal-float 4 bits, scales in 8.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if stated == "auto" else stated,
    )


def _out_of_memory(source: str, role: Role, device: torch.device) -> FedcotError:
    return FedcotError(
        f"`{role}` {source!r} does not fit into the memory of {device}; pass "
        f"`-c {role}-dtype=bfloat16` or `-c {role}-quantization=4bit`, or choose a "
        "smaller model."
    )


def _first_line(error: BaseException) -> str:
    """Return the beginning of another library's message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


@contextmanager
def _quietly(source: str) -> Iterator[None]:
    """Show no progress for the built-in models: they load in a moment."""
    was_shown = logging.is_progress_bar_enabled()
    if source == BUILTIN:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        if was_shown:
            logging.enable_progress_bar()
