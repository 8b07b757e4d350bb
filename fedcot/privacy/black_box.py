"""Audits that see only what comes out: of a channel, or of a training step.

Draws under two inputs are told apart by a rule that one half of them chooses and the
other half tests, so what is learnt about the rule does not bias its error rates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcot.privacy.audit import VIOLATED, row_blocks, verdict_of
from fedcot.privacy.channels import Channel, TokenChannel
from fedcot.privacy.lower_bounds import (
    clopper_pearson,
    epsilon_lower_bound,
    mu_lower_bound,
)
from fedcot.privacy.sampler import RandomSource

CONFIDENCE = 0.99
LARGEST_CANDIDATES = 1000
SMALLEST_EXPECTED = 5.0
TIE = 1e-9

# From upper bounds on the false positive and false negative rate to epsilon or mu.
Bound = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
# Maps released tokens of shape (draws, ...) to one integer each.
Observe = Callable[[NDArray[np.int64]], NDArray[np.int64]]
# ``step(with_canary, trials)`` runs that many training steps, one statistic each.
Step = Callable[[bool, int], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class LowerBoundReport:
    """What draws prove against a claim.

    Attributes
    ----------
    unit : str
        What the two numbers are of, in words.
    draws : int
        Under each of the two inputs.
    confidence : float
        Of the lower bound.
    lower_bound, claimed : float
        Of epsilon in nats, or of mu.
    verdict : str
        "holds" (not refuted), "violated" or "no finite claim".
    """

    unit: str
    draws: int
    confidence: float
    lower_bound: float
    claimed: float
    verdict: str

    @property
    def is_violated(self) -> bool:
        """Whether the claim is false, with the stated confidence."""
        return self.verdict == VIOLATED


def farthest_tokens(channel: TokenChannel) -> tuple[int, int]:
    """Return two tokens that are easiest to tell apart by what is released.

    The log ratio of one output reaches the channel's epsilon, and of such pairs with
    this first token the outputs that reach it are likeliest.
    """
    shape = channel.size
    high, low, inputs = np.zeros(shape), np.full(shape, math.inf), np.zeros(shape, int)
    for start, weights in row_blocks(channel):
        shares = weights / weights.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=0)
        top = shares[best, np.arange(shape)]
        inputs = np.where(top > high, start + best, inputs)
        high, low = np.maximum(high, top), np.minimum(low, shares.min(axis=0))
    ratios = _ratio(high, low)
    worst = ratios.max()
    column = int(np.argmax(np.where(ratios >= worst * (1 - TIE), high, -1.0)))
    first = int(inputs[column])
    own = np.array(channel.weights_row(first), dtype=np.float64)
    own /= own.sum()
    masses = []
    for _, weights in row_blocks(channel):
        shares = weights / weights.sum(axis=1, keepdims=True)
        reaches = _ratio(np.broadcast_to(own, shares.shape), shares) >= worst * (
            1 - TIE
        )
        masses.append((reaches * own).sum(axis=1))
    return first, int(np.argmax(np.concatenate(masses)))


def audit_draws(
    channel: Channel,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    claimed: float,
    unit: str,
    draws: int,
    source: RandomSource,
    confidence: float = CONFIDENCE,
    observe: Observe | None = None,
) -> LowerBoundReport:
    """Return the epsilon that draws under two inputs prove.

    Parameters
    ----------
    channel : Channel
        What is drawn from.
    left, right : ndarray of int64, equal shapes
        A prompt each, shape (slots,); for a token channel any shape.
    claimed : float
        Nats that the channel claims for this pair.
    unit : str
        What the claim is of, in words.
    draws : int
        Under each input, >= 4.
    source : RandomSource
        Their randomness.
    confidence : float
        In (0, 1).
    observe : callable, optional
        Says what of a release is looked at. By default everything.
    """
    released = [
        np.asarray(
            channel.sample(np.broadcast_to(ids, (draws, *np.shape(ids))), source)
        ).reshape(draws, -1)
        for ids in (left, right)
    ]
    codes = (observe or _number_rows)(np.concatenate(released))
    found = code_bound(codes[:draws], codes[draws:], confidence=confidence)
    return LowerBoundReport(
        unit=unit,
        draws=draws,
        confidence=confidence,
        lower_bound=found,
        claimed=claimed,
        verdict=verdict_of(found, claimed),
    )


def code_bound(
    left: NDArray[np.int64], right: NDArray[np.int64], *, confidence: float
) -> float:
    """Return the epsilon that two samples of whole numbers prove.

    Parameters
    ----------
    left, right : ndarray of int64, shape (draws,)
        What was observed under each input, as integers from 0 on.
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        Nats, at least 0.
    """
    count = int(max(left.max(), right.max())) + 1
    seen, other = (
        np.bincount(codes[: len(codes) // 2], minlength=count)
        for codes in (left, right)
    )
    # How much more often under `right`, from the half that may choose. A threshold
    # at the lower end singles out `left`, so one order serves both directions.
    score = np.log(other + 0.5) - np.log(seen + 0.5)
    return score_bound(score[left], score[right], _epsilon, confidence)


def score_bound(
    without: NDArray[np.float64],
    with_: NDArray[np.float64],
    bound: Bound,
    confidence: float,
) -> float:
    """Return what the best threshold on a statistic proves.

    Parameters
    ----------
    without, with_ : ndarray of float64, shape (trials,), at least 4 values each
        The statistic under the two inputs; larger says "with".
    bound : callable
        From upper bounds on the false positive and the false negative rate.
    confidence : float
        In (0, 1), of both error rates together.

    Raises
    ------
    ValueError
        If there are fewer than 4 values.
    """
    if min(len(without), len(with_)) < 4:
        raise ValueError("An audit needs at least 4 draws of each kind.")
    each = 1 - (1 - confidence) / 2
    cuts = (len(without) // 2, len(with_) // 2)
    thresholds = _candidates(np.concatenate([without[: cuts[0]], with_[: cuts[1]]]))
    chosen = bound(
        *_error_bounds(without[: cuts[0]], with_[: cuts[1]], thresholds, each)
    )
    best = thresholds[[int(np.argmax(chosen))]]
    tested = bound(*_error_bounds(without[cuts[0] :], with_[cuts[1] :], best, each))
    return float(tested[0])


def audit_gaussian_step(
    step: Step,
    *,
    noise_multiplier: float,
    trials: int,
    confidence: float = CONFIDENCE,
) -> LowerBoundReport:
    """Compare a noisy training step with the Gaussian mechanism it claims to be.

    Parameters
    ----------
    step : callable
        ``step(with_canary, trials)`` runs one step that many times on the same batch,
        with or without the canary in it, and returns one statistic each, larger with
        the canary: for example the product of the update with the canary's gradient.
    noise_multiplier : float
        Claimed standard deviation of the noise over the clipping norm, > 0; the
        canary is in the batch with certainty (no sampling).
    trials : int
        Of each kind, >= 4.
    confidence : float
        In (0, 1).

    Notes
    -----
    A step that adds or removes one example clipped to norm C under noise of standard
    deviation ``sigma * C`` is ``1 / sigma``-Gaussian private. In this form half the
    noise is found at once, which an epsilon at some delta hardly shows.
    """
    if not noise_multiplier > 0:
        raise ValueError(f"`noise_multiplier` must be > 0, found {noise_multiplier}.")
    found = score_bound(
        step(False, trials), step(True, trials), mu_lower_bound, confidence
    )
    return LowerBoundReport(
        unit="mu of one step without sampling, one example added or removed",
        draws=trials,
        confidence=confidence,
        lower_bound=found,
        claimed=1 / noise_multiplier,
        verdict=verdict_of(found, 1 / noise_multiplier),
    )


def audit_step_epsilon(
    step: Step,
    *,
    claimed_epsilon: float,
    delta: float,
    trials: int,
    confidence: float = CONFIDENCE,
) -> LowerBoundReport:
    """Compare training with the epsilon at delta that an accountant states for it.

    Parameters
    ----------
    step : callable
        As for `audit_gaussian_step`; it may sample its batches and take many steps.
    claimed_epsilon, delta : float
        The accountant's statement; nats, and in [0, 1).
    trials : int
        Of each kind, >= 4.
    confidence : float
        In (0, 1).
    """
    found = score_bound(
        step(False, trials),
        step(True, trials),
        lambda positive, negative: epsilon_lower_bound(positive, negative, delta=delta),
        confidence,
    )
    return LowerBoundReport(
        unit=f"nats at delta {delta:g}, one example added or removed",
        draws=trials,
        confidence=confidence,
        lower_bound=found,
        claimed=claimed_epsilon,
        verdict=verdict_of(found, claimed_epsilon),
    )


def sampler_p_value(
    channel: TokenChannel, token: int, *, draws: int, source: RandomSource
) -> float:
    """Return the p-value of drawn tokens under the channel's own integer weights.

    Parameters
    ----------
    channel : TokenChannel
        What is drawn from.
    token : int
        The private token.
    draws : int
        How many, >= 1.
    source : RandomSource
        Their randomness.

    Returns
    -------
    float
        Of Pearson's chi-square test, outputs with less than 5 expected draws taken
        together; 0 if an output of weight 0 was drawn.
    """
    released = channel.sample(np.full(draws, token, dtype=np.int64), source)
    observed = np.bincount(released, minlength=channel.size).astype(np.float64)
    weights = np.array(channel.weights_row(token), dtype=np.float64)
    expected = draws * weights / weights.sum()
    if bool(observed[expected == 0].any()):
        return 0.0
    rare = expected < SMALLEST_EXPECTED
    cells = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(observed[~rare], observed[rare].sum())
    possible = cells > 0
    cells, counts = cells[possible], counts[possible]
    if len(cells) == 1:
        return 1.0
    statistic = ((counts - cells) ** 2 / cells).sum()
    return float(special.chdtrc(len(cells) - 1, statistic))


def _epsilon(
    positive: NDArray[np.float64], negative: NDArray[np.float64]
) -> NDArray[np.float64]:
    return epsilon_lower_bound(positive, negative)


def _error_bounds(
    without: NDArray[np.float64],
    with_: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    confidence: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return upper bounds on both error rates of "with, if at least the threshold"."""
    misses = np.searchsorted(np.sort(with_), thresholds, side="left")
    alarms = len(without) - np.searchsorted(np.sort(without), thresholds, side="left")
    _, positive = clopper_pearson(alarms, len(without), confidence=confidence)
    _, negative = clopper_pearson(misses, len(with_), confidence=confidence)
    return positive, negative


def _candidates(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return thresholds to choose from: all values, or evenly spread ones."""
    values = np.unique(scores)
    if len(values) > LARGEST_CANDIDATES:
        places = np.linspace(0, len(values) - 1, LARGEST_CANDIDATES).astype(np.int64)
        values = values[places]
    return values


def _number_rows(released: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return equal numbers for equal rows."""
    if released.shape[1] == 1:
        return released[:, 0]
    _, numbers = np.unique(released, axis=0, return_inverse=True)
    return numbers.reshape(-1)


def _ratio(
    upper: NDArray[np.float64], lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a quotient that is infinite over 0 and 1 for 0 over 0."""
    filled = np.where(upper > 0, math.inf, 1.0)
    return np.divide(upper, lower, out=filled, where=lower > 0)
