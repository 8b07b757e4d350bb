"""Epsilon as whole nano-nats, so that sums and limits compare exactly.

A cost is rounded up and a limit is rounded down; both directions favour privacy. A
delta is counted the same way in units of 1e-15.
"""

import math
from fractions import Fraction
from functools import lru_cache

from fedcot.privacy.exact import float_up

NANO = 10**9
FEMTO = 10**15


def cost_in_nano_nats(token_epsilon: float, slots: int) -> int | None:
    """Return what releasing `slots` tokens costs.

    Parameters
    ----------
    token_epsilon : float
        Nats for one token, > 0; may be infinite.
    slots : int
        How many tokens the prompt has, padding included.

    Returns
    -------
    int or None
        Nano-nats, rounded up; None when there is no finite bound.
    """
    if math.isinf(token_epsilon):
        return None
    return math.ceil(Fraction(token_epsilon) * slots * NANO)


def whole_nano_nats(epsilon: float) -> int | None:
    """Return the nano-nats of a charge that travelled as a float; None is infinite.

    Parameters
    ----------
    epsilon : float
        Nats, >= 0, as `nats` returned them.

    Returns
    -------
    int or None
        The whole number that `nats` was given. Rounding up would add one each time.
        A float that `nats` cannot have returned is rounded up.
    """
    if math.isinf(epsilon):
        return None
    nearest = round(Fraction(epsilon) * NANO)
    return nearest if nats(nearest) >= epsilon else nearest + 1


def limit_in_nano_nats(epsilon: float) -> int | None:
    """Return a limit in nano-nats, rounded down; None when there is no limit."""
    if math.isinf(epsilon):
        return None
    return math.floor(Fraction(epsilon) * NANO)


@lru_cache(maxsize=1024)
def nats(nano_nats: int | None) -> float:
    """Return nats as a float, rounded up; None is infinite."""
    return math.inf if nano_nats is None else float_up(Fraction(nano_nats, NANO))


def delta_in_femto(delta: float) -> int:
    """Return a delta in units of 1e-15, rounded up."""
    return math.ceil(Fraction(delta) * FEMTO)


def delta_of(femto: int) -> float:
    """Return a delta counted in units of 1e-15 as a float, rounded up."""
    return float_up(Fraction(femto, FEMTO))
