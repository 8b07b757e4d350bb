"""What a run of social learning measured, student by student."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from fedcot import provenance
from fedcot.evaluation.metrics import correctness
from fedcot.social.aggregation import Chosen, Pool
from fedcot.social.balance import class_balance
from fedcot.social.configured import configured_data
from fedcot.social.demonstrations import DemonstrationFormat
from fedcot.social.instructions import MergedInstruction
from fedcot.social.messages import (
    OWN,
    BallotReply,
    ExamplesReply,
    InstructionReply,
    PromptScore,
    PromptsReply,
)
from fedcot.social.settings import EXAMPLES, INSTRUCTION
from fedcot.world.hidden_rules import KINDS
from strategies.exchange import Answer
from strategies.measures import estimate
from strategies.results import Results
from strategies.social_students import Prompt
from strategies.social_tests import student_tests
from strategies.state import RoundState

logger = logging.getLogger("flwr.fedcot")

BALLOT: Final = "ballot"
EVALUATE: Final = "evaluate"
PROMPTS: Final = "prompts"
# What is counted beside the reasons why a text was discarded.
_OUTCOMES: Final = (
    "num_sampled",
    "num_checked",
    "num_wrong",
    "num_drawn",
    "num_unexplained",
)
DISTILLED: Final = "distilled"


class SocialResults:
    """Collects the measurements of one run.

    Parameters
    ----------
    results : Results
        Writes lines.
    form : DemonstrationFormat
        Writes the students' prompts.
    """

    def __init__(self, results: Results, form: DemonstrationFormat) -> None:
        self.results = results
        self.config = results.config
        self.form = form
        self._bytes: dict[str, dict[str, int]] = {}
        self._teachers: dict[int, dict[str, int]] = {}
        self._generation: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._students: dict[str, dict[str, Any]] = {}
        self._correct: dict[str, list[bool]] = {}
        self._left_out: dict[str, str] = {}
        # By student, then by partition.
        self._scores: dict[str, dict[int, PromptScore]] = defaultdict(dict)
        self._pool = Pool((), (), 0)
        self._chosen: dict[str, dict[str, Any]] = {}
        self._claims: dict[str, Any] | None = None
        self._voters = 0
        self._instructions: dict[str, Any] = {}
        self._distilled: dict[str, Any] | None = None
        self._fedavg: dict[str, Any] | None = None

    def note_examples(
        self, server_round: int, answer: Answer, reply: ExamplesReply
    ) -> None:
        """Write how many examples one teacher client sent, and what it kept back."""
        counts = _counts(reply)
        self._generation.update(counts)
        self._note(server_round, "teach", EXAMPLES, answer, reply.partition_id, counts)

    def note_ballot(
        self, server_round: int, answer: Answer, reply: BallotReply
    ) -> None:
        """Write that one teacher client voted; what it chose is counted elsewhere."""
        self._note(server_round, "vote", BALLOT, answer, reply.partition_id, {})

    def note_instruction_reply(
        self, server_round: int, answer: Answer, reply: InstructionReply
    ) -> None:
        """Write whether one teacher client's instruction came through its gate."""
        counts = _counts(reply)
        self._refused.update(counts)
        self._note(
            server_round,
            "instruct",
            INSTRUCTION,
            answer,
            reply.partition_id,
            {**counts, "num_sent": len(reply.instruction)},
        )

    def note_pool(self, pool: Pool) -> None:
        """Keep what all teacher clients sent."""
        self._pool = pool

    def note_chosen(self, name: str, chosen: Chosen, voters: int) -> None:
        """Keep what one aggregator chose."""
        labels, pool = self.form.labels, self._pool
        taken = [pool.labels[index] for index in chosen.indices]
        balance = None
        if len(labels) > 1 and set(pool.labels) <= set(labels):
            balance = asdict(class_balance(taken, labels, pool=pool.labels))
        self._chosen[name] = {
            "indices": list(chosen.indices),
            "partitions": [pool.partition_ids[index] for index in chosen.indices],
            "ties": chosen.num_ties,
            "epsilon": chosen.epsilon if math.isfinite(chosen.epsilon) else None,
            "balance": balance,
        }
        self._voters = max(self._voters, voters)
        if chosen.claims is not None:
            self._claims = asdict(chosen.claims)

    def note_instruction(self, merged: MergedInstruction, sent: int) -> None:
        """Keep where the student's instruction comes from."""
        text = merged.text.encode()
        self._instructions = {
            "sent": sent,
            "merging": self.config.instruction_merging,
            "partitions": list(merged.partitions),
            "extension": merged.is_extension,
            "bytes": len(text),
            "sha256": hashlib.sha256(text).hexdigest(),
        }

    def note_student(self, prompt: Prompt, correct: Sequence[bool | None]) -> None:
        """Write one student's prompt, and its score on the public questions."""
        text = prompt.text(self.form)
        folder = self.results.run.path / PROMPTS
        folder.mkdir(exist_ok=True)
        (folder / f"{prompt.name}.txt").write_text(text, encoding="utf-8")
        right = [one is True for one in correct]
        digits = correctness(right)
        self._correct[prompt.name] = right
        self._students[prompt.name] = {
            "kind": prompt.name.partition(".")[0],
            "num_examples": len(prompt.demonstrations),
            "accuracy": estimate(sum(right), len(right)),
            "answered": sum(one is not None for one in correct) / max(1, len(correct)),
            "own": None,
            "prompt_bytes": len(text.encode()),
        }
        row = {"phase": "hold-out", "student": prompt.name, "correct": digits}
        self.results.run.append_metrics({**row, **self._students[prompt.name]})

    def note_left_out(self, student: str, reason: str) -> None:
        """Keep why a student could not be asked."""
        logger.warning("├── Left out %s: %s", student, reason)
        self._left_out[student] = reason

    def note_distilled(self, found: Mapping[str, Any]) -> None:
        """Keep the score of the student that was trained on all examples."""
        self._distilled = dict(found)

    def note_fedavg(self, found: Mapping[str, Any] | None) -> None:
        """Keep what a round of averaged adapters would have cost a client."""
        self._fedavg = None if found is None else dict(found)

    def note_scores(
        self, server_round: int, answer: Answer, reply: PromptsReply
    ) -> None:
        """Write the scores of one client: its share of the public test, and its own."""
        partition = reply.partition_id
        self._note(server_round, "evaluate", EVALUATE, answer, partition, {})
        for score in reply.scores:
            row = {"round": server_round, "phase": "evaluate", "partition": partition}
            self.results.run.append_metrics({**row, **asdict(score)})
            self._scores[score.student][partition] = score

    def _note(
        self,
        server_round: int,
        phase: str,
        kind: str,
        answer: Answer,
        partition: int,
        more: Mapping[str, Any],
    ) -> None:
        traffic = {
            "uplink_bytes": answer.uplink_bytes,
            "downlink_bytes": answer.downlink_bytes,
        }
        held = self._bytes.setdefault(kind, dict.fromkeys(traffic, 0))
        own = self._teachers.setdefault(partition, dict.fromkeys(traffic, 0))
        for key, count in traffic.items():
            held[key] += count
            # Scores are for the report; nobody is taught by them.
            own[key] += 0 if kind == EVALUATE else count
        self.results.note_line(server_round, phase, partition, answer, **more)

    def accuracy(self) -> dict[str, dict[str, float]]:
        """Return the headline accuracy of each kind of student, its longest prompt's.

        On the public questions; the private originals on each client's share of these.
        """
        found: dict[str, dict[str, float]] = {}
        longest: dict[str, int] = {}
        for student in self._all_students().values():
            kind, count = student["kind"], student["num_examples"]
            if count >= longest.get(kind, -1):
                longest[kind], found[kind] = count, student["accuracy"]
        if self._distilled:
            found[DISTILLED] = self._distilled["accuracy"]
        return found

    def summary(
        self,
        state: RoundState,
        *,
        status: str,
        traffic: Mapping[str, int],
        reason: str,
        models: Mapping[str, Any],
        protocol: Mapping[str, Any],
        privacy: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return every key of `summary.json`."""
        config = self.config
        return {
            "status": status,
            "mode": config.mode,
            "mechanism": "none",
            "seed": config.seed,
            "canaries": config.canaries,
            "num_partitions": len(state.members),
            "num_rounds": state.server_round,
            "accuracy": self.accuracy(),
            "accuracy_by_prompt": {},
            "accuracy_deep": {},
            "teacher_measured_on": "",
            "rationale_validity": {},
            "dataset": config.task,
            "data": {},
            "community": {},
            "social": self._social(protocol, len(state.members)),
            "privacy": dict(privacy),
            "account": {},
            "traffic": dict(traffic),
            "timing": {p: round(s, 3) for p, s in self.results.timing.items()},
            "failures": list(state.failures),
            "refused": state.refused,
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
            "teacher": dict(models),
            "reason": reason,
        }

    def _social(self, protocol: Mapping[str, Any], clients: int) -> dict[str, Any]:
        discarded = {
            name.removeprefix("num_"): count
            for name, count in self._generation.items()
            if name not in _OUTCOMES
        }
        return {
            "task": self.config.task,
            "hint": self._hint(),
            "labels": list(self.form.labels),
            "models": {
                "clients": list(self.config.client_models),
                "student": self.config.prompted_student,
            },
            "protocol": dict(protocol),
            "students": self._all_students(),
            "left_out": self._left_out,
            "tests": student_tests(
                self.config, self._correct, self._scores, clients=clients
            ),
            "generation": {
                "sampled": self._generation["num_sampled"],
                "kept": len(self._pool.labels) + self._pool.num_repeated,
                "discarded": discarded,
                "checked": self._generation["num_checked"],
                "wrong": self._generation["num_wrong"],
                "drawn": self._generation["num_drawn"],
                "unexplained": self._generation["num_unexplained"],
            },
            "pool": {
                "candidates": len(self._pool.labels),
                "repeated": self._pool.num_repeated,
                "by_partition": {
                    str(partition): count
                    for partition, count in sorted(
                        Counter(self._pool.partition_ids).items()
                    )
                },
                "labels": (
                    dict(Counter(self._pool.labels)) if self.form.labels else {}
                ),
            },
            "chosen": self._chosen,
            "votes": {"voters": self._voters, "claims": self._claims},
            "instructions": {
                **self._instructions,
                "refused": {
                    name.removeprefix("num_"): count
                    for name, count in self._refused.items()
                    if name not in _OUTCOMES
                },
            },
            "bytes": {
                **self._bytes,
                "per_teacher": self._per_teacher(),
                "fedavg": self._fedavg,
            },
            "distilled": self._distilled,
        }

    def _hint(self) -> str:
        """Return the rule in words, for a generated task that has one."""
        if self.config.task not in KINDS:
            return ""
        return configured_data(self.config).hint

    def _per_teacher(self) -> dict[str, float]:
        """Return the mean bytes of a teacher client in the whole conversation."""
        clients = max(1, len(self._teachers))
        return {
            key: sum(own[key] for own in self._teachers.values()) / clients
            for key in ("uplink_bytes", "downlink_bytes")
        }

    def _all_students(self) -> dict[str, dict[str, Any]]:
        """Return what the server scored, what clients did, and both where both did."""
        found = {name: dict(one) for name, one in self._students.items()}
        for name, scores in self._scores.items():
            score = _pooled(scores.values())
            if name.startswith(OWN):
                base = found.get(name.removeprefix(OWN))
                if base is not None:
                    base["own"] = score
                    continue
                name = name.removeprefix(OWN)
                self._add_original(found, name)["own"] = score
            elif name not in self._students:
                answered = sum(one.num_answered for one in scores.values())
                self._add_original(found, name).update(
                    accuracy=score, answered=answered / max(1, score["n"])
                )
        return found

    def _add_original(
        self, found: dict[str, dict[str, Any]], name: str
    ) -> dict[str, Any]:
        kind, _, count = name.partition(".")
        return found.setdefault(
            name,
            {
                "kind": kind,
                "num_examples": int(count or 0),
                "accuracy": estimate(0, 0),
                "answered": 0.0,
                "own": None,
                "prompt_bytes": 0,
            },
        )


def _counts(reply: ExamplesReply | InstructionReply) -> dict[str, int]:
    return {
        name: getattr(reply, name)
        for name in reply.__slots__
        if name.startswith("num_")
    }


def _pooled(scores: Any) -> dict[str, float]:
    held = list(scores)
    return estimate(
        sum(one.correct.count("1") for one in held),
        sum(one.num_records for one in held),
    )
