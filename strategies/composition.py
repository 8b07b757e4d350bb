"""Gaussian releases on one record: composed by Rényi privacy at one fixed order.

One order, fixed before the run, may be stopped on at any time, also when what was
released decides whether to go on (Feldman and Zrnic, https://arxiv.org/abs/2008.11193);
the smallest of several orders may not. A pure epsilon bounds every order, so prompts
are added as they are.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from dp_accounting import dp_event
from dp_accounting.privacy_accountant import NeighboringRelation
from dp_accounting.rdp import RdpAccountant

# Noise multiplier and sampling rate, and how many steps of it.
Gaussians = Mapping[tuple[float, float], int]
# Near the best one for an epsilon of a few nats at delta 1e-6.
DEFAULT_ORDER: Final = 8.0
# Whole ones: the series of others need not converge for sampled Gaussians.
ORDERS: Final = (*(float(order) for order in range(2, 65)), 128.0, 256.0, 512.0)


def gaussian_epsilon(gaussians: Gaussians, *, delta: float, order: float) -> float:
    """Return the epsilon of Poisson-sampled Gaussian steps under zero-out.

    Parameters
    ----------
    gaussians : mapping of (float, float) to int
        Steps by noise multiplier (> 0) and sampling rate (in (0, 1]).
    delta : float
        In [0, 1); 0 has no finite epsilon.
    order : float
        Rényi order, > 1.

    Returns
    -------
    float
        Nats; 0 without steps, infinite where a step has no noise.
    """
    parts = frozenset((place, steps) for place, steps in gaussians.items() if steps)
    if not parts:
        return 0.0
    if delta <= 0 or any(noise <= 0 for (noise, _), _ in parts):
        return math.inf
    return _epsilon(parts, delta, order)


def best_order(gaussians: Gaussians, *, delta: float) -> float:
    """Return the whole order that is tightest for a plan; any order is valid.

    Parameters
    ----------
    gaussians : mapping of (float, float) to int
        Steps of the whole plan by noise multiplier and sampling rate.
    delta : float
        In [0, 1).
    """
    planned = [item for item in gaussians.items() if item[1] and item[0][0] > 0]
    if not planned or delta <= 0:
        return DEFAULT_ORDER
    accountant = RdpAccountant(ORDERS, NeighboringRelation.REPLACE_SPECIAL)
    _compose(accountant, planned)
    return float(accountant.get_epsilon_and_optimal_order(delta)[1])


@lru_cache(maxsize=4096)
def _epsilon(
    parts: frozenset[tuple[tuple[float, float], int]], delta: float, order: float
) -> float:
    accountant = RdpAccountant([order], NeighboringRelation.REPLACE_SPECIAL)
    _compose(accountant, sorted(parts))
    return float(accountant.get_epsilon(delta))


def _compose(
    accountant: RdpAccountant, parts: Iterable[tuple[tuple[float, float], int]]
) -> None:
    for (noise_multiplier, sampling_rate), steps in parts:
        step = dp_event.PoissonSampledDpEvent(
            sampling_rate, dp_event.GaussianDpEvent(noise_multiplier)
        )
        accountant.compose(step, steps)
