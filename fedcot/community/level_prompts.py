"""Ask a teacher for a rationale of a stated level, by one worked example.

One-shot prompting as in https://arxiv.org/abs/2502.18001; the wording and the example
are ours. A prompted level is a request: `fedcot.community.level_statistics` says
whether the texts that came back follow it, and only answers that stay the same are
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.tasks.task import Task, TeacherPrompt
from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.prompted import PromptedTeacher
from fedcot.teacher.teacher import Described, Writer, Written

PROMPT_LEVELS: Final = 6


@dataclass(frozen=True, slots=True)
class LevelExample:
    """A public question with one rationale for each level.

    Attributes
    ----------
    asked : str
        The question as a user of the task would ask it.
    rationales : tuple of str
        Coarse to fine.
    concluded : str
        The answer as the task's strict extractor reads it, behind each rationale.
    """

    asked: str
    rationales: tuple[str, ...]
    concluded: str


ARITHMETIC: Final = LevelExample(
    asked=(
        "Q: A ferry leaves with 3 rows of 14 seats taken. At the first pier 9 people "
        "get off and 4 get on. How many people are on board then?\nA:"
    ),
    rationales=(
        "3 x 14 - 9 + 4 = 37.",
        "The ferry leaves with 3 x 14 = 42 people. Then 42 - 9 + 4 = 37.",
        (
            "The ferry leaves with 3 x 14 = 42 people. When 9 get off, 42 - 9 = 33 "
            "are left. When 4 get on, there are 33 + 4 = 37."
        ),
        (
            "First count the people at the start. There are 3 rows of 14 seats, so "
            "that is 3 x 14 = 42 people. At the pier 9 people get off, and 42 - 9 = "
            "33 are left on board. Then 4 people get on, which makes 33 + 4 = 37."
        ),
        (
            "First count the people at the start. Every taken seat is one person. "
            "There are 3 rows of 14 seats, so that is 3 x 14 = 42 people. At the "
            "pier 9 people get off, so subtract them, and 42 - 9 = 33 are left on "
            "board. Then 4 people get on, so add them, which makes 33 + 4 = 37."
        ),
        (
            "We are asked how many people are on board after the first pier. First "
            "count the people at the start, where every taken seat is one person. "
            "There are 3 rows of 14 seats, so multiply the two, and that is 3 x 14 "
            "= 42 people. At the pier 9 people get off, so subtract them, and 42 - "
            "9 = 33 are left on board. Then 4 people get on, so add them, which "
            "makes 33 + 4 = 37. Nobody else gets on or off, so this is the number "
            "that was asked for."
        ),
    ),
    concluded="The answer is 37.",
)


def level_prompt(
    task_prompt: TeacherPrompt,
    level: int,
    levels: int = PROMPT_LEVELS,
    *,
    example: LevelExample = ARITHMETIC,
) -> TeacherPrompt:
    """Return a prompt that asks for a rationale of a level.

    The task's instruction stays, its demonstrations give way to one that shows the
    level, and the question at hand is the task's own.

    Parameters
    ----------
    task_prompt : TeacherPrompt
        As `Task.teacher_prompt` returns it.
    level : int
        From 1, coarse, to `levels`, fine; also the number of sentences asked for.
    levels : int
        From 2 to the number of rationales of the example.
    example : LevelExample
        The default is for numbers as answers; other tasks need one of their own form.

    Raises
    ------
    ConfigError
        There is no such level, or the example has too few.
    """
    if not 2 <= levels <= len(example.rationales):
        raise ConfigError(
            f"`levels` must be 2 to {len(example.rationales)}, the rationales of the "
            f"example, found {levels}; pass another example."
        )
    if not 1 <= level <= levels:
        raise ConfigError(
            f"`level` must be 1 to {levels}, from coarse to fine, found {level}; pass "
            "one of these."
        )
    # With fewer levels than rationales: the finest always, the others evenly spaced.
    place = -(-level * len(example.rationales) // levels) - 1
    count = place + 1
    sentences = "one sentence" if count == 1 else f"{count} sentences"
    detail = (
        f"Reason at level {level} of {levels}, where level 1 is the briefest and level "
        f"{levels} the most detailed: write {sentences} of reasoning, then the answer "
        "in the form of the example. More detail must never change the answer."
    )
    instruction = "\n".join(filter(None, (task_prompt.instruction, detail)))
    shown = f"{example.rationales[place]} {example.concluded}"
    return TeacherPrompt(instruction, ((example.asked, shown),), task_prompt.user)


class LevelledWriter:
    """A writer that is asked for one level; see `fedcot.teacher.teacher.Writer`.

    What it describes names the level, so that no cache mixes up two of them.

    Parameters
    ----------
    writer : Writer
    level, levels, example
        As for `level_prompt`.
    """

    def __init__(
        self,
        writer: Writer,
        level: int,
        levels: int = PROMPT_LEVELS,
        *,
        example: LevelExample = ARITHMETIC,
    ) -> None:
        self.name = writer.name
        self._writer = writer
        self._level = level
        self._levels = levels
        self._example = example

    def describe(self) -> Described:
        """Return what the writer says, and the level."""
        level = f"{self._level} of {self._levels}"
        return {**self._writer.describe(), "granularity": level}

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """Return one completion of the level for each prompt, in order.

        Raises
        ------
        ConfigError, TeacherError
            As `level_prompt` and as the writer's.
        """
        levelled = [
            level_prompt(one, self._level, self._levels, example=self._example)
            for one in prompts
        ]
        return self._writer.write(levelled, stop=stop, on_written=on_written)


@dataclass(frozen=True, slots=True)
class LevelAnswers:
    """What a teacher wrote at a level, and what had to go.

    Attributes
    ----------
    rationales : tuple of (Rationale or None)
        In the order of the questions; None where one was dropped.
    unread, changed : int
        Dropped because no answer could be read, at this level or in the reference, and
        because it is another one than the reference's.
    """

    rationales: tuple[Rationale | None, ...]
    unread: int
    changed: int


def answers_at_level(
    writer: Writer,
    task: Task,
    questions: Sequence[str],
    level: int,
    *,
    reference: Sequence[Rationale | None],
    levels: int = PROMPT_LEVELS,
    example: LevelExample = ARITHMETIC,
    cache: AnswerCache | None = None,
) -> LevelAnswers:
    """Return rationales of a level whose answers are those of the reference level.

    Parameters
    ----------
    writer : Writer
        Of a model in this process or of an endpoint.
    task : Task
    questions : sequence of str
        As `Task.question` writes them.
    level, levels, example
        As for `level_prompt`.
    reference : sequence of (Rationale or None)
        For each question what was written at the reference level.
    cache : AnswerCache, optional
        What was answered before.

    Raises
    ------
    ConfigError, TeacherError
        As `level_prompt` and as the writer's.
    """
    if len(reference) != len(questions):
        raise ConfigError(
            "`reference` must hold one rationale for each question, found "
            f"{len(reference)} for {len(questions)}; pass those of one level."
        )
    levelled = LevelledWriter(writer, level, levels, example=example)
    teacher = PromptedTeacher(task, levelled, cache)
    found: list[Rationale | None] = []
    unread = changed = 0
    for completion, wanted in zip(teacher.answer(questions), reference, strict=True):
        one = completion.rationale
        if one is None or wanted is None:
            unread += 1
        elif not task.is_right(one.answer, wanted.answer):
            changed += 1
        else:
            found.append(one)
            continue
        found.append(None)
    return LevelAnswers(tuple(found), unread, changed)
