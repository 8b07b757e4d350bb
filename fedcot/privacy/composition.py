"""What budgets that are fixed in advance cost together, at a delta.

Several bounds hold at once and the smallest is given: the loss distribution of a pair
of laws that dominates every pair of inputs, the Renyi divergences of all pairs, and the
pure epsilon. Budgets that depend on what was released are bounded by the pure sum that
their filter keeps; composed curves would not be valid for them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.privacy_accountant import NeighboringRelation
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from fedcot.errors import ConfigError
from fedcot.privacy.channels import Channel
from fedcot.privacy.loss_distributions import (
    WIDEST_INTERVAL,
    DpTraining,
    LossDistribution,
    interval_for,
    pair_divergences,
    prompt_distributions,
    token_distributions,
    training_distribution,
)
from fedcot.privacy.renyi import epsilon_of_renyi

# Convolutions of floats carry errors near 1e-15: this much of a delta is kept for them,
# and below the second number they are not asked.
FLOAT_ERRORS = 1e-13
SMALLEST_DELTA = 1e-12
# A prompt this dear gains nothing from a loss distribution, which would be very long.
LONGEST_LOSS = 2000.0
# The divergence of a sampled Gaussian has a closed form at whole orders.
WHOLE_ORDERS = (*range(2, 65), 128, 256, 512)
# Beyond these DP-SGD is bounded by its moments alone: a loss distribution would be very
# long, or take minutes.
LARGEST_TRAINING = 200.0
MOST_STEPS = 10**6
# A grid has at most about this many steps up to the epsilon of DP-SGD.
LONGEST_GRID = 1e5
# Orders at which Renyi divergences are compared; any set is valid.
ORDERS = (
    *(1 + step / 8 for step in range(1, 33)),
    *(float(order) for order in range(6, 17)),
    *(20.0, 24.0, 32.0, 48.0, 64.0),
)


@dataclass(frozen=True, kw_only=True)
class RecordEpsilons:
    """What one record gives away at delta: its prompt, its training, and both.

    Attributes
    ----------
    delta : float
        For all of them.
    token_epsilon, prompt_epsilon : float
        Nats; one token, one prompt of the channel.
    training_epsilon : float
        Nats; DP-SGD alone, 0 without it.
    token_with_training, record_epsilon : float
        Nats; one token, or the whole prompt, composed with DP-SGD on the same record.
    """

    delta: float
    token_epsilon: float
    prompt_epsilon: float
    training_epsilon: float
    token_with_training: float
    record_epsilon: float


def epsilon_at_delta(channel: Channel, *, delta: float) -> float:
    """Return an upper bound on a prompt's epsilon at `delta` by composition.

    Parameters
    ----------
    channel : Channel
        Its budgets are fixed in advance, or kept by a filter on the pure sum.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        Nats; the smallest of the bounds that hold, never above the pure epsilon, which
        alone is given below a delta of 1e-12.
    """
    return compose_record(channel, dp=None, delta=delta).prompt_epsilon


def compose_record(
    channel: Channel, *, dp: DpTraining | None, delta: float
) -> RecordEpsilons:
    """Return what a record's prompt and DP-SGD on the same record give away together.

    One adversary sees both, so their losses are composed: the loss distribution of the
    prompt with that of every noised step.

    Parameters
    ----------
    channel : Channel
        Perturbs the record's prompt, once over all rounds.
    dp : DpTraining, optional
        The training that the record takes part in.
    delta : float
        In (0, 1).
    """
    require_delta(delta)
    interval = _interval(channel.token_epsilon, channel.slots, dp, delta)
    token, prompt = channel.token_epsilon, channel.prompt_epsilon
    tokens = _distributions(channel, interval, is_token=True)
    prompts = _distributions(channel, interval, is_token=False)
    by_renyi = _epsilon_by_renyi(channel, delta)
    training = 0.0
    token_at = min(token, _smallest(tokens, delta))
    prompt_at = min(prompt, _smallest(prompts, delta), by_renyi)
    token_both, prompt_both = token_at, prompt_at
    if dp is not None:
        training = training_epsilon(dp, delta=delta)
        # A pure epsilon adds to any other, which serves where nothing else is known.
        token_both, prompt_both = token + training, prompt + training
        if _is_within_reach(dp, training):
            trained = training_distribution(dp, interval)
            beside = [
                _smallest((one.compose(trained) for one in each), delta)
                for each in (tokens, prompts)
            ]
            token_both = min(token_both, beside[0])
            prompt_both = min(prompt_both, beside[1])
    return RecordEpsilons(
        delta=delta,
        token_epsilon=token_at,
        prompt_epsilon=prompt_at,
        training_epsilon=training,
        token_with_training=token_both,
        record_epsilon=prompt_both,
    )


def training_epsilon(dp: DpTraining, *, delta: float) -> float:
    """Return what DP-SGD gives away of one record over all rounds, in nats at `delta`.

    Parameters
    ----------
    dp : DpTraining
        The training.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        For zero-out adjacency; infinite below a delta of 1e-12.
    """
    require_delta(delta)
    if delta < SMALLEST_DELTA:
        return math.inf
    by_moments = _training_by_moments(dp, delta)
    if not _is_within_reach(dp, by_moments):
        return by_moments
    interval = _interval(math.inf, 0, dp, delta)
    return min(by_moments, _smallest([training_distribution(dp, interval)], delta))


def _is_within_reach(dp: DpTraining, epsilon: float) -> bool:
    """Whether the loss distribution of a training can be computed in seconds."""
    return epsilon <= LARGEST_TRAINING and dp.num_steps <= MOST_STEPS


def _interval(
    token_epsilon: float, slots: int, dp: DpTraining | None, delta: float
) -> float:
    """Return the grid step for a prompt, for DP-SGD or for both together."""
    if dp is None:
        return interval_for(token_epsilon, slots)
    fine = interval_for(token_epsilon, max(1, slots + dp.num_steps))
    return max(
        fine, min(WIDEST_INTERVAL, _training_by_moments(dp, delta) / LONGEST_GRID)
    )


@lru_cache(maxsize=64)
def _training_by_moments(dp: DpTraining, delta: float) -> float:
    """Return the epsilon of DP-SGD by Renyi divergences, an upper bound found fast."""
    accountant = RdpAccountant(
        WHOLE_ORDERS, neighboring_relation=NeighboringRelation.REPLACE_SPECIAL
    )
    step = GaussianDpEvent(dp.noise_multiplier)
    for rate, steps in dp.phases:
        if steps:
            accountant.compose(PoissonSampledDpEvent(rate, step), steps)
    return float(accountant.get_epsilon(delta))


def _distributions(
    channel: Channel, interval: float, *, is_token: bool
) -> tuple[LossDistribution, ...]:
    """Return loss distributions that are each valid; none without a bound."""
    epsilon = channel.token_epsilon if is_token else channel.prompt_epsilon
    if not 0 < epsilon <= LONGEST_LOSS:
        return ()
    distributions = token_distributions if is_token else prompt_distributions
    return distributions(channel, interval)


def _smallest(distributions: Iterable[LossDistribution], delta: float) -> float:
    """Return the smallest epsilon at `delta` of distributions that are each valid."""
    if delta < SMALLEST_DELTA:
        return math.inf
    spared = delta - FLOAT_ERRORS
    found = (float(each.get_epsilon_for_delta(spared)) for each in distributions)
    return min(found, default=math.inf)


def _epsilon_by_renyi(channel: Channel, delta: float) -> float:
    """Return a prompt's epsilon by the Renyi divergences of all pairs of rows.

    The largest divergence of each order may belong to another pair, so that this can
    be below what the one dominating pair of all orders gives.
    """
    divergences = pair_divergences(channel, ORDERS)
    return min(
        epsilon_of_renyi(channel.slots * divergence, order, delta)
        for order, divergence in zip(ORDERS, divergences, strict=True)
    )


def require_delta(delta: float) -> None:
    """Refuse a delta that is no probability between 0 and 1.

    Raises
    ------
    ConfigError
        Unless it lies in (0, 1).
    """
    if not 0 < delta < 1:
        raise ConfigError(
            f"`delta` must lie in (0, 1), found {delta}; pass for example "
            "`-c delta=0.000001`."
        )
