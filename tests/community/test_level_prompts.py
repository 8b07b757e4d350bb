"""Prompts for a level, and answers kept only where they stay the same."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from fedcot.community.level_prompts import (
    ARITHMETIC,
    LevelExample,
    LevelledWriter,
    answers_at_level,
    level_prompt,
)
from fedcot.community.level_statistics import check_levels
from fedcot.community.step_text import split_steps
from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.evaluation.equations import wrong_equations
from fedcot.evaluation.extraction import split_answer
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.cache import AnswerCache
from fedcot.teacher.teacher import Described, Written

TASK = MappedTask(load_mapping("svamp"))
QUESTIONS = ["How many are 3 and 4?", "How many are 5 and 6?", "How many are 8 and 1?"]
REFERENCE = [Rationale("3 + 4 = 7.", "7"), Rationale("Sum.", "11"), None]


class Scripted:
    """Writes what a function says, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say = say
        self.asked: list[TeacherPrompt] = []

    def describe(self) -> Described:
        return {"writer": "scripted"}

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        assert tuple(stop) == TASK.stop
        self.asked += prompts
        written = [Written(self.say(prompt.user)) for prompt in prompts]
        for index, one in enumerate(written):
            if on_written is not None:
                on_written(index, one)
        return written


def test_a_level_shows_one_example_and_asks_for_its_number_of_sentences() -> None:
    prompt = TASK.teacher_prompt(QUESTIONS[0])
    for level in range(1, 7):
        found = level_prompt(prompt, level)
        assert found.user == prompt.user
        assert found.instruction.startswith(prompt.instruction)
        assert f"level {level} of 6" in found.instruction
        ((asked, answered),) = found.demonstrations
        assert asked == ARITHMETIC.asked
        read = split_answer("numeric", answered)
        assert read == Rationale(ARITHMETIC.rationales[level - 1], "37")
        count = len(split_steps(read.text))
        assert count == level
        wanted = "one sentence" if count == 1 else f"{count} sentences"
        assert wanted in found.instruction


def test_the_example_is_true_and_gets_longer() -> None:
    check_levels([[text] for text in ARITHMETIC.rationales])
    assert all(wrong_equations(text) == 0 for text in ARITHMETIC.rationales)
    assert all("37" in text for text in ARITHMETIC.rationales)
    for coarse, fine in pairwise(ARITHMETIC.rationales):
        assert len(coarse) < len(fine)


def test_fewer_levels_are_spread_up_to_the_finest() -> None:
    prompt = TASK.teacher_prompt(QUESTIONS[0])
    shown = [level_prompt(prompt, k, 3).demonstrations[0][1] for k in (1, 2, 3)]
    expected = [f"{ARITHMETIC.rationales[at]} The answer is 37." for at in (1, 3, 5)]
    assert shown == expected


@pytest.mark.parametrize(
    ("level", "levels", "named"),
    [(0, 6, "`level`"), (7, 6, "`level`"), (1, 7, "`levels`"), (1, 1, "`levels`")],
)
def test_unknown_levels_are_refused(level: int, levels: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        level_prompt(TeacherPrompt("", (), "Q: a\nA:"), level, levels)


def test_another_task_brings_its_own_example() -> None:
    example = LevelExample("Q: Is ice cold?\nA:", ("Yes.", "Ice is frozen."), "It is.")
    found = level_prompt(TeacherPrompt("", (), "Q: a\nA:"), 2, 2, example=example)
    assert found.demonstrations == (("Q: Is ice cold?\nA:", "Ice is frozen. It is."),)
    assert not found.instruction.startswith("\n")


def test_only_answers_of_the_reference_level_are_kept() -> None:
    def say(user: str) -> str:
        if "3 and 4" in user:
            return "Three and four. 3 + 4 = 7. The answer is 7.0."
        return "I guess. The answer is 12." if "5 and 6" in user else "No idea"

    writer = Scripted(say)
    found = answers_at_level(writer, TASK, QUESTIONS, 4, reference=REFERENCE)
    assert found.rationales == (
        Rationale("Three and four. 3 + 4 = 7.", "7"),
        None,
        None,
    )
    assert (found.unread, found.changed) == (1, 1)
    asked = [level_prompt(TASK.teacher_prompt(one), 4) for one in QUESTIONS]
    assert writer.asked == asked


def test_a_question_without_a_reference_is_dropped() -> None:
    writer = Scripted(lambda user: "Sum. The answer is 9.")
    found = answers_at_level(writer, TASK, QUESTIONS[2:], 1, reference=[None])
    assert (found.rationales, found.unread, found.changed) == ((None,), 1, 0)
    with pytest.raises(ConfigError, match="`reference`"):
        answers_at_level(writer, TASK, QUESTIONS, 1, reference=REFERENCE[:2])


def test_the_cache_keeps_levels_apart(tmp_path: Path) -> None:
    writer = Scripted(lambda user: "Sum. The answer is 7.")
    cache = AnswerCache(tmp_path / "answers.sqlite")
    for level, calls in ((1, 1), (2, 2), (1, 2)):
        answers_at_level(
            writer,
            TASK,
            QUESTIONS[:1],
            level,
            reference=REFERENCE[:1],
            cache=cache,
        )
        assert len(writer.asked) == calls
    described = LevelledWriter(writer, 2, 3).describe()
    assert described == {"writer": "scripted", "granularity": "2 of 3"}
