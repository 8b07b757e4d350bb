"""Problems are exact: an independent solver that reads only the question agrees."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.seeding import numpy_generator
from fedcot.world import (
    CLIENT_NAMES,
    DEEP_DEPTHS,
    FAMILIES,
    GENERAL_NAMES,
    PUBLIC_LENGTH,
    TRAINED_DEPTHS,
    draw_problems,
    generate_problem,
    normalize,
    question_words,
)

# Written from the phrasing of the questions, not from the families' definitions.
CLAUSES = {
    "marbles": r"(?P<verb>finds|wins|loses|drops) (?P<amount>\d+)",
    "shop": r"(?P<verb>gets|uses|sells) (?P<amount>\d+)",
    "library": r"(?P<amount>\d+) (?P<verb>returned|donated|borrowed|stolen)",
    "bakery": r"(?P<verb>add|eat|spoil) (?P<amount>\d+)",
    "colony": r"then (?P<amount>\d+) (?P<verb>hatch|die)|they (?P<times>double|triple)",
}
GAINS = {"finds", "wins", "gets", "returned", "donated", "add", "hatch"}


def solve_chain(family: str, question: str) -> int:
    """Solve a chain question from its text alone."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    product = family in ("shop", "bakery")
    total = numbers[0] * numbers[1] if product else numbers[0]
    for clause in re.finditer(CLAUSES[family], question):
        found = clause.groupdict()
        if found.get("times"):
            total *= {"double": 2, "triple": 3}[found["times"]]
        elif found["verb"] in GAINS:
            total += int(found["amount"])
        else:
            total -= int(found["amount"])
    return total


def solve_exchange(question: str) -> int:
    """Solve a trade or harbor question from its text alone."""
    held, _, *amounts = [int(number) for number in re.findall(r"\d+", question)]
    if "piers" in question:
        sails = re.findall(r"\d+ sail (north|south)", question)
        gives = [direction == "south" for direction in sails]
    else:
        gives = [who == "you" for who in re.findall(r"(you|i) give \d+", question)]
    for first_gives, amount in zip(gives, amounts, strict=True):
        held += -amount if first_gives else amount
    return held


def solve_comparison(words: list[str]) -> str:
    """Solve a scores or contest question from its words alone."""
    text = " ".join(words)
    found = re.findall(r"(tom|sue|kim|ben|amy|max|eva|leo)(?: scores)? (\d+)", text)
    best = max if "most" in words else min
    return best(found, key=lambda pair: int(pair[1]))[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_an_independent_solver_reaches_the_answer(family: str, depth: int) -> None:
    rng = numpy_generator(1, family, depth)
    for _ in range(40):
        problem = generate_problem(family, depth, rng)
        words = problem.question.split()
        if family in ("trade", "harbor"):
            answer = str(solve_exchange(problem.question))
        elif family in ("scores", "contest"):
            answer = solve_comparison(words)
        else:
            answer = str(solve_chain(family, problem.question))
        assert answer == problem.answer, problem.text
        assert problem.depth == depth


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_use_the_public_vocabulary_and_fit_the_public_length(
    family: str,
) -> None:
    public = set(question_words())
    problems = draw_problems("train", [family], 400, seed=3)
    assert all(set(problem.question.split()) <= public for problem in problems)
    if family in CLIENT_NAMES:
        longest = max(len(problem.question.split()) for problem in problems)
        assert longest <= PUBLIC_LENGTH


def test_the_public_length_is_reached() -> None:
    """A longer public length would waste budget on empty slots."""
    problems = draw_problems("train", CLIENT_NAMES, 3000, seed=0)
    assert max(len(p.question.split()) for p in problems) == PUBLIC_LENGTH


def test_client_domains_have_words_of_their_own() -> None:
    general = {
        word
        for problem in draw_problems("train", GENERAL_NAMES, 800, seed=0)
        for word in problem.question.split()
    }
    for family in CLIENT_NAMES:
        words = {
            word
            for problem in draw_problems("train", [family], 200, seed=0)
            for word in problem.question.split()
            if not word.isdigit()
        }
        assert len(words - general) >= 6, family


def test_depths_are_drawn_as_asked() -> None:
    trained = draw_problems("test", CLIENT_NAMES, 200, seed=0)
    deep = draw_problems("test", CLIENT_NAMES, 200, seed=0, depths=DEEP_DEPTHS)
    assert {problem.depth for problem in trained} == set(TRAINED_DEPTHS)
    assert {problem.depth for problem in deep} == set(DEEP_DEPTHS)


@pytest.mark.parametrize(("family", "depth"), [("zoo", 1), ("trade", 0), ("trade", 7)])
def test_bad_requests_are_refused(family: str, depth: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        generate_problem(family, depth, numpy_generator(0))


@given(st.text())
def test_normalized_text_is_words_and_numbers_and_stays(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert once == " ".join(once.split())
    assert not re.search(r"[^\w ]|_", once)
