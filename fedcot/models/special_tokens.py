"""The tokenizer of a model, with a token to pad with and one to end with."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fedcot.errors import ConfigError
from fedcot.models.sources import Role


def read_tokenizer(
    folder: Path, config: PretrainedConfig, *, source: str, role: Role
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder; it can pad and end a text.

    What is missing is taken from the other: many tokenizers have no padding token, and
    some name their end token in the model's configuration only.

    Raises
    ------
    ConfigError
        There is no tokenizer, or none of the two tokens.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"`{role}` must come with a tokenizer that transformers reads without "
            f"code of its own, found none: {source!r} ({type(error).__name__}); add "
            "its tokenizer.json, or choose another model."
        ) from error
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _stated_end(tokenizer, config) or tokenizer.pad_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ConfigError(
            f"`{role}` must have a tokenizer with a padding or an end token, found "
            f"neither: {source!r}; add one to its tokenizer_config.json."
        )
    return tokenizer


def _stated_end(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> str | None:
    """Return the end token that the model's configuration names."""
    stated = getattr(config, "eos_token_id", None)
    number = stated[0] if isinstance(stated, list) and stated else stated
    if not isinstance(number, int) or not 0 <= number < len(tokenizer):
        return None
    return str(tokenizer.convert_ids_to_tokens(number))


def check_fits(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    *,
    source: str,
    role: Role,
) -> None:
    """Check that the model has a vector for every token that a text may hold.

    Raises
    ------
    ConfigError
        It has not: reading such a token would fail in the middle of a run.
    """
    rows = num_embeddings(model)
    special = (
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
        tokenizer.unk_token_id,
    )
    # Markers of other kinds of input (images) may lie behind the embedding.
    largest = max(tokenizer.vocab_size - 1, *(i for i in special if i is not None))
    if largest >= rows:
        raise ConfigError(
            f"`{role}` must have a vector for each token of its tokenizer, found "
            f"{rows} vectors and token {largest}: {source!r}; resize its embedding "
            "and save it again."
        )


def num_embeddings(model: PreTrainedModel) -> int:
    """Return for how many tokens a model has a vector."""
    weight: Tensor = model.get_input_embeddings().get_parameter("weight")
    return len(weight)
