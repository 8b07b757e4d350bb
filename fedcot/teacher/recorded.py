"""A teacher that repeats what a data set carries, for exact replays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fedcot.data.schema import Record
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.tasks.task import Task
from fedcot.teacher.cache import prompt_hash
from fedcot.teacher.teacher import Completion, Described, Progress, Usage


class RecordedTeacher:
    """Looks completions up by question; see `fedcot.teacher.teacher.Teacher`.

    A recording stands for a teacher that exists, so it counts as a public model: what
    comes back is a function of the question that was sent and of the file.

    Parameters
    ----------
    task : Task
        Writes the questions and reads the completions.
    records : sequence of Record
        Those without a completion are left out.
    vocabulary : Vocabulary, optional
        A question is then also found in the words that the vocabulary makes of it: a
        client that chooses from a public bank sends nothing else.
    released : RecordedTeacher, optional
        Knows the public records only; see `for_released`. Itself if not given.

    Attributes
    ----------
    ambiguous : int
        Questions that two records share, in their own words or in those of the
        vocabulary, with different completions. The first stands, own words before
        those of the vocabulary.
    """

    def __init__(
        self,
        task: Task,
        records: Sequence[Record],
        vocabulary: Vocabulary | None = None,
        released: RecordedTeacher | None = None,
    ) -> None:
        self.name = "recorded"
        self.ambiguous = 0
        self._task = task
        self._usage = Usage()
        self._released = released
        recorded = [record for record in records if record.completion]
        own = [(record.question, record.completion) for record in recorded]
        self._completions: dict[str, str] = {}
        ambiguous = self._add(own)
        self._recorded = len(self._completions)
        self._hash = _hash_of(self._completions)
        if vocabulary is not None:
            ambiguous |= self._add(
                (_decoded(task, vocabulary, record), record.completion)
                for record in recorded
            )
        self.ambiguous = len(ambiguous)

    def for_released(self) -> RecordedTeacher:
        """Return a teacher that knows the public records only.

        A released question that happens to read like a private one must not get what
        was recorded for that (R6).
        """
        return self._released or self

    @property
    def usage(self) -> Usage:
        """What was asked so far, released questions included."""
        if self._released is None:
            return self._usage
        other = self._released.usage
        return replace(
            self._usage,
            prompts=self._usage.prompts + other.prompts,
            empty=self._usage.empty + other.empty,
        )

    def describe(self) -> Described:
        """Return the data set and a hash over every question with its completion."""
        return {
            "writer": "recorded",
            "dataset": self._task.name,
            "recording": self._hash,
            "recorded": self._recorded,
            "ambiguous": self.ambiguous,
        }

    def answer(
        self, questions: Sequence[str], *, on_progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion for each question, in the order of the questions.

        A question that was never recorded gets an empty completion. The prompt's hash
        is that of what a model would have been asked.
        """
        distinct = list(dict.fromkeys(questions))
        found = {question: self._found(question) for question in distinct}
        empty = sum(not completion.text for completion in found.values())
        self._usage = replace(
            self._usage,
            prompts=self._usage.prompts + len(distinct),
            empty=self._usage.empty + empty,
        )
        if on_progress is not None and distinct:
            on_progress(len(distinct), len(distinct))
        return [found[question] for question in questions]

    def _found(self, question: str) -> Completion:
        text = self._completions.get(question, "")
        rationale = self._task.parse_teacher(text) if text else None
        asked = prompt_hash(self._task.teacher_prompt(question))
        return Completion(text, rationale, asked)

    def _add(self, pairs: Iterable[tuple[str, str]]) -> set[str]:
        """Add completions by question; return the questions that have another one."""
        return {
            question
            for question, completion in pairs
            if self._completions.setdefault(question, completion) != completion
        }


def _decoded(task: Task, vocabulary: Vocabulary, record: Record) -> str:
    """Return a question in the words that the vocabulary makes of it."""
    ids = vocabulary.encode_parts(record.parts)
    return task.question(vocabulary.decode_parts(ids))


def _hash_of(completions: dict[str, str]) -> str:
    """Return the SHA-256 over all pairs of hashes, in the order of the hashes."""
    pairs = sorted(
        (_digest(question), _digest(completion))
        for question, completion in completions.items()
    )
    return _digest(json.dumps(pairs))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
