"""Integer weights for vote counts, and the exact epsilon of one vote that they give.

A candidate with ``t`` votes weighs ``w(t)``, ``2**BITS * exp(rate * t)`` rounded down:
the exponential mechanism (McSherry and Talwar 2007, Mechanism Design via Differential
Privacy, definition 2) with the count as utility.

Let one client's vote move from candidate i to candidate j, and let S be the total of
all weights before and S' after. The largest ratio of probabilities is that of candidate
j, ``w(t_j + 1) / w(t_j) * S / S'``. Each factor is at most ``exp(rate)``, since no
count changes by more than one, so a rate of half the epsilon is enough. Where S hardly
changes, nearly twice that is. So the rate does not come from this bound: the ratio is
enumerated from the integers that are drawn with, and the rate is the largest that keeps
to what is asked.

Where a vote is left out, S falls and no weight rises. The ratio of the candidate that
lost it is ``w(t_i) / w(t_i - 1)`` times ``S' / S < 1``; that of any other is
``S / S'``. ``exp(rate)`` bounds both. This smaller epsilon is enumerated too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Final

from fedcot.privacy.exact import integer_weight, logarithm_up

# Binary digits of the weight of a candidate without votes.
BITS: Final = 40
# The rate is held to this many binary digits of the epsilon.
RATE_BITS: Final = 24


def rate_weights(rate: Fraction, num_teachers: int) -> tuple[int, ...]:
    """Return the weight of a candidate with 0, 1, ..., `num_teachers` votes.

    Parameters
    ----------
    rate : Fraction
        Nats for each vote, >= 0.
    num_teachers : int

    Returns
    -------
    tuple of int
        ``2**BITS * exp(rate * votes)``, rounded down.
    """
    return tuple(
        integer_weight(rate * votes, BITS) for votes in range(num_teachers + 1)
    )


@lru_cache(maxsize=1024)
def calibrated_weights(
    epsilon: float, num_candidates: int, num_teachers: int
) -> tuple[int, ...]:
    """Return the weights of the largest rate whose enumerated epsilon is allowed.

    Parameters
    ----------
    epsilon : float
        Nats for one vote, as asked, > 0.
    num_candidates, num_teachers : int
        At least 1.

    Returns
    -------
    tuple of int
        See `rate_weights`; the rate is a multiple of ``epsilon / 2**RATE_BITS``.
    """
    if num_candidates == 1:
        return rate_weights(Fraction(epsilon), num_teachers)
    # Only a rate whose own weights were enumerated is ever accepted; 0 costs nothing.
    accepted, refused = 0, (1 << RATE_BITS) + 1
    best = rate_weights(Fraction(0), num_teachers)
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        rate = Fraction(epsilon) * Fraction(middle, 1 << RATE_BITS)
        weights = rate_weights(rate, num_teachers)
        if (
            _rises_convexly(weights)
            and enumerated_epsilon(weights, num_candidates) <= epsilon
        ):
            accepted, best = middle, weights
        else:
            refused = middle
    return best


def enumerated_epsilon(
    weights: Sequence[int], num_candidates: int, *, removal_only: bool = False
) -> float:
    """Enumerate the epsilon of one vote from its integer weights.

    Parameters
    ----------
    weights : sequence of int
        Weight of a candidate with 0, 1, ..., m votes: >= 1, rising convexly.
    num_candidates : int
        At least 1.
    removal_only : bool
        Whether neighbours only lack one vote; else one vote moves or is left out.

    Returns
    -------
    float
        Nats, rounded up: the largest log ratio of the probability of one winner under
        two neighbouring tallies, over all tallies of at most m votes.

    Raises
    ------
    ValueError
        If the weights do not rise convexly.

    Notes
    -----
    Only the counts of the candidates that change are enumerated, because the worst
    place of all other votes is known. Where a vote moves and S falls, the ratio is
    largest for the smallest S: no other votes. Where S does not fall, it is larger if
    the other votes are with the candidate that loses one: by convexity S is larger and
    rises less. Where a vote is left out, the ratio of the candidate that lost it is
    largest for the largest S, all other votes for one candidate, and that of any other
    candidate for the smallest.
    """
    if not _rises_convexly(weights):
        raise ValueError("`weights` must be >= 1 and rise convexly.")
    worst = (1, 1)
    if num_candidates > 1:
        pairs = list(_removal_ratios(weights, num_candidates))
        if not removal_only:
            pairs += _moved_ratios(weights, num_candidates)
        for numerator, denominator in pairs:
            # Products of integers: no float decides which ratio is the largest.
            if numerator * worst[1] > worst[0] * denominator:
                worst = (numerator, denominator)
    largest = Fraction(*worst)
    return logarithm_up(largest.numerator, largest.denominator)


def _moved_ratios(weights: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the ratio of the candidate that a vote moves to, the others without any."""
    votes = len(weights) - 1
    rest = (size - 2) * weights[0]
    for left in range(1, votes + 1):
        for reached in range(votes - left + 1):
            gain, loss = weights[reached + 1], weights[left - 1]
            before = weights[left] + weights[reached] + rest
            yield gain * before, weights[reached] * (gain + loss + rest)


def _removal_ratios(weights: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the worst ratio of the candidate that loses a vote, and of the others."""
    votes = len(weights) - 1
    for left in range(1, votes + 1):
        here, less = weights[left], weights[left - 1]
        most = weights[votes - left] + (size - 2) * weights[0]
        yield here * (less + most), less * (here + most)
        least = (size - 1) * weights[0]
        yield here + least, less + least


def _rises_convexly(weights: Sequence[int]) -> bool:
    steps = [after - before for before, after in pairwise(weights)]
    return (
        min(weights) >= 1
        and min(steps) >= 0
        and all(first <= second for first, second in pairwise(steps))
    )
