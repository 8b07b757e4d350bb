"""How the adaptive mechanism plans: what a slot is worth and what it needs.

Everything here is a function of public things: a public model's probabilities, words
that were already released, and public texts that the plan is calibrated on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.public_model import PublicModel

Probabilities = NDArray[np.float64]

# Continuations that are compared to see how much the rest depends on a slot.
CONTINUATIONS = 8
# What a slot's own uncertainty counts beside what the next slot depends on it.
OWN_SHARE = 0.05
# A slot's support covers this share of what may stand there, and its budget keeps the
# true word with this chance.
COVERED = 0.95
KEPT = 0.98
# Everything here that decides a plan.
CONSTANTS = (CONTINUATIONS, OWN_SHARE, COVERED, KEPT)


def importance(
    model: PublicModel, prefixes: NDArray[np.int64], likely: Probabilities
) -> NDArray[np.float64]:
    """Return what the next word is worth, in nats.

    The mutual information, under the public model, between the word of this slot and
    the word of the next one, plus a small share of the slot's own entropy. A wrong
    word where much depends on it sends a whole prompt astray; a wrong number only
    makes it another example of the same kind.

    Parameters
    ----------
    model : PublicModel
        Looks one slot ahead of the `CONTINUATIONS` most likely words.
    prefixes : ndarray of int64, shape (rows, slot)
        Released words.
    likely : ndarray of float64, shape (rows, N)
        The model's probabilities of this slot's word.

    Returns
    -------
    ndarray of float64, shape (rows,)
        Not negative.
    """
    rows, size = likely.shape
    count = min(CONTINUATIONS, size)
    tops = np.argsort(-likely, axis=1, kind="stable")[:, :count]
    shares = np.take_along_axis(likely, tops, axis=1)
    shares = shares / shares.sum(axis=1, keepdims=True)
    longer = np.concatenate(
        [np.repeat(prefixes, count, axis=0), tops.reshape(-1, 1)], axis=1
    )
    following = model.next_probabilities(longer).reshape(rows, count, size)
    mean = np.einsum("rc,rcn->rn", shares, following)
    within = np.einsum("rc,rc->r", shares, entropy(following))
    gained = np.maximum(entropy(mean) - within, 0.0)
    worth: NDArray[np.float64] = gained + OWN_SHARE * entropy(likely)
    return worth


def entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return the entropy of the last axis, in nats."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    total: NDArray[np.float64] = -(probabilities * logs).sum(axis=-1)
    return total


def demand(mixed: Probabilities) -> NDArray[np.float64]:
    """Return the nats with which a slot keeps the true word with chance `KEPT`.

    Over a support of k words, randomised response keeps the true one with chance
    ``e**epsilon / (e**epsilon + k - 1)``, so ``ln(KEPT / (1 - KEPT) * (k - 1))`` is
    needed; k is the smallest number of words that covers `COVERED` of the probability.
    """
    falling = -np.sort(-mixed, axis=1)
    covering = 1 + (np.cumsum(falling, axis=1) < COVERED).sum(axis=1)
    covering = np.minimum(covering, mixed.shape[1])
    needed = np.log(np.maximum(KEPT / (1 - KEPT) * (covering - 1), 1.0))
    result: NDArray[np.float64] = needed
    return result


def importance_threshold(
    worth: NDArray[np.float64], needed: NDArray[np.float64], *, total: float
) -> float:
    """Return the importance from which on slots get a budget.

    Parameters
    ----------
    worth, needed : ndarray of float64, shape (texts, slots)
        Importance and demand of every slot of some public texts.
    total : float
        Nats of one prompt.

    Returns
    -------
    float
        The smallest importance such that the slots at or above it need at most
        `total` nats on average; infinite is never returned, because the most
        important slot is always asked.
    """
    order = np.argsort(-worth, axis=None, kind="stable")
    spent = np.cumsum(needed.reshape(-1)[order]) / len(worth)
    affordable = int((spent <= total).sum())
    return float(worth.reshape(-1)[order[max(0, affordable - 1)]])


@dataclass(frozen=True)
class Support:
    """Which words a slot may release, and how many share the high weight.

    Attributes
    ----------
    size, favoured : int
        k words of the support, m of them favoured.
    hits : float
        Expected chance that a released word is among the true word's neighbours.
    """

    size: int
    favoured: int
    hits: float


def best_support(
    mixed: Probabilities,
    order: NDArray[np.int64],
    ratio: float,
    *,
    neighbours: NDArray[np.int64],
    sizes: Sequence[int],
) -> Support:
    """Return the support with the largest expected chance of a true neighbour.

    Parameters
    ----------
    mixed : ndarray of float64, shape (N,)
        Probability of each private word, given what was released.
    order : ndarray of int64, shape (N,)
        Words from most to least likely.
    ratio : float
        High over low weight, the exponential of the slot's epsilon.
    neighbours : ndarray of int64, shape (N, g)
        The g nearest words of each, itself first; with g = 1 only the true word counts.
    sizes : sequence of int
        Sizes of support to compare, each from 2 to N.

    Returns
    -------
    Support
        Ties go to the smaller support and the fewer favoured words.
    """
    wanted = neighbours.shape[1]
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    # The support holds at least j of a word's neighbours when the j-th best placed of
    # them is in it: one pass gives the probability of that for every size.
    placed = np.sort(ranks[neighbours], axis=1) if wanted > 1 else ranks[neighbours]
    first = np.searchsorted(sizes, placed, side="right")
    cells = first + np.arange(wanted) * (len(sizes) + 1)
    weights = np.broadcast_to(mixed[:, None], cells.shape)
    counted = np.bincount(
        cells.reshape(-1), weights.reshape(-1), minlength=wanted * (len(sizes) + 1)
    )
    at_least = np.cumsum(counted.reshape(wanted, -1), axis=1)[:, : len(sizes)]
    best = Support(0, 0, -1.0)
    for column, size in enumerate(sizes):
        # Expected number of neighbours in the support, and of favoured ones.
        held = np.cumsum(at_least[:, column])
        for favoured in range(1, min(wanted, size - 1) + 1):
            total = favoured * ratio + size - favoured
            hits = (held[favoured - 1] * (ratio - 1) + held[-1]) / total
            if hits > best.hits + 1e-12:
                best = Support(size, favoured, float(hits))
    return best
