"""Ranks of canaries, and what they say: the tail first, the mean second.

Papers: The Secret Sharer (https://arxiv.org/abs/1802.08232, definition of exposure) and
Social Learning (https://arxiv.org/abs/2312.11441, section 5, mean rank). A mean hides
the tail: a process that gives a canary away in 8 runs of 100 and is perfect otherwise
has a mean rank of 459.5 of 999, which looks like chance. So the share of canaries with
rank 0 is the headline here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from fedcot.evaluation.metrics import half_interval, mean_and_stderr
from fedcot.evaluation.rates import ExactRate, exact_rate, excess_p_value

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def rank_of(secret: float, references: Sequence[float]) -> int:
    """Return how many references a model finds at least as likely as the secret.

    Ties go against the claim of leakage: a reference with the same score counts.

    Parameters
    ----------
    secret : float
        Score of the canary, larger is more likely.
    references : sequence of float
        Scores of the others, at least one.

    Returns
    -------
    int
        In [0, len(references)]; 0 is perfect memorisation.

    Raises
    ------
    ValueError
        A score is not a number: it would compare as a leak. Or there is no reference.
    """
    scores = np.asarray(references, dtype=np.float64)
    if not scores.size or math.isnan(secret) or bool(np.isnan(scores).any()):
        raise ValueError("every score must be a number, and one reference is needed.")
    return int((scores >= secret).sum())


def exposure(rank: int, size: int) -> float:
    """Return ``log2 size - log2 (rank + 1)``, in bits.

    Parameters
    ----------
    rank : int
        In [0, size).
    size : int
        Canary and references together.

    Returns
    -------
    float
        In [0, log2 size].
    """
    if not 0 <= rank < size:
        raise ValueError(f"`rank` must be in [0, size), found {rank} of {size}.")
    return math.log2(size) - math.log2(rank + 1)


def null_mean_exposure(size: int) -> float:
    """Return the mean exposure where nothing was learnt, so ranks are uniform, in bits.

    ``log2 size - log2(size!) / size``, 1.436 for 1,000.
    """
    return math.log2(size) - float(special.gammaln(size + 1)) / size / math.log(2)


@dataclass(frozen=True, slots=True)
class MeanRank:
    """The mean rank against chance.

    Attributes
    ----------
    mean : float
    expected : float
        ``(size - 1) / 2``.
    low, high : float
        Student's t interval of the mean, at 95 %; not a number for one trial.
    z : float
        Distance from chance in standard errors under the null.
    p_value : float
        One-sided, normal, of a mean as low as this by chance.
    """

    mean: float
    expected: float
    low: float
    high: float
    z: float
    p_value: float


@dataclass(frozen=True)
class ExposureReport:
    """What the ranks of independent canaries say.

    Attributes
    ----------
    trials, size : int
        Canaries (T), and canary and references together (N).
    rank_zero : ExactRate
        Share of canaries that beat every reference.
    rank_zero_expected : float
        How many of T there would be by chance, ``T / N``.
    rank_zero_p_value : float
        Exact, one-sided, of so many by chance.
    drawn_rank_zero : ExactRate or None
        The same share among the canaries that were drawn into what the student saw;
        None where that is unknown or none was.
    exposure_quantiles : dict of str to float
        In bits, over canaries.
    mean_exposure, null_mean_exposure, max_exposure : float
        In bits: found, by chance, and of rank 0.
    mean_rank : MeanRank
    uniformity_p_value : float
        Of Kolmogorov and Smirnov's test that ranks are uniform; on the safe side,
        because ranks are whole numbers.
    """

    trials: int
    size: int
    rank_zero: ExactRate
    rank_zero_expected: float
    rank_zero_p_value: float
    drawn_rank_zero: ExactRate | None
    exposure_quantiles: dict[str, float]
    mean_exposure: float
    null_mean_exposure: float
    max_exposure: float
    mean_rank: MeanRank
    uniformity_p_value: float


def summarise_ranks(
    ranks: Sequence[int], size: int, *, drawn: Sequence[bool] | None = None
) -> ExposureReport:
    """Summarise the ranks of independent canaries.

    Parameters
    ----------
    ranks : sequence of int
        Each in [0, size), at least one.
    size : int
        Canary and references together, >= 2.
    drawn : sequence of bool, optional
        Whether each canary reached what the student saw at all.

    Raises
    ------
    ValueError
        If there are no ranks, one is out of range, or `drawn` is of another length.
    """
    if not ranks or size < 2 or not all(0 <= rank < size for rank in ranks):
        raise ValueError(f"ranks must be in [0, {size}) and at least one, size >= 2.")
    if drawn is not None and len(drawn) != len(ranks):
        raise ValueError(
            f"`drawn` must have one entry for each rank, found {len(drawn)} for "
            f"{len(ranks)}."
        )
    zeros = sum(rank == 0 for rank in ranks)
    bits = [exposure(rank, size) for rank in ranks]
    seen = [rank for rank, was in zip(ranks, drawn or (), strict=False) if was]
    return ExposureReport(
        trials=len(ranks),
        size=size,
        rank_zero=exact_rate(zeros, len(ranks)),
        rank_zero_expected=len(ranks) / size,
        rank_zero_p_value=excess_p_value(zeros, len(ranks), 1 / size),
        drawn_rank_zero=exact_rate(seen.count(0), len(seen)) if seen else None,
        exposure_quantiles={
            f"{quantile:g}": float(np.quantile(bits, quantile))
            for quantile in QUANTILES
        },
        mean_exposure=float(np.mean(bits)),
        null_mean_exposure=null_mean_exposure(size),
        max_exposure=math.log2(size),
        mean_rank=mean_rank(ranks, size),
        uniformity_p_value=uniformity_p_value(ranks, size),
    )


def mean_rank(ranks: Sequence[int], size: int) -> MeanRank:
    """Return the mean of at least one rank against ``(size - 1) / 2``."""
    found = mean_and_stderr(ranks)
    mean, spread = found.mean, half_interval(found)
    z, p_value = mean_rank_test(mean, found.n, size)
    # A NaN has to stay one, which `max` would not promise.
    low, high = np.clip([mean - spread, mean + spread], 0, size - 1).tolist()
    return MeanRank(mean, (size - 1) / 2, low, high, z, p_value)


def mean_rank_test(mean: float, count: int, size: int) -> tuple[float, float]:
    """Return z and the one-sided normal p-value of a mean rank against chance.

    Under the null a rank is uniform on [0, size), with variance
    ``(size**2 - 1) / 12``.
    """
    z = (mean - (size - 1) / 2) / math.sqrt((size**2 - 1) / 12 / count)
    return z, float(stats.norm.cdf(z))


def uniformity_p_value(ranks: Sequence[int], size: int) -> float:
    """Return the p-value of Kolmogorov and Smirnov's test that ranks are uniform.

    The largest distance is taken over whole numbers, and the law of the continuous test
    is used, which never makes it smaller than it is.

    Parameters
    ----------
    ranks : sequence of int
        Each in [0, size), at least one.
    """
    found = np.cumsum(np.bincount(ranks, minlength=size)) / len(ranks)
    expected = np.arange(1, size + 1) / size
    return float(stats.kstwo.sf(np.abs(found - expected).max(), len(ranks)))
