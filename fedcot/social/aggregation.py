"""Which of the demonstrations that teacher clients generated reach the student.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3 and appendix H. The
random aggregator draws; the voting one lets each teacher client vote for the candidate
that its held-out demonstrations make most likely, takes out the one with the most votes
and repeats. The private one draws the winner (an extension: section 6 of the paper asks
for formal privacy).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain
from fedcot.privacy.sampler import RandomSource
from fedcot.seeding import numpy_generator
from fedcot.social.ballots import (
    Ballot,
    check_ballots,
    check_turns,
    eligible_candidates,
    tally,
)
from fedcot.social.demonstrations import Demonstration
from fedcot.social.votes import VoteClaims, composed_claims, noisy_winner


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of all teacher clients.

    Attributes
    ----------
    demonstrations : tuple of Demonstration
        In the order of the partitions, and as each client sent them.
    partition_ids : tuple of int
        Who wrote each.
    num_repeated : int
        Left out: an earlier candidate says the same, whatever its case and spacing.
    """

    demonstrations: tuple[Demonstration, ...] = field(repr=False)
    partition_ids: tuple[int, ...]
    num_repeated: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The answer of each candidate."""
        return tuple(demonstration.answer for demonstration in self.demonstrations)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidates that reach the student.

    Attributes
    ----------
    indices : tuple of int
        Into the candidates, in the order of choice.
    tallies : tuple of tuple of int
        Votes for each candidate at each turn; empty where none were counted or where
        they are private.
    num_ties : int
        Turns at which several candidates had the most votes.
    claims : VoteClaims or None
        What private votes cost; None where there were none.
    epsilon : float
        Nats per teacher client of the choice among given candidates: 0 for a random
        one, infinite for votes that are counted as they are.
    """

    indices: tuple[int, ...]
    epsilon: float
    tallies: tuple[tuple[int, ...], ...] = ()
    num_ties: int = 0
    claims: VoteClaims | None = None


class Aggregator(Protocol):
    """Chooses a candidate at each turn."""

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    @property
    def needs_votes(self) -> bool:
        """Whether the teacher clients have to be asked for ballots."""
        ...

    def choose(
        self,
        labels: Sequence[str],
        turns: Sequence[str],
        ballots: Mapping[int, Ballot],
    ) -> Chosen:
        """Return one candidate for each turn, each candidate at most once.

        Parameters
        ----------
        labels : sequence of str
            The answer of each candidate.
        turns : sequence of str
            Of `open_turns` or `balanced_turns`.
        ballots : mapping of int to Ballot
            One for each teacher client that voted, by partition.

        Raises
        ------
        ConfigError
            There are too few candidates for the turns.
        FedcotError
            A ballot is missing or is none.
        """
        ...


class RandomAggregator:
    """Draws uniformly without replacement among the candidates of each turn.

    Parameters
    ----------
    seed : int
    """

    name = "random"
    needs_votes = False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(
        self,
        labels: Sequence[str],
        turns: Sequence[str],
        ballots: Mapping[int, Ballot],
    ) -> Chosen:
        """Return one candidate for each turn, see `Aggregator.choose`."""
        check_turns(labels, turns)
        generator = numpy_generator(self._seed, "random-aggregator")
        taken: list[int] = []
        for turn in turns:
            eligible = eligible_candidates(labels, turn, taken)
            taken.append(eligible[int(generator.integers(len(eligible)))])
        return Chosen(tuple(taken), epsilon=0.0)


class VotingAggregator:
    """Takes the candidate with the most votes at each turn.

    Parameters
    ----------
    seed : int
        Ties are drawn from it: taking the first would favour the first partition, and
        with few teacher clients ties are common.
    """

    name = "voting"
    needs_votes = True

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(
        self,
        labels: Sequence[str],
        turns: Sequence[str],
        ballots: Mapping[int, Ballot],
    ) -> Chosen:
        """Return one candidate for each turn, see `Aggregator.choose`."""
        check_turns(labels, turns)
        check_ballots(ballots, len(labels))
        taken: list[int] = []
        tallies: list[tuple[int, ...]] = []
        num_ties = 0
        for number, turn in enumerate(turns):
            eligible = eligible_candidates(labels, turn, taken)
            counts = tally(ballots, eligible, len(labels))
            most = max(counts[index] for index in eligible)
            tied = [index for index in eligible if counts[index] == most]
            num_ties += len(tied) > 1
            generator = numpy_generator(self._seed, "voting-tie", number)
            taken.append(tied[int(generator.integers(len(tied)))])
            tallies.append(counts)
        return Chosen(tuple(taken), math.inf, tuple(tallies), num_ties)


