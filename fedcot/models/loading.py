"""Load a causal model and its tokenizer, once per process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from fedcot.errors import ConfigError
from fedcot.models.sources import BUILTIN, Role, model_folder

# On a CPU, the backward pass of torch's fused attention takes twice the time of plain
# attention for the lengths used here (`make bench` measures it).
CPU_ATTENTION = "eager"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its tokenizer and where it came from."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@lru_cache(maxsize=4)
def load_model(source: str, role: Role) -> LoadedModel:
    """Return a causal model in fp32 with a padding token; cached per process.

    Raises
    ------
    ConfigError
        If the model cannot be found, is not causal, or its tokenizer has no padding
        and no end token.
    """
    folder = model_folder(source, role)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"`{role}` must have a tokenizer with a padding or an end token, "
                f"found neither: {source!r}; add one to its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    try:
        with _quietly(source):
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=CPU_ATTENTION
            )
    except ValueError as error:
        raise ConfigError(
            f"`{role}` must be a causal language model, found another kind: "
            f"{source!r}; choose one that AutoModelForCausalLM loads."
        ) from error
    model.requires_grad_(False)
    return LoadedModel(source, model.eval(), tokenizer)


@contextmanager
def _quietly(source: str) -> Iterator[None]:
    """Show no progress for the built-in models: they load in a moment."""
    was_shown = logging.is_progress_bar_enabled()
    if source == BUILTIN:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()
