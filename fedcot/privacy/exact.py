"""Integer weights and the exact epsilon that they give.

Weights are rounded down, logarithms are rounded up, both with a stated direction in
decimal arithmetic of 80 digits, so that every machine gets the same integers.
"""

import decimal
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.sampler import LARGEST_BOUND

DIGITS = 80
# Relative error of a float quotient of two int64 is below 2**-51; this is far wider.
FLOAT_MARGIN = 1e-12
# So few rows of some thousand weights stay in the processor's cache.
BLOCK_ROWS = 64

WeightsBlock = Callable[[int, int], NDArray[np.int64]]


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
    """Enumerate the epsilon of a channel from its whole matrix, `enumerate_epsilon`.

    Parameters
    ----------
    weights : ndarray of int64, shape (inputs, outputs)
        Not negative; row ``x`` holds the weights of every output for input ``x``.
    """
    return enumerate_epsilon(lambda start, stop: weights[start:stop], len(weights))


def enumerate_epsilon(
    weights_block: WeightsBlock, size: int, *, rows: int = BLOCK_ROWS
) -> float:
    """Enumerate the epsilon of a channel from its integer weights, `rows` at a time.

    Parameters
    ----------
    weights_block : callable
        ``weights_block(start, stop)`` returns the weights of the inputs from `start`
        to before `stop`: int64, not negative, shape (stop - start, outputs). It is
        asked twice for each input and must answer the same.
    size : int
        How many inputs there are, at least 1.
    rows : int
        How many inputs are held in memory at once; the result does not depend on it.

    Returns
    -------
    float
        The largest ``ln Q(y|x) / Q(y|x')`` over all ``x``, ``x'``, ``y`` in nats,
        rounded up; infinite if an output is possible for one input only.

    Raises
    ------
    ValueError
        If a weight is negative or a row's total is 0 or not below 2**62.

    Notes
    -----
    Floats only choose which columns and rows can hold the maximum, with a margin far
    above their error; the comparison itself is between fractions of integers.
    """
    starts = range(0, size, rows)
    blocks = [(start, min(start + rows, size)) for start in starts]
    highest, lowest = _float_extremes(weights_block(*block) for block in blocks)
    if bool(((highest > 0) & (lowest == 0)).any()):
        return math.inf
    ratios = np.divide(highest, lowest, out=np.ones_like(highest), where=lowest > 0)
    columns = np.flatnonzero(ratios >= ratios.max() * (1 - FLOAT_MARGIN))
    extremes = _Extremes(columns, highest[columns], lowest[columns])
    for block in blocks:
        extremes.add(weights_block(*block))
    worst = max(extremes.ratios())
    return logarithm_up(worst.numerator, worst.denominator)


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


def _float_extremes(
    blocks: Iterable[NDArray[np.int64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the highest and lowest share of each output, to float accuracy."""
    highest, lowest = np.zeros(1), np.full(1, math.inf)
    for weights in blocks:
        totals = checked_totals(weights)
        shares = weights / totals[:, None]
        highest = np.maximum(highest, shares.max(axis=0))
        lowest = np.minimum(lowest, shares.min(axis=0))
    return highest, lowest


class _Extremes:
    """The exact highest and lowest share of some outputs, found block by block.

    Parameters
    ----------
    columns : ndarray of int64, shape (outputs,)
        The outputs to follow.
    highest, lowest : ndarray of float64, shape (outputs,)
        Their extremes to float accuracy; `lowest` is 0 for an output that is never
        drawn.
    """

    def __init__(
        self,
        columns: NDArray[np.int64],
        highest: NDArray[np.float64],
        lowest: NDArray[np.float64],
    ) -> None:
        self._columns = columns
        self._near_highest = highest * (1 - FLOAT_MARGIN)
        self._near_lowest = lowest * (1 + FLOAT_MARGIN)
        # Weight and total of each: 0 is below every share, 1 above.
        self._highest = np.repeat([[0], [1]], len(columns), axis=1)
        self._lowest = np.ones_like(self._highest)

    def add(self, weights: NDArray[np.int64]) -> None:
        """Take the rows of one block into account; shape (rows, all outputs)."""
        all_totals = weights.sum(axis=1, dtype=np.int64)
        by_total = np.argsort(all_totals, kind="stable")
        totals, firsts = np.unique(all_totals[by_total], return_index=True)
        followed = weights[by_total[:, None], self._columns]
        # Of rows with one total only the largest and smallest weights can matter.
        most = np.maximum.reduceat(followed, firsts, axis=0)
        least = np.minimum.reduceat(followed, firsts, axis=0)
        is_high = most / totals[:, None] >= self._near_highest
        is_low = least / totals[:, None] <= self._near_lowest
        _keep_extreme(self._highest, most, totals, is_high, sign=1)
        _keep_extreme(self._lowest, least, totals, is_low, sign=-1)

    def ratios(self) -> Iterator[Fraction]:
        """Yield the ratio of each followed output that can be drawn, and 1."""
        yield Fraction(1)
        found = np.concatenate([self._highest, self._lowest])
        for high, high_total, low, low_total in set(map(tuple, found.T.tolist())):
            if low > 0:
                yield Fraction(high * low_total, high_total * low)


def _keep_extreme(
    kept: NDArray[np.int64],
    weights: NDArray[np.int64],
    totals: NDArray[np.int64],
    is_candidate: NDArray[np.bool_],
    *,
    sign: int,
) -> None:
    """Replace the kept (weight, total) of a column by a candidate's larger share.

    `kept` has shape (2, columns), `weights` and `is_candidate` (rows, columns); with
    `sign` -1 the smaller share is kept.
    """
    is_new = (weights != kept[0]) | (totals[:, None] != kept[1])
    for row, place in np.argwhere(is_candidate & is_new).tolist():
        weight, total = int(weights[row, place]), int(totals[row])
        known_weight, known_total = kept[:, place].tolist()
        # Integers of Python: the products have up to 124 bits.
        if sign * (weight * known_total - known_weight * total) > 0:
            kept[:, place] = weight, total