class PrivateVotingAggregator:
    """Draws the winner of each turn so that no teacher client's votes show.

    Parameters
    ----------
    epsilon : float
        Nats for one vote of one teacher client; n choices cost at most n times as much.
    num_teachers : int
        How many teacher clients are asked for a ballot, public.
    source : RandomSource
        Where the uniform integers come from.

    Notes
    -----
    The counts themselves are not kept: they would be another release. How many
    candidates each turn has follows from their labels, never from a vote.
    """

    name = "private-voting"
    needs_votes = True

    def __init__(
        self, epsilon: float, *, num_teachers: int, source: RandomSource
    ) -> None:
        self._epsilon = epsilon
        self._num_teachers = num_teachers
        self._source = source

    def choose(
        self,
        labels: Sequence[str],
        turns: Sequence[str],
        ballots: Mapping[int, Ballot],
    ) -> Chosen:
        """Return one candidate for each turn, see `Aggregator.choose`."""
        check_turns(labels, turns)
        check_ballots(ballots, len(labels))
        taken: list[int] = []
        sizes: list[int] = []
        for turn in turns:
            eligible = eligible_candidates(labels, turn, taken)
            counts = tally(ballots, eligible, len(labels))
            winner = noisy_winner(
                [counts[index] for index in eligible],
                self._epsilon,
                self._source,
                num_teachers=self._num_teachers,
            )
            sizes.append(len(eligible))
            taken.append(eligible[winner])
        claims = composed_claims(
            self._epsilon, sizes, num_teachers=self._num_teachers, source=self._source
        )
        is_private = self._source.private
        epsilon = claims.epsilon if is_private else math.inf
        return Chosen(tuple(taken), epsilon, claims=claims)


def aggregator_named(
    name: str,
    *,
    seed: int,
    vote_epsilon: float,
    num_teachers: int,
    source: RandomSource,
) -> Aggregator:
    """Return the aggregator with a name.

    Parameters
    ----------
    name : str
        ``random``, ``voting`` or ``private-voting``.
    seed : int
        Public chance: of random choices and of ties.
    vote_epsilon : float
        Nats for one private vote.
    num_teachers : int
        Teacher clients that are asked for a ballot.
    source : RandomSource
        Of private votes.

    Raises
    ------
    ConfigError
        There is no such aggregator.
    """
    if name == RandomAggregator.name:
        return RandomAggregator(seed)
    if name == VotingAggregator.name:
        return VotingAggregator(seed)
    if name == PrivateVotingAggregator.name:
        return PrivateVotingAggregator(
            vote_epsilon, num_teachers=num_teachers, source=source
        )
    raise ConfigError(
        f"`aggregators` must be out of {RandomAggregator.name}, "
        f"{VotingAggregator.name} and {PrivateVotingAggregator.name}, found {name!r}; "
        "choose one of them."
    )


def pool_candidates(by_partition: Mapping[int, Sequence[Demonstration]]) -> Pool:
    """Return the candidates of all teacher clients in an order that repeats.

    Parameters
    ----------
    by_partition : mapping of int to sequence of Demonstration
        What each teacher client sent.

    Notes
    -----
    A candidate that an earlier one repeats is left out: voters agree on both, so that
    the student would get the same demonstration several times.
    """
    known: set[tuple[str, ...]] = set()
    kept: list[tuple[int, Demonstration]] = []
    total = 0
    for partition in sorted(by_partition):
        for demonstration in by_partition[partition]:
            content = _content(demonstration)
            total += 1
            if content not in known:
                known.add(content)
                kept.append((partition, demonstration))
    return Pool(
        demonstrations=tuple(demonstration for _, demonstration in kept),
        partition_ids=tuple(partition for partition, _ in kept),
        num_repeated=total - len(kept),
    )


def _content(demonstration: Demonstration) -> tuple[str, ...]:
    parts = (demonstration.question, demonstration.reasoning, demonstration.answer)
    return tuple(plain(part) for part in parts)
