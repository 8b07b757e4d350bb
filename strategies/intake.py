"""Replies into the state of the round; what is not as asked counts as a failure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from fedcot.arms import shares_adapter
from fedcot.errors import FedcotError, PrivacyBudgetExhausted, WireError
from fedcot.privacy.channels import Channel
from fedcot.records import (
    EVALUATE,
    QUERY_IDENTIFY,
    QUERY_PERTURB,
    TRAIN_DISTILL,
    DistillReply,
    EvaluateReply,
    IdentifyReply,
    PerturbReply,
)
from strategies.events import PromptsEvent, TrainingEvent
from strategies.exchange import Answer
from strategies.results import Results
from strategies.spending import Spending
from strategies.state import Member, RoundState

PHASE_OF = {
    QUERY_IDENTIFY: "identify",
    QUERY_PERTURB: "perturb",
    TRAIN_DISTILL: "distil",
    EVALUATE: "evaluate",
}
logger = logging.getLogger("flwr.fedcot")


@dataclass(frozen=True)
class Intake:
    """Checks replies, says what was spent and keeps the measurements.

    Parameters
    ----------
    channel_of : callable
        Returns the mechanism that was granted, by round and partition.
    spending : Spending
        Is told before anything of a reply is used.
    results : Results
        Takes the measurements.
    trainings : callable
        Returns what a client's adapters of a round cost, by round and partition.
    """

    channel_of: Callable[[RoundState, int], Channel]
    spending: Spending
    results: Results
    trainings: Callable[[RoundState, int], tuple[TrainingEvent, ...]]

    def take(self, state: RoundState, answer: Answer) -> None:
        """Put one reply into the state, or a line about it into `failures`."""
        handlers: dict[str, Callable[[RoundState, Answer], None]] = {
            QUERY_IDENTIFY: self._identity,
            QUERY_PERTURB: self._prompts,
            TRAIN_DISTILL: self._training,
            EVALUATE: self._scores,
        }
        try:
            handlers[answer.message_type](state, answer)
        except (WireError, PrivacyBudgetExhausted) as error:
            self.fail(state, answer.node_id, answer.message_type, str(error))

    def phase_of(self, message_type: str) -> str:
        """Return what users call the phase of a message."""
        return PHASE_OF[message_type]

    def fail(
        self, state: RoundState, node_id: int, message_type: str, reason: str
    ) -> None:
        """Count a client that failed in a phase."""
        note_failure(state, node_id, PHASE_OF[message_type], reason)

    def _identity(self, state: RoundState, answer: Answer) -> None:
        take_identity(state, answer, self.results)

    def _prompts(self, state: RoundState, answer: Answer) -> None:
        reply = PerturbReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        before = state.charged_delta.get(partition, 0.0)
        state.charged_delta[partition] = max(before, reply.spent_record_delta)
        # First of all: whatever is wrong with the reply, it was released.
        if reply.prompts or reply.prompt_epsilon or reply.spent_record_epsilon:
            self._spent(state, partition, reply)
        channel = self.channel_of(state, partition)
        if (reply.slots, reply.vocabulary_size, reply.channel_hash) != (
            channel.slots,
            channel.size,
            channel.hash,
        ):
            raise WireError("The prompts come from another channel than granted.")
        if reply.prompts:
            state.released.add(partition)
            ids = [prompt.ids for prompt in reply.prompts]
            state.prompts_sent.setdefault(partition, []).extend(ids)
        if reply.num_refused:
            self._refused(state, partition, reply.num_refused)
        state.asked[partition] = reply
        self.results.note_prompts(state.server_round, answer, reply)
        self._progress(
            state,
            "perturb",
            len(state.asked),
            epsilon=state.charged.get(partition, 0.0),
        )

    def _spent(self, state: RoundState, partition: int, reply: PerturbReply) -> None:
        fresh = tuple(prompt.record_key for prompt in reply.prompts if prompt.fresh)
        self.spending.after_receive(
            state,
            PromptsEvent(
                server_round=state.server_round,
                partition_id=partition,
                prompt_epsilon=reply.prompt_epsilon,
                channel_hash=reply.channel_hash,
                record_keys=fresh,
                reported_epsilon=reply.spent_record_epsilon,
            ),
        )

    def _refused(self, state: RoundState, partition: int, refused: int) -> None:
        """Count refusals; a client that has nothing to send any more is exhausted.

        Each record has a budget of its own, and what was released once is sent again
        at no cost, so a refusal alone does not end a client.
        """
        state.refused += refused
        if partition not in state.released:
            state.exhausted.add(partition)
        logger.warning(
            "├── The ledger of partition %d refused %d prompts: the privacy budget of "
            "these records is spent.",
            partition,
            refused,
        )

    def _training(self, state: RoundState, answer: Answer) -> None:
        reply = DistillReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        for event in self.trainings(state, partition):
            if event.arm in reply.adapters:
                self.spending.after_receive(state, event)
        state.metrics_sent |= bool(reply.training) or not reply.withheld
        self._check_adapters(reply)
        state.trained[partition] = reply
        state.learnt = True
        self.results.note_training(state.server_round, answer, reply)
        losses = {
            arm.arm: round(arm.rationale_loss[-1], 4)
            for arm in reply.training
            if arm.rationale_loss
        }
        self._progress(state, "distil", len(state.trained), rationale_loss=losses)

    def _check_adapters(self, reply: DistillReply) -> None:
        """Refuse adapters that were not asked for or that do not fit the student."""
        for arm, adapter in reply.adapters.items():
            if not shares_adapter(arm, self.results.config.aggregation):
                raise WireError(f"An adapter of the arm {arm!r} was not asked for.")
            shapes = {name: tensor.shape for name, tensor in adapter.items()}
            if shapes != self.results.adapter_shapes():
                raise WireError(f"The adapter of {arm} does not fit the student.")

    def _scores(self, state: RoundState, answer: Answer) -> None:
        reply = EvaluateReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= bool(reply.scores) or not reply.withheld
        state.evaluated[partition] = reply
        self.results.note_scores(state.server_round, answer, reply)
        self._progress(state, "evaluate", len(state.evaluated))

    def _progress(
        self, state: RoundState, phase: str, done: int, **more: object
    ) -> None:
        total = max(done, len(state.sampled))
        self.results.progress(phase, state.server_round, done, total, **more)


def note_failure(state: RoundState, node_id: int, phase: str, reason: str) -> None:
    """Write one line about a client that failed in a phase."""
    partition = partition_of(state, node_id)
    who = f"node {node_id}" if partition is None else f"partition {partition}"
    line = f"round {state.server_round}, {phase}, {who}: {reason}"
    state.failures.append(line)
    logger.warning("├── Failure: %s", line)


def take_identity(state: RoundState, answer: Answer, results: Results) -> None:
    """Note who a node is.

    Raises
    ------
    FedcotError
        Two nodes say that they hold one partition.
    """
    reply = IdentifyReply.decode(answer.content)
    if reply.partition_id in state.members:
        raise FedcotError(
            f"two nodes hold partition {reply.partition_id}; give each its own "
            "`partition-id` in the node config"
        )
    state.members[reply.partition_id] = Member(answer.node_id, reply)
    identified = len(state.members)
    total = max(identified, state.expected)
    results.progress("identify", state.server_round, identified, total)


def own_partition(state: RoundState, answer: Answer, claimed: int) -> int:
    """Return the partition of a node; refuse an answer in another one's name."""
    if partition_of(state, answer.node_id) != claimed:
        raise WireError(
            f"A node answered for partition {claimed}, which is not its own."
        )
    return claimed


def partition_of(state: RoundState, node_id: int) -> int | None:
    """Return the partition of a node; None before it has identified itself."""
    for partition, member in state.members.items():
        if member.node_id == node_id:
            return partition
    return None
