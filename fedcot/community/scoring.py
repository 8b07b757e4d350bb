"""Scores of students with an adapter, with a prompt, or with neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedcot.arms import Prompt
from fedcot.community.messages import BEFORE, StudentScore
from fedcot.community.settings import LABEL_ONLY, PROMPT
from fedcot.config import RunConfig
from fedcot.evaluation.evaluate import Score, evaluate_student
from fedcot.evaluation.metrics import correctness
from fedcot.node_training import student_base, tensors, training_settings
from fedcot.records import Adapter
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.community.pool import Shown
    from fedcot.data.schema import Record
    from fedcot.tasks.task import Task


class PromptedTask:
    """A task whose `explain` prompts begin with a text: demonstrations, say.

    Parameters
    ----------
    task : Task
        Does everything else.
    text : str
        Stands before every question.
    """

    def __init__(self, task: Task, text: str) -> None:
        self._task = task
        self._text = text

    def explain_prompt(self, question: str) -> str:
        """Return the text and then the task's own prompt."""
        return f"{self._text}\n\n{self._task.explain_prompt(question)}"

    def __getattr__(self, name: str) -> object:
        """Return what the task has."""
        return getattr(self._task, name)


def demonstrations(traces: Sequence[Shown], task: Task) -> str:
    """Return traces as the text that a student reads before its question."""
    from fedcot.data.schema import Rationale

    return "\n\n".join(
        f"{task.explain_prompt(trace.question)} "
        f"{task.completion(Rationale(trace.reasoning, trace.answer))}"
        for trace in traces
        if trace.reasoning
    )


def score_student(
    config: RunConfig,
    student: str,
    records: Sequence[Record],
    *,
    adapter: Adapter | None,
    text: str = "",
) -> StudentScore:
    """Score one student on records.

    Parameters
    ----------
    student : str
        Arm and coalition, or `zero-shot`.
    adapter : mapping of str to ndarray or None
        None: the base itself.
    text : str
        What the student reads before each question.
    """
    task = configured_task(config)
    return student_score(
        student,
        evaluate_student(
            student_base(config),
            records,
            adapter=None if adapter is None else tensors(adapter),
            settings=training_settings(config),
            prompt=student_prompt(student, config),
            task=PromptedTask(task, text) if text else task,  # type: ignore[arg-type]
            max_new_tokens=config.max_new_tokens,
            batch_size=config.evaluation_batch_size,
        ),
    )


def student_prompt(student: str, config: RunConfig) -> Prompt:
    """Return the prompt that a student is scored with: that of its training.

    The base, and a student that reads demonstrations, are asked for reasoning always.
    """
    arm = student.partition(".")[0]
    only_answers = config.label_share == 1 and arm not in (BEFORE, PROMPT)
    return "predict" if only_answers or arm == LABEL_ONLY else "explain"


def student_score(student: str, score: Score) -> StudentScore:
    """Return a score as a member sends it."""
    return StudentScore(
        student=student,
        exact_match=score.exact_match,
        parsed=score.parsed,
        valid_rationales=score.valid_rationales,
        num_records=score.n,
        correct=correctness(score.correct),
    )
