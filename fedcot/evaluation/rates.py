"""A share with its exact confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ExactRate:
    """How often something happened.

    Attributes
    ----------
    hits, n : int
        Of n independent observations, n >= 1.
    rate : float
        In [0, 1].
    low, high : float
        Two-sided Clopper-Pearson interval at `CONFIDENCE`.
    """

    hits: int
    n: int
    rate: float
    low: float
    high: float


def exact_rate(hits: int, n: int) -> ExactRate:
    """Return a share with its two-sided Clopper-Pearson interval.

    Raises
    ------
    ValueError
        If there are no observations, or more hits than observations.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"`hits` must be in [0, n] and n >= 1, found {hits} of {n}.")
    interval = stats.binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return ExactRate(hits, n, hits / n, float(interval.low), float(interval.high))


def excess_p_value(hits: int, n: int, chance: float) -> float:
    """Return the one-sided exact p-value of so many hits where chance alone acts.

    Parameters
    ----------
    chance : float
        Probability of a hit under the null, in [0, 1].

    Returns
    -------
    float
        Binomial probability of at least `hits` of `n`.
    """
    return float(stats.binomtest(hits, n, chance, alternative="greater").pvalue)
