"""Means with standard errors and intervals, and a paired test."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedcot.evaluation.rates import CONFIDENCE


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, its standard error and the number of observations."""

    mean: float
    stderr: float
    n: int


def proportion(hits: int, n: int) -> Estimate:
    """Return a share with its binomial standard error, ``sqrt(p (1 - p) / n)``.

    Raises
    ------
    ValueError
        If there are no observations, or more hits than observations.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"`hits` must be in [0, n] and n >= 1, found {hits} of {n}.")
    share = hits / n
    return Estimate(share, math.sqrt(share * (1 - share) / n), n)


def mean_and_stderr(values: Sequence[float]) -> Estimate:
    """Return the mean and ``s / sqrt(n)``, s with n - 1; not a number for n = 1.

    Raises
    ------
    ValueError
        If there are no values.
    """
    if not values:
        raise ValueError("`values` must not be empty.")
    array = np.asarray(values, dtype=np.float64)
    spread = (
        float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    )
    return Estimate(float(array.mean()), spread, len(array))


def half_interval(found: Estimate) -> float:
    """Return half the width of Student's t interval of a mean at `CONFIDENCE`.

    Parameters
    ----------
    found : Estimate
        Of `mean_and_stderr`.

    Returns
    -------
    float
        >= 0, in the unit of the mean; not a number for a single observation.
    """
    if found.n < 2:
        return math.nan
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, found.n - 1)) * found.stderr


def correctness(correct: Iterable[bool]) -> str:
    """Return right and wrong answers as ``1`` and ``0``, one for each."""
    return "".join("1" if hit else "0" for hit in correct)


def paired_p_value(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the one-sided exact p-value that `first` is right more often.

    McNemar's exact test: under the null, of the items on which the two differ, half
    favour either side.

    Parameters
    ----------
    first, second : sequence of bool
        Whether each of the same items was answered rightly.

    Returns
    -------
    float
        In (0, 1]; 1 if the two never differ.

    Raises
    ------
    ValueError
        If the two are not over the same number of items.
    """
    if len(first) != len(second):
        raise ValueError(
            f"both must be over the same items, found {len(first)} and {len(second)}."
        )
    pairs = list(zip(first, second, strict=True))
    wins = sum(a and not b for a, b in pairs)
    losses = sum(b and not a for a, b in pairs)
    if wins + losses == 0:
        return 1.0
    test = stats.binomtest(wins, wins + losses, 0.5, alternative="greater")
    return float(test.pvalue)


def perplexity(nats: float, tokens: int) -> float:
    """Return ``exp(-nats / tokens)``: how many tokens a model wavers between.

    Parameters
    ----------
    nats : float
        Log-likelihood of all tokens, summed; <= 0.
    tokens : int

    Returns
    -------
    float
        >= 1; infinite where it is beyond floating point, not a number without tokens.

    Raises
    ------
    ValueError
        If a likelihood is above 1, or the count is negative.
    """
    if nats > 0 or tokens < 0:
        raise ValueError(
            f"`nats` must be <= 0 and `tokens` >= 0, found {nats} and {tokens}."
        )
    if tokens == 0:
        return math.nan
    try:
        return math.exp(-nats / tokens)
    except OverflowError:
        return math.inf
