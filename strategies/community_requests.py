"""What the server asks members, built from the settings of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedcot import provenance
from fedcot.community.coalitions import JOIN, Coalition
from fedcot.community.costs import most_trainings
from fedcot.community.messages import (
    BEFORE,
    PROVIDER,
    CoalitionTrainRequest,
    StudentPrompt,
    StudentsRequest,
    SyntheticRequest,
    TracesRequest,
)
from fedcot.community.pool import training_config
from fedcot.community.settings import FEDERATED, SYNTHETIC
from fedcot.config import RunConfig
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.records import IdentifyRequest
from fedcot.runs import RunDirectory
from fedcot.student.dp_settings import DpSettings
from fedcot.tasks.registry import configured_task
from strategies.events import TrainingEvent
from strategies.state import RoundState

Adapters = Mapping[str, Mapping[str, NDArray[np.float32]]]


class CommunityRequests:
    """Builds one fresh message per member.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    labels : tuple of str
        The coalitions of the run, in the order that audiences are counted in.
    run_key : str
        16 hex digits that name the run in the nodes' state folders.
    run : RunDirectory
        Simulated nodes write into it.
    """

    def __init__(
        self,
        config: RunConfig,
        labels: tuple[str, ...],
        *,
        run_key: str,
        run: RunDirectory,
    ) -> None:
        self.config = config
        self.labels = labels
        self.run_key = run_key
        self.run = run

    def identify(self) -> IdentifyRequest:
        """Ask who a node is."""
        return IdentifyRequest(
            code_hash=provenance.code_hash(),
            student_hash=artefact_hash(self.config.student, "student"),
            vocabulary_hash=vocabulary_hash(self.config),
            dataset_hash=configured_task(self.config).hash,
        )

    def traces(
        self, state: RoundState, partition: int, purpose: str, limit: int
    ) -> TracesRequest:
        """Ask for traces, or for how many there are."""
        return TracesRequest(
            server_round=state.server_round,
            coalitions=self.labels,
            purpose=purpose,
            limit=limit,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
        )

    def train(
        self,
        state: RoundState,
        partition: int,
        labels: tuple[str, ...],
        averaged: Adapters,
    ) -> CoalitionTrainRequest:
        """Send a member the adapters of its coalitions, to go on from."""
        return CoalitionTrainRequest(
            server_round=state.server_round,
            coalitions=labels,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            adapters={name: averaged[name] for name in labels if name in averaged},
        )

    def write(
        self, state: RoundState, partition: int, labels: tuple[str, ...]
    ) -> SyntheticRequest:
        """Ask a member's generator for traces."""
        return SyntheticRequest(
            server_round=state.server_round,
            coalitions=labels,
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
        )

    def evaluate(
        self,
        state: RoundState,
        partition: int,
        community: str,
        *,
        students: Adapters,
        prompts: Mapping[str, str],
    ) -> StudentsRequest:
        """Send the students that a member may score.

        A prompt is made of traces, so only members of its coalition may read it. A
        deployed member gets no student of a coalition that it is not in.
        """
        simulated = state.members[partition].identity.simulated

        def is_inside(name: str) -> bool:
            return community in name.partition(".")[2].split(JOIN)

        adapters = {n: a for n, a in students.items() if simulated or is_inside(n)}
        texts = {name: text for name, text in prompts.items() if is_inside(name)}
        return StudentsRequest(
            server_round=state.server_round,
            students=(PROVIDER, BEFORE, *adapters, *texts),
            run_key=self.run_key,
            run_dir=self._run_dir(state, partition),
            adapters=adapters,
            prompts=tuple(
                StudentPrompt(student=name, text=text) for name, text in texts.items()
            ),
        )

    def training_event(
        self, state: RoundState, partition: int, name: str
    ) -> TrainingEvent:
        """Return what one round's private training of a member costs each record."""
        records = state.members[partition].identity.num_records
        settings = DpSettings.of(training_config(self.config, name), records)
        return TrainingEvent(
            server_round=state.server_round,
            partition_id=partition,
            noise_multiplier=settings.noise_multiplier,
            sampling_rate=settings.sample_rate,
            steps=settings.steps,
            arm=name,
        )

    def _run_dir(self, state: RoundState, partition: int) -> str:
        """Return the run directory, for simulated nodes: they write into it."""
        simulated = state.members[partition].identity.simulated
        return str(self.run.path) if simulated else ""


def planned_trainings(config: RunConfig) -> Counter[tuple[float, float]]:
    """Return the DP-SGD steps that a record of an average member takes part in.

    By noise multiplier and sampling rate; empty unless something is trained privately.
    """
    steps: Counter[tuple[float, float]] = Counter()
    if config.noise_multiplier <= 0:
        return steps
    members = max(config.num_partitions, len(config.community_names))
    records = max(1, config.num_records // members)
    for arm, count in ((FEDERATED, most_trainings(config)), (SYNTHETIC, 1)):
        if arm in config.sharing_names:
            settings = DpSettings.of(training_config(config, arm), records)
            place = (settings.noise_multiplier, settings.sample_rate)
            steps[place] += settings.steps * count
    return steps


def labels_with(
    community: str, coalitions: tuple[Coalition, ...], labels: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the labels of the coalitions that a community is in."""
    return tuple(
        name for name, one in zip(labels, coalitions, strict=True) if community in one
    )
