"""Settings from a budget: the other way round from `fedcot.privacy.accounting`.

Every answer is searched for on the exact charge or on the loss distribution and then
checked once more on the channel that is built from it.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from fedcot.errors import ConfigError
from fedcot.privacy.channels import Channel
from fedcot.privacy.composition import (
    compose_record,
    epsilon_at_delta,
    require_delta,
    training_epsilon,
)
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.privacy.nats import NANO, limit_in_nano_nats

Build = Callable[[float], Channel]

# Answers are whole multiples, so that they can be written into a configuration.
TOKEN_STEPS = 10**6
NOISE_STEPS = 10**3
LARGEST_NOISE = 1000


def largest_token_epsilon(build: Build, *, slots: int, prompt_epsilon: float) -> float:
    """Return the largest token epsilon for which a prompt is charged no more.

    Parameters
    ----------
    build : callable
        Returns the channel of a token epsilon, whose enumerated epsilon is at most
        that.
    slots : int
        Tokens of a prompt, >= 1.
    prompt_epsilon : float
        Nats that a prompt may be charged, > 0 and finite.

    Returns
    -------
    float
        Nats, a multiple of 1e-6, rounded down.

    Raises
    ------
    ConfigError
        If the budget is too small for any, or the channel needs more after all.
    """
    limit = _checked_budget("prompt-epsilon", prompt_epsilon)
    steps = math.floor(Fraction(limit, NANO * slots) * TOKEN_STEPS)
    if steps < 1:
        raise ConfigError(
            f"`prompt-epsilon` must leave something for each of {slots} slots, found "
            f"{prompt_epsilon}; pass a larger one."
        )
    found = steps / TOKEN_STEPS
    channel = build(found)
    if channel.prompt_epsilon > prompt_epsilon:
        raise ConfigError(
            f"`prompt-epsilon` must cover what '{channel.name}' charges "
            f"({channel.prompt_epsilon} nats), found {prompt_epsilon}; pass a larger "
            "one."
        )
    return found


def largest_token_epsilon_at_delta(
    build: Build,
    *,
    slots: int,
    record_epsilon: float,
    delta: float,
    resolution: Fraction = Fraction(1, 1000),
) -> float:
    """Return the largest token epsilon whose prompt stays within an epsilon at delta.

    Parameters
    ----------
    build : callable
        Returns the channel of a token epsilon.
    slots : int
        Tokens of a prompt, >= 1.
    record_epsilon : float
        Nats that a record's prompt may give away at `delta`, > 0 and finite.
    delta : float
        In (0, 1).
    resolution : Fraction
        Step of the answers, in nats.

    Returns
    -------
    float
        Nats, a multiple of `resolution`, rounded down; at least what the pure budget
        alone allows.

    Raises
    ------
    ConfigError
        If the budget is too small for any.
    """
    _checked_budget("record-epsilon-at-delta", record_epsilon)
    require_delta(delta)

    def fits(steps: int) -> bool:
        try:
            channel = build(float(steps * resolution))
        except ConfigError:
            # No weights for so large an epsilon.
            return False
        return epsilon_at_delta(channel, delta=delta) <= record_epsilon

    low = math.floor(Fraction(record_epsilon) / slots / resolution)
    if low and not fits(low):
        raise ConfigError(
            "`record-epsilon-at-delta` must be reachable by the mechanism, found "
            f"{record_epsilon}; pass a smaller one or `-c mechanism=rank`."
        )
    width = 1
    while fits(low + width):
        low, width = low + width, 2 * width
    high = low + width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low < 1:
        raise ConfigError(
            f"`record-epsilon-at-delta` must leave something for each of {slots} "
            f"slots, found {record_epsilon}; pass a larger one."
        )
    return float(low * resolution)


def smallest_noise_multiplier(
    phases: tuple[tuple[float, int], ...],
    *,
    epsilon: float,
    delta: float,
    channel: Channel | None = None,
) -> float:
    """Return the least noise of DP-SGD that keeps a record within an epsilon at delta.

    Parameters
    ----------
    phases : tuple of (float, int)
        Sampling rate and steps of each round, as in `DpTraining`.
    epsilon : float
        Nats that one record may give away at `delta`, > 0 and finite.
    delta : float
        In (0, 1).
    channel : Channel, optional
        Perturbs the same record's prompt; prompt and training then share the epsilon.

    Returns
    -------
    float
        A multiple of 0.001, rounded up.

    Raises
    ------
    ConfigError
        If the prompt alone takes all, or no noise up to 1000 is enough.
    """
    _checked_budget("epsilon", epsilon)
    require_delta(delta)
    if channel is not None:
        taken = epsilon_at_delta(channel, delta=delta)
        if taken >= epsilon:
            raise ConfigError(
                f"`epsilon` must be above what the prompt alone takes ({taken:.4f} "
                f"nats at delta {delta:g}), found {epsilon}; pass a larger one or a "
                "smaller token-epsilon."
            )

    def fits(steps: int) -> bool:
        training = DpTraining(noise_multiplier=steps / NOISE_STEPS, phases=phases)
        return _spent(training, channel, delta) <= epsilon

    if not fits(LARGEST_NOISE * NOISE_STEPS):
        raise ConfigError(
            f"`epsilon` must be reachable with a noise multiplier up to "
            f"{LARGEST_NOISE}, found {epsilon}; train for fewer steps or pass a "
            "larger one."
        )
    low, high = 0, NOISE_STEPS // 4
    while not fits(high):
        low, high = high, 2 * high
    # Less noise than a twentieth gives losses too large to convolve.
    low = max(low, NOISE_STEPS // 20)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high / NOISE_STEPS


def _spent(training: DpTraining, channel: Channel | None, delta: float) -> float:
    if channel is None:
        return training_epsilon(training, delta=delta)
    return compose_record(channel, dp=training, delta=delta).record_epsilon


def _checked_budget(name: str, epsilon: float) -> int:
    """Return a budget in nano-nats, rounded down."""
    limit = limit_in_nano_nats(epsilon) if math.isfinite(epsilon) else None
    if limit is None or limit < 1:
        raise ConfigError(
            f"`{name}` must be > 0 and finite, found {epsilon}; pass for example 84.0."
        )
    return limit
