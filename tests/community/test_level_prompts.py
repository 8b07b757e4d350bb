"""Prompts for a level: one example of it, asked for by sentences, kept apart."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from fedcot.community.level_prompts import ARITHMETIC, LevelledWriter, level_prompt
from fedcot.community.level_statistics import check_levels
from fedcot.community.step_text import split_steps
from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.evaluation.equations import wrong_equations
from fedcot.evaluation.extraction import split_answer
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.teacher import Described, Written

TASK = MappedTask(load_mapping("svamp"))
QUESTIONS = ["How many are 3 and 4?", "How many are 5 and 6?"]


class Scripted:
    """Repeats the question, and remembers what it was asked."""

    name = "scripted"

    def __init__(self) -> None:
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
        written = [Written(prompt.user) for prompt in prompts]
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
        assert split_answer("equation", answered) == read
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


def test_a_prompt_without_an_instruction_gets_one() -> None:
    found = level_prompt(TeacherPrompt("", (), "Q: a\nA:"), 2)
    assert found.instruction.startswith("Reason at level 2")


@pytest.mark.parametrize("level", [0, 7])
def test_unknown_levels_are_refused(level: int) -> None:
    with pytest.raises(ConfigError, match="`level` must be 1 to 6"):
        level_prompt(TeacherPrompt("", (), "Q: a\nA:"), level)


def test_a_writer_is_asked_for_the_level_and_passes_on_what_is_written() -> None:
    writer, heard = Scripted(), []
    prompts = [TASK.teacher_prompt(question) for question in QUESTIONS]
    found = LevelledWriter(writer, 4).write(
        prompts,
        stop=TASK.stop,
        on_written=lambda place, one: heard.append((place, one)),
    )
    assert writer.asked == [level_prompt(one, 4) for one in prompts]
    assert [one.text for one in found] == [prompt.user for prompt in prompts]
    assert heard == list(enumerate(found))


def test_every_level_describes_itself_in_its_own_way(monkeypatch) -> None:
    writer = Scripted()
    described = [dict(LevelledWriter(writer, level).describe()) for level in (2, 3)]
    assert [one["level"] for one in described] == [2, 3]
    assert all(one["writer"] == "scripted" for one in described)
    assert described[0]["level_prompt"] != described[1]["level_prompt"]
    # Other words for a level are another prompt: no cache may give the old answer.
    changed = ARITHMETIC.rationales[1].replace("leaves", "starts")
    monkeypatch.setattr(
        "fedcot.community.level_prompts.ARITHMETIC",
        type(ARITHMETIC)(
            ARITHMETIC.asked,
            (ARITHMETIC.rationales[0], changed, *ARITHMETIC.rationales[2:]),
            ARITHMETIC.concluded,
        ),
    )
    again = LevelledWriter(writer, 2).describe()
    assert again["level_prompt"] != described[0]["level_prompt"]
    same = LevelledWriter(writer, 3).describe()
    assert same == described[1]
