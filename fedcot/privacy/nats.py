"""Epsilon as whole nano-nats, so that sums and limits compare exactly.

A cost is rounded up and a limit is rounded down; both directions favour privacy.
"""

import math
from fractions import Fraction

from fedcot.privacy.exact import float_up

NANO = 10**9


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


def limit_in_nano_nats(epsilon: float) -> int | None:
    """Return a limit in nano-nats, rounded down; None when there is no limit."""
    if math.isinf(epsilon):
        return None
    return math.floor(Fraction(epsilon) * NANO)


def nats(nano_nats: int | None) -> float:
    """Return nats as a float, rounded up; None is infinite."""
    return math.inf if nano_nats is None else float_up(Fraction(nano_nats, NANO))


def whole_nano_nats(epsilon: float) -> int | None:
    """Return the nano-nats that a float stands for which was rounded up from them."""
    return None if math.isinf(epsilon) else round(Fraction(epsilon) * NANO)
