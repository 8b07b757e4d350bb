"""The frozen base of the students, and what is trained, put on it for a while.

That is an adapter (LoRA), or weights of all of the base's parameters (full tuning).
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import PreTrainedModel

from fedcot.errors import ConfigError
from fedcot.models.loading import LoadedModel, forget_models, load_model
from fedcot.models.options import PLAIN, ModelOptions
from fedcot.settings import FULL, LORA
from fedcot.student.targets import is_transposed, target_modules

Base = LoadedModel
Student = PreTrainedModel | PeftModel
# What was learnt, fp32: a PEFT state dict, or every parameter by its name.
Adapter = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is shaped and trained; names as in PEFT.

    Attributes
    ----------
    tuning : str
        ``lora``, or ``full``: all parameters of the base are trained, and of the
        attributes those of LoRA, `target_modules` and `freeze_a` are not used.
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
    tuning: str = LORA

    @property
    def is_full(self) -> bool:
        """Whether the base itself is tuned."""
        return self.tuning == FULL

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


def adapted(
    base: Base, settings: TrainingSettings, *, seed: int, adapter: Adapter | None = None
) -> AbstractContextManager[Student]:
    """Put an adapter on the base, and take it off again at the end.

    With full tuning the base itself is lent, with other weights for a while: it gets
    its own back, bit for bit, whatever happened to it.

    Parameters
    ----------
    seed : int
        Of a new adapter's random half.
    adapter : mapping of str to Tensor, optional
        What `adapter_state` gave, to start from; it is copied. If not given: a new
        adapter, which changes nothing yet, or the base's own weights.

    Raises
    ------
    ConfigError
        The base has no modules of the settings, or is not in float32 with full tuning.
    ValueError
        The adapter does not fit.
    """
    if settings.is_full:
        return _with_weights(base, adapter)
    return _with_adapter(base, settings, seed, adapter)


@contextmanager
def _with_adapter(
    base: Base, settings: TrainingSettings, seed: int, adapter: Adapter | None
) -> Iterator[PeftModel]:
    model = _with_new_adapter(base, settings, seed)
    try:
        if adapter is not None:
            _check_names(adapter, _state(model), "the LoRA settings")
            set_peft_model_state_dict(model, dict(adapter))
        if settings.freeze_a:
            for name, parameter in model.named_parameters():
                if is_random_half(name):
                    parameter.requires_grad_(False)
        yield model
    finally:
        try:
            model.unload()
            _freeze(base.model)
            if hasattr(base.model, "peft_config"):
                del base.model.peft_config
        except BaseException:
            # A base with half an adapter on it must not serve another training.
            forget_models()
            raise


@contextmanager
def _with_weights(base: Base, adapter: Adapter | None) -> Iterator[PreTrainedModel]:
    """Let the parameters have other storages; their own are never written to."""
    model = base.model
    # Matrices that are shared count once, by their first name.
    parameters = dict(model.named_parameters())
    _check_precision(base.source, parameters)
    given = parameters if adapter is None else adapter
    _check_names(given, parameters, "`tuning`")
    for name, parameter in parameters.items():
        if given[name].shape != parameter.shape:
            raise ValueError(
                f"the weights must fit the base, found {name!r} of shape "
                f"{tuple(given[name].shape)} and not {tuple(parameter.shape)}; use the "
                "base that they were trained from."
            )
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            new = given[name].detach()
            parameter.data = new.to(parameter.device, torch.float32, copy=True)
        yield model.requires_grad_(True)
    finally:
        try:
            for name, parameter in parameters.items():
                parameter.grad, parameter.data = None, own[name]
            _freeze(model)
        except BaseException:
            # A base with weights that somebody trained must not serve another one.
            forget_models()
            raise


def _freeze(model: PreTrainedModel) -> None:
    model.requires_grad_(False)
    model.eval()


def _check_names(given: Adapter, wanted: Adapter, whose: str) -> None:
    differing = given.keys() ^ wanted.keys()
    if differing:
        raise ValueError(
            f"the adapter must fit the base and {whose}, found {min(differing)!r} in "
            "one only; use the settings that it was trained with."
        )


def _check_precision(source: str, parameters: Adapter) -> None:
    """Refuse a base whose weights are coarser than the steps of training."""
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise ConfigError(
                "`student-dtype` must be float32 with `tuning=full`, because smaller "
                f"formats round the steps of training away, found {source!r} with "
                f"{name!r} in {str(parameter.dtype).removeprefix('torch.')}; pass "
                "`-c student-dtype=float32`, or `-c tuning=lora`."
            )


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
    """Return an adapter that changes nothing yet, or the base's own weights.

    Clients that start from the same one share its random half, so that only the other
    half has to be averaged, and the server knows what their updates are relative to.
    """
    with adapted(base, settings, seed=seed) as model:
        return adapter_state(model)


def adapter_state(model: Student) -> dict[str, torch.Tensor]:
    """Return what is trained, as fp32 copies: NumPy and so Flower have no bf16."""
    return {
        name: tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in sorted(_state(model).items())
    }


def _state(model: Student) -> dict[str, torch.Tensor]:
    if not isinstance(model, PeftModel):
        return dict(model.named_parameters())
    # Left to itself, PEFT adds the whole embedding of the base to the adapter.
    state: dict[str, torch.Tensor]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state
