"""The rank shape that is worth most at a given epsilon, for a stated utility.

A utility says what a word of each rank is worth to whoever reads the release. The
expected utility of the rank mechanism is ``sum(w_r u_r) / sum(w_r)``, and the exact
epsilon is the logarithm of the largest weight over the smallest.

Among all weights that do not rise with the rank, from ``e**epsilon`` down to 1, the
best are always a staircase: such weights are a mixture ``w = sum_m a_m s_m`` of the
staircases ``s_m`` (rank below m: ``e**epsilon``, else 1) with
``a_m = (w_(m-1) - w_m) / (e**epsilon - 1) >= 0``, ``sum(a_m) = 1``. So the utility is
``sum(a_m p_m) / sum(a_m q_m)`` with ``p_m = s_m . u`` and ``q_m = s_m . 1 > 0``, a
mean of the ratios ``p_m / q_m`` and never above the largest of them.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.exact import BLOCK_ROWS, integer_weight
from fedcot.privacy.rank import BITS, Shape, ramp, top
from fedcot.privacy.tokens import checked_epsilon, checked_similarity


def neighbour_utility(size: int, neighbours: int = 10) -> NDArray[np.float64]:
    """Return the utility 1 for the nearest ranks, the true word among them, else 0.

    Parameters
    ----------
    size : int
        N, the number of words.
    neighbours : int
        How many ranks are worth 1.

    Returns
    -------
    ndarray of float64, shape (N,)
        Its mean under a mechanism is P(output among the nearest `neighbours`).
    """
    return (np.arange(size) < neighbours).astype(np.float64)


def similarity_utility(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean similarity of a word and its neighbour of each rank.

    Parameters
    ----------
    similarity : ndarray of float, shape (N, N)
        Public, in [0, 1].

    Returns
    -------
    ndarray of float64, shape (N,)
        Rank 0 is the word itself; the rest does not rise.

    Raises
    ------
    ConfigError
        If the similarity breaks these rules.
    """
    scores = checked_similarity(similarity, len(similarity))
    size = len(scores)
    total = np.zeros(size)
    for start in range(0, size, BLOCK_ROWS):
        block = scores[start : start + BLOCK_ROWS]
        rows = np.arange(len(block))
        own = block[rows, start + rows]
        # The true word comes first whatever its score: it is put above all others.
        falling = block.copy()
        falling[rows, start + rows] = np.inf
        falling = -np.sort(-falling, axis=1)
        falling[:, 0] = own
        total += falling.sum(axis=0)
    return total / size


def shape_utility(
    epsilon: float, shape: Shape, utility: NDArray[np.float64]
) -> Fraction:
    """Return the expected utility of a release, from the channel's integer weights.

    Parameters
    ----------
    epsilon : float
        Nats of one token, finite, > 0.
    shape : tuple of Fraction
        As `RankChannel` takes it.
    utility : ndarray of float64, shape (N,)
        Worth of each rank, finite.

    Returns
    -------
    Fraction
        Exact, where `BITS` binary digits below the lowest weight fit into 62 bits.
    """
    values = _checked_utility(utility)
    by_share = {
        share: integer_weight(Fraction(checked_epsilon(epsilon)) * share, BITS)
        for share in {*shape, Fraction(0)}
    }
    weights = [by_share[share] for share in shape]
    weights += [by_share[Fraction(0)]] * (len(values) - len(weights))
    gained = sum(w * value for w, value in zip(weights, values, strict=True))
    return Fraction(gained) / sum(weights)


def best_staircase(epsilon: float, utility: NDArray[np.float64]) -> Shape:
    """Return the shape with the highest expected utility of all shapes there are.

    Parameters
    ----------
    epsilon : float
        Nats of one token, finite, > 0.
    utility : ndarray of float64, shape (N,)
        Worth of each rank, finite, N at least 2. It need not fall.

    Returns
    -------
    tuple of Fraction
        A staircase; of equally good ones the narrowest. Found by comparing all N - 1
        in fractions of integers, so every machine finds the same.

    Raises
    ------
    ConfigError
        If an argument breaks these rules.
    """
    values = _checked_utility(utility)
    size = len(values)
    low = 1 << BITS
    high = integer_weight(Fraction(checked_epsilon(epsilon)), BITS)
    extra = high - low
    everywhere = low * sum(values)
    best, best_size, inside = Fraction(0), 0, Fraction(0)
    for ranks in range(1, size):
        inside += values[ranks - 1]
        mean = (everywhere + extra * inside) / (low * size + extra * ranks)
        if best_size == 0 or mean > best:
            best, best_size = mean, ranks
    return top(best_size)


def best_ramp(epsilon: float, utility: NDArray[np.float64]) -> Shape:
    """Return the ramp with the highest expected utility.

    Parameters
    ----------
    epsilon : float
        Nats of one token, finite, > 0.
    utility : ndarray of float64, shape (N,)
        Worth of each rank, finite, N at least 2.

    Returns
    -------
    tuple of Fraction
        A ramp over fewer than N ranks; of those equally good to 12 digits the shortest.
        Never better than `best_staircase`, but it favours the nearest words more.

    Raises
    ------
    ConfigError
        If an argument breaks these rules.
    """
    worth = np.array(_checked_utility(utility), dtype=np.float64)
    nats = checked_epsilon(epsilon)
    total = float(worth.sum())
    means = np.empty(len(worth) - 1)
    for length in range(1, len(worth)):
        # What each rank of the ramp weighs beyond the 1 that every rank has.
        extra = np.expm1(nats * (1 - np.arange(length) / length))
        gained = total + float(extra @ worth[:length])
        means[length - 1] = gained / (len(worth) + float(extra.sum()))
    nearly = means >= means.max() - 1e-12 * np.abs(worth).max()
    return ramp(int(np.flatnonzero(nearly)[0]) + 1)


def _checked_utility(utility: NDArray[np.float64]) -> list[Fraction]:
    values = np.asarray(utility, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not bool(np.isfinite(values).all()):
        raise ConfigError(
            "`utility` must be one finite value for each of at least 2 ranks, found "
            f"shape {values.shape}; pass for example neighbour_utility(size)."
        )
    return [Fraction(value) for value in values.tolist()]
