"""A client's students: which pairs each arm trains on, training, adapters, scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcot.arms import (
    SOURCES,
    UNTRAINED,
    Prompt,
    adapter_is_free,
    headline_prompt,
    shares_adapter,
)
from fedcot.config import RunConfig
from fedcot.data.schema import Partition, Record
from fedcot.evaluation.evaluate import evaluate_student
from fedcot.node_adapters import AdapterStore, publish
from fedcot.node_pairs import NodePairs
from fedcot.records import Adapter, DistillRequest, EvaluateRequest
from fedcot.rows import ArmScore, ArmTraining
from fedcot.runs import adapter_folder
from fedcot.seeding import derive_seed
from fedcot.student.base import Base, TrainingSettings, load_base
from fedcot.student.examples import Example, label_examples
from fedcot.student.training import TrainingOutcome, train_adapter


class NodeTraining:
    """Trains and scores the arms of one node.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    partition_id : int
        Which node.
    folder : Path
        This run's folder inside the node's state folder.
    adapter_root : Path
        Folder that gets a copy of each arm's newest adapter in PEFT's format, as
        ``adapters/<arm>/partition-N``. Training and sending never read it.

    Notes
    -----
    The seconds that a reply takes are seen by the server and covered by no epsilon. The
    number of optimizer steps is that of the arm's larger task. For personal adapters
    these are the labels, one for each used record, whatever a filter dropped; for
    adapters that are shared without a charge the filter is a function of what was
    released.
    """

    def __init__(
        self, config: RunConfig, *, partition_id: int, folder: Path, adapter_root: Path
    ) -> None:
        self.config = config
        self.partition_id = partition_id
        self.folder = folder
        self.adapter_root = adapter_root
        self.settings = training_settings(config)
        self.pairs = NodePairs(
            config, partition_id=partition_id, folder=folder, base=lambda: self.base
        )

    @property
    def base(self) -> Base:
        """The frozen base, loaded once per process."""
        return load_base(self.config.student)

    def train(
        self, request: DistillRequest, records: Mapping[str, Record]
    ) -> tuple[tuple[ArmTraining, ...], dict[str, Adapter]]:
        """Train each arm on all pairs held so far.

        Parameters
        ----------
        request : DistillRequest
            Arms, new rationales and, under federated averaging, global adapters.
        records : mapping of str to Record
            All training records of the node by key.

        Returns
        -------
        tuple of ArmTraining, dict
            What happened, and the adapters that are shared.
        """
        used = self.pairs.used_records(request.server_round, list(records.values()))
        outcomes: list[ArmTraining] = []
        shared: dict[str, Adapter] = {}
        for arm in request.arms:
            if arm in UNTRAINED:
                continue
            outcome = self._train_arm(arm, request, records, used)
            outcomes.append(outcome)
            adapter = self._shared_adapter(arm, request.server_round)
            if adapter is not None:
                shared[arm] = {k: v.numpy() for k, v in adapter.items()}
        return tuple(outcomes), shared

    def exposed_keys(self, arms: Sequence[str]) -> list[str]:
        """Return the names of the records that adapters of these arms would give away.

        Those are the records of all pairs held so far, for each arm whose adapter
        leaves the node after it has seen private labels or questions.
        """
        exposing = [
            arm
            for arm in arms
            if shares_adapter(arm, self.config.aggregation)
            and not adapter_is_free(arm, self.config.pairing)
        ]
        found = [key for arm in exposing for key in self.pairs.keys_of(SOURCES[arm])]
        return list(dict.fromkeys(found))

    def evaluate(
        self, request: EvaluateRequest, partition: Partition
    ) -> tuple[ArmScore, ...]:
        """Score each arm; the final round adds the other prompt and deep problems."""
        scores: list[ArmScore] = []
        for arm in request.arms:
            headline = headline_prompt(arm)
            scores.append(self._score(arm, headline, "test", request, partition.test))
            if request.final:
                other: Prompt = "predict" if headline == "explain" else "explain"
                scores += [
                    self._score(arm, other, "test", request, partition.test),
                    self._score(
                        arm, headline, "deep-test", request, partition.deep_test
                    ),
                ]
        return tuple(scores)

    def _train_arm(
        self,
        arm: str,
        request: DistillRequest,
        records: Mapping[str, Record],
        used: Sequence[Record],
    ) -> ArmTraining:
        store, number = self._store(arm), request.server_round
        # A message that is delivered again must not train twice.
        if store.outcome(number) is None:
            self._train_new(arm, request, records, used)
        publish(store.round_folder(number), self._published(arm))
        return _stored_outcome(store.outcome(number) or {})

    def _train_new(
        self,
        arm: str,
        request: DistillRequest,
        records: Mapping[str, Record],
        used: Sequence[Record],
    ) -> None:
        pairing = self.pairs.pairing(arm, records, used)
        examples: tuple[Example, ...] = pairing.examples
        if not shares_adapter(arm, self.config.aggregation):
            examples += label_examples(used)
        trained: TrainingOutcome | None = None
        if examples:
            trained = train_adapter(
                self.base,
                examples,
                self.settings,
                seed=self._seed("train", request.server_round),
                adapter=self._start(arm, request),
            )
        outcome = ArmTraining(
            arm=arm,
            num_examples=len(examples),
            **{f"num_{name}": count for name, count in pairing.counts.items()},
            label_loss=tuple(trained.label_loss) if trained else (),
            rationale_loss=tuple(trained.rationale_loss) if trained else (),
            seconds=trained.seconds if trained else 0.0,
        )
        self._store(arm).commit(
            request.server_round,
            asdict(outcome),
            base=self.base,
            adapter=trained.adapter if trained else None,
            settings=self.settings,
        )

    def _start(
        self, arm: str, request: DistillRequest
    ) -> Mapping[str, torch.Tensor] | None:
        if arm in request.adapters:
            return _tensors(request.adapters[arm])
        return self._store(arm).newest(before=request.server_round)

    def _score(
        self,
        arm: str,
        prompt: Prompt,
        split: str,
        request: EvaluateRequest,
        records: Sequence[Record],
    ) -> ArmScore:
        adapter: Mapping[str, torch.Tensor] | None = None
        if arm in request.adapters:
            adapter = _tensors(request.adapters[arm])
        elif arm not in UNTRAINED:
            adapter = self._store(arm).newest(before=request.server_round + 1)
        score = evaluate_student(
            self.base,
            records,
            adapter=adapter,
            settings=self.settings,
            prompt=prompt,
            max_new_tokens=self.config.max_new_tokens,
        )
        return ArmScore(
            arm=arm,
            prompt=prompt,
            split=split,
            exact_match=score.exact_match,
            parsed=score.parsed,
            valid_rationales=score.valid_rationales,
            num_records=score.n,
            correct="".join("1" if hit else "0" for hit in score.correct),
        )

    def _seed(self, purpose: str, server_round: int) -> int:
        """Return a seed that all arms share, so that they differ in data only."""
        return derive_seed(self.config.seed, purpose, self.partition_id, server_round)

    def _store(self, arm: str) -> AdapterStore:
        shared = shares_adapter(arm, self.config.aggregation)
        return AdapterStore(self.folder, arm, is_shared=shared)

    def _shared_adapter(
        self, arm: str, server_round: int
    ) -> dict[str, torch.Tensor] | None:
        """Return what is sent: an adapter of this round, from the shared ones only."""
        if not shares_adapter(arm, self.config.aggregation):
            return None
        return AdapterStore(self.folder, arm, is_shared=True).load(server_round)

    def _published(self, arm: str) -> Path:
        return adapter_folder(self.adapter_root, arm, self.partition_id)


def training_settings(config: RunConfig) -> TrainingSettings:
    """Return the settings of a student's training."""
    return TrainingSettings(
        lora_r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        learning_rate=config.learning_rate,
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        rationale_weight=config.rationale_weight,
    )


def _tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.array(value)) for k, value in adapter.items()}


def _stored_outcome(stored: Mapping[str, Any]) -> ArmTraining:
    losses = {k: tuple(stored[k]) for k in ("label_loss", "rationale_loss")}
    return ArmTraining(**{**stored, **losses})
