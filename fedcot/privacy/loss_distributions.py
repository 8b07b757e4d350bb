"""The privacy loss distribution of a channel: what composes exactly.

A loss distribution stands for a pair of laws whose hockey-stick divergence
``delta(a) = sum_y max(0, P(y) - e^a Q(y))`` is, for every ``a``, at least that of any
two inputs of the channel. Such pairs compose: the product of dominating pairs dominates
the composition, also where a later channel is chosen from earlier outputs, as long as
its dominating pair is fixed in advance (Zhu, Dong and Wang 2022, theorem 10).

Losses are put on a grid by splitting each between its two neighbours so that the
masses of both laws are kept. That only raises ``delta``, because ``max(0, 1 - e^a u)``
is convex in ``u = e^-loss`` (connect the dots, Doroshenko et al. 2022).
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
    identity,
)
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.channels import Channel
from fedcot.privacy.exponential import ExponentialChannel
from fedcot.privacy.privacy_curves import (
    Curve,
    all_pairs_curve,
    bounded_range,
    bounded_range_curve,
)
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.renyi import renyi_of_rows
from fedcot.privacy.selection import SelectionChannel

# dp_accounting ships no types.
LossDistribution = Any

WIDEST_INTERVAL = 5e-3
# Splitting raises the mean loss of a step by at most interval^2 / 8; this is for all.
RAISED_MEAN = 1e-4
NARROWEST_INTERVAL = 1e-4
# Comparing all pairs of rows takes about a second for 200 words, eight for 400.
ALL_PAIRS_LIMIT = 256
# Moments and the range of all pairs are cheaper to find.
RENYI_LIMIT = 512
RANGE_LIMIT = 1024


@dataclass(frozen=True, kw_only=True)
class DpTraining:
    """DP-SGD on a client's records, as far as privacy depends on it.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation of the noise of a summed gradient over the largest norm of
        one record's gradient, > 0.
    phases : tuple of (float, int)
        Poisson sampling rate in (0, 1] and number of steps >= 0 of each round.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    """

    noise_multiplier: float
    phases: tuple[tuple[float, int], ...]

    @property
    def num_steps(self) -> int:
        """Noised gradients of all rounds."""
        return sum(steps for _, steps in self.phases)

    def __post_init__(self) -> None:
        """Check the values."""
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ConfigError(
                "`noise-multiplier` must be > 0 for a guarantee of training, found "
                f"{self.noise_multiplier}; pass for example `-c noise-multiplier=1.0`."
            )
        if any(not 0 < rate <= 1 or steps < 0 for rate, steps in self.phases):
            raise ConfigError(
                "`phases` must hold rates in (0, 1] and steps >= 0, found "
                f"{self.phases}; pass batch size / records of a client."
            )


def interval_for(epsilon: float, count: int) -> float:
    """Return the grid step in nats for a composition.

    Parameters
    ----------
    epsilon : float
        The largest loss of one token in nats, > 0; infinite without one.
    count : int
        How many losses are composed, >= 1.
    """
    by_count = math.sqrt(8 * RAISED_MEAN / count)
    return max(NARROWEST_INTERVAL, min(WIDEST_INTERVAL, epsilon / 100, by_count))


def token_distributions(
    channel: Channel, interval: float
) -> tuple[LossDistribution, ...]:
    """Return loss distributions of one token, each of which is valid alone.

    Parameters
    ----------
    channel : Channel
        With a finite token epsilon.
    interval : float
        Grid step in nats, > 0.

    Returns
    -------
    tuple of PrivacyLossDistribution
        For `rank` and `selection` the pair of rows that dominates all others, for
        `exponential` the envelope of all pairs where the vocabulary is small enough to
        compare them, and else the bounds by bounded range and by epsilon alone.
    """
    return _token_distributions(_Key.of(channel), interval)


def prompt_distributions(
    channel: Channel, interval: float
) -> tuple[LossDistribution, ...]:
    """Return loss distributions of one whole prompt, each of which is valid alone.

    Parameters
    ----------
    channel : Channel
        With a finite prompt epsilon.
    interval : float
        Grid step in nats, > 0.

    Notes
    -----
    A channel that moves budget between slots has no fixed pair per slot, so it is
    bounded by the pure epsilon of the prompt, which its filter keeps.
    """
    return _prompt_distributions(_Key.of(channel), interval)


def pair_divergences(channel: Channel, orders: tuple[float, ...]) -> tuple[float, ...]:
    """Return the largest Renyi divergence of one token at each order.

    Parameters
    ----------
    channel : Channel
        Any.
    orders : tuple of float
        Each > 1.

    Returns
    -------
    tuple of float
        Nats; infinite where pairs of rows are not compared: only `exponential` on a
        vocabulary of at most 512 words gains by it.
    """
    return _pair_divergences(_Key.of(channel), orders)


def training_distribution(training: DpTraining, interval: float) -> LossDistribution:
    """Return the loss distribution of one record in DP-SGD, zero-out adjacency.

    Parameters
    ----------
    training : DpTraining
        Noise, and rate and steps of each round.
    interval : float
        Grid step in nats, > 0.
    """
    return _training_distribution(training, interval)


def ranked_losses(
    weights: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return losses and masses of the worst pair of rows that permute these weights.

    Parameters
    ----------
    weights : ndarray of int64, shape (outputs,)
        Positive.

    Returns
    -------
    losses : ndarray of float64, shape (outputs,)
        Nats.
    masses : ndarray of float64, shape (outputs,)
        Under the first row; they sum to 1.

    Notes
    -----
    The worst pair puts the highest weight of one row on the lowest of the other and so
    on. For ``u1 >= u0`` and ``v1 >= v0``, ``h(u1 - c v1) + h(u0 - c v0) <=
    h(u1 - c v0) + h(u0 - c v1)`` for every convex ``h``: exchanging two outputs
    towards this order never lowers a hockey-stick divergence.
    """
    falling = np.sort(weights)[::-1].astype(np.float64)
    logs = np.log(falling)
    # The integer sum is exact; a float sum would lose the last digits.
    return logs - logs[::-1], falling / float(sum(weights.tolist()))


