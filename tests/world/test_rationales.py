"""Four granularities of the same reasoning, and a verifier that cannot be fooled."""

import pytest

from fedcot.data.prompts import completion, parse_completion
from fedcot.data.schema import Rationale
from fedcot.world import FAMILIES, Problem, draw_problems, solves, verify

PROBLEMS = draw_problems("test", tuple(FAMILIES), 270, seed=5)


@pytest.mark.parametrize("granularity", [1, 2, 3, 4])
def test_every_granularity_holds_the_same_steps(granularity: int) -> None:
    for problem in PROBLEMS:
        rationale = problem.rationale(granularity)
        assert solves(rationale, problem.answer, problem)
        assert len(rationale.split(",")) == problem.depth


def test_granularities_grow_from_coarse_to_fine() -> None:
    for problem in PROBLEMS:
        lengths = [len(problem.rationale(level).split()) for level in (1, 2, 3, 4)]
        assert lengths == sorted(lengths)
        assert len(set(lengths)) == 4


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="granularity"):
        PROBLEMS[0].rationale(5)


@pytest.mark.parametrize("granularity", [2, 3, 4])
def test_true_rationales_verify(granularity: int) -> None:
    for problem in PROBLEMS:
        assert verify(problem.rationale(granularity), problem.answer).valid


@pytest.mark.parametrize(
    ("rationale", "answer"),
    [
        ("12 - 5 = 8", "8"),  # Wrong arithmetic.
        ("12 - 5 = 7 , 8 + 1 = 9", "9"),  # Steps do not connect.
        ("12 - 5 = 7", "8"),  # Another answer than the last step's.
        ("9 or 12 = 13 tom", "tom"),  # Neither of the two.
        ("12 or 9 = 9 tom , 12 or 7 = 7 sue", "sue"),  # Goes on from the other.
        ("12 or 9 = 9 tom , 9 or 11 = 11 sue", "sue"),  # First least, then most.
        ("12 or 9 = 9 tom", "sue"),  # Another name than the last step's.
        ("", "7"),  # No steps.
        ("so it is 7", "7"),  # No equation.
        ("12 - 5 = 7 , hence", "7"),  # A part without an equation.
        ("12 - 5 = 7", ""),  # No answer.
        ("12 ** 5 = 7", "7"),  # Not an operation of the world.
        ("__import__('os').getcwd()", "7"),  # Code is text here.
    ],
)
def test_false_rationales_do_not_verify(rationale: str, answer: str) -> None:
    assert not verify(rationale, answer).valid


def test_verification_says_which_step_is_wrong() -> None:
    found = verify("12 - 5 = 7 , 7 + 3 = 11 , 11 - 1 = 10", "10")
    assert [step.valid for step in found.steps] == [True, False, True]
    assert found.chained
    assert found.answer_follows


def test_a_true_rationale_of_another_problem_does_not_solve_this_one() -> None:
    first, second = PROBLEMS[0], PROBLEMS[9]
    assert first.question != second.question
    assert not solves(second.rationale(), second.answer, first)


def test_record_holds_no_reasoning() -> None:
    problem: Problem = PROBLEMS[0]
    record = problem.record()
    assert (record.question, record.answer) == (problem.text, problem.answer)
    assert problem.steps[0].equation() not in record.question


def test_completions_parse_back() -> None:
    for problem in PROBLEMS:
        rationale = Rationale(problem.rationale(), problem.answer)
        assert parse_completion(completion(rationale)) == rationale


@pytest.mark.parametrize(
    "text",
    [
        "",
        "answer: 7",
        "12 - 5 = 7",
        "1 answer: 2 answer: 3",
        "a answer:",
        "a answer: 7 8",
    ],
)
def test_what_is_not_a_completion_is_not_parsed(text: str) -> None:
    assert parse_completion(text) is None
