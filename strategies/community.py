"""Communities: coalitions pool or federate reasoning traces and distil a student each.

Sources: https://arxiv.org/abs/2512.18174 (the setting and the factors) and
https://doi.org/10.1145/3449177 (conscious data contribution). Client side:
`fedcot.community.member.Member`.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedcot.budget import TRAINED_PRIVATELY
from fedcot.community.coalitions import label, parse_coalitions
from fedcot.community.costs import GUARANTEES
from fedcot.community.membership import load_hold_out
from fedcot.community.messages import (
    BEFORE,
    COUNT,
    EVALUATE_STUDENTS,
    PROVIDER,
    QUERY_TRACES,
    TRAIN_COALITION,
    TRAIN_GENERATOR,
    TracesReply,
)
from fedcot.community.pool import Shown, by_partition, coalition_arms
from fedcot.community.scoring import demonstrations, score_student, student_score
from fedcot.community.settings import (
    FEDERATED,
    PERTURBED,
    POOLED,
    PROMPT,
    SYNTHETIC,
)
from fedcot.config import RunConfig
from fedcot.evaluation.evaluate import evaluate_teacher
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.tasks.registry import configured_task
from fedcot.teacher.teacher import Teacher
from strategies.aggregation import weighted_mean
from strategies.coalition_students import PooledTraining
from strategies.community_audit import audit_students
from strategies.community_intake import CommunityIntake, Gathered
from strategies.community_requests import CommunityRequests, labels_with
from strategies.community_results import CommunityResults
from strategies.intake import Intake
from strategies.perturbed_traces import PerturbedTraces
from strategies.phased import Phase
from strategies.requests import Public, Requests
from strategies.results import Results
from strategies.state import RoundState
from strategies.talking import TalkingStrategy

logger = logging.getLogger("flwr.fedcot")


class Community(TalkingStrategy):
    """Identify, collect, distil, federate, evaluate.

    Traces are collected and distilled in the last round; in every round members train
    the adapters of a federated coalition. Nothing is asked of a member that its store
    does not permit, see `fedcot.community.consent`.

    A federated student is the mean of adapters, each weighted by the traces that its
    member offers, up to the member's number of records. With `noise-multiplier` the
    records alone are the weight and every member of a coalition is asked: no epsilon
    pays for how many traces there are, or whether there is one.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    provider : Teacher
        The model that members got their traces from; scored on the hold-out.
    public : Public
        Task, vocabulary and mechanism, for perturbed traces.
    results : Results
        Takes the measurements.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        provider: Teacher,
        public: Public,
        results: Results,
        run_key: str,
    ) -> None:
        super().__init__(config, results)
        self.provider = provider
        self.public = public
        self.perturbed = PerturbedTraces(
            provider, public, Requests(config, public, run_key=run_key, run=results.run)
        )
        self.coalitions = parse_coalitions(config.coalitions, config.community_names)
        self.labels = tuple(map(label, self.coalitions))
        self.asking = CommunityRequests(
            config, self.labels, run_key=run_key, run=results.run
        )
        self.community_results = CommunityResults(results, self.coalitions)
        self.intake = CommunityIntake(
            self.community_results, self.labels, lambda: self._prompts, self._spent
        )
        # Adapters by arm and coalition, and the texts of students that have none.
        self.students: dict[str, Mapping[str, NDArray[np.float32]]] = {}
        self.prompts: dict[str, str] = {}
        self._averaged: dict[str, dict[str, NDArray[np.float32]]] = {}

    @property
    def phases(self) -> tuple[tuple[str, Phase], ...]:
        """The phases of a round, in order."""
        return (
            ("identify", self.identify),
            ("collect", self.collect),
            ("perturb", self.perturb),
            ("federate", self.federate),
            ("write", self.write),
            ("distil", self.distil),
            ("audit", self.audit),
            ("evaluate", self.evaluate),
        )

    @property
    def replies(self) -> CommunityIntake:
        """What takes replies in."""
        return self.intake

    @property
    def spends(self) -> bool:
        """Whether perturbed questions or private adapters are asked for."""
        sharing = self.config.sharing_names
        prompts = math.isfinite(self.public.channel.prompt_epsilon)
        trained = {FEDERATED, SYNTHETIC} & set(sharing)
        return (PERTURBED in sharing and prompts) or (
            self.config.noise_multiplier > 0 and bool(trained)
        )

    def is_void(self, state: RoundState) -> bool:
        """Whether the budget ends a round: not where some sharing needs none."""
        return self._only_spends and super().is_void(state)

    def is_over(self, state: RoundState) -> bool:
        """Whether the budget ends the run: not where some sharing needs none."""
        return self._only_spends and super().is_over(state)

    @property
    def _only_spends(self) -> bool:
        """Whether every way of sharing has an account."""
        trained = (FEDERATED, SYNTHETIC) if self.config.noise_multiplier > 0 else ()
        return set(self.config.sharing_names) <= {PERTURBED, *trained}

    def summary(self) -> None:
        """Log the settings that decide the outcome."""
        config = self.config
        logger.info("\t├── Communities: %s", ", ".join(config.community_names))
        logger.info("\t├── Coalitions: %s", ", ".join(self.labels))
        logger.info("\t├── Sharing: %s", ", ".join(config.sharing_names))
        logger.info("\t├── Diversity: %g", config.community_diversity)
        for name in config.sharing_names:
            logger.info("\t├── Guarantee of %s: %s", name, self._guarantee(name))
        logger.info("\t└── Provider: %s", self.provider.name)

    def identify(self, grid: Grid, state: RoundState) -> None:
        """Learn once which partition each node holds, then sample this round's."""
        self.meet(grid, state, self.asking.identify())
        self.intake.gathered = Gathered()
        logger.info("├── Members: %d of %d", len(state.sampled), len(state.members))

    def collect(self, grid: Grid, state: RoundState) -> None:
        """Ask each member for its traces, or for how many it would train on."""
        final, sharing = self._is_final(state), self.config.sharing_names
        self._ask_for(state, POOLED if final and POOLED in sharing else COUNT)
        self.require(self.intake.gathered.offers, QUERY_TRACES)
        if final and PROMPT in sharing:
            self._ask_for(state, PROMPT, limit=self.config.prompt_traces)

    def _ask_for(self, state: RoundState, purpose: str, *, limit: int = 0) -> None:
        self.intake.purpose = purpose
        for partition in state.sampled:
            request = self.asking.traces(state, partition, purpose, limit)
            self.send_to(partition, QUERY_TRACES, request)
        self.receive_all(QUERY_TRACES)

    def perturb(self, grid: Grid, state: RoundState) -> None:
        """Collect traces of perturbed questions, within the budget."""
        if PERTURBED in self.config.sharing_names:
            self.perturbed.ask(self, self.spending)
            self.community_results.note_perturbed(self.perturbed.counts)

    def federate(self, grid: Grid, state: RoundState) -> None:
        """Let members train the adapters of their coalitions, and average these."""
        if FEDERATED not in self.config.sharing_names:
            return
        gathered = self.intake.gathered
        for partition, offer in sorted(gathered.offers.items()):
            own = tuple(
                name
                for name in self._trained_by(offer)
                if self._may_train(state, partition, f"{FEDERATED}.{name}")
            )
            if own:
                gathered.adapters_asked[partition] = set(own)
                request = self.asking.train(state, partition, own, self._averaged)
                self.send_to(partition, TRAIN_COALITION, request)
        self.receive_all(TRAIN_COALITION)
        for place, name in enumerate(self.labels):
            adapters = {
                partition: reply.adapters[name]
                for partition, reply in sorted(gathered.trained.items())
                if name in reply.adapters
            }
            if adapters:
                weights = {p: self._weight(state, p, place) for p in adapters}
                self._averaged[name] = weighted_mean(adapters, weights=weights)
                self.students[f"{FEDERATED}.{name}"] = self._averaged[name]

    def write(self, grid: Grid, state: RoundState) -> None:
        """Let members train generators, and collect what these write."""
        if not self._is_final(state) or SYNTHETIC not in self.config.sharing_names:
            return
        for partition, offer in sorted(self.intake.gathered.offers.items()):
            own = labels_with(offer.community, self.coalitions, self.labels)
            if own and self._may_train(state, partition, SYNTHETIC):
                request = self.asking.write(state, partition, own)
                self.send_to(partition, TRAIN_GENERATOR, request)
        self.receive_all(TRAIN_GENERATOR)

    def distil(self, grid: Grid, state: RoundState) -> None:
        """Train a student on each coalition's pool, with its controls."""
        if not self._is_final(state):
            return
        training = PooledTraining(self.config)
        planned = [
            (arm, place)
            for place, coalition in enumerate(self.coalitions)
            for arm in coalition_arms(self.config, coalition, self.coalitions)
        ]
        for done, (arm, place) in enumerate(planned):
            self.results.progress("distil", state.server_round, done, len(planned))
            name = f"{arm}.{self.labels[place]}"
            traces, invalid = training.checked(self._pool(arm, place))
            if arm == PROMPT:
                task = configured_task(self.config)
                self.prompts[name] = demonstrations(
                    training.chosen(traces, self.config.prompt_traces), task
                )
                continue
            student = training.train(traces, invalid, arm=arm)
            self.community_results.note_student(state.server_round, name, student)
            if student.adapter:
                self.students[name] = student.adapter
                state.learnt = True
            else:
                line = f"{name}: no student, because there was no trace to learn from"
                state.failures.append(line)
                logger.warning("├── %s", line)
        self.results.progress(
            "distil", state.server_round, len(planned), max(1, len(planned))
        )

    def audit(self, grid: Grid, state: RoundState) -> None:
        """Measure what the widest students give away of each community's traces."""
        if not (self._is_final(state) and self.config.audit_members):
            return
        found: Mapping[str, object] = {}
        if all(member.identity.simulated for member in state.members.values()):
            found = audit_students(
                self.config,
                self.provider,
                {p: o.traces for p, o in self.intake.gathered.offers.items()},
                self.intake.communities,
                {
                    name.partition(".")[0]: adapter
                    for name, adapter in self.students.items()
                    if name.partition(".")[2] == self.labels[-1]
                },
            )
        if not found:
            logger.warning(
                "├── No audit was made: it needs pooled traces, in a simulation, and "
                "control questions that the provider answers right."
            )
        self.community_results.note_audit(found)

    def evaluate(self, grid: Grid, state: RoundState) -> None:
        """Let members score all students; score them on the hold-out here."""
        if not self._is_final(state):
            return
        for name, adapter in self.students.items():
            arm, _, coalition = name.partition(".")
            self.results.save_global(arm, adapter, coalition=coalition)
        for partition in sorted(state.members):
            request = self.asking.evaluate(
                state,
                partition,
                self.intake.communities.get(partition, ""),
                students=self.students,
                prompts=self.prompts,
            )
            self.intake.gathered.asked[partition] = set(request.students)
            self.send_to(partition, EVALUATE_STUDENTS, request)
        self._score_hold_out()
        self.receive_all(EVALUATE_STUDENTS)
        self.require(self.intake.gathered.scored, EVALUATE_STUDENTS)
        for arm, score in self.community_results.accuracy().items():
            logger.info("├──> %s: %.3f ± %.3f", arm, score["mean"], score["stderr"])

    def _pool(self, arm: str, place: int) -> Sequence[Shown]:
        """Return the traces that the student of an arm learns from."""
        communities, coalition = self.intake.communities, self.coalitions[place]
        if arm == PERTURBED:
            return self.perturbed.pool(coalition, communities)
        if arm == SYNTHETIC:
            written = self.intake.gathered.written
            return by_partition(
                {p: w for p, w in written.items() if communities[p] in coalition}
            )
        gathered = self.intake.gathered
        offers = gathered.prompts if arm == PROMPT else gathered.offers
        reaching = {
            partition: [trace for trace in offer.traces if place in trace.audiences]
            for partition, offer in offers.items()
        }
        return by_partition(reaching)

    def _trained_by(self, offer: TracesReply) -> tuple[str, ...]:
        """Return the coalitions that a member trains an adapter for."""
        if self.config.noise_multiplier > 0:
            return labels_with(offer.community, self.coalitions, self.labels)
        counts = zip(self.labels, offer.num_offered, strict=True)
        return tuple(name for name, offered in counts if offered)

    def _weight(self, state: RoundState, partition: int, place: int) -> int:
        """Return how much a member's adapter counts for in a coalition's mean."""
        records = state.members[partition].identity.num_records
        if self.config.noise_multiplier > 0:
            return records
        # What a member offers is its own word, and none of them may drown the others.
        return min(records, self.intake.gathered.offers[partition].num_offered[place])

    def _guarantee(self, name: str) -> str:
        """Return what bounds one way of sharing, in words; the summary has numbers."""
        noised = name in (FEDERATED, SYNTHETIC) and self.config.noise_multiplier > 0
        if not noised and name != PERTURBED:
            return GUARANTEES[name]
        if self.config.test_tape:
            return SEEDED_GUARANTEE
        return TRAINED_PRIVATELY if noised else self.public.channel.guarantee

    def _may_train(self, state: RoundState, partition: int, name: str) -> bool:
        """Whether a member's budget allows one more private training of a name."""
        if not self.config.noise_multiplier:
            return True
        event = self.asking.training_event(state, partition, name)
        return self.spending.before_send(state, event)

    def _spent(self, state: RoundState, partition: int, name: str) -> None:
        """Tell the account what came back, before it is used."""
        if self.config.noise_multiplier:
            event = self.asking.training_event(state, partition, name)
            self.spending.after_receive(state, event)

    @property
    def _prompts(self) -> Intake:
        """What takes in the prompts that members release."""
        return Intake(
            self.public.channel_of, self.spending, self.results, lambda *_: ()
        )

    def _score_hold_out(self) -> None:
        records = load_hold_out(self.config)
        if not records:
            return
        task = configured_task(self.config)
        found = student_score(
            PROVIDER, evaluate_teacher(self.provider, records, task=task)
        )
        self.community_results.note_hold_out(found)
        for name in (BEFORE, *self.students, *self.prompts):
            found = score_student(
                self.config,
                name,
                records,
                adapter=self.students.get(name),
                text=self.prompts.get(name, ""),
            )
            self.community_results.note_hold_out(found)

    def _is_final(self, state: RoundState) -> bool:
        # A round that spends the budget is the last one, whatever was planned.
        planned = self.config.num_server_rounds
        return state.server_round >= planned or self.is_over(state)