def from_losses(
    losses: NDArray[np.float64], masses: NDArray[np.float64], interval: float
) -> LossDistribution:
    """Return the loss distribution of a symmetric pair with these losses.

    Parameters
    ----------
    losses : ndarray of float64, shape (outcomes,)
        Finite, in nats.
    masses : ndarray of float64, shape (outcomes,)
        Under the first law, not negative, summing to 1.
    interval : float
        Grid step in nats, > 0.
    """
    on_grid: defaultdict[int, float] = defaultdict(float)
    below = np.floor(losses / interval).astype(np.int64)
    # Share of the upper neighbour: keeps the mass under the second law.
    upper = np.expm1(below * interval - losses) / math.expm1(-interval)
    upper = np.clip(upper, 0.0, 1.0)
    for place, share, mass in zip(
        below.tolist(), upper.tolist(), masses.tolist(), strict=True
    ):
        on_grid[place] += (1 - share) * mass
        on_grid[place + 1] += share * mass
    return PrivacyLossDistribution.create_from_rounded_probability(
        {place: mass for place, mass in on_grid.items() if mass > 0}, 0.0, interval
    )


def from_curve(curve: Curve, largest: float, interval: float) -> LossDistribution:
    """Return the loss distribution of a privacy curve that is its own mirror.

    Parameters
    ----------
    curve : callable
        Maps ``a >= 0``, in nats, to the hockey-stick divergence of order ``e^a``.
    largest : float
        Nats; the curve is 0 from there on.
    interval : float
        Grid step in nats, > 0.

    Notes
    -----
    For a set of pairs that holds each pair in both orders,
    ``delta(-a) = 1 - e^-a + e^-a delta(a)``.
    """
    steps = math.ceil(largest / interval)
    grid: NDArray[np.float64] = np.arange(steps + 1, dtype=np.float64) * interval
    positive = np.clip(curve(grid), 0.0, 1.0)
    negative = -np.expm1(-grid[1:]) + np.exp(-grid[1:]) * positive[1:]
    deltas = np.clip(np.concatenate([negative[::-1], positive]), 0.0, 1.0)
    return PrivacyLossDistribution(
        pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(
            interval, -steps, steps, deltas
        )
    )


