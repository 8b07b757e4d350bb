"""One slot's channel under the adaptive mechanism: a rank mechanism on a support."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.exact import integer_weight, logarithm_up

BITS = 20
# Budgets are whole numbers of these: few integer weights, and sums that are exact.
STEPS_PER_NAT = 64


@dataclass(frozen=True, eq=False)
class SlotLaw:
    """What one slot may release after one released prefix.

    Every private word gives the high weight to `favoured` words of the support and the
    low one to all others, so the total is the same for all private words.

    Attributes
    ----------
    support : ndarray of int64, shape (k,)
        Words that may be released, from most to least likely.
    favoured : int
        How many words of the support share the high weight; 0 without a budget.
    high, low : int
        The two weights; their log ratio is the slot's exact epsilon.
    free : ndarray of int64, shape (k,)
        Weights of a slot without a budget, the same for every private word.
    steps : int
        What the slot is charged, in steps of the budget.
    likely : ndarray of float64, shape (N,)
        The public model's probabilities.
    order : ndarray of int32, shape (N, N), optional
        Words from most to least alike to each one, itself first. None puts the true
        word first and then what the public model finds most likely.
    """

    support: NDArray[np.int64]
    favoured: int
    high: int
    low: int
    free: NDArray[np.int64]
    steps: int
    likely: NDArray[np.float64]
    order: NDArray[np.int32] | None

    @property
    def epsilon(self) -> float:
        """Nats, from the integer weights, rounded up."""
        return logarithm_up(self.high, self.low)

    @property
    def total(self) -> int:
        """The sum of the weights of any row."""
        if self.favoured == 0:
            return int(self.free.sum())
        return self.favoured * self.high + self._others * self.low

    @property
    def _others(self) -> int:
        return len(self.support) - self.favoured

    def favoured_words(self, token: int) -> NDArray[np.int64]:
        """Return the words of the support that stand for a private one best."""
        if self.order is None:
            is_own = self.support == token
            ranked = np.concatenate([self.support[is_own], self.support[~is_own]])
        else:
            inside = np.zeros(len(self.likely), dtype=np.bool_)
            inside[self.support] = True
            row = self.order[token]
            ranked = row[inside[row]].astype(np.int64)
        favoured: NDArray[np.int64] = ranked[: self.favoured]
        return favoured

    def favouring(
        self, word: int, places: NDArray[np.int32] | None
    ) -> NDArray[np.bool_]:
        """Return which private words give a released word the high weight.

        Parameters
        ----------
        word : int
            Released.
        places : ndarray of int32, shape (N, N), optional
            Rank of each word in each row of `order`; None without an order.

        Returns
        -------
        ndarray of bool, shape (N,)
        """
        result = np.zeros(len(self.likely), dtype=np.bool_)
        here = np.flatnonzero(self.support == word)
        if self.favoured == 0 or not here.size:
            return result
        if places is None:
            rank = int(here[0])
            # A word outside favours the first of the support; one inside comes first
            # itself and moves those before it back by one.
            result[:] = rank < self.favoured
            result[self.support[rank + 1 :]] = rank + 1 < self.favoured
            result[word] = True
            return result
        # At most N - k of the words before it lie outside the support.
        outside = len(self.likely) - len(self.support)
        near = np.flatnonzero(places[:, word] < outside + self.favoured)
        rivals = places[np.ix_(near, self.support)] < places[near, word][:, None]
        result[near] = rivals.sum(axis=1) < self.favoured
        return result

    def row(self, token: int) -> NDArray[np.int64]:
        """Return the weight of every word of the vocabulary, shape (N,)."""
        row = np.zeros(len(self.likely), dtype=np.int64)
        if self.favoured == 0:
            row[self.support] = self.free
        else:
            row[self.support] = self.low
            row[self.favoured_words(token)] = self.high
        return row

    def word(self, token: int, draw: int) -> int:
        """Return what a draw below `total` releases for a private word."""
        if self.favoured == 0:
            place = np.searchsorted(np.cumsum(self.free), draw, side="right")
            return int(self.support[place])
        favoured = self.favoured_words(token)
        boosted = self.favoured * self.high
        if draw < boosted:
            return int(favoured[draw // self.high])
        others = np.setdiff1d(self.support, favoured, assume_unique=True)
        return int(others[(draw - boosted) // self.low])


def weight_table(steps: int) -> list[tuple[int, int]]:
    """Return the high and low weight of each budget, up to a number of steps."""
    low = 1 << BITS
    return [
        (integer_weight(Fraction(step, STEPS_PER_NAT), BITS), low)
        for step in range(steps + 1)
    ]


def support_sizes(size: int) -> list[int]:
    """Return the sizes of support that are compared: two to every doubling."""
    sizes = {size}
    step = 2
    while step < size:
        sizes |= {step, min(size, step * 3 // 2)}
        step *= 2
    return sorted(sizes)
