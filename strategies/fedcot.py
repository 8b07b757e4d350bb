"""FedCoT: clients ask a teacher about perturbed questions and distil what it says.

Paper: https://arxiv.org/abs/2406.12403. Client side: `fedcot.node.Node`.
"""

import logging
import math
from collections.abc import Mapping, Sequence

from flwr.serverapp import Grid

from fedcot.arms import SOURCES, shares_adapter
from fedcot.budget import check_variations
from fedcot.config import RunConfig
from fedcot.privacy.accounting import NEIGHBORING_RELATION
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.records import (
    EVALUATE,
    QUERY_PERTURB,
    TRAIN_DISTILL,
)
from fedcot.report.reader import nats
from fedcot.teacher.teacher import Teacher
from strategies.aggregation import Adapter, weighted_mean
from strategies.client_privacy import configured_mean, starting_adapter
from strategies.events import AggregateEvent, TrainingEvent
from strategies.intake import Intake
from strategies.phased import Phase
from strategies.questions import AnswerBook
from strategies.requests import (
    Public,
    Requests,
    allowed_arms,
    asked_sources,
    private_arms,
)
from strategies.results import Results
from strategies.state import RoundState
from strategies.talking import TalkingStrategy

logger = logging.getLogger("flwr.fedcot")


class FedCoT(TalkingStrategy):
    """Identify, perturb, answer, distil, aggregate, evaluate.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    teacher : Teacher
        Answers the prompts.
    public : Public
        Vocabulary, mechanism and bank.
    results : Results
        Takes the measurements.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        teacher: Teacher,
        public: Public,
        results: Results,
        run_key: str,
    ) -> None:
        super().__init__(config, results)
        self.book = AnswerBook(teacher)
        self.public = public
        self.requests = Requests(config, public, run_key=run_key, run=results.run)
        self.arms = config.arm_names

    @property
    def phases(self) -> tuple[tuple[str, Phase], ...]:
        """The phases of a round, in order."""
        return (
            ("identify", self.identify),
            ("perturb", self.perturb),
            ("answer", self.answer),
            ("distil", self.distil),
            ("aggregate", self.aggregate),
            ("evaluate", self.evaluate),
        )

    def summary(self) -> None:
        """Log the settings that decide the outcome."""
        channel = self.public.channel
        logger.info("\t├── Arms: %s", ", ".join(self.arms))
        logger.info("\t├── Rounds: %d", self.config.num_server_rounds)
        logger.info(
            "\t├── Mechanism: %s, %s nats per token, %d slots, %s nats per prompt",
            channel.name,
            nats(channel.token_epsilon),
            channel.slots,
            nats(channel.prompt_epsilon),
        )
        logger.info("\t├── Neighbours: %s, %s", NEIGHBORING_RELATION, channel.adjacency)
        if self.config.test_tape:
            logger.info("\t├── Guarantee: %s", SEEDED_GUARANTEE)
        logger.info("\t└── Teacher: %s", self.book.teacher.name)

    @property
    def spends(self) -> bool:
        """Whether prompts or adapters with a finite epsilon are asked for."""
        prompts = math.isfinite(self.public.channel.prompt_epsilon)
        noised = self.config.noise_multiplier > 0
        trained = noised and bool(private_arms(self.config, self.arms))
        return ("fedcot" in self.arms and prompts) or trained

    def is_over(self, state: RoundState) -> bool:
        """Whether no client has anything to release any more."""
        return "fedcot" in self.arms and state.all_exhausted

    def identify(self, grid: Grid, state: RoundState) -> None:
        """Learn once which partition each node holds, then sample this round's."""
        if self.meet(grid, state, self.requests.identify()):
            self.arms = allowed_arms(self.arms, state.members)
            check_variations(self.config, len(state.members))
        state.expected = self.requests.expected_prompts(state, self.arms)
        logger.info("├── Clients: %d of %d", len(state.sampled), len(state.members))

    def perturb(self, grid: Grid, state: RoundState) -> None:
        """Ask each sampled client for the prompts that its budget allows."""
        if not asked_sources(self.arms, granted=True):
            return
        for partition in state.sampled:
            if partition in state.asked:
                continue
            granted = (
                "fedcot" in self.arms
                and partition not in state.exhausted
                and self.spending.before_send(
                    state, self.requests.prompts_event(state, partition)
                )
            )
            sources = asked_sources(self.arms, granted=granted)
            if sources:
                request = self.requests.perturb(state, partition, sources)
                self.send_to(partition, QUERY_PERTURB, request)

    def answer(self, grid: Grid, state: RoundState) -> None:
        """Answer what has arrived and send it off; nobody waits for the slowest."""
        while True:
            ready = self._unanswered(state)
            if ready:
                self._answer(state, ready)
            elif self.talk.waits_for(QUERY_PERTURB):
                self.receive()
            else:
                break
        self.require(state.answered, QUERY_PERTURB)

    def distil(self, grid: Grid, state: RoundState) -> None:
        """Wait until every client that got its rationales has trained."""
        if not self.talk.waits_for(TRAIN_DISTILL):
            untrained = state.answered.keys() - state.trained.keys() - state.withheld
            for partition in sorted(untrained):
                self._send_rationales(state, partition)
        self.receive_all(TRAIN_DISTILL)
        if not state.answered.keys() <= state.withheld:
            self.require(state.trained, TRAIN_DISTILL)

    def aggregate(self, grid: Grid, state: RoundState) -> None:
        """Average the adapters that came up, each arm by itself."""
        for arm in self.arms:
            adapters = {
                partition: state.trained[partition].adapters[arm]
                for partition in sorted(state.trained)
                if arm in state.trained[partition].adapters
            }
            if not shares_adapter(arm, self.config.aggregation):
                continue
            if self.config.server_noise_multiplier > 0:
                self._average_privately(state, arm, adapters)
                continue
            if not adapters:
                continue
            # How many rationales a client was sent is known here and costs nothing.
            weights = {
                partition: state.answered_counts.get((SOURCES[arm], partition), 0)
                for partition in adapters
            }
            if not any(weights.values()):
                logger.warning(
                    "├── No rationale was parsed: nothing to average: %s", arm
                )
                continue
            state.aggregated[arm] = weighted_mean(adapters, weights=weights)
            self.results.save_global(arm, state.aggregated[arm])

    def _average_privately(
        self, state: RoundState, arm: str, adapters: Mapping[int, Adapter]
    ) -> None:
        """Average so that one client cannot be told; noise alone if nobody answered."""
        mean = configured_mean(self.config, arm=arm, server_round=state.server_round)
        event = AggregateEvent(
            server_round=state.server_round,
            partition_ids=state.sampled,
            noise_multiplier=self.config.server_noise_multiplier,
            arm=arm,
            counts_for_records=False,
        )
        if mean is None or not self.spending.before_send(state, event):
            return
        reference = state.aggregated.get(arm) or starting_adapter(self.config)
        state.aggregated[arm] = mean.of(
            adapters, reference=reference, num_sampled=len(state.sampled)
        )
        self.results.save_global(arm, state.aggregated[arm])

    def evaluate(self, grid: Grid, state: RoundState) -> None:
        """Score the sampled clients; at the end all clients and the teacher."""
        final = state.server_round >= self.config.num_server_rounds
        final = final or self.is_over(state)
        partitions = sorted(state.members) if final else list(state.sampled)
        # The base alone scores the same in every round.
        arms = tuple(arm for arm in self.arms if final or arm != "zero-shot")
        for partition in partitions:
            if partition not in state.evaluated:
                request = self.requests.evaluate(state, partition, arms, final=final)
                self.send_to(partition, EVALUATE, request)
        if final:
            self.results.measure_teacher(self.book.teacher, state.members)
            self.results.measure_data(state.members)
        self.receive_all(EVALUATE)
        self.require(state.evaluated, EVALUATE)
        for arm, score in self.results.accuracy().items():
            logger.info("├──> %s: %.3f ± %.3f", arm, score["mean"], score["stderr"])

    def _answer(self, state: RoundState, partitions: Sequence[int]) -> None:
        """Let the teacher answer several clients' prompts together, then send."""
        prompts = {p: self.requests.prompts(state, p, self.arms) for p in partitions}
        total = sum(len(asked) for asked in prompts.values())
        before = sum(len(sent) for sent in state.answered.values())

        def on_progress(done: int, of: int) -> None:
            # The teacher counts distinct questions of this call only.
            answered = before + total * done // max(1, of)
            expected = max(state.expected, before + total)
            self.results.progress("answer", state.server_round, answered, expected)

        for partition, sent in self.book.answer(
            prompts, on_progress=on_progress
        ).items():
            state.answered[partition] = sent
            for rationale in sent:
                place = (rationale.source, partition)
                count = state.answered_counts.get(place, 0)
                state.answered_counts[place] = count + rationale.parsed
            answers = [
                self.book.completion(source, question)
                for source, _, question in prompts[partition]
            ]
            self.results.note_rationales(state.server_round, partition, sent, answers)
            self._send_rationales(state, partition)
        if total:
            on_progress(1, 1)
        logger.info("├── Answered %d prompts of %d clients", total, len(prompts))

    def _send_rationales(self, state: RoundState, partition: int) -> None:
        """Send what to train with, for the arms whose adapters the budget allows."""
        refused = {
            event.arm
            for event in self.requests.trainings(state, partition, self.arms)
            if not self.spending.before_send(state, event)
        }
        arms = tuple(arm for arm in self.arms if arm not in refused)
        if not arms:
            state.withheld.add(partition)
            return
        request = self.requests.distil(state, partition, arms)
        self.send_to(partition, TRAIN_DISTILL, request)

    def _unanswered(self, state: RoundState) -> list[int]:
        """Return the clients whose prompts are here, or who have none to send."""
        return [
            partition
            for partition in state.sampled
            if partition not in state.answered
            and (
                partition in state.asked
                or not asked_sources(
                    self.arms, granted=partition not in state.exhausted
                )
            )
        ]

    @property
    def replies(self) -> Intake:
        """What takes replies in."""

        def trainings(state: RoundState, partition: int) -> tuple[TrainingEvent, ...]:
            return self.requests.trainings(state, partition, self.arms)

        return Intake(self.public.channel_of, self.spending, self.results, trainings)
