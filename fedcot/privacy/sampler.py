"""Uniform integers below a bound, exact by rejection; the only source of privacy noise.

A draw is a uniform integer below the total of a row of integer weights; the channel
looks up in which weight's interval it fell. No floating-point number takes part.
"""

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LARGEST_BOUND = 2**62
SEEDED_GUARANTEE = "none (seeded draws)"


class RandomSource(Protocol):
    """Where a channel's uniform integers come from."""

    @property
    def private(self) -> bool:
        """Whether nobody can predict the draws, so that a guarantee holds."""
        ...

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return independent uniform integers, one in [0, bound) for each bound."""
        ...


class SystemRandomSource:
    """Draws from the operating system's generator.

    Notes
    -----
    Nothing is buffered between calls, so a forked process never repeats the draws of
    its parent.
    """

    @property
    def private(self) -> bool:
        """True: the operating system's generator cannot be predicted."""
        return True

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return uniform integers below `bounds`.

        Parameters
        ----------
        bounds : ndarray of integers, any shape
            Each in [1, 2**62).

        Returns
        -------
        ndarray of int64, shape of `bounds`

        Raises
        ------
        ValueError
            If a bound is not an integer or lies outside its range.
        """
        return reject_to_bounds(
            bounds, lambda count: np.frombuffer(os.urandom(8 * count), dtype=np.int64)
        )


class TapeRandomSource:
    """Draws that repeat from a seed, for tests only.

    Notes
    -----
    No guarantee holds: who knows the seed undoes the noise. What is released with it
    is labelled "none (seeded draws)".

    Parameters
    ----------
    seed : int
        Not negative.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Philox(seed)

    @property
    def private(self) -> bool:
        """False: the draws follow from the seed."""
        return False

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return integers below `bounds`, see `SystemRandomSource.below`."""
        return reject_to_bounds(
            bounds,
            lambda count: np.asarray(
                self._generator.random_raw(count), dtype=np.uint64
            ).view(np.int64),
        )


def reject_to_bounds(
    bounds: NDArray[np.int64], words: Callable[[int], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Turn uniform 64-bit words into uniform integers below `bounds` by rejection.

    Parameters
    ----------
    bounds : ndarray of integers, any shape
        Each in [1, 2**62).
    words : callable
        Returns that many independent uniform 64-bit words.

    Returns
    -------
    ndarray of int64, shape of `bounds`

    Raises
    ------
    ValueError
        If a bound is not an integer or lies outside its range.
    """
    wanted = np.asarray(bounds)
    if wanted.dtype.kind not in "iu":
        raise ValueError(f"`bounds` must be integers, found {wanted.dtype}.")
    if wanted.size and not 1 <= int(wanted.min()) <= int(wanted.max()) < LARGEST_BOUND:
        raise ValueError(
            "`bounds` must lie in [1, 2**62), found values from "
            f"{wanted.min()} to {wanted.max()}."
        )
    limits = wanted.astype(np.int64).reshape(-1)
    masks = _fill_below_highest_bit(limits - 1)
    draws = np.empty_like(limits)
    pending = np.arange(limits.size)
    while pending.size:
        candidates = words(pending.size) & masks[pending]
        accepted = candidates < limits[pending]
        draws[pending[accepted]] = candidates[accepted]
        pending = pending[~accepted]
    return draws.reshape(wanted.shape)


def _fill_below_highest_bit(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smallest 2**k - 1 that is at least each value."""
    masks = values.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        masks |= masks >> shift
    return masks
