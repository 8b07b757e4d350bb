"""A client's students: which pairs each arm trains on, training, adapters, scores."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from fedcot.arms import (
    SOURCES,
    UNTRAINED,
    Prompt,
    exposes_by_adapter,
    headline_prompt,
    shares_adapter,
)
from fedcot.config import RunConfig
from fedcot.data.schema import Partition, Record
from fedcot.evaluation.evaluate import evaluate_student
from fedcot.evaluation.metrics import correctness
from fedcot.evaluation.predictions import write_predictions
from fedcot.models.options import ModelOptions
from fedcot.node_adapters import AdapterStore, publish
from fedcot.node_pairs import NodePairs
from fedcot.node_private import PrivateTraining, examples_by_record
from fedcot.records import Adapter, DistillRequest, EvaluateRequest
from fedcot.rows import ArmScore, ArmTraining
from fedcot.runs import adapter_folder
from fedcot.seeding import derive_seed
from fedcot.settings import WORLD
from fedcot.student.base import Base, TrainingSettings, load_base, new_adapter
from fedcot.student.examples import Example, Pairing, label_examples
from fedcot.student.training import TrainingOutcome, train_adapter
from fedcot.tasks.registry import configured_task

# No float16 model gives less to a token that it thinks impossible; JSON has no -inf.
LEAST_NATS: Final = -1e9


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
    released. By DP-SGD the number of steps follows from public numbers alone.
    """

    def __init__(
        self, config: RunConfig, *, partition_id: int, folder: Path, adapter_root: Path
    ) -> None:
        self.config = config
        self.partition_id = partition_id
        self.folder = folder
        self.adapter_root = adapter_root
        self.settings = training_settings(config)
        self.task = configured_task(config)
        self.private = PrivateTraining(config, partition_id=partition_id)
        self.pairs = NodePairs(
            config, partition_id=partition_id, folder=folder, base=lambda: self.base
        )

    @property
    def base(self) -> Base:
        """The frozen base, loaded once per process."""
        return student_base(self.config)

    def train(
        self,
        request: DistillRequest,
        records: Mapping[str, Record],
        *,
        granted: Container[str] | None = None,
    ) -> tuple[tuple[ArmTraining, ...], dict[str, Adapter]]:
        """Train each arm on all pairs held so far.

        Parameters
        ----------
        request : DistillRequest
            Arms, new rationales and, under federated averaging, global adapters.
        records : mapping of str to Record
            All training records of the node by key.
        granted : container of str, optional
            Keys of the records whose training by DP-SGD was charged; the others take
            part as null records. All, if not given.

        Returns
        -------
        tuple of ArmTraining, dict
            What happened, and the adapters that are shared.

        Raises
        ------
        ConfigError
            A round beyond those that were charged for.
        """
        self.private.check_round(request.arms, request.server_round)
        used = self.pairs.used_records(request.server_round, list(records.values()))
        outcomes: list[ArmTraining] = []
        shared: dict[str, Adapter] = {}
        for arm in request.arms:
            if arm in UNTRAINED:
                continue
            outcome = self._train_arm(arm, request, records, used, granted)
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
            if exposes_by_adapter(
                arm,
                aggregation=self.config.aggregation,
                pairing=self.config.pairing,
                noise_multiplier=self.config.noise_multiplier,
            )
        ]
        found = [key for arm in exposing for key in self.pairs.keys_of(SOURCES[arm])]
        return list(dict.fromkeys(found))

    def used_keys(
        self, request: DistillRequest, records: Mapping[str, Record]
    ) -> list[str]:
        """Return the keys of the records used up to this round; public."""
        used = self.pairs.used_records(request.server_round, list(records.values()))
        keys = {id(record): key for key, record in records.items()}
        return [keys[id(record)] for record in used]

    def private_trainings(self, arms: Sequence[str]) -> dict[str, str]:
        """Return the trainings by DP-SGD as arm and name; each is charged by itself.

        A name goes with what is stored: if the store is lost, training starts again
        with new noise under another name and has to be paid again.
        """
        return {
            arm: f"dp-sgd {arm} {self._store(arm).identity()}"
            for arm in arms
            if self.private.covers(arm)
        }

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
                scores.append(self._score(arm, other, "test", request, partition.test))
            if request.final and partition.deep_test:
                deep = partition.deep_test
                scores.append(self._score(arm, headline, "deep-test", request, deep))
        return tuple(scores)

    def _train_arm(
        self,
        arm: str,
        request: DistillRequest,
        records: Mapping[str, Record],
        used: Sequence[Record],
        granted: Container[str] | None,
    ) -> ArmTraining:
        store, number = self._store(arm), request.server_round
        # A message that is delivered again must not train twice.
        if store.outcome(number) is None:
            self._train_new(arm, request, records, used, granted)
        publish(store.round_folder(number), self._published(arm))
        return _stored_outcome(store.outcome(number) or {})

    def _train_new(
        self,
        arm: str,
        request: DistillRequest,
        records: Mapping[str, Record],
        used: Sequence[Record],
        granted: Container[str] | None,
    ) -> None:
        pairing = self.pairs.pairing(arm, records, used)
        trained: TrainingOutcome | None
        if self.private.covers(arm):
            trained = self.private.train(
                arm,
                examples_by_record(
                    pairing,
                    self.pairs.keys_of(SOURCES[arm]),
                    records=records,
                    used=used,
                    granted=granted,
                    task=self.task,
                ),
                base=self.base,
                settings=self.settings,
                server_round=request.server_round,
                seed=self._seed("train", request.server_round),
                adapter=self._start(arm, request),
            )
        else:
            trained = self._train_plainly(arm, request, pairing, used)
        outcome = ArmTraining(
            arm=arm,
            num_examples=trained.num_examples if trained else 0,
            **{f"num_{name}": count for name, count in pairing.counts.items()},
            num_truncated=trained.num_truncated if trained else 0,
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

    def _train_plainly(
        self,
        arm: str,
        request: DistillRequest,
        pairing: Pairing,
        used: Sequence[Record],
    ) -> TrainingOutcome | None:
        examples: tuple[Example, ...] = pairing.examples
        if not shares_adapter(arm, self.config.aggregation):
            examples += label_examples(used, self.task)
        if not examples:
            return None
        return train_adapter(
            self.base,
            examples,
            self.settings,
            seed=self._seed("train", request.server_round),
            adapter=self._start(arm, request),
        )

    def _start(
        self, arm: str, request: DistillRequest
    ) -> Mapping[str, torch.Tensor] | None:
        if arm in request.adapters:
            return tensors(request.adapters[arm])
        own = self._store(arm).newest(before=request.server_round)
        if own is None and starts_together(self.config):
            return first_adapter(self.base, self.config)
        return own

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
            adapter = tensors(request.adapters[arm])
        elif arm not in UNTRAINED:
            adapter = self._store(arm).newest(before=request.server_round + 1)
        score = evaluate_student(
            self.base,
            records,
            adapter=adapter,
            settings=self.settings,
            prompt=prompt,
            task=self.task,
            max_new_tokens=self.config.max_new_tokens,
            batch_size=self.config.evaluation_batch_size,
            # Once for each arm; the world is scored by its verifier instead.
            likelihoods=request.final
            and prompt == headline_prompt(arm)
            and self.config.dataset != WORLD,
        )
        if request.final:
            place = self.folder / "predictions" / arm / f"{split}-{prompt}.jsonl"
            write_predictions(place, records, score)
        return ArmScore(
            arm=arm,
            prompt=prompt,
            split=split,
            exact_match=score.exact_match,
            parsed=score.parsed,
            valid_rationales=score.valid_rationales,
            num_records=score.n,
            correct=correctness(score.correct),
            flexible_match=score.flexible_match,
            ranked_match=score.ranked_match,
            answer_nats=max(score.answer_nats, LEAST_NATS),
            rationale_nats=max(score.rationale_nats, LEAST_NATS),
            rationale_tokens=score.rationale_tokens,
            chrf=score.chrf,
            chance=score.chance,
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
        freeze_a=config.freeze_lora_a,
        tuning=config.tuning,
    )


def student_base(config: RunConfig) -> Base:
    """Return the frozen base of a run's students, loaded once per process."""
    return load_base(config.student, ModelOptions.of_student(config))


def starts_together(config: RunConfig) -> bool:
    """Whether all clients start from one adapter, so that updates can be compared."""
    return config.aggregation == "fedavg" and (
        config.freeze_lora_a or config.server_noise_multiplier > 0
    )


def first_adapter(base: Base, config: RunConfig) -> dict[str, torch.Tensor]:
    """Return the adapter, or weights, that all clients of a run start from; public."""
    seed = derive_seed(config.seed, "first-adapter")
    return new_adapter(base, training_settings(config), seed=seed)


def tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return an adapter that was received, as tensors of its own."""
    return {k: torch.from_numpy(np.array(value)) for k, value in adapter.items()}


def _stored_outcome(stored: Mapping[str, Any]) -> ArmTraining:
    losses = {k: tuple(stored[k]) for k in ("label_loss", "rationale_loss")}
    return ArmTraining(**{**stored, **losses})
