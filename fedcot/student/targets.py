"""Which modules of a model get an adapter."""

from __future__ import annotations

from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedcot.errors import ConfigError

_LINEAR = (nn.Linear, Conv1D)  # Linear layers in 8 and 4 bits are of these as well.
_NAMED_IN_ERRORS = 8


def target_modules(model: PreTrainedModel, setting: str) -> list[str]:
    """Return the names by which PEFT finds the modules of a setting.

    Parameters
    ----------
    model : PreTrainedModel
        Without an adapter.
    setting : str
        Separated by commas: ``all-linear``, every linear layer but the output;
        ``embeddings``, what reads token ids; ``auto``, PEFT's choice for the
        architecture, or ``all-linear`` where it knows none; or names of modules.

    Returns
    -------
    list of str
        Sorted, without repetition. The last part of a module's path where all modules
        of that name are meant, else the whole path.

    Raises
    ------
    ConfigError
        A name that no module has, or one of a module that cannot be adapted.
    """
    paths: set[str] = set()
    for name in (part.strip() for part in setting.split(",")):
        if name == "all-linear":
            paths |= _linear(model)
        elif name == "embeddings":
            paths |= _embeddings(model)
        elif name == "auto":
            paths |= _peft_choice(model)
        else:
            paths |= _named(model, name)
    return sorted({_short(model, path, paths) for path in paths})


def is_transposed(model: PreTrainedModel) -> bool:
    """Whether the model keeps its matrices as (inputs, outputs), as GPT-2 does."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def _linear(model: PreTrainedModel) -> set[str]:
    special = {model.get_input_embeddings(), model.get_output_embeddings()}
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, _LINEAR) and module not in special
    }


def _embeddings(model: PreTrainedModel) -> set[str]:
    """Return the modules that read token ids.

    T5 and BART keep the matrix in a module that is never called; encoder and decoder
    have one each that shares it. Positions have a matrix of their own.
    """
    stated = model.get_input_embeddings()
    sharing = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module.weight is stated.weight
    }
    callers = {path for path, module in sharing.items() if module is not stated}
    return callers or set(sharing)


def _peft_choice(model: PreTrainedModel) -> set[str]:
    kind = model.config.model_type
    names = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    if not isinstance(names, list):
        return _linear(model)
    return set().union(*(_named(model, name) for name in names))


def _named(model: PreTrainedModel, name: str) -> set[str]:
    """Return the modules of a name, as PEFT matches it."""
    found = {
        path: module
        for path, module in model.named_modules()
        if path == name or path.endswith(f".{name}")
    }
    fitting = {
        path
        for path, module in found.items()
        if isinstance(module, (*_LINEAR, nn.Embedding))
    }
    if not name or not found or len(fitting) != len(found):
        linear = sorted({path.rsplit(".", 1)[-1] for path in _linear(model)})
        known = ", ".join(linear[:_NAMED_IN_ERRORS])
        raise ConfigError(
            "`target-modules` must name linear layers or embeddings of the student, "
            f"found {name!r}; names it has are {known}; or pass "
            "`-c target-modules=all-linear`."
        )
    return fitting


def _short(model: PreTrainedModel, path: str, paths: set[str]) -> str:
    last = path.rsplit(".", 1)[-1]
    same = {
        other
        for other, _ in model.named_modules()
        if other == last or other.endswith(f".{last}")
    }
    return last if same <= paths else path
