"""What a run measured: lines while it goes on, the summary at its end."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedcot import provenance
from fedcot.arms import headline_prompt
from fedcot.config import RunConfig
from fedcot.data.loading import load_dataset
from fedcot.data.partition import load_partition, load_public_bank
from fedcot.evaluation.evaluate import evaluate_teacher
from fedcot.node_training import student_base, training_settings
from fedcot.records import DistillReply, EvaluateReply, PerturbReply
from fedcot.rows import ArmScore, ArmTraining, SentRationale
from fedcot.runs import RATIONALES, RunDirectory, append_line
from fedcot.settings import WORLD
from fedcot.student.base import adapted, adapter_state
from fedcot.student.training import save_adapter
from fedcot.tasks.registry import configured_task
from fedcot.teacher.teacher import Completion, Teacher
from fedcot.teacher_source import is_endpoint
from strategies.exchange import Answer
from strategies.measures import estimate, filter_counts, further_measures
from strategies.state import Member

COMPLETED, FAILED, EXHAUSTED = "completed", "failed", "budget-exhausted"


class Results:
    """Collects the measurements of a run and writes them to its directory.

    Parameters
    ----------
    run : RunDirectory
        Where lines and summary go.
    config : RunConfig
        Settings of the run.
    """

    def __init__(self, run: RunDirectory, config: RunConfig) -> None:
        self.run = run
        self.config = config
        self.timing: dict[str, float] = defaultdict(float)
        self.teacher: dict[str, Any] | None = None
        self._shapes: dict[str, tuple[int, ...]] | None = None
        # The newest score of each partition, by arm, prompt and split.
        self._scores: dict[tuple[str, str, str], dict[int, ArmScore]] = defaultdict(
            dict
        )
        self._trainings: dict[tuple[str, int], ArmTraining] = {}
        self._data: dict[str, Any] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a phase to the timing."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.timing[phase] += time.monotonic() - started

    def note_prompts(
        self, server_round: int, answer: Answer, reply: PerturbReply
    ) -> None:
        """Write what one client released."""
        self.note_line(
            server_round,
            "perturb",
            reply.partition_id,
            answer,
            num_prompts=len(reply.prompts),
            num_raw_prompts=len(reply.raw_prompts),
            num_fresh=reply.num_fresh,
            num_refused=reply.num_refused,
            prompt_epsilon=reply.prompt_epsilon,
            record_epsilon=reply.spent_record_epsilon,
        )

    def note_training(
        self, server_round: int, answer: Answer, reply: DistillReply
    ) -> None:
        """Write how one client trained each arm."""
        partition = reply.partition_id
        self.note_line(
            server_round, "distil", partition, answer, withheld=reply.withheld
        )
        for training in reply.training:
            row = {"round": server_round, "phase": "distil", "partition": partition}
            self.run.append_metrics({**row, **asdict(training)})
            self._trainings[training.arm, partition] = training

    def note_rationales(
        self,
        server_round: int,
        partition: int,
        sent: Sequence[SentRationale],
        answers: Sequence[Completion],
    ) -> None:
        """Write where each rationale comes from: hashes, never a text.

        The teacher, its revision and settings stand in `config.json`.
        """
        for rationale, answer in zip(sent, answers, strict=True):
            digest = hashlib.sha256(answer.text.encode("utf-8", "replace"))
            row = {
                "round": server_round,
                "partition": partition,
                "source": rationale.source,
                "parsed": rationale.parsed,
                "prompt_hash": answer.prompt_hash,
                "completion_hash": digest.hexdigest(),
            }
            append_line(self.run.path / RATIONALES, row)

    def note_scores(
        self, server_round: int, answer: Answer, reply: EvaluateReply
    ) -> None:
        """Write the scores of one client and keep the newest."""
        partition = reply.partition_id
        self.note_line(
            server_round, "evaluate", partition, answer, withheld=reply.withheld
        )
        for score in reply.scores:
            row = {"round": server_round, "phase": "evaluate", "partition": partition}
            share = score.exact_match / max(1, score.num_records)
            self.run.append_metrics({**row, **asdict(score), "accuracy": share})
            self._scores[score.arm, score.prompt, score.split][partition] = score

    def progress(
        self, phase: str, server_round: int, done: int, total: int, **more: Any
    ) -> None:
        """Write one line that `fedcot run` shows while the run goes on."""
        self.run.append_progress(phase, server_round, done, total, **more)

    def measure_teacher(self, teacher: Teacher, members: Mapping[int, Member]) -> None:
        """Score the teacher on the questions that the arms are scored on.

        The server can read them in a simulation only; in a deployment, and where
        somebody else's endpoint would see them, it takes public problems instead, if
        there are any.
        """
        identities = [members[partition].identity for partition in sorted(members)]
        is_local = not is_endpoint(self.config.teacher)
        if is_local and all(identity.simulated for identity in identities):
            questions = [
                record
                for who in identities
                for record in load_partition(
                    self.config, who.partition_id, who.num_partitions
                ).test
            ]
            measured_on = "the clients' test questions"
        else:
            size = self.config.test_records * len(identities)
            if not self._has_public_problems:
                return
            questions = list(load_public_bank(self.config, size))
            measured_on = "public problems"
        task = configured_task(self.config)
        score = evaluate_teacher(teacher, questions, task=task)
        self.teacher = {
            "accuracy": estimate(score.exact_match, score.n),
            "rationale_validity": (
                score.valid_rationales / max(1, score.n) if task.checks_steps else None
            ),
            "measured_on": measured_on,
        }

    def measure_data(self, members: Mapping[int, Member]) -> None:
        """Note what became of a dataset's rows, where the server can read them."""
        identities = [member.identity for member in members.values()]
        if self.config.dataset == WORLD or not all(who.simulated for who in identities):
            return
        loaded = load_dataset(self.config)
        self._data = {
            "rows": dict(loaded.rows),
            "skipped": {split: dict(why) for split, why in loaded.skipped.items()},
            "cleaned": dict(loaded.cleaned),
            "public": len(loaded.public),
            "train": sum(who.num_records for who in identities),
            "teacher_labels": {
                split: asdict(counts) for split, counts in loaded.labels.items()
            },
        }

    @property
    def _has_public_problems(self) -> bool:
        return self.config.dataset == WORLD or self.config.public_share > 0

    def save_global(
        self,
        arm: str,
        adapter: Mapping[str, NDArray[np.float32]],
        *,
        coalition: str = "",
    ) -> None:
        """Write an aggregated adapter, or that of a coalition, in PEFT's format."""
        tensors = {name: torch.from_numpy(value) for name, value in adapter.items()}
        folder = self.run.adapter_folder(arm, None, coalition=coalition)
        base = student_base(self.config)
        save_adapter(base, tensors, training_settings(self.config), folder)

    def adapter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of each tensor of a student's adapter."""
        if self._shapes is None:
            base, settings = (
                student_base(self.config),
                training_settings(self.config),
            )
            with adapted(base, settings, seed=0) as model:
                state = adapter_state(model)
            self._shapes = {name: tuple(value.shape) for name, value in state.items()}
        return self._shapes

    def accuracy(self) -> dict[str, dict[str, float]]:
        """Return the headline accuracy of each arm, the teacher first.

        Pooled over the test records of all clients.
        """
        found = {"teacher": self.teacher["accuracy"]} if self.teacher else {}
        for arm in self.config.arm_names:
            if score := self._pooled(arm, headline_prompt(arm), "test"):
                found[arm] = score
        return found

    def _pooled(self, arm: str, prompt: str, split: str) -> dict[str, float] | None:
        scores = self._scores.get((arm, prompt, split), {}).values()
        records = sum(score.num_records for score in scores)
        if records == 0:
            return None
        return estimate(sum(score.exact_match for score in scores), records)

    def _by_prompt(self) -> dict[str, dict[str, Any]]:
        return {
            arm: {
                prompt: score
                for prompt in ("explain", "predict")
                if (score := self._pooled(arm, prompt, "test"))
            }
            for arm in self.config.arm_names
        }

    def _deep(self) -> dict[str, Any]:
        return {
            arm: score
            for arm in self.config.arm_names
            if (score := self._pooled(arm, headline_prompt(arm), "deep-test"))
        }

    def _validity(self) -> dict[str, float]:
        if not configured_task(self.config).checks_steps:
            return {}
        found = {"teacher": self.teacher["rationale_validity"]} if self.teacher else {}
        for arm in self.config.arm_names:
            scores = self._scores.get((arm, "explain", "test"), {}).values()
            if records := sum(score.num_records for score in scores):
                found[arm] = sum(s.valid_rationales for s in scores) / records
        return found

    def summary(
        self,
        *,
        status: str,
        num_partitions: int,
        num_rounds: int,
        privacy: Mapping[str, Any],
        traffic: Mapping[str, int],
        failures: Iterable[str],
        **more: Any,
    ) -> dict[str, Any]:
        """Return every key of `summary.json`."""
        return {
            "status": status,
            "mode": self.config.mode,
            "mechanism": self.config.mechanism,
            "seed": self.config.seed,
            "canaries": self.config.canaries,
            "num_partitions": num_partitions,
            "num_rounds": num_rounds,
            "accuracy": self.accuracy(),
            "accuracy_by_prompt": self._by_prompt(),
            "accuracy_deep": self._deep(),
            "teacher_measured_on": self.teacher["measured_on"] if self.teacher else "",
            "rationale_validity": self._validity(),
            **further_measures(self._scores, self.config.arm_names),
            "filters": filter_counts(self._trainings),
            "dataset": self.config.dataset,
            "data": self._data,
            "privacy": privacy,
            "traffic": traffic,
            "timing": {phase: round(s, 3) for phase, s in self.timing.items()},
            "failures": list(failures),
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
            **more,
        }

    def note_line(
        self,
        server_round: int,
        phase: str,
        partition: int,
        answer: Answer,
        **more: Any,
    ) -> None:
        """Write one line about a reply: whose it is and what it cost."""
        row = {
            "round": server_round,
            "phase": phase,
            "partition": partition,
            "seconds": round(answer.seconds, 3),
            "uplink_bytes": answer.uplink_bytes,
            "downlink_bytes": answer.downlink_bytes,
        }
        self.run.append_metrics({**row, **more})