def from_pure(epsilon: float, interval: float) -> LossDistribution:
    """Return the loss distribution of randomised response: the worst pure mechanism.

    Parameters
    ----------
    epsilon : float
        Nats, finite, > 0.
    interval : float
        Grid step in nats, > 0.
    """
    yes = 1 / (1 + math.exp(-epsilon))
    losses = np.array([epsilon, -epsilon])
    masses = np.array([yes, yes * math.exp(-epsilon)])
    return from_losses(losses, masses, interval)


def row_probabilities(channel: ExponentialChannel) -> NDArray[np.float64]:
    """Return the law of every input, shape (inputs, outputs)."""
    weights = _rows(channel).astype(np.float64)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class _Key:
    """A channel by what decides its losses, so that equal ones are computed once."""

    hash: str
    token_epsilon: float
    prompt_epsilon: float
    channel: Channel = field(compare=False)

    @classmethod
    def of(cls, channel: Channel) -> "_Key":
        """Return the key of a channel."""
        return cls(channel.hash, channel.token_epsilon, channel.prompt_epsilon, channel)


@lru_cache(maxsize=8)
def _token_distributions(key: _Key, interval: float) -> tuple[LossDistribution, ...]:
    channel = key.channel
    if isinstance(channel, RankChannel):
        return (from_losses(*ranked_losses(channel.rank_weights), interval),)
    if isinstance(channel, SelectionChannel):
        weights = np.full(len(channel.bank), channel.low, dtype=np.int64)
        weights[: channel.favoured] = channel.high
        return (from_losses(*ranked_losses(weights), interval),)
    epsilon = channel.token_epsilon
    by_epsilon = from_pure(epsilon, interval)
    if not isinstance(channel, ExponentialChannel) or channel.size > RANGE_LIMIT:
        return (by_epsilon,)
    if channel.size <= ALL_PAIRS_LIMIT:
        curve = all_pairs_curve(row_probabilities(channel))
        return (from_curve(curve, epsilon, interval),)
    width = bounded_range(_rows(channel))
    return (by_epsilon, from_curve(bounded_range_curve(width), width, interval))


@lru_cache(maxsize=8)
def _prompt_distributions(key: _Key, interval: float) -> tuple[LossDistribution, ...]:
    channel = key.channel
    if isinstance(channel, SelectionChannel):
        return token_distributions(channel, interval)
    if isinstance(channel, RankChannel | ExponentialChannel):
        return tuple(
            token.self_compose(channel.slots)
            for token in token_distributions(channel, interval)
        )
    return (from_pure(channel.prompt_epsilon, interval),)


@lru_cache(maxsize=8)
def _pair_divergences(key: _Key, orders: tuple[float, ...]) -> tuple[float, ...]:
    channel = key.channel
    if not isinstance(channel, ExponentialChannel) or channel.size > RENYI_LIMIT:
        return (math.inf,) * len(orders)
    rows = row_probabilities(channel)
    return tuple(renyi_of_rows(rows, order) for order in orders)


@lru_cache(maxsize=8)
def _training_distribution(training: DpTraining, interval: float) -> LossDistribution:
    total = identity(interval)
    for rate, steps in training.phases:
        if steps:
            one_step = from_gaussian_mechanism(
                training.noise_multiplier,
                sampling_prob=rate,
                value_discretization_interval=interval,
            )
            total = total.compose(one_step.self_compose(steps))
    return total


def _rows(channel: ExponentialChannel) -> NDArray[np.int64]:
    return channel.weights_block(0, channel.size)
