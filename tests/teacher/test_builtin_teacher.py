"""The teacher answers in order, each question by itself."""

from typing import Any

from fedcot.tasks.world import WorldTask
from fedcot.teacher.prompted import PromptedTeacher
from fedcot.teacher.transformers_writer import TransformersWriter
from fedcot.world import FAMILIES, draw_problems, solves


def _teacher(**settings: Any) -> PromptedTeacher:
    return PromptedTeacher(WorldTask(), TransformersWriter("builtin", **settings))


def test_the_built_in_teacher_solves_what_it_should() -> None:
    problems = draw_problems("test", tuple(FAMILIES), 90, seed=1)
    seen: list[tuple[int, int]] = []
    teacher = _teacher(batch_size=40)
    completions = teacher.answer(
        [problem.question for problem in problems],
        on_progress=lambda done, total: seen.append((done, total)),
    )
    solved = sum(
        completion.rationale is not None
        and solves(completion.rationale.text, completion.rationale.answer, problem)
        for completion, problem in zip(completions, problems, strict=True)
    )
    assert solved >= 81
    assert seen[-1] == (90, 90)


def test_a_rationale_does_not_depend_on_the_questions_beside_it() -> None:
    """R6: a rationale is a function of its own record and of public models."""
    problems = draw_problems("test", tuple(FAMILIES), 18, seed=2)
    questions = [problem.question for problem in problems]
    teacher = _teacher(batch_size=5)
    together = teacher.answer(questions)
    alone = [teacher.answer([question])[0] for question in questions]
    assert [c.text for c in together] == [c.text for c in alone]


def test_repeated_questions_get_the_same_answer_each() -> None:
    (problem,) = draw_problems("test", ("library",), 1, seed=0)
    teacher = _teacher()
    first, second = teacher.answer([problem.question] * 2)
    assert first == second


def test_unparsable_completions_are_marked_and_not_hidden() -> None:
    teacher = _teacher(max_new_tokens=2)
    (completion,) = teacher.answer(["a shelf"])
    assert completion.rationale is None
    assert completion.text
