"""The frozen base of the students, and adapters put on it for a while."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedcot.models.loading import LoadedModel, load_model

Base = LoadedModel
Adapter = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is shaped and trained; names as in PEFT.

    Attributes
    ----------
    target_modules : str
        Module names separated by commas; ``all-linear`` stands for every linear layer
        but the output, as in PEFT, and ``embeddings`` for the input embedding, which a
        domain with words that the base never saw needs.
    learning_rate : float
        Peak of a schedule with 5 % linear warm-up and a cosine down to a tenth.
    local_epochs, batch_size : int
        Passes over the examples of one call, and examples of each task in a step.
    rationale_weight : float
        Total loss = label loss + this weight x rationale loss.
    freeze_a : bool
        Train only the half of the adapter that starts at zero (FFA-LoRA,
        https://arxiv.org/abs/2403.12313), see `is_random_half`. The mean of adapters is
        then exact and noise is not multiplied with noise.
    """

    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: str = "all-linear,embeddings"
    learning_rate: float = 5e-3
    local_epochs: int = 8
    batch_size: int = 16
    rationale_weight: float = 1.0
    freeze_a: bool = False

    def lora(self, model: PreTrainedModel) -> LoraConfig:
        """Return the PEFT configuration of an adapter for a model."""
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=_module_names(model, self.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        )


def _module_names(model: PreTrainedModel, setting: str) -> list[str]:
    """Return the last part of each module's name, sorted, without repetition."""
    found: set[str] = set()
    special = {model.get_input_embeddings(), model.get_output_embeddings()}
    for name in (name.strip() for name in setting.split(",")):
        if name == "all-linear":
            found |= {
                path.rsplit(".", 1)[-1]
                for path, module in model.named_modules()
                if isinstance(module, nn.Linear | Conv1D) and module not in special
            }
        elif name == "embeddings":
            embedding = model.get_input_embeddings()
            paths = [p for p, module in model.named_modules() if module is embedding]
            found.add(paths[0].rsplit(".", 1)[-1])
        else:
            found.add(name)
    return sorted(found)


def load_base(source: str) -> Base:
    """Return the base model, loaded once per process and never changed."""
    return load_model(source, "student")


@contextmanager
def adapted(
    base: Base, settings: TrainingSettings, *, seed: int, adapter: Adapter | None = None
) -> Iterator[PeftModel]:
    """Put an adapter on the base, and take it off again at the end.

    Parameters
    ----------
    seed : int
        Of a new adapter's random half.
    adapter : mapping of str to Tensor, optional
        A PEFT state dict to start from; a new adapter, which changes nothing yet, if
        not given.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The output layer keeps the base's embedding on purpose: adapting both learnt
        # slower. It matters only to those who merge, and PEFT tells them again.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings")
        # PEFT asks transformers by an old name, once for every adapter.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        torch.manual_seed(seed)  # PEFT draws lora_A from the global generator.
        model = get_peft_model(base.model, settings.lora(base.model))
    try:
        if adapter is not None:
            differing = adapter.keys() ^ _state(model).keys()
            if differing:
                raise ValueError(
                    "the adapter must fit the base and the LoRA settings, found "
                    f"{min(differing)!r} in one only; use the settings that it was "
                    "trained with."
                )
            set_peft_model_state_dict(model, dict(adapter))
        if settings.freeze_a:
            for name, parameter in model.named_parameters():
                if is_random_half(name):
                    parameter.requires_grad_(False)
        yield model
    finally:
        try:
            model.unload()
            base.model.requires_grad_(False)
            base.model.eval()
            if hasattr(base.model, "peft_config"):
                del base.model.peft_config
        except BaseException:
            # A base with half an adapter on it must not serve another training.
            load_model.cache_clear()
            raise


def is_random_half(name: str) -> bool:
    """Whether a tensor of an adapter starts random; the other half starts at zero.

    For a linear layer that is A. PEFT starts an embedding's adapter the other way
    round, so there it is B: with B frozen and A trained the adapter can still learn.

    Parameters
    ----------
    name : str
        Of a parameter, or of a tensor in an adapter's state dict.
    """
    return "lora_A" in name or "lora_embedding_B" in name


def new_adapter(
    base: Base, settings: TrainingSettings, *, seed: int
) -> dict[str, torch.Tensor]:
    """Return an adapter that changes nothing yet.

    Clients that start from the same one share its random half, so that only the other
    half has to be averaged, and the server knows what their updates are relative to.
    """
    with adapted(base, settings, seed=seed) as model:
        return adapter_state(model)


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter alone, as fp32 copies: NumPy and so Flower have no bf16."""
    return {
        name: tensor.detach().to(torch.float32).clone()
        for name, tensor in sorted(_state(model).items())
    }


def _state(model: PeftModel) -> dict[str, torch.Tensor]:
    # Left to itself, PEFT adds the whole embedding of the base to the adapter.
    state: dict[str, torch.Tensor]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state
