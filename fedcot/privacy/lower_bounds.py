"""Empirical lower bounds on epsilon and mu from the errors of a distinguisher.

A bound that a mechanism's claim must not fall below: if it does, the claim is false
with the stated confidence. A bound below the claim proves nothing.
"""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

Real = TypeVar("Real", float, NDArray[np.float64])

_BISECTIONS = 100
# No audit with fewer than e**60 guesses reaches further.
_LARGEST_EPSILON = 60.0


def clopper_pearson(
    successes: NDArray[np.int64] | int, trials: int, *, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one-sided bounds on a probability, each valid at the confidence.

    Parameters
    ----------
    successes : int or ndarray of int
        How often it happened, each in [0, trials].
    trials : int
        Independent trials, >= 1.
    confidence : float
        In (0, 1), of each bound on its own: both together hold at
        ``1 - 2 * (1 - confidence)``.

    Returns
    -------
    tuple of ndarray of float64, shape of `successes`
        Lower and upper bound.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Clopper and Pearson (1934), by the quantiles of the beta distribution.
    """
    counts = np.asarray(successes, dtype=np.float64)
    if trials < 1 or not bool(((counts >= 0) & (counts <= trials)).all()):
        raise ValueError(f"Successes must lie in [0, trials], found {trials} trials.")
    level = _error_of(confidence)
    failures = trials - counts
    with np.errstate(invalid="ignore"):
        lower = special.betaincinv(np.maximum(counts, 1), failures + 1, level)
        upper = special.betaincinv(counts + 1, np.maximum(failures, 1), 1 - level)
    return np.where(counts == 0, 0.0, lower), np.where(failures == 0, 1.0, upper)


def epsilon_lower_bound(
    false_positive_rate: Real, false_negative_rate: Real, *, delta: float = 0.0
) -> Real:
    """Return the smallest epsilon that allows error rates as low as these.

    Parameters
    ----------
    false_positive_rate, false_negative_rate : float or ndarray
        Upper bounds on the two errors of one distinguisher.
    delta : float
        In [0, 1).

    Returns
    -------
    float or ndarray of float64
        Nats, at least 0; infinite where an error rate of 0 is certain.

    Notes
    -----
    Jagielski, Ullman and Oprea (2020): every (epsilon, delta)-private mechanism has
    ``FPR + e**epsilon * FNR >= 1 - delta`` and the same with the two exchanged.
    """
    positive, negative = np.broadcast_arrays(
        np.asarray(false_positive_rate, dtype=np.float64),
        np.asarray(false_negative_rate, dtype=np.float64),
    )
    one_way = _log_ratio(1 - delta - positive, negative)
    other_way = _log_ratio(1 - delta - negative, positive)
    bound = np.maximum(np.maximum(one_way, other_way), 0.0)
    return float(bound) if bound.ndim == 0 else bound  # type: ignore[return-value]


def mu_lower_bound(false_positive_rate: Real, false_negative_rate: Real) -> Real:
    """Return the smallest mu of Gaussian privacy that allows these error rates.

    Parameters
    ----------
    false_positive_rate, false_negative_rate : float or ndarray
        Upper bounds on the two errors of one distinguisher.

    Returns
    -------
    float or ndarray of float64
        At least 0. One step of the Gaussian mechanism with noise multiplier sigma and
        no sampling has ``mu = 1 / sigma``.

    Notes
    -----
    Nasr et al. (2023), section 3: the trade-off of a mu-Gaussian mechanism is
    ``FNR >= Phi(Phi**-1(1 - FPR) - mu)``, solved for mu.
    """
    positive, negative = np.broadcast_arrays(
        np.asarray(false_positive_rate, dtype=np.float64),
        np.asarray(false_negative_rate, dtype=np.float64),
    )
    with np.errstate(invalid="ignore"):
        bound = special.ndtri(1 - positive) - special.ndtri(negative)
    bound = np.maximum(np.where(np.isnan(bound), 0.0, bound), 0.0)
    return float(bound) if bound.ndim == 0 else bound  # type: ignore[return-value]


def one_run_epsilon(
    *, canaries: int, guesses: int, correct: int, delta: float, confidence: float
) -> float:
    """Return a lower bound on epsilon from one run with many canaries.

    Each canary is put in or left out by a fair coin; the auditor guesses some of the
    coins from the result of that one run.

    Parameters
    ----------
    canaries : int
        How many there were, >= 1.
    guesses : int
        How many coins were guessed, in [1, canaries].
    correct : int
        How many of the guesses were right, in [0, guesses].
    delta : float
        In [0, 1).
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        Nats, at least 0.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Steinke, Nasr and Jagielski (2023), theorem 5.2 with the simplification of
    appendix D: with ``B ~ Binomial(guesses, 1 / (1 + e**-epsilon))`` the probability
    of so many right guesses is at most ``P[B >= correct] + 2 * canaries * delta *
    max_i P[correct > B >= correct - i] / i``.
    """
    if not 0 <= correct <= guesses <= canaries or guesses < 1 or not 0 <= delta < 1:
        raise ValueError(
            "Needs 0 <= correct <= guesses <= canaries, guesses >= 1 and delta in "
            f"[0, 1), found {correct}, {guesses}, {canaries} and {delta}."
        )
    level = _error_of(confidence)
    low, high = 0.0, _LARGEST_EPSILON
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _one_run_p_value(middle, canaries, guesses, correct, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def _one_run_p_value(
    epsilon: float, canaries: int, guesses: int, correct: int, delta: float
) -> float:
    """Return how likely so many right guesses are at most, under this epsilon."""
    share = special.expit(epsilon)
    # tail[j] = P[B >= correct - j]; bdtrc(k, n, p) is P[B > k].
    wanted = correct - np.arange(correct + 1)
    tail = np.where(
        wanted <= 0, 1.0, special.bdtrc(np.maximum(wanted - 1, 0), guesses, share)
    )
    if correct == 0 or delta == 0:
        return float(tail[0])
    steps = np.arange(1, correct + 1)
    alpha = float(((tail[1:] - tail[0]) / steps).max())
    return float(tail[0]) + 2 * canaries * delta * alpha


def _log_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the logarithm of a ratio; minus infinity where it is not > 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.maximum(numerator, 0.0)) - np.log(denominator)
    return np.where(numerator > 0, logs, -math.inf)


def _error_of(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie in (0, 1), found {confidence}.")
    return 1 - confidence
