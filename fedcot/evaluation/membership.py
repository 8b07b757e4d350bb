"""Membership inference: whether a model tells what it was trained on from the rest.

Scores: mean log-probability (https://arxiv.org/abs/1709.01604), Min-K%
(https://arxiv.org/abs/2310.16789), Min-K%++ (https://arxiv.org/abs/2404.02936), and the
gain over the untouched base. The controls must be from the same distribution as the
members: an attack that tells topics apart would look like memorisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedcot.evaluation.rates import ExactRate, exact_rate
from fedcot.evaluation.spans import TokenScores

# Fewer controls cannot show a false-positive rate of 1 %: one of them would be more.
FEWEST_CONTROLS: Final = 100
MIN_K_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class MembershipResult:
    """How well one score tells members from controls.

    Attributes
    ----------
    members, controls : int
        Texts.
    auc : float
        Probability that a member scores higher than a control, ties half; 0.5 is
        chance.
    p_value : float
        One-sided, of Mann and Whitney's test.
    tpr_at_one_percent : ExactRate or None
        Share of the members found where at most 1 % of the controls are taken for
        members; None with fewer than 100 controls.
    note : str
        Why that is missing; else empty.
    """

    members: int
    controls: int
    auc: float
    p_value: float
    tpr_at_one_percent: ExactRate | None
    note: str


def min_k(values: NDArray[np.float64], share: float = MIN_K_SHARE) -> float:
    """Return the mean of the lowest values, of at least one.

    Parameters
    ----------
    values : ndarray of float64, shape (tokens,)
        Log-probabilities in nats for Min-K%; at least one.
    share : float
        Of the tokens, in (0, 1]; rounded down, but never to none: a short text would
        have no score.

    Raises
    ------
    ValueError
        If there are no values, or the share is out of range.
    """
    if not 0 < share <= 1 or not len(values):
        raise ValueError(
            f"`share` must be in (0, 1] with at least one value, found {share} and "
            f"{len(values)}."
        )
    count = max(1, int(len(values) * share))
    return float(np.sort(values)[:count].mean())


def min_k_plus_plus(tokens: TokenScores, share: float = MIN_K_SHARE) -> float:
    """Return Min-K%++: `min_k` of the log-probabilities in standard deviations.

    Each is taken relative to the mean and the deviation of the log-probability under
    the model's own distribution at its place. Where the model leaves no choice, the
    deviation is 0 and so is the value of the only word there is.
    """
    tiny = np.finfo(np.float32).eps
    scaled = (tokens.log_probabilities - tokens.means) / np.maximum(
        tokens.deviations, tiny
    )
    return min_k(scaled, share)


def gains(
    student: Sequence[TokenScores], base: Sequence[TokenScores]
) -> NDArray[np.float64]:
    """Return by how much training raised each text's mean log-probability, in nats.

    A text that is easy for every model is no longer taken for a member.
    """
    pairs = zip(student, base, strict=True)
    return np.array([after.mean - before.mean for after, before in pairs])


def area_under_curve(
    members: Sequence[float] | NDArray[np.float64],
    controls: Sequence[float] | NDArray[np.float64],
) -> tuple[float, float]:
    """Return the area under the ROC curve, and Mann and Whitney's one-sided p-value.

    Parameters
    ----------
    members, controls : sequence of float
        Scores, larger for members; at least one each.

    Raises
    ------
    ValueError
        If one of them is empty or holds something that is not a number.
    """
    first, second = np.asarray(members, float), np.asarray(controls, float)
    if not first.size or not second.size:
        raise ValueError("members and controls must have at least one score each.")
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        raise ValueError("every score must be finite.")
    test = stats.mannwhitneyu(first, second, alternative="greater")
    p_value = float(test.pvalue)
    # All scores equal: the statistic has no spread, and nothing was told apart.
    return (
        float(test.statistic / (first.size * second.size)),
        1.0 if math.isnan(p_value) else p_value,
    )


def true_positive_rate(
    members: Sequence[float] | NDArray[np.float64],
    controls: Sequence[float] | NDArray[np.float64],
) -> ExactRate:
    """Return the share of members found where 1 % of false positives is not exceeded.

    A text is taken for a member if it scores strictly higher than the threshold, which
    is the lowest control score that keeps to the rate. The interval is that of the
    members' share at this threshold.

    Raises
    ------
    ValueError
        There are fewer than 100 controls, too few to show the rate.
    """
    others = np.sort(np.asarray(controls, float))[::-1]
    if len(others) < FEWEST_CONTROLS:
        raise ValueError(
            f"a false-positive rate of 1 % takes at least {FEWEST_CONTROLS} controls, "
            f"found {len(others)}."
        )
    threshold = others[len(others) // FEWEST_CONTROLS]
    scores = np.asarray(members, float)
    return exact_rate(int((scores > threshold).sum()), len(scores))


def membership(
    members: Sequence[float] | NDArray[np.float64],
    controls: Sequence[float] | NDArray[np.float64],
) -> MembershipResult:
    """Compare the scores of members with those of held-out controls.

    Parameters
    ----------
    members, controls : sequence of float
        Larger for members; at least one each.

    Raises
    ------
    ValueError
        If one of them is empty or holds something that is not a number.
    """
    auc, p_value = area_under_curve(members, controls)
    rate, note = None, ""
    if len(controls) >= FEWEST_CONTROLS:
        rate = true_positive_rate(members, controls)
    else:
        note = (
            f"true-positive rate at 1 % false positives: not stated, it takes "
            f"{FEWEST_CONTROLS} controls, found {len(controls)}"
        )
    return MembershipResult(len(members), len(controls), auc, p_value, rate, note)
