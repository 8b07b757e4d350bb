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

from fedcot.models.loading import LoadedModel, forget_models, load_model
from fedcot.models.options import PLAIN, ModelOptions
from fedcot.student.targets import is_transposed, target_modules

Base = LoadedModel
Adapter = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is shaped and trained; names as in PEFT.

    Attributes
    ----------
    target_modules : str
        As in `fedcot.student.targets.target_modules`; a domain with words that the
        base never saw needs ``embeddings``.
    learning_rate : float
        Peak of a schedule with 5 % linear warm-up and a cosine down to a tenth.
    local_epochs, batch_size : int
        Passes over the examples of one call, and examples of each task in a step.
    rationale_weight, label_weight : float
        Total loss = label weight x label loss + rationale weight x rationale loss.
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
    label_weight: float = 1.0
    freeze_a: bool = False

    def lora(self, base: Base) -> LoraConfig:
        """Return the PEFT configuration of an adapter for a base.

        Raises
        ------
        ConfigError
            The base has no such modules.
        """
        return LoraConfig(
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=target_modules(base.model, self.target_modules),
            fan_in_fan_out=is_transposed(base.model),
            bias="none",
            task_type="SEQ_2_SEQ_LM" if base.is_encoder_decoder else "CAUSAL_LM",
        )


def load_base(source: str, options: ModelOptions = PLAIN) -> Base:
    """Return the base model, loaded once per process and never changed."""
    return load_model(source, "student", options)


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
    model = _with_new_adapter(base, settings, seed)
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
            forget_models()
            raise


def _with_new_adapter(base: Base, settings: TrainingSettings, seed: int) -> PeftModel:
    configuration = settings.lora(base)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The output layer keeps the base's embedding on purpose: adapting both learnt
        # slower. It matters only to those who merge, and PEFT tells them again.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings")
        # Said where a model has linear layers of both kinds; PEFT corrects it itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # PEFT asks transformers by an old name, once for every adapter.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        torch.manual_seed(seed)  # PEFT draws lora_A from the global generator.
        try:
            return get_peft_model(base.model, configuration)
        except BaseException:
            # A base with half an adapter on it must not serve another training.
            forget_models()
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
        name: tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in sorted(_state(model).items())
    }


def _state(model: PeftModel) -> dict[str, torch.Tensor]:
    # Left to itself, PEFT adds the whole embedding of the base to the adapter.
    state: dict[str, torch.Tensor]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state
