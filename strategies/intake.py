"""Replies into the state of the round; what is not as asked counts as a failure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcot.arms import needs_raw_prompts, shares_adapter
from fedcot.errors import FedcotError, PrivacyBudgetExhausted, WireError
from fedcot.privacy.channels import Channel
from fedcot.records import (
    EVALUATE,
    QUERY_IDENTIFY,
    QUERY_PERTURB,
    TRAIN_DISTILL,
    Adapter,
    DistillReply,
    EvaluateReply,
    IdentifyReply,
    PerturbReply,
)
from fedcot.settings import SOCIAL, WORLD
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
# Trained weights are far below it. In single precision the forward pass multiplies and
# squares weights; of much larger ones a student's loss, and then all that others train
# from their mean, is no number, which the wire refuses.
LARGEST_VALUE: Final = 1e4
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
        self._check_asked(state, partition, reply)
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

    def _check_asked(
        self, state: RoundState, partition: int, reply: PerturbReply
    ) -> None:
        """Refuse prompts of a kind, or in a number, that nobody asked for."""
        config, members = self.results.config, state.members.values()
        raw = any(map(needs_raw_prompts, config.arm_names)) and all(
            member.identity.raw_prompts_allowed for member in members
        )
        if reply.raw_prompts and not raw:
            raise WireError("Questions were sent as they are, which was not asked for.")
        if reply.prompts and "fedcot" not in config.arm_names:
            raise WireError("Perturbed questions were sent that were not asked for.")
        records = state.members[partition].identity.num_records
        limit = min(config.records_per_round, records)
        if max(len(reply.prompts), len(reply.raw_prompts)) > limit:
            raise WireError(f"More prompts were sent than the {limit} asked for.")

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
            check_values(adapter)

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


def check_values(adapter: Adapter) -> None:
    """Refuse an adapter that would make any mean useless.

    Raises
    ------
    WireError
        A value is larger in size than `LARGEST_VALUE`, or is no number.
    """
    for tensor in adapter.values():
        if not (np.abs(tensor) <= LARGEST_VALUE).all():
            raise WireError(
                f"An adapter must hold values of at most {LARGEST_VALUE:g} in size, "
                "found a larger one; lower `learning-rate` if it was trained so."
            )


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
    WireError
        A node says that it holds more records of the built-in world than its share.
    """
    reply = IdentifyReply.decode(answer.content)
    if reply.partition_id in state.members:
        raise FedcotError(
            f"two nodes hold partition {reply.partition_id}; give each its own "
            "`partition-id` in the node config"
        )
    # Weights and rates follow from this number. Of own data nobody else knows it.
    share = results.config.num_records // max(1, state.expected)
    # Canaries of an audit run come on top.
    share += results.config.canaries * results.config.canary_repeats
    splits_evenly = results.config.dataset == WORLD and results.config.mode != SOCIAL
    if splits_evenly and reply.num_records > share:
        raise WireError(
            f"`num-records` must be at most a node's share ({share}), found "
            f"{reply.num_records}."
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
