"""Randomness and sums of differentially private training, safe against rounding.

Units: one *unit* is what is protected, a record (DP-SGD) or a client (the mean of
adapters). A sum of clipped vectors is kept as whole multiples of a grid step, so it is
exact in any order, and the noise is rounded to the same grid. Rounding a sum plus real
Gaussian noise is post-processing, and every output has the same support whatever the
data, so the low bits of a result tell nothing (Mironov 2012,
https://doi.org/10.1145/2382196.2382264).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.sampler import RandomSource

# A clipping norm has from 2**30 to 2**31 grid steps; sums of 2**22 units are exact.
STEP_BITS: Final = 31
# A GPU may round the same gradient differently beside other work. Clipping a little
# below the stated norm leaves room for that.
SLACK: Final = 2.0**-10
_BITS: Final = 53
SMALLEST_NORM: Final = 1e-100
LARGEST_NORM: Final = 1e100


def poisson_mask(
    num_units: int, *, expected: int, source: RandomSource
) -> NDArray[np.bool_]:
    """Choose each unit on its own with the same probability, exactly.

    Parameters
    ----------
    num_units : int
        Units to choose from, >= 1.
    expected : int
        Units chosen on average, from 0 to `num_units`; the probability is the rational
        number ``expected / num_units``.
    source : RandomSource
        Must not be known to whom the result is released: privacy amplification by
        sampling holds only where the sample is secret.

    Returns
    -------
    ndarray of bool, shape (num_units,)

    Raises
    ------
    ValueError
        If the numbers break these rules.
    """
    if not 0 <= expected <= num_units or num_units < 1:
        raise ValueError(
            f"`expected` must lie in [0, {num_units}] with at least one unit, found "
            f"{expected}."
        )
    draws = source.below(np.full(num_units, num_units, dtype=np.int64))
    return draws < expected


def standard_normals(count: int, source: RandomSource) -> NDArray[np.float64]:
    """Return independent standard normal numbers (Box and Muller 1958).

    Parameters
    ----------
    count : int
        How many, >= 0.
    source : RandomSource
        Three uniform integers are drawn for two numbers.

    Returns
    -------
    ndarray of float64, shape (count,)
        None exceeds 12.2, which a true normal number does with probability 1e-33.

    Notes
    -----
    A radius made from one 53-bit integer has gaps wider than a grid step in the
    tail and near zero. Here it comes from a uniform number with 53 bits
    after its first one, counted from either end of (0, 1).
    """
    pairs = -(-count // 2)
    words = source.below(np.full((3, pairs), 2 ** (_BITS + 1), dtype=np.int64))
    coarse, fine, turn = (words >> 1).astype(np.float64) * 2.0**-_BITS
    # From the nearer end: in (0, 1/2], however small.
    share = (coarse + (fine + 2.0**-_BITS) * 2.0**-_BITS) / 2.0
    is_tail = (words[0] & 1).astype(np.bool_)
    radius = np.sqrt(-2.0 * np.where(is_tail, np.log(share), np.log1p(-share)))
    angle = (2.0 * math.pi) * turn
    both = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
    return both[:count]


class ClippedSum:
    """A sum to which one unit adds at most `clip_norm` in Euclidean norm.

    Parameters
    ----------
    size : int
        Coordinates of a vector.
    clip_norm : float
        Sensitivity of the sum when one unit's vector becomes zero, > 0. Vectors are
        clipped to ``clip_norm * (1 - SLACK)``, see `SLACK`.

    Attributes
    ----------
    step : float
        Of the grid; a power of two.

    Raises
    ------
    ValueError
        If the norm is not a positive number.
    """

    def __init__(self, size: int, clip_norm: float) -> None:
        # Outside, quotients of norms lose digits, and a clipped vector may be longer.
        if not SMALLEST_NORM <= clip_norm <= LARGEST_NORM:
            raise ValueError(
                f"`clip_norm` must be from {SMALLEST_NORM} to {LARGEST_NORM}, found "
                f"{clip_norm}."
            )
        self.clip_norm = clip_norm
        # A power of two, so that whole steps are exact in any unit.
        self.step = 2.0 ** (math.frexp(clip_norm)[1] - STEP_BITS)
        # Whole numbers below 2**53, which float64 adds without rounding.
        self._steps = np.zeros(size, dtype=np.float64)

    def add(self, vector: NDArray[np.float32] | NDArray[np.float64]) -> None:
        """Clip one unit's vector and add it.

        Parameters
        ----------
        vector : ndarray of float, shape (size,)
            One that is not finite counts as zero: an error would tell that there is
            one, and its sum would undo the noise.
        """
        exact = vector.astype(np.float64)
        norm = math.sqrt(float(np.dot(exact, exact)))
        if not math.isfinite(norm):
            return
        bound = self.clip_norm * (1.0 - SLACK)
        exact *= (bound / norm if norm > bound else 1.0) / self.step
        # Towards zero, so that rounding never makes a vector longer.
        np.trunc(exact, out=exact)
        self._steps += exact

    def value(self) -> NDArray[np.float64]:
        """Return the sum without noise; it must not be released."""
        return self._steps * self.step

    def noised(
        self, noise_multiplier: float, source: RandomSource
    ) -> NDArray[np.float64]:
        """Return the sum plus Gaussian noise, which may be released once.

        Parameters
        ----------
        noise_multiplier : float
            Standard deviation of each coordinate in units of `clip_norm`, >= 0.
        source : RandomSource
            The noise.

        Returns
        -------
        ndarray of float64, shape (size,)
            Whole multiples of `step`.
        """
        normals = standard_normals(self._steps.size, source)
        noise = np.rint(normals * (noise_multiplier * self.clip_norm / self.step))
        return (self._steps + noise) * self.step
