"""The frozen base of the students, and adapters put on it for a while."""

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

from fedcot.models.loading import LoadedModel, load_model

Base = LoadedModel
Adapter = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is shaped and trained; names as in PEFT.

    Attributes
    ----------
    target_modules : str
        ``all-linear``, or module names separated by commas.
    learning_rate : float
        Peak of a schedule with 5 % linear warm-up and a cosine down to a tenth.
    local_epochs, batch_size : int
        Passes over the examples of one call, and examples of each task in a step.
    rationale_weight : float
        Total loss = label loss + this weight x rationale loss.
    """

    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: str = "all-linear"
    learning_rate: float = 3e-3
    local_epochs: int = 10
    batch_size: int = 32
    rationale_weight: float = 1.0

    def lora(self) -> LoraConfig:
        """Return the PEFT configuration of the adapter."""
        modules: str | list[str] = self.target_modules
        if modules != "all-linear":
            modules = [name.strip() for name in self.target_modules.split(",")]
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=modules,
            bias="none",
            task_type="CAUSAL_LM",
        )


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # PEFT draws lora_A from the global generator.
        model = get_peft_model(base.model, settings.lora())
    try:
        if adapter is not None:
            differing = adapter.keys() ^ get_peft_model_state_dict(model).keys()
            if differing:
                raise ValueError(
                    "the adapter must fit the base and the LoRA settings, found "
                    f"{min(differing)!r} in one only; use the settings that it was "
                    "trained with."
                )
            set_peft_model_state_dict(model, dict(adapter))
        yield model
    finally:
        model.unload()
        base.model.requires_grad_(False)
        base.model.eval()
        if hasattr(base.model, "peft_config"):
            del base.model.peft_config


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter alone, as fp32 copies: NumPy and so Flower have no bf16."""
    return {
        name: tensor.detach().to(torch.float32).clone()
        for name, tensor in sorted(get_peft_model_state_dict(model).items())
    }
