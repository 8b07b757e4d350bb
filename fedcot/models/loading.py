"""Load a model and its tokenizer, once per process and for every client of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedcot.models.options import PLAIN, ModelOptions
from fedcot.models.sources import BUILTIN, Role, model_folder
from fedcot.models.special_tokens import check_fits, read_tokenizer
from fedcot.models.weights import CPU_ATTENTION, ModelKind, read_weights

__all__ = ["CPU_ATTENTION", "LoadedModel", "forget_models", "load_model"]

# A run has a teacher, a student and the public model of question text.
KEPT = 4


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its tokenizer and where it came from.

    Everyone in the process gets the same tensors, so nobody may change them: adapters
    are put on and taken off again (`fedcot.student.base.adapted`).

    Attributes
    ----------
    source : str
        As the settings name it.
    model : PreTrainedModel
        Frozen.
    tokenizer : PreTrainedTokenizerBase
        Has a padding and an end token.
    options : ModelOptions
        How it was loaded.
    is_encoder_decoder : bool
        Whether prompts are read by an encoder; else prompt and target are one text.
    """

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    options: ModelOptions = PLAIN
    is_encoder_decoder: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device


_loaded: OrderedDict[tuple[str, str, ModelOptions], LoadedModel] = OrderedDict()


def load_model(source: str, role: Role, options: ModelOptions = PLAIN) -> LoadedModel:
    """Return a model that can write text; loaded once per process.

    A teacher and a student with the same source and options are the same object.

    Parameters
    ----------
    source : str
        ``builtin``, a local folder, or a Hugging Face id with ``@revision`` if wanted.
    role : str
        Which built-in model is meant; also names the setting in errors.
    options : ModelOptions
        Number format, device, bits.

    Raises
    ------
    ConfigError
        The model cannot be found, is neither causal nor an encoder-decoder, needs code
        of its own, has no weights in safetensors, or does not fit its tokenizer.
    FedcotError
        There is not enough memory for it.
    """
    # Only the built-in models are told apart by their role.
    key = (source, role if source == BUILTIN else "", options)
    found = _loaded.get(key)
    if found is None:
        folder = model_folder(source, role)
        kind = ModelKind.of_folder(folder, source=source, role=role)
        tokenizer = read_tokenizer(folder, kind.config, source=source, role=role)
        model = read_weights(folder, kind, options, source=source, role=role)
        check_fits(tokenizer, model, source=source, role=role)
        model.requires_grad_(False)
        found = LoadedModel(
            source, model.eval(), tokenizer, options, kind.is_encoder_decoder
        )
        _loaded[key] = found
    _loaded.move_to_end(key)
    while len(_loaded) > KEPT:
        _loaded.popitem(last=False)
    return found


def forget_models() -> None:
    """Drop every loaded model, so that the next one asked for is read anew."""
    _loaded.clear()
