"""What the server sends, built from the state of the round."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcot import provenance
from fedcot.arms import (
    ASKED_SOURCES,
    SOURCES,
    adapter_is_free,
    needs_raw_prompts,
    shares_adapter,
)
from fedcot.budget import record_limit
from fedcot.config import RunConfig
from fedcot.data.schema import Record
from fedcot.errors import FedcotError
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.privacy.channels import Channel
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.records import (
    DistillRequest,
    EvaluateRequest,
    IdentifyRequest,
    PerturbRequest,
)
from fedcot.runs import RunDirectory
from fedcot.student.dp_settings import DpSettings, used_counts
from fedcot.tasks.task import Task
from strategies.events import PromptsEvent, TrainingEvent
from strategies.evolution import BankEvolution
from strategies.questions import Prompt, bank_prompts, prompts_of
from strategies.state import Member, RoundState

logger = logging.getLogger("flwr.fedcot")


@dataclass(frozen=True, kw_only=True)
class Public:
    """What server and clients both know: task, vocabulary, mechanism and bank."""

    task: Task
    vocabulary: Vocabulary
    channel: Channel
    bank: Sequence[Record]
    evolution: BankEvolution | None = None

    def channel_of(self, state: RoundState, partition: int) -> Channel:
        """Return the mechanism of a client in a round."""
        if self.evolution is None:
            return self.channel
        return self.evolution.channel(state, partition)

    def sent_bank(self, state: RoundState, partition: int) -> tuple[int, ...]:
        """Return the bank that a request has to carry, if any."""
        if self.evolution is None:
            return ()
        return self.evolution.sent_bank(state, partition)


class Requests:
    """Builds one fresh message per client.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    public : Public
        Vocabulary, mechanism and bank.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    run : RunDirectory
        Simulated nodes write into it.
    """

    def __init__(
        self, config: RunConfig, public: Public, *, run_key: str, run: RunDirectory
    ) -> None:
        self.config = config
        self.public = public
        self.run_key = run_key
        self.run = run

    @property
    def record_epsilon(self) -> float:
        """The limit for one record, in nats; none without a mechanism."""
        return record_limit(self.config)

    def identify(self) -> IdentifyRequest:
        """Ask who a node is."""
        return IdentifyRequest(
            code_hash=provenance.code_hash(),
            student_hash=artefact_hash(self.config.student, "student"),
            vocabulary_hash=vocabulary_hash(self.config),
            dataset_hash=self.public.task.hash,
        )

    def perturb(
        self, state: RoundState, partition: int, sources: tuple[str, ...]
    ) -> PerturbRequest:
        """Ask for prompts of some sources within what was granted."""
        return PerturbRequest(
            server_round=state.server_round,
            sources=sources,
            mechanism=self.config.mechanism,
            token_epsilon=self.config.token_epsilon,
            prompt_epsilon=self.config.prompt_epsilon,
            record_epsilon=self.record_epsilon,
            bank=self.public.sent_bank(state, partition),
            channel_hash=self.public.channel_of(state, partition).hash,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
        )

    def prompts_event(self, state: RoundState, partition: int) -> PromptsEvent:
        """Return what one prompt per record may cost a client."""
        channel = self.public.channel_of(state, partition)
        return PromptsEvent(
            server_round=state.server_round,
            partition_id=partition,
            token_epsilon=channel.token_epsilon,
            prompt_epsilon=channel.prompt_epsilon,
            channel_hash=channel.hash,
        )

    def trainings(
        self, state: RoundState, partition: int, arms: Sequence[str]
    ) -> tuple[TrainingEvent, ...]:
        """Return what the adapters that a client sends in a round cost.

        One event for each arm that sees private labels or questions under DP-SGD.
        Without noise nothing bounds it, and `fedcot.budget` says so.
        """
        config = self.config
        private = private_arms(config, arms)
        if not private or config.noise_multiplier <= 0:
            return ()
        records = state.members[partition].identity.num_records
        counts = used_counts(config, partition, records)
        settings = DpSettings.of(config, counts[state.server_round - 1])
        return tuple(
            TrainingEvent(
                server_round=state.server_round,
                partition_id=partition,
                noise_multiplier=settings.noise_multiplier,
                sampling_rate=settings.sample_rate,
                steps=settings.steps,
                arm=arm,
            )
            for arm in private
        )

    def distil(
        self, state: RoundState, partition: int, arms: tuple[str, ...]
    ) -> DistillRequest:
        """Send a client its rationales, to train with."""
        return DistillRequest(
            server_round=state.server_round,
            arms=arms,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            rationales=state.answered[partition],
            adapters=state.aggregated,
        )

    def evaluate(
        self, state: RoundState, partition: int, arms: tuple[str, ...], *, final: bool
    ) -> EvaluateRequest:
        """Ask a client to score its students."""
        return EvaluateRequest(
            server_round=state.server_round,
            arms=arms,
            final=final,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            adapters=state.aggregated,
        )

    def prompts(
        self, state: RoundState, partition: int, arms: Sequence[str]
    ) -> list[Prompt]:
        """Return what the teacher has to answer for a client."""
        prompts: list[Prompt] = []
        if partition in state.asked:
            asked = state.asked[partition]
            prompts += prompts_of(asked, self.public.vocabulary, self.public.task)
        if "random-bank" in arms:
            prompts += bank_prompts(
                self.public.bank,
                self.config,
                partition_id=partition,
                num_records=state.members[partition].identity.num_records,
                server_round=state.server_round,
            )
        return prompts

    def expected_prompts(self, state: RoundState, arms: Sequence[str]) -> int:
        """Return how many prompts the teacher will have to answer in a round.

        An upper bound: a ledger may refuse some, and a client may fail.
        """
        total = 0
        for partition in state.sampled:
            records = state.members[partition].identity.num_records
            granted = partition not in state.exhausted
            sources = len(asked_sources(arms, granted=granted))
            sources += "random-bank" in arms
            total += sources * min(self.config.records_per_round, records)
        return total

    def _run_dir(self, state: RoundState, partition: int) -> str:
        """Return the run directory, for simulated nodes: they write into it."""
        simulated = state.members[partition].identity.simulated
        return str(self.run.path) if simulated else ""


def planned_steps(config: RunConfig) -> Counter[tuple[float, float]]:
    """Return the DP-SGD steps that a record of an average client takes part in.

    By noise multiplier and sampling rate; empty unless private adapters are sent.
    """
    steps: Counter[tuple[float, float]] = Counter()
    private = private_arms(config, config.arm_names)
    if not private or config.noise_multiplier <= 0:
        return steps
    records = max(1, config.num_records // max(1, config.num_partitions))
    for count in used_counts(config, 0, records):
        settings = DpSettings.of(config, count)
        place = (settings.noise_multiplier, settings.sample_rate)
        steps[place] += settings.steps * len(private)
    return steps


def private_arms(config: RunConfig, arms: Sequence[str]) -> tuple[str, ...]:
    """Return the arms whose adapters leave and are more than post-processing.

    Those that send questions as they are have no account: they are infinite anyway.
    """
    return tuple(
        arm
        for arm in arms
        if shares_adapter(arm, config.aggregation)
        and not adapter_is_free(arm, config.pairing)
        and not needs_raw_prompts(arm)
    )


def asked_sources(arms: Sequence[str], *, granted: bool) -> tuple[str, ...]:
    """Return what clients have to send for the arms of this run."""
    wanted = {SOURCES.get(arm) for arm in arms}
    return tuple(
        source
        for source in ASKED_SOURCES
        if source in wanted and (granted or source != "fedcot")
    )


def allowed_arms(
    arms: tuple[str, ...], members: Mapping[int, Member]
) -> tuple[str, ...]:
    """Leave out the arms that need raw questions if a node's owner forbids them.

    Raises
    ------
    FedcotError
        No arm is left.
    """
    if all(member.identity.raw_prompts_allowed for member in members.values()):
        return arms
    kept = tuple(arm for arm in arms if not needs_raw_prompts(arm))
    if not kept:
        raise FedcotError(
            "every arm needs raw prompts, which the nodes do not allow; set "
            "`allow-raw-prompts=true` in their node config or choose other arms"
        )
    if kept != arms:
        logger.warning("├── A node does not allow raw prompts: kept %s", list(kept))
    return kept
