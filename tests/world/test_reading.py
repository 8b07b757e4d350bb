"""A question of the world is read back to its exact steps, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.world import FAMILIES, draw_problems, generate_problem
from fedcot.world.generator import MAX_DEPTH
from fedcot.world.reading import read_problem


@pytest.mark.parametrize("family", FAMILIES)
def test_every_generated_problem_is_read_back(family: str) -> None:
    rng = np.random.default_rng(11)
    for depth in range(1, MAX_DEPTH + 1):
        for _ in range(60):
            problem = generate_problem(family, depth, rng)
            assert read_problem(problem.text) == problem
            shown = problem.question
            assert read_problem(shown) == replace(problem, text=shown)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 6), st.integers(0, 2**32))
def test_any_problem_is_read_back(family: str, depth: int, seed: int) -> None:
    problem = generate_problem(family, depth, np.random.default_rng(seed))
    assert read_problem(problem.text) == problem


@pytest.mark.parametrize(
    "question",
    [
        "",
        "How many marbles now?",
        "Tom has 12 marbles. How many marbles now?",  # No step.
        "Tom has 12 marbles. Finds 3. How many shells now?",  # Another noun.
        "Bob has 12 marbles. Finds 3. How many marbles now?",  # No name of the world.
        "Tom has 12 marbles. Finds 3. Sings. How many marbles now?",
        "Tom has 12 marbles. Finds three. How many marbles now?",
        "Tom has 12 marbles. Finds 03. How many marbles now?",
        "Tom has 4 marbles. Loses 4. How many marbles now?",  # Below 1.
        "Tom has 98 marbles. Finds 2. How many marbles now?",  # Above 99.
        "Tom has 5 marbles." + " Finds 2." * 7 + " How many marbles now?",  # Too deep.
        "Tom has 5 marbles. Finds 2. How many marbles now? Thanks",
        "Report boats at north. Piers: North 5, South 98. 3 sail south.",
        "On a test Tom scores 3. Who scores most?",  # Nobody to compare with.
        "On a test Tom scores 3, Tom scores 5. Who scores most?",
        "On a test Tom scores 3, Sue scores 3. Who scores most?",
        "On a test Tom scores 3, Sue has 5. Who scores most?",
    ],
)
def test_what_the_generator_could_not_make_is_not_read(question: str) -> None:
    assert read_problem(question) is None


def test_steps_follow_the_words() -> None:
    problem = read_problem(
        "Tom has 12 marbles. Loses 5. Finds 3. How many marbles now?"
    )
    assert problem is not None
    assert problem.rationale(2) == "12 - 5 = 7 , 7 + 3 = 10"
    assert problem.rationale(4) == (
        "now lose so 12 - 5 = 7 marbles , now find so 7 + 3 = 10 marbles"
    )
    assert (problem.family, problem.answer) == ("marbles", "10")


def test_words_without_order_are_no_problem() -> None:
    for problem in draw_problems("test", tuple(FAMILIES), 45, seed=3):
        words = problem.question.split()
        found = read_problem(" ".join(sorted(words)))
        assert found is None or found.question != problem.question
