"""Replies of teacher clients into what the student knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from fedcot.errors import ConfigError, WireError
from fedcot.records import QUERY_IDENTIFY
from fedcot.social.ballots import ANY_LABEL
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.flow import FlowError, FlowGuard
from fedcot.social.messages import (
    EVALUATE_PROMPTS,
    QUERY_BALLOT,
    QUERY_EXAMPLES,
    QUERY_INSTRUCTION,
    BallotReply,
    ExamplesReply,
    InstructionReply,
    PromptsReply,
)
from strategies.exchange import Answer
from strategies.intake import note_failure, own_partition, partition_of, take_identity
from strategies.social_results import SocialResults
from strategies.state import RoundState

PHASE_OF = {
    QUERY_IDENTIFY: "identify",
    QUERY_EXAMPLES: "teach",
    QUERY_BALLOT: "vote",
    QUERY_INSTRUCTION: "instruct",
    EVALUATE_PROMPTS: "evaluate",
}


class SocialIntake:
    """Checks replies; what is not as asked counts as a failure.

    Parameters
    ----------
    results : SocialResults
        Takes the measurements.
    form : DemonstrationFormat
        What an example has to fit.

    Attributes
    ----------
    guard : FlowGuard or None
        Told of every reply; None before the teacher clients are known.
    step : int
        Of the conversation, which replies belong to.
    examples : dict of int to tuple of Demonstration
        By partition.
    instructions : dict of int to str
        By partition; none where a gate kept it.
    ballots : dict of int to tuple of int
        Of the last vote.
    voted_on : pair of sequences of str
        The label of each candidate of that vote, and its turns.
    gone : set of int
        Partitions that failed in a step: the conversation goes on without them.
    """

    def __init__(self, results: SocialResults, form: DemonstrationFormat) -> None:
        self.results = results
        self.form = form
        self.guard: FlowGuard | None = None
        self.step = 0
        self.examples: dict[int, tuple[Demonstration, ...]] = {}
        self.instructions: dict[int, str] = {}
        self.ballots: dict[int, tuple[int, ...]] = {}
        self.voted_on: tuple[Sequence[str], Sequence[str]] = ((), ())
        self.gone: set[int] = set()
        self._told: set[int] = set()

    def take(self, state: RoundState, answer: Answer) -> None:
        """Put one reply into what is known, or a line about it into `failures`."""
        handlers: dict[str, Callable[[RoundState, Answer], None]] = {
            QUERY_IDENTIFY: self._identity,
            QUERY_EXAMPLES: self._examples,
            QUERY_BALLOT: self._ballot,
            QUERY_INSTRUCTION: self._instruction,
            EVALUATE_PROMPTS: self._scores,
        }
        try:
            handlers[answer.message_type](state, answer)
        except (WireError, FlowError) as error:
            self.fail(state, answer.node_id, answer.message_type, str(error))

    def phase_of(self, message_type: str) -> str:
        """Return what users call the phase of a message."""
        return PHASE_OF[message_type]

    def fail(
        self, state: RoundState, node_id: int, message_type: str, reason: str
    ) -> None:
        """Count a teacher client that failed; nothing more of the conversation."""
        note_failure(state, node_id, PHASE_OF[message_type], reason)
        partition = partition_of(state, node_id)
        if partition is not None and message_type not in (
            QUERY_IDENTIFY,
            EVALUATE_PROMPTS,
        ):
            self.gone.add(partition)

    def lost(self) -> list[int]:
        """Return the partitions that went since the last call, in order."""
        new = sorted(self.gone - self._told)
        self._told |= set(new)
        return new

    def _identity(self, state: RoundState, answer: Answer) -> None:
        take_identity(state, answer, self.results.results)

    def _examples(self, state: RoundState, answer: Answer) -> None:
        reply = ExamplesReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= not reply.withheld
        config = self.results.config
        most = config.examples_per_prompt * config.examples_kept
        if len(reply.demonstrations) > most:
            raise WireError(
                f"At most {most} examples were asked for, found "
                f"{len(reply.demonstrations)}."
            )
        found = tuple(
            Demonstration(one.question, one.answer, one.reasoning)
            for one in reply.demonstrations
        )
        try:
            written = [self.form.write(one) for one in found]
        except ConfigError:
            raise WireError("An example must fit the format of the task.") from None
        self._note(partition, written)
        self.examples[partition] = found
        self.results.note_examples(state.server_round, answer, reply)
        self._progress(state, "teach", len(self.examples))

    def _ballot(self, state: RoundState, answer: Answer) -> None:
        reply = BallotReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        self._check_places(reply.ballot)
        self._note(partition, ())
        self.ballots[partition] = reply.ballot
        self.results.note_ballot(state.server_round, answer, reply)
        self._progress(state, "vote", len(self.ballots))

    def _check_places(self, ballot: Sequence[int]) -> None:
        """Refuse a ballot that names other places than the turns have."""
        labels, turns = self.voted_on
        if not all(place < len(labels) for place in ballot):
            raise WireError("A ballot must name candidates of this vote.")
        is_open = ANY_LABEL in turns
        found = Counter(ANY_LABEL if is_open else labels[place] for place in ballot)
        if found != Counter(turns):
            raise WireError("A ballot must have one place for each turn.")

    def _instruction(self, state: RoundState, answer: Answer) -> None:
        reply = InstructionReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= not reply.withheld
        texts = [one.text for one in reply.instruction]
        self._note(partition, texts)
        if texts:
            self.instructions[partition] = texts[0]
        self.results.note_instruction_reply(state.server_round, answer, reply)
        self._progress(state, "instruct", len(self.instructions))

    def _scores(self, state: RoundState, answer: Answer) -> None:
        reply = PromptsReply.decode(answer.content)
        own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= bool(reply.scores) or not reply.withheld
        self.results.note_scores(state.server_round, answer, reply)

    def _note(self, partition: int, texts: list[str] | tuple[()]) -> None:
        if self.guard is not None:
            self.guard.on_reply(self.step, partition, texts)

    def _progress(self, state: RoundState, phase: str, done: int) -> None:
        total = max(done, len(state.members))
        self.results.results.progress(phase, state.server_round, done, total)
