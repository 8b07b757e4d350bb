"""The winner of a vote, drawn so that no teacher client's vote shows.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 6 leaves formal
privacy to later work. Report-noisy-max over the counts as the exponential mechanism:
the noisy maximum with Gumbel noise has the same law. The weights and their epsilon are
in `fedcot.social.vote_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np

from fedcot.errors import ConfigError
from fedcot.privacy.exact import float_up
from fedcot.privacy.sampler import SEEDED_GUARANTEE, RandomSource
from fedcot.social.vote_weights import calibrated_weights, enumerated_epsilon

ADJACENCY: Final = (
    "one teacher client's records replaced by any others, so that its vote moves (one "
    "count falls by one, another rises by one), or left out (one count falls by one); "
    "the candidates stay the same"
)
GUARANTEE: Final = (
    "pure differential privacy of which candidates are chosen, enumerated from integer "
    "weights"
)
UNCHARGED: Final = (
    "the candidates themselves, which teacher clients wrote from their records",
    "the votes, which the server counts and is trusted with",
)
# Below, rounded weights would not rise convexly; above, noise is no protection.
SMALLEST_EPSILON: Final = 1e-4
LARGEST_EPSILON: Final = 64.0
# The enumeration looks at every pair of counts.
LARGEST_NUM_TEACHERS: Final = 256
# Binary digits that are asked of the sampler at a time; its bounds lie below 2**62.
_LIMB: Final = 60


@dataclass(frozen=True, slots=True)
class VoteClaims:
    """What some private votes cost together.

    Attributes
    ----------
    requested_epsilon : float
        Nats for one vote, as asked.
    epsilon : float
        Nats per teacher client over all votes: the sum of what was enumerated for each,
        rounded up; at most `num_votes` times what was asked.
    removal_epsilon : float
        The same where a client's vote is only left out.
    num_votes : int
    guarantee : str
    """

    requested_epsilon: float
    epsilon: float
    removal_epsilon: float
    num_votes: int
    guarantee: str = GUARANTEE

    @property
    def unit(self) -> str:
        """What the epsilon counts."""
        return f"nats per teacher client (all of its records), {self.num_votes} votes"

    def describe(self) -> dict[str, object]:
        """Return the claims as a run's summary holds them."""
        return {
            "epsilon": self.epsilon,
            "removal_epsilon": self.removal_epsilon,
            "requested_epsilon": self.requested_epsilon,
            "delta": 0.0,
            "unit": self.unit,
            "neighboring_relation": ADJACENCY,
            "guarantee": self.guarantee,
            "uncharged": list(UNCHARGED),
        }


class VoteMechanism:
    """Draws one winner from the counts of one vote.

    Parameters
    ----------
    epsilon : float
        Nats for one vote of one teacher client, in [1e-4, 64].
    num_candidates : int
        At least 1, public.
    num_teachers : int
        How many teacher clients are asked for a vote, in [1, 256], public. Fewer may
        answer: the bound holds for every tally of up to so many votes.

    Attributes
    ----------
    weights : tuple of int
        Weight of a candidate with 0, 1, ..., `num_teachers` votes.
    epsilon, removal_epsilon : float
        Enumerated, see `enumerated_epsilon`; the first is at most what was asked.

    Raises
    ------
    ConfigError
        If an argument lies outside its range.
    """

    def __init__(
        self, epsilon: float, *, num_candidates: int, num_teachers: int
    ) -> None:
        if not SMALLEST_EPSILON <= epsilon <= LARGEST_EPSILON:
            raise ConfigError(
                f"`vote-epsilon` must be in [{SMALLEST_EPSILON}, {LARGEST_EPSILON}] "
                f"nats for each vote, found {epsilon}; pass for example 1.0."
            )
        if num_candidates < 1:
            raise ConfigError(
                f"`num_candidates` must be at least 1, found {num_candidates}; let the "
                "teacher clients write some first."
            )
        if not 1 <= num_teachers <= LARGEST_NUM_TEACHERS:
            raise ConfigError(
                f"`num_teachers` must be in [1, {LARGEST_NUM_TEACHERS}], found "
                f"{num_teachers}; let a sample of the clients vote."
            )
        self.requested_epsilon = float(epsilon)
        self.num_candidates = num_candidates
        self.num_teachers = num_teachers
        self.weights = calibrated_weights(
            self.requested_epsilon, num_candidates, num_teachers
        )
        self.epsilon = enumerated_epsilon(self.weights, num_candidates)
        self.removal_epsilon = enumerated_epsilon(
            self.weights, num_candidates, removal_only=True
        )

    def weights_of(self, counts: Sequence[int]) -> list[int]:
        """Return the integer weight of each candidate, the law that `draw` draws from.

        Parameters
        ----------
        counts : sequence of int
            Votes for each candidate, >= 0, at most `num_teachers` together.

        Raises
        ------
        ConfigError
            If they are no tally of this vote.
        """
        if len(counts) != self.num_candidates or any(count < 0 for count in counts):
            raise ConfigError(
                f"`counts` must be {self.num_candidates} numbers >= 0, found "
                f"{len(counts)} numbers; count the votes for this vote's candidates."
            )
        # Each client may move one vote only: more votes than clients break the bound.
        if sum(counts) > self.num_teachers:
            raise ConfigError(
                f"`counts` must add up to at most {self.num_teachers} teacher clients, "
                f"found {sum(counts)} votes; count one vote of each."
            )
        return [self.weights[count] for count in counts]

    def draw(self, counts: Sequence[int], source: RandomSource) -> int:
        """Return the index of one candidate, drawn in proportion to its weight.

        Parameters
        ----------
        counts : sequence of int
            See `weights_of`.
        source : RandomSource
            Where the uniform integers come from.

        Raises
        ------
        ConfigError
            If the counts are no tally of this vote.
        """
        ends = list(accumulate(self.weights_of(counts)))
        place = _uniform_below(ends[-1], source)
        return next(index for index, end in enumerate(ends) if place < end)


