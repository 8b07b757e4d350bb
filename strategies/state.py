"""The state of a round: everything that its phases read and write.

A phase changes nothing else, skips what is already there and sends what is missing, so
that a round can be taken up again after any phase.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcot.records import DistillReply, EvaluateReply, IdentifyReply, PerturbReply
from fedcot.rows import SentRationale
from fedcot.seeding import numpy_generator

Prompts = dict[int, list[tuple[int, ...]]]
Adapters = dict[str, dict[str, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Member:
    """A client of this run: its node id in Flower and what it said about itself."""

    node_id: int
    identity: IdentifyReply


@dataclass
class RoundState:
    """One round, by partition id.

    Attributes
    ----------
    server_round : int
        1-based.
    members : dict
        Clients that identified themselves.
    sampled : tuple of int
        Partitions that train in this round.
    granted : dict of int to bool
        Whether a client that was asked for a release may make one in this round.
    asked, answered, trained, evaluated : dict
        What came of each phase.
    aggregated : dict
        Global adapters by arm; empty unless adapters are averaged.
    charged : dict of int to float
        Upper bound, in nats, for the record that was charged most over all rounds: a
        grant counts from when it is sent, since its reply may be lost.
    charged_delta : dict of int to float
        The largest sum of deltas that a client's ledger has stated for one record over
        all runs and rounds; it never falls.
    released : set of int
        Partitions that released something in this run; it is re-sent at no cost.
    prompts_sent, prompts_before : dict of int to list
        Word ids that each client released in this round, and in the rounds before.
    metrics_sent : bool
        Whether a client sent losses or scores.
    expected : int
        Nodes that will identify themselves; then the prompts that the teacher will
        have to answer in this round, at most.
    answered_counts : dict of (str, int) to int
        Parsed rationales sent so far by source and partition; public.
    failures : list of str
        One line for each client that failed in a phase.
    exhausted : set of int
        Partitions that have nothing to release: all that was asked was refused.
    withheld : set of int
        Partitions that were sent nothing to train in this round, because all of it
        would have cost what is not left.
    learnt : bool
        Whether something was trained in this run.
    refused : int
        Releases refused so far.
    """

    server_round: int
    members: dict[int, Member] = field(default_factory=dict)
    sampled: tuple[int, ...] = ()
    granted: dict[int, bool] = field(default_factory=dict)
    asked: dict[int, PerturbReply] = field(default_factory=dict)
    answered: dict[int, tuple[SentRationale, ...]] = field(default_factory=dict)
    trained: dict[int, DistillReply] = field(default_factory=dict)
    evaluated: dict[int, EvaluateReply] = field(default_factory=dict)
    aggregated: Adapters = field(default_factory=dict)
    charged: dict[int, float] = field(default_factory=dict)
    charged_delta: dict[int, float] = field(default_factory=dict)
    answered_counts: dict[tuple[str, int], int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    exhausted: set[int] = field(default_factory=set)
    withheld: set[int] = field(default_factory=set)
    learnt: bool = False
    refused: int = 0
    released: set[int] = field(default_factory=set)
    prompts_sent: Prompts = field(default_factory=dict)
    prompts_before: Prompts = field(default_factory=dict)
    metrics_sent: bool = False
    expected: int = 0

    def next_round(self) -> "RoundState":
        """Return the state of the next round, with what outlives a round."""
        return RoundState(
            server_round=self.server_round + 1,
            members=self.members,
            aggregated=self.aggregated,
            charged=self.charged,
            charged_delta=self.charged_delta,
            answered_counts=self.answered_counts,
            failures=self.failures,
            exhausted=self.exhausted,
            learnt=self.learnt,
            refused=self.refused,
            released=self.released,
            prompts_before={
                partition: [
                    *self.prompts_before.get(partition, ()),
                    *self.prompts_sent.get(partition, ()),
                ]
                for partition in self.prompts_before.keys() | self.prompts_sent.keys()
            },
            metrics_sent=self.metrics_sent,
        )

    @property
    def all_exhausted(self) -> bool:
        """Whether no client, sampled in this round or not, has anything to release."""
        return bool(self.members) and self.members.keys() <= self.exhausted

    @property
    def is_void(self) -> bool:
        """Whether the budget allowed nothing that this round asked for, and ended."""
        refused = bool(self.granted) and not any(self.granted.values())
        return refused and self.all_exhausted


def sample_partitions(
    members: Mapping[int, Member], *, fraction: float, seed: int, server_round: int
) -> tuple[int, ...]:
    """Return the partitions that train in a round, in order, at least one.

    Node ids are random in every run; partition ids are not, so one seed gives one
    sample.
    """
    partitions = sorted(members)
    size = max(1, round(fraction * len(partitions)))
    if size >= len(partitions):
        return tuple(partitions)
    generator = numpy_generator(seed, "sampling", server_round)
    chosen = generator.choice(partitions, size=size, replace=False)
    return tuple(sorted(int(partition) for partition in chosen))
