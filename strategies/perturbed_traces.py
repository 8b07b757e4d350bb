"""Traces of perturbed questions: members release prompts, the provider answers them.

It is FedCoT's first half, with what comes back pooled by coalition. A trace of a
released prompt is post-processing of the release, so all that a record gives away is
what its node's ledger charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcot.community.coalitions import Coalition
from fedcot.community.pool import by_partition
from fedcot.records import QUERY_PERTURB
from fedcot.teacher.teacher import Teacher
from strategies.questions import AnswerBook, prompts_of
from strategies.requests import Public, Requests
from strategies.spending import Spending
from strategies.state import RoundState
from strategies.talking import TalkingStrategy

SOURCES = ("fedcot",)


@dataclass(frozen=True, slots=True)
class PerturbedTrace:
    """What the provider answered to a released question."""

    question: str
    reasoning: str
    answer: str


class PerturbedTraces:
    """Collects the traces of all rounds.

    Parameters
    ----------
    provider : Teacher
        Answers released prompts.
    public : Public
        Task, vocabulary and mechanism.
    requests : Requests
        Builds what members are asked.
    """

    def __init__(self, provider: Teacher, public: Public, requests: Requests) -> None:
        self.public = public
        self.requests = requests
        self._book = AnswerBook(provider)
        self._traces: dict[int, dict[str, PerturbedTrace]] = {}
        self._unparsed: dict[int, set[str]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many released questions were asked, and answers that cannot be read.

        Of what the provider wrote to what was released already, so it costs nothing. A
        question that is sent again in a later round counts once.
        """
        unparsed = sum(map(len, self._unparsed.values()))
        return {
            "asked": unparsed + sum(map(len, self._traces.values())),
            "unparsed": unparsed,
        }

    def ask(self, talking: TalkingStrategy, spending: Spending) -> None:
        """Ask each sampled member for what its budget allows, and answer it."""
        state = talking.state
        for partition in state.sampled:
            event = self.requests.prompts_event(state, partition)
            if partition not in state.exhausted and spending.before_send(state, event):
                request = self.requests.perturb(state, partition, SOURCES)
                talking.send_to(partition, QUERY_PERTURB, request)
        talking.receive_all(QUERY_PERTURB)
        self._answer(state)

    def pool(
        self, coalition: Coalition, communities: Mapping[int, str]
    ) -> list[PerturbedTrace]:
        """Return the traces of a coalition's members, in the order of partitions.

        Parameters
        ----------
        communities : mapping of int to str
            Whose member each partition is.
        """
        own = {
            partition: list(traces.values())
            for partition, traces in self._traces.items()
            if communities.get(partition) in coalition
        }
        return by_partition(own)

    def _answer(self, state: RoundState) -> None:
        prompts = {
            partition: prompts_of(reply, self.public.vocabulary, self.public.task)
            for partition, reply in sorted(state.asked.items())
        }
        for partition, sent in self._book.answer(prompts).items():
            held = self._traces.setdefault(partition, {})
            for (_, key, question), rationale in zip(
                prompts[partition], sent, strict=True
            ):
                if rationale.parsed:
                    held[key] = PerturbedTrace(
                        question, rationale.text, rationale.answer
                    )
                else:
                    self._unparsed.setdefault(partition, set()).add(key)
