"""Privacy curves: the hockey-stick divergence of a channel as a function of its order.

A curve maps ``a``, in nats, to the largest ``sum_y max(0, P(y) - e^a Q(y))`` over the
pairs of laws in question, which is the delta that an epsilon of ``a`` needs. Each set
of pairs here holds every pair in both orders, so curves are given for ``a >= 0``.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# Float logarithms of integers below 2**62 err by less than 1e-13 nats.
RANGE_MARGIN = 1e-9


def pure_curve(epsilon: float) -> Curve:
    """Return the curve of randomised response: no pure mechanism has a higher one.

    Parameters
    ----------
    epsilon : float
        Nats, > 0.
    """

    def curve(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        # (e^epsilon - e^a) / (1 + e^epsilon), where e^epsilon may not fit in a float.
        values = -np.expm1(np.minimum(0.0, grid - epsilon)) / (1 + math.exp(-epsilon))
        return np.asarray(values, dtype=np.float64)

    return curve


def bounded_range_curve(width: float) -> Curve:
    """Return the highest curve that a mechanism of this bounded range can have.

    Parameters
    ----------
    width : float
        Nats, > 0.

    Notes
    -----
    For a loss in ``[t - width, t]`` two outcomes are worst, with mass
    ``q = (1 - e^(t - width)) / (1 - e^-width)`` at ``t``; then ``delta(a) =
    q (1 - e^(a - t))``, which is largest at ``t = (a + width) / 2``.
    """

    def curve(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        half = np.minimum(0.0, (grid - width) / 2)
        return np.asarray(np.expm1(half) ** 2 / -math.expm1(-width), dtype=np.float64)

    return curve


def all_pairs_curve(probabilities: NDArray[np.float64]) -> Curve:
    """Return the largest hockey-stick divergence of any two rows, for each order.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (inputs, outputs)
        Positive, rows sum to 1.

    Notes
    -----
    A maximum of convex falling curves from 1 to 0 is one again, so it belongs to some
    pair of laws, and that pair dominates every pair of rows at once. Rows are compared
    one against all, so memory is ``inputs x (outputs + orders)``.
    """
    logs = np.log(probabilities)

    def curve(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        highest = np.zeros(len(grid))
        for row, log_row in zip(probabilities, logs, strict=True):
            firsts, seconds = _tails(row, probabilities, log_row - logs, grid)
            highest = np.maximum(highest, (firsts - np.exp(grid) * seconds).max(axis=0))
        return highest

    return curve


def bounded_range(weights: NDArray[np.int64]) -> float:
    """Return how far apart the losses of any two inputs lie, rounded up.

    Parameters
    ----------
    weights : ndarray of int64, shape (inputs, outputs)
        Integer weights of every output for every input.

    Returns
    -------
    float
        Nats: the largest, over pairs of inputs, of the largest minus the smallest
        loss; infinite if a weight is 0. The totals of the rows cancel, so that it can
        be less than twice the epsilon.
    """
    if bool((weights <= 0).any()):
        return math.inf
    logs = np.log(weights.astype(np.float64))
    widest = max(float(np.ptp(row - logs, axis=1).max()) for row in logs)
    return widest + RANGE_MARGIN


def _tails(
    row: NDArray[np.float64],
    others: NDArray[np.float64],
    losses: NDArray[np.float64],
    grid: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mass of outputs whose loss exceeds each order, under both laws.

    Shapes (inputs, orders); which side of an order a loss on it falls is of no
    consequence, because it adds nothing there.
    """
    inputs, orders = len(others), len(grid)
    exceeded = np.searchsorted(grid, losses.reshape(-1), side="left")
    places = exceeded + np.repeat(np.arange(inputs) * (orders + 1), losses.shape[1])
    size = inputs * (orders + 1)

    def summed(masses: NDArray[np.float64]) -> NDArray[np.float64]:
        binned = np.bincount(places, weights=masses.reshape(-1), minlength=size)
        by_order = binned.reshape(inputs, orders + 1)[:, :0:-1]
        return np.asarray(by_order.cumsum(axis=1)[:, ::-1])

    return summed(np.broadcast_to(row, losses.shape)), summed(others)
