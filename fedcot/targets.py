"""Which setting answers a question for a budget, and the run that then has it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fedcot.budget import private_training, world_channel
from fedcot.config import RunConfig
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.privacy.channels import Channel

# Mechanisms whose prompt epsilon is what is asked for, token by token.
BY_TOKEN: Final = ("exponential", "rank")
# Mechanisms that take the epsilon of a whole prompt as a setting.
BY_PROMPT: Final = ("adaptive", "saliency", "selection")
# The exponential mechanism is calibrated to 0.02 nats, so finer answers mean nothing.
RESOLUTION: Final = {
    "exponential": Fraction(1, 100),
    "rank": Fraction(1, 1000),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The setting that a budget allows.

    Attributes
    ----------
    setting : str
        Its key.
    value : float
        What to set it to; nats, or the noise over the clipping norm.
    budget : str
        What was asked for.
    limit : float
        Nats.
    """

    setting: str
    value: float
    budget: str
    limit: float

    def line(self) -> str:
        """Return the answer as a line to print."""
        extreme = "least" if self.setting == "noise-multiplier" else "largest"
        return (
            f"answer          {self.setting} = {self.value!r}, the {extreme} for a "
            f"{self.budget} of {self.limit!r} nats"
        )


def solved(
    config: RunConfig, budget: str, limit: float, *, slots: int | None = None
) -> tuple[RunConfig, Answer]:
    """Return the configuration that makes most of a budget.

    Parameters
    ----------
    config : RunConfig
        Everything but the setting that is sought.
    budget : str
        ``prompt-epsilon`` or ``record-epsilon-at-delta``, which seek the token epsilon,
        or ``trained-record-epsilon``, which seeks the noise multiplier.
    limit : float
        Nats, > 0.
    slots : int | None
        Tokens of a prompt, >= 1; None: the world's own length.

    Raises
    ------
    ConfigError
        The mechanism has no finite epsilon, or the budget is too small.
    """
    if budget == "trained-record-epsilon":
        found = _noise_multiplier(config, limit, slots)
        config = dataclasses.replace(config, noise_multiplier=found)
        setting = "noise-multiplier"
    elif config.mechanism in BY_PROMPT:
        # At delta a prompt never costs more than its pure epsilon.
        found, setting = limit, "prompt-epsilon"
        config = dataclasses.replace(config, prompt_epsilon=found)
    elif config.mechanism in BY_TOKEN:
        found, setting = _token_epsilon(config, budget, limit, slots), "token-epsilon"
        config = dataclasses.replace(config, token_epsilon=found)
    else:
        raise ConfigError(
            f"`mechanism` must have a finite epsilon for a budget to fix, found "
            f"'{config.mechanism}'; pass for example `--mechanism rank`."
        )
    return config, Answer(setting=setting, value=found, budget=budget, limit=limit)


def _token_epsilon(
    config: RunConfig, budget: str, limit: float, slots: int | None
) -> float:
    from fedcot.mechanism import configured_vocabulary
    from fedcot.privacy import planning

    def build(epsilon: float) -> Channel:
        asked = dataclasses.replace(config, token_epsilon=epsilon, prompt_epsilon=0.0)
        return world_channel(asked, slots=slots)

    length = configured_vocabulary(config).length if slots is None else slots
    if budget == "prompt-epsilon":
        return planning.largest_token_epsilon(build, slots=length, prompt_epsilon=limit)
    return planning.largest_token_epsilon_at_delta(
        build,
        slots=length,
        record_epsilon=limit,
        delta=config.delta,
        resolution=RESOLUTION[config.mechanism],
    )


def _noise_multiplier(config: RunConfig, limit: float, slots: int | None) -> float:
    from fedcot.privacy.planning import smallest_noise_multiplier

    training = None
    if config.aggregation != "none":
        training = private_training(dataclasses.replace(config, noise_multiplier=1.0))
    if training is None:
        raise ConfigError(
            "`trained-record-epsilon` must be asked of a run that shares adapters "
            "trained on private records, with a known number of clients, found "
            f"aggregation '{config.aggregation}', pairing '{config.pairing}' and "
            f"num-partitions {config.num_partitions}; pass for example `-c "
            "aggregation=fedavg -c pairing=original -c num-partitions=5`."
        )
    return smallest_noise_multiplier(
        training.phases,
        epsilon=limit,
        delta=config.delta,
        channel=world_channel(config, slots=slots),
    )
