"""Replies of members into what a round of coalitions holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fedcot.community.coalitions import JOIN
from fedcot.community.messages import (
    COUNT,
    EVALUATE_STUDENTS,
    QUERY_TRACES,
    TRAIN_COALITION,
    TRAIN_GENERATOR,
    CoalitionTrainReply,
    StudentsReply,
    SyntheticReply,
    SyntheticTrace,
    TracesReply,
)
from fedcot.community.settings import FEDERATED, PROMPT, SYNTHETIC
from fedcot.errors import PrivacyBudgetExhausted, WireError
from fedcot.records import QUERY_IDENTIFY, QUERY_PERTURB
from strategies.community_results import CommunityResults
from strategies.exchange import Answer
from strategies.intake import (
    Intake,
    check_values,
    note_failure,
    own_partition,
    take_identity,
)
from strategies.state import RoundState

PHASE_OF = {
    QUERY_IDENTIFY: "identify",
    QUERY_TRACES: "collect",
    QUERY_PERTURB: "perturb",
    TRAIN_COALITION: "federate",
    TRAIN_GENERATOR: "write",
    EVALUATE_STUDENTS: "evaluate",
}


@dataclass
class Gathered:
    """What members said in one round, by partition id.

    Attributes
    ----------
    offers : dict of int to TracesReply
    trained : dict of int to CoalitionTrainReply
    scored : dict of int to StudentsReply
    prompts : dict of int to TracesReply
        The few traces that students read as their prompt.
    written : dict of int to tuple of SyntheticTrace
    asked : dict of int to set of str
        Which students each member was sent to score.
    adapters_asked : dict of int to set of str
        The coalitions that each member was asked for an adapter of.
    """

    offers: dict[int, TracesReply] = field(default_factory=dict)
    trained: dict[int, CoalitionTrainReply] = field(default_factory=dict)
    scored: dict[int, StudentsReply] = field(default_factory=dict)
    prompts: dict[int, TracesReply] = field(default_factory=dict)
    asked: dict[int, set[str]] = field(default_factory=dict)
    adapters_asked: dict[int, set[str]] = field(default_factory=dict)
    written: dict[int, tuple[SyntheticTrace, ...]] = field(default_factory=dict)


class CommunityIntake:
    """Checks replies; what is not as asked counts as a failure.

    Parameters
    ----------
    results : CommunityResults
        Takes the measurements.
    labels : tuple of str
        The coalitions of the run, as requests list them.
    prompts : callable
        Returns what takes in perturbed prompts.
    spent : callable
        Told, before a reply is used, which private training it came from: round,
        partition, and the way of sharing with its coalition.

    Attributes
    ----------
    gathered : Gathered
        Of the current round.
    purpose : str
        What members are being asked for traces for.
    communities : dict of int to str
        Whose member each partition is, once it has said so.
    withdrawn : dict of int to set of str
        Names of traces that a member has withdrawn; they must never come again.
    """

    def __init__(
        self,
        results: CommunityResults,
        labels: tuple[str, ...],
        prompts: Callable[[], Intake],
        spent: Callable[[RoundState, int, str], None],
    ) -> None:
        self.results = results
        self.labels = labels
        self._prompts = prompts
        self._spent = spent
        self.gathered = Gathered()
        self.purpose = COUNT
        self.communities: dict[int, str] = {}
        self.withdrawn: dict[int, set[str]] = {}

    def take(self, state: RoundState, answer: Answer) -> None:
        """Put one reply into the state, or a line about it into `failures`."""
        if answer.message_type == QUERY_PERTURB:
            self.results.note_prompts(answer)
            self._prompts().take(state, answer)
            return
        handlers: dict[str, Callable[[RoundState, Answer], None]] = {
            QUERY_IDENTIFY: self._identity,
            QUERY_TRACES: self._offer,
            TRAIN_COALITION: self._training,
            TRAIN_GENERATOR: self._writing,
            EVALUATE_STUDENTS: self._scores,
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
        """Count a member that failed in a phase."""
        note_failure(state, node_id, PHASE_OF[message_type], reason)

    def _identity(self, state: RoundState, answer: Answer) -> None:
        take_identity(state, answer, self.results.results)

    def _offer(self, state: RoundState, answer: Answer) -> None:
        reply = TracesReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        # Whatever becomes of the reply, these are at the server.
        told = (reply.num_asked, reply.num_unparsed, reply.num_filtered)
        state.metrics_sent |= any(told)
        self._check_offer(partition, reply)
        self.communities[partition] = reply.community
        self.withdrawn.setdefault(partition, set()).update(reply.withdrawn)
        if reply.traces and self.purpose == COUNT:
            raise WireError("Traces were sent that were not asked for.")
        held = self.gathered.prompts if self.purpose == PROMPT else self.gathered.offers
        held[partition] = reply
        self.results.note_offer(state.server_round, answer, reply, self.purpose)
        self._progress(state, "collect", len(held))

    def _check_offer(self, partition: int, reply: TracesReply) -> None:
        """Refuse what no honest member sends.

        A trace for a coalition without the member's community may be public, but no
        student of this run is trained on it; a withdrawn one may never come again.
        """
        known = self.results.config.community_names
        if reply.community not in known or len(reply.num_offered) != len(self.labels):
            raise WireError("A member must belong to a community of this run.")
        if self.communities.get(partition, reply.community) != reply.community:
            raise WireError("A member must stay in its community.")
        strange = [
            place
            for place, label in enumerate(self.labels)
            if reply.community not in label.split(JOIN)
        ]
        if any(reply.num_offered[place] for place in strange):
            raise WireError("A member offers traces to a coalition that it is not in.")
        gone = self.withdrawn.get(partition, set())
        if any(trace.name in gone for trace in reply.traces):
            raise WireError("A trace that was withdrawn was offered again.")
        self._check_counts(reply, len(self.labels) - len(strange))

    def _check_counts(self, reply: TracesReply, num_own: int) -> None:
        """Refuse counts without their traces, and more prompts than were asked for.

        Parameters
        ----------
        num_own : int
            Coalitions that the member is in.
        """
        if self.purpose == COUNT:
            return
        if not reply.traces and any(reply.num_offered):
            raise WireError("`num-offered` must count the traces that came.")
        limit = self.results.config.prompt_traces
        if self.purpose == PROMPT and len(reply.traces) > limit * num_own:
            raise WireError(
                f"At most {limit} traces were asked for each of {num_own} coalitions, "
                f"found {len(reply.traces)}."
            )

    def _training(self, state: RoundState, answer: Answer) -> None:
        reply = CoalitionTrainReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= bool(reply.losses) or not reply.withheld
        for label in reply.adapters:
            self._spent(state, partition, f"{FEDERATED}.{label}")
        for label, adapter in reply.adapters.items():
            if label not in self.gathered.adapters_asked.get(partition, set()):
                raise WireError("An adapter was not asked for.")
            shapes = {name: tensor.shape for name, tensor in adapter.items()}
            if shapes != self.results.results.adapter_shapes():
                raise WireError("An adapter does not fit the student.")
            check_values(adapter)
        self.gathered.trained[partition] = reply
        state.learnt = True
        self.results.note_training(state.server_round, answer, reply)
        self._progress(state, "federate", len(self.gathered.trained))

    def _writing(self, state: RoundState, answer: Answer) -> None:
        reply = SyntheticReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        told = [getattr(reply, n) for n in reply.__slots__ if n.startswith("num_")]
        state.metrics_sent |= any(told) or not reply.withheld
        self._spent(state, partition, SYNTHETIC)
        config, records = self.results.config, state.members[partition].identity
        if len(reply.traces) > (config.synthetic_traces or records.num_records):
            raise WireError("More synthetic traces came than were asked for.")
        self.gathered.written[partition] = reply.traces
        self.results.note_writing(state.server_round, answer, reply)
        self._progress(state, "write", len(self.gathered.written))

    def _scores(self, state: RoundState, answer: Answer) -> None:
        reply = StudentsReply.decode(answer.content)
        partition = own_partition(state, answer, reply.partition_id)
        state.metrics_sent |= bool(reply.scores) or not reply.withheld
        scored = {score.student for score in reply.scores}
        if not scored <= self.gathered.asked.get(partition, set()):
            raise WireError("A student was scored that was not asked for.")
        self.gathered.scored[partition] = reply
        self.results.note_scores(
            state.server_round, answer, reply, self.communities.get(partition, "")
        )
        self._progress(state, "evaluate", len(self.gathered.scored))

    def _progress(self, state: RoundState, phase: str, done: int) -> None:
        total = max(done, len(state.sampled))
        self.results.results.progress(phase, state.server_round, done, total)
