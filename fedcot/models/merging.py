"""An adapter added into its base: a model that loads without PEFT.

Many bases use one matrix to read and to write tokens, and an adapter of the embedding
changes the reading alone. Such a model gets two matrices before anything is added, so
that it goes on to compute what base and adapter compute; that it does is checked.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from fedcot.errors import ConfigError, FedcotError
from fedcot.models.options import PLAIN
from fedcot.models.sources import artefact_hash, model_folder
from fedcot.models.special_tokens import num_embeddings, read_tokenizer
from fedcot.models.weights import ModelKind, read_weights
from fedcot.runs import part_of
from fedcot.student.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

# Largest difference of logits, in parts of the largest logit, by rounding alone.
TOLERANCE = 1e-4
_PROBE_TOKENS = 24


def merge_adapter(
    source: str,
    adapter: Path,
    output: Path,
    *,
    base_hash: str | None = None,
    card: str = "",
) -> bool:
    """Write a base with an adapter added to its weights, as fp32 safetensors.

    The folder is there whole or not at all.

    Parameters
    ----------
    source : str
        The base, as the setting `student` names it.
    adapter : Path
        A folder in PEFT's format.
    output : Path
        The folder to make.
    base_hash : str | None
        SHA-256 that the base must have; None: any.
    card : str
        What README.md says.

    Returns
    -------
    bool
        Whether the output layer got a matrix of its own.

    Raises
    ------
    ConfigError
        `output` is there, the adapter or its base is not, the base is another one, or
        the adapter cannot be added to it.
    FedcotError
        What was written computes something else.
    """
    _check_output(output)
    _check_adapter(adapter)
    folder = model_folder(source, "student")
    found = artefact_hash(source, "student")
    if base_hash is not None and found != base_hash:
        raise ConfigError(
            f"`--base` must be the base that the adapter was trained on (SHA-256 "
            f"{base_hash}), found {found}; pass its folder."
        )
    kind = ModelKind.of_folder(folder, source=source, role="student")
    tokenizer = read_tokenizer(folder, kind.config, source=source, role="student")

    def fresh(place: Path) -> PreTrainedModel:
        # Never the base that others in this process share.
        kind = ModelKind.of_folder(place, source=source, role="student")
        found = read_weights(place, kind, PLAIN, source=source, role="student")
        found.eval()
        return found

    part = part_of(output)
    part.mkdir(parents=True)
    try:
        with _quietly():
            base = fresh(folder)
            model = _with_adapter(base, adapter)
            # PEFT puts its layers into the base itself.
            expected = _logits(base)
            unties = _untie(base)
            _merged(model).save_pretrained(part)
            tokenizer.save_pretrained(part)
            (part / "README.md").write_text(card, encoding="utf-8")
            _check_same(expected, _logits(fresh(part)))
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return unties


def copy_model(model: Path, output: Path, *, card: str = "") -> None:
    """Copy a student that was tuned in full: it is a model already.

    The folder is there whole or not at all.

    Parameters
    ----------
    model : Path
        A folder that `fedcot.student.training.save_adapter` wrote.
    output : Path
        The folder to make.
    card : str
        What README.md says.

    Raises
    ------
    ConfigError
        `output` is there.
    """
    _check_output(output)
    part = part_of(output)
    try:
        shutil.copytree(model, part)
        (part / "README.md").write_text(card, encoding="utf-8")
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_output(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ConfigError(
            f"`--output` must be a folder that is not there yet, found '{output}'; "
            "pass another name, or delete it."
        )


def _check_adapter(adapter: Path) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter / name).is_file():
            raise ConfigError(
                f"`RUN_DIR` must hold the adapter that is asked for, found no {name} "
                f"in '{adapter}'; see the folder `adapters` there."
            )


def _with_adapter(base: PreTrainedModel, adapter: Path) -> PeftModel:
    try:
        return PeftModel.from_pretrained(base, str(adapter)).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"`--base` must fit the adapter, found another one ({type(error).__name__} "
            "when they were put together); pass the base it was trained on."
        ) from error


def _merged(model: PeftModel) -> PreTrainedModel:
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # Said of weights that are not finite.
        raise FedcotError(
            "the adapter makes weights that are no numbers, so nothing was written; "
            "train it again with a lower learning rate."
        ) from error
    return merged


def _untie(model: PreTrainedModel) -> bool:
    """Give the output layer a matrix of its own where the adapter changes a shared one.

    Raises
    ------
    ConfigError
        Encoder and decoder share the matrix, which cannot be saved apart.
    """
    adapted = [
        module.get_base_layer()
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
    ]
    changed = [_weight(layer) for layer in adapted]
    users = [
        module
        for module in model.modules()
        if not isinstance(module, BaseTunerLayer)
        and any(_weight(module) is weight for weight in changed)
    ]
    shared = [module for module in users if module not in adapted]
    if not shared and len({id(weight) for weight in changed}) == len(changed):
        return False
    head = model.get_output_embeddings()
    if model.config.is_encoder_decoder or shared != [head]:
        raise ConfigError(
            "`merged` must be asked for adapters whose matrices are not shared, found "
            "one of an embedding that encoder and decoder share; load base and "
            "adapter with PEFT instead."
        )
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    return True


def _weight(module: nn.Module) -> Tensor | None:
    found = getattr(module, "weight", None)
    return found if isinstance(found, Tensor) else None


def _logits(model: PreTrainedModel) -> Tensor:
    """Return the logits of two public rows of tokens, drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    rows = num_embeddings(model)
    ids = torch.randint(rows, (2, _PROBE_TOKENS), generator=generator)
    inputs = {"input_ids": ids.to(model.device)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)
    with torch.inference_mode():
        found: Tensor = model(**inputs, use_cache=False).logits
    return found.float()


def _check_same(expected: Tensor, found: Tensor) -> None:
    largest = float(expected.abs().max())
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise FedcotError(
            "the merged model computes other logits than base and adapter (by "
            f"{difference:.2g}, the largest is {largest:.2g}), so it was not kept; "
            "load base and adapter with PEFT instead."
        )


@contextmanager
def _quietly() -> Iterator[None]:
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # Said of every adapter of a tied embedding; it is untied here.
            warnings.filterwarnings("ignore", message="Model (has|with) `tie_word")
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
            yield
    finally:
        if was_shown:
            logging.enable_progress_bar()