def noisy_winner(
    counts: Sequence[int], epsilon: float, source: RandomSource, *, num_teachers: int
) -> int:
    """Return the index of one winner, private for each teacher client.

    Parameters
    ----------
    counts : sequence of int
        Votes for each candidate, one vote of each client, at least one candidate.
    epsilon : float
        Nats for this vote.
    source : RandomSource
        Where the uniform integers come from; without a private one no guarantee holds.
    num_teachers : int
        How many teacher clients were asked, public.

    Raises
    ------
    ConfigError
        See `VoteMechanism`.
    """
    mechanism = _mechanism(float(epsilon), len(counts), num_teachers)
    return mechanism.draw(counts, source)


def vote_epsilon(
    epsilon: float,
    *,
    num_candidates: int,
    num_teachers: int,
    num_votes: int = 1,
) -> VoteClaims:
    """Return what choosing some candidates by private votes costs.

    Parameters
    ----------
    epsilon : float
        Nats asked for each vote.
    num_candidates : int
        Before the first vote; a winner takes no part in later votes.
    num_teachers : int
    num_votes : int
        How many candidates are chosen, in [1, num_candidates].

    Raises
    ------
    ConfigError
        If an argument lies outside its range.
    """
    if not 1 <= num_votes <= num_candidates:
        raise ConfigError(
            f"`num_votes` must be in [1, {num_candidates}], found {num_votes}; choose "
            "fewer candidates or let the teacher clients write more."
        )
    sizes = [num_candidates - taken for taken in range(num_votes)]
    return composed_claims(epsilon, sizes, num_teachers=num_teachers)


def composed_claims(
    epsilon: float,
    sizes: Sequence[int],
    *,
    num_teachers: int,
    source: RandomSource | None = None,
) -> VoteClaims:
    """Return what votes over so many candidates each cost together.

    Parameters
    ----------
    epsilon : float
        Nats asked for each vote.
    sizes : sequence of int
        Candidates of each vote. They may depend on earlier winners, not on votes.
    num_teachers : int
    source : RandomSource, optional
        What was drawn from; draws that repeat carry no guarantee.

    Raises
    ------
    ConfigError
        See `VoteMechanism`.

    Notes
    -----
    Each vote may depend on earlier winners: pure epsilons add up all the same (Dwork
    and Roth 2014, theorem 3.16 and its adaptive form in section 3.5.1).
    """
    mechanisms = [_mechanism(float(epsilon), size, num_teachers) for size in sizes]
    is_private = source is None or source.private
    return VoteClaims(
        requested_epsilon=float(epsilon),
        epsilon=_sum_up(mechanism.epsilon for mechanism in mechanisms),
        removal_epsilon=_sum_up(mechanism.removal_epsilon for mechanism in mechanisms),
        num_votes=len(sizes),
        guarantee=GUARANTEE if is_private else SEEDED_GUARANTEE,
    )


@lru_cache(maxsize=1024)
def _mechanism(epsilon: float, size: int, num_teachers: int) -> VoteMechanism:
    return VoteMechanism(epsilon, num_candidates=size, num_teachers=num_teachers)


def _uniform_below(total: int, source: RandomSource) -> int:
    """Return a uniform integer below `total`, which may have more than 62 bits.

    Wide integers are put together from limbs and drawn anew where they are too large.
    """
    width = (total - 1).bit_length()
    if width <= _LIMB:
        return int(source.below(np.array([total], dtype=np.int64))[0])
    widths = [_LIMB] * (width // _LIMB) + [width % _LIMB]
    bounds = np.array([1 << bits for bits in widths], dtype=np.int64)
    while True:
        value = 0
        for limb, bits in zip(source.below(bounds), widths, strict=True):
            value = value << bits | int(limb)
        if value < total:
            return value


def _sum_up(values: Iterator[float]) -> float:
    total = sum((Fraction(value) for value in values), Fraction(0))
    return 0.0 if total == 0 else float_up(total)
