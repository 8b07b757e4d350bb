"""Renyi divergences of pure and bounded-range mechanisms, exact, and what they imply.

Each is the largest divergence that a mechanism with the stated property can have: no
smaller number is true for all of them. Divergences of one order add up under
composition, also where each mechanism is chosen from what came before.
"""

import math

import numpy as np
from numpy.typing import NDArray

# Above this product of order and log ratio a moment does not fit in a float.
LARGEST_EXPONENT = 600.0


def renyi_of_pure(epsilon: float, order: float) -> float:
    """Return the Renyi divergence of randomised response, the worst pure mechanism.

    Parameters
    ----------
    epsilon : float
        Nats, finite, >= 0.
    order : float
        > 1.

    Returns
    -------
    float
        Nats, at most `epsilon`.

    Notes
    -----
    The loss lies in [-epsilon, epsilon] and ``E[exp(-loss)] = 1``. The moment
    ``E[exp((order - 1) loss)]`` is convex in ``exp(-loss)``, so it is largest when the
    loss is at an end: randomised response (Mironov 2017, proposition 5).
    """
    _require_order(order)
    if epsilon == 0:
        return 0.0
    share = order - 1
    # e^{share eps} (e^eps + e^{-(2 share) eps}) / (e^eps + 1), the large factor aside.
    rest = (1 + math.exp(-(2 * share + 1) * epsilon)) / (1 + math.exp(-epsilon))
    return min(epsilon, epsilon + math.log(rest) / share)


def renyi_of_bounded_range(width: float, order: float) -> float:
    """Return the Renyi divergence of the worst mechanism of a bounded range.

    Parameters
    ----------
    width : float
        Nats, finite, >= 0: for each pair of inputs the largest minus the smallest loss.
    order : float
        > 1.

    Returns
    -------
    float
        Nats, at most `width`.

    Notes
    -----
    For a loss in ``[t - width, t]`` the moment is largest with mass at both ends
    only, which ``E[exp(-loss)] = 1`` fixes: ``(e^width - e^t) / (e^width - 1)`` at
    ``t``. With ``s = e^t`` and ``b = order - 1`` the moment is
    ``s^b (A - C s) / (e^width - 1)``, where ``A = e^width - e^{-b width}`` and
    ``C = 1 - e^{-b width}``. It is largest at ``s = b A / (order C)``, which lies in
    ``[1, e^width]``. (Dong, Durfee and Rogers 2020 show that such pairs exist for the
    exponential mechanism.)
    """
    _require_order(order)
    if width == 0:
        return 0.0
    b = order - 1
    # ln of (e^{order w} - 1) / (e^{b w} - 1), without leaving the range of floats.
    log_ratio = (
        width + _log_one_minus_exp(order * width) - _log_one_minus_exp(b * width)
    )
    log_s = math.log(b / order) + log_ratio
    # ln of A / (e^width - 1).
    log_rest = _log_one_minus_exp(order * width) - _log_one_minus_exp(width)
    moment = b * log_s + log_rest - math.log(order)
    return min(width, max(0.0, moment / b))


def renyi_of_rows(probabilities: NDArray[np.float64], order: float) -> float:
    """Return the largest Renyi divergence between any two rows of a channel.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (inputs, outputs)
        Positive, rows sum to 1.
    order : float
        > 1.

    Returns
    -------
    float
        Nats; infinite where the moments leave the range of floats.
    """
    _require_order(order)
    spread = -math.log(float(probabilities.min()))
    if order * spread > LARGEST_EXPONENT:
        return math.inf
    moments = probabilities**order @ (probabilities ** (1 - order)).T
    return max(0.0, math.log(float(moments.max())) / (order - 1))


def epsilon_of_renyi(divergence: float, order: float, delta: float) -> float:
    """Return the epsilon at `delta` that a Renyi divergence of one order implies.

    Parameters
    ----------
    divergence : float
        Nats, >= 0.
    order : float
        > 1, fixed before anything was drawn or planned in full.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        Nats, >= 0 (Canonne, Kamath and Steinke 2020, proposition 12).
    """
    return max(0.0, divergence + conversion_cost(order, delta))


def conversion_cost(order: float, delta: float) -> float:
    """Return what the step from a Renyi divergence to an epsilon at `delta` adds.

    Parameters
    ----------
    order : float
        > 1.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        Nats: ``ln((order - 1) / order) - (ln delta + ln order) / (order - 1)``.
    """
    _require_order(order)
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _log_one_minus_exp(value: float) -> float:
    """Return ``ln(1 - e^{-value})`` for a positive value."""
    return math.log(-math.expm1(-value))


def _require_order(order: float) -> None:
    if not (math.isfinite(order) and order > 1):
        raise ValueError(f"`order` must be > 1 and finite, found {order}.")
