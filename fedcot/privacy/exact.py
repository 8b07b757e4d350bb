"""Integer weights and the exact epsilon that they give.

Weights are rounded down, logarithms are rounded up, both with a stated direction in
decimal arithmetic of 80 digits, so that every machine gets the same integers.
"""

import decimal
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.sampler import LARGEST_BOUND

DIGITS = 80
# Relative error of a float quotient of two int64 is below 2**-51; this is far wider.
FLOAT_MARGIN = 1e-12


def integer_weight(exponent: Fraction, bits: int) -> int:
    """Return the integer part of ``2**bits * e**exponent``, never more.

    Parameters
    ----------
    exponent : Fraction
        In nats, not negative.
    bits : int
        Binary digits kept below one, not negative.

    Returns
    -------
    int
        At least ``2**bits``.
    """
    if exponent == 0:
        return 1 << bits
    down = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_FLOOR)
    ratio = down.divide(exponent.numerator, exponent.denominator)
    # `exp` rounds to nearest whatever the context says: one step down makes it a bound.
    power = down.next_minus(down.exp(ratio))
    return int(down.multiply(power, 1 << bits))


def logarithm_up(numerator: int, denominator: int) -> float:
    """Return ``ln(numerator / denominator)`` in nats, rounded up to a float.

    Parameters
    ----------
    numerator, denominator : int
        ``numerator >= denominator >= 1``.
    """
    if numerator == denominator:
        return 0.0
    up = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_CEILING)
    ratio = up.divide(decimal.Decimal(numerator), decimal.Decimal(denominator))
    return float_up(Fraction(up.next_plus(up.ln(ratio))))


def float_up(value: Fraction) -> float:
    """Return the smallest float that is at least `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def largest_log_ratio(weights: NDArray[np.int64]) -> float:
    """Enumerate the epsilon of a channel from its integer weights.

    Parameters
    ----------
    weights : ndarray of int64, shape (inputs, outputs)
        Not negative; row ``x`` holds the weights of every output for input ``x``.

    Returns
    -------
    float
        The largest ``ln Q(y|x) / Q(y|x')`` over all ``x``, ``x'``, ``y`` in nats,
        rounded up; infinite if an output is possible for one input only.

    Raises
    ------
    ValueError
        If a weight is negative or a row's total is 0 or not below 2**62.
    """
    checked_totals(weights)
    possible = weights > 0
    if bool((possible.any(axis=0) & ~possible.all(axis=0)).any()):
        return math.inf
    return _exact_log_ratio(weights[:, possible.any(axis=0)])


def checked_totals(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each row's total after checking that it can be drawn from.

    Raises
    ------
    ValueError
        If a weight is negative or a row's total is 0 or not below 2**62.
    """
    # The float sum cannot wrap around, the integer sum could.
    rough = weights.sum(axis=1, dtype=np.float64)
    if bool((weights < 0).any()) or not bool((rough < LARGEST_BOUND).all()):
        raise ValueError("Weights must be >= 0 and each row's total below 2**62.")
    totals: NDArray[np.int64] = weights.sum(axis=1, dtype=np.int64)
    if not bool(((totals > 0) & (totals < LARGEST_BOUND)).all()):
        raise ValueError("Each row's total must lie in [1, 2**62).")
    return totals


def approximate_log_ratio(weights: NDArray[np.int64]) -> float:
    """Return `largest_log_ratio` of positive weights to float accuracy, for a search.

    Parameters
    ----------
    weights : ndarray of int64, shape (inputs, outputs)
        All positive.
    """
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    ratios = probabilities.max(axis=0) / probabilities.min(axis=0)
    return math.log(float(ratios.max()))


def _exact_log_ratio(weights: NDArray[np.int64]) -> float:
    """Return the exact maximum for positive weights.

    Floats only choose which columns and rows can hold the maximum, with a margin far
    above their error; the comparison itself is between fractions of integers.
    """
    totals = weights.sum(axis=1)
    probabilities = weights / totals[:, None]
    highest = probabilities.max(axis=0)
    lowest = probabilities.min(axis=0)
    ratios = highest / lowest
    worst = Fraction(1)
    for column in np.flatnonzero(ratios >= ratios.max() * (1 - FLOAT_MARGIN)):
        share = probabilities[:, column]
        high = share >= highest[column] * (1 - FLOAT_MARGIN)
        low = share <= lowest[column] * (1 + FLOAT_MARGIN)
        top = max(_fractions(weights[high, column], totals[high]))
        bottom = min(_fractions(weights[low, column], totals[low]))
        worst = max(worst, top / bottom)
    return logarithm_up(worst.numerator, worst.denominator)


def _fractions(weights: NDArray[np.int64], totals: NDArray[np.int64]) -> set[Fraction]:
    pairs = set(zip(weights.tolist(), totals.tolist(), strict=True))
    return {Fraction(weight, total) for weight, total in pairs}
