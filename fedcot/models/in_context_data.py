"""Endless sequences of examples that the in-context model is trained on.

A sequence shows questions of one task with their answers. Its model learns to answer
from what stands before, to ask more questions of the same task, and to say the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcot.data.prompts import ANSWER, HINT, QUESTION, RATIONALE
from fedcot.data.schema import Rationale
from fedcot.models.pretraining_data import SeenProblems
from fedcot.world.families import FAMILIES
from fedcot.world.hidden_rules import KINDS, Rule, draw_rule
from fedcot.world.splits import TRAINED_DEPTHS, draw_problem

FEWEST_EXAMPLES, MOST_EXAMPLES = 1, 17
# Examples of the world have five times as many tokens.
MOST_WORLD_EXAMPLES: Final = 5
WORLD_SHARE: Final = 0.3
HINT_SHARE: Final = 0.3  # half of it in front, half behind
# What can be drawn only by chance weighs little: the numbers and words of a question.
QUESTION_WEIGHT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a sequence.

    Attributes
    ----------
    text : str
    weight : float
        Of the loss of its tokens, in [0, 1].
    """

    text: str
    weight: float


def example_pieces(question: str, rationale: Rationale) -> tuple[Piece, ...]:
    """Return an example as the in-context model reads and writes it."""
    steps = f"{RATIONALE} {rationale.text} " if rationale.text else ""
    return (
        Piece(f"{QUESTION} {question}", QUESTION_WEIGHT),
        Piece(f"{steps}{ANSWER} {rationale.answer}", 1.0),
    )


def rule_sequence(
    rule: Rule, count: int, rng: np.random.Generator, *, hint: str = ""
) -> list[Piece]:
    """Return examples of a rule, with its words in front, behind or nowhere.

    Parameters
    ----------
    rule : Rule
    count : int
        Examples.
    rng : numpy.random.Generator
    hint : str
        ``before``, ``after`` or empty.
    """
    pieces = [Piece(f"{HINT} {rule.hint}", QUESTION_WEIGHT)] * (hint == "before")
    for _ in range(count):
        question = rule.question(rng)
        rationale = rule.rationale(question)
        if rationale is None:
            raise ValueError("a rule must answer its own questions.")
        pieces += example_pieces(question, rationale)
    if hint == "after":
        pieces.append(Piece(f"{HINT} {rule.hint}", 1.0))
    return pieces


def world_sequence(
    family: str, count: int, rng: np.random.Generator, seen: SeenProblems
) -> list[Piece]:
    """Return problems of a family with their steps."""
    pieces: list[Piece] = []
    for _ in range(count):
        problem = draw_problem("pretraining", family, TRAINED_DEPTHS, rng)
        seen.add(problem)
        rationale = Rationale(problem.rationale(), problem.answer)
        pieces += example_pieces(problem.question, rationale)
    return pieces


def in_context_sequences(
    rng: np.random.Generator, seen: SeenProblems
) -> Iterator[list[Piece]]:
    """Yield sequences of all kinds of public tasks."""
    families = tuple(FAMILIES)
    while True:
        if rng.random() < WORLD_SHARE:
            family = families[int(rng.integers(len(families)))]
            count = int(rng.integers(1, MOST_WORLD_EXAMPLES + 1))
            yield world_sequence(family, count, rng, seen)
            continue
        rule = draw_rule("pretraining", KINDS[int(rng.integers(len(KINDS)))], rng)
        count = int(rng.integers(FEWEST_EXAMPLES, MOST_EXAMPLES + 1))
        place = rng.random() / HINT_SHARE
        hint = "before" if place < 0.5 else "after" if place < 1 else ""
        yield rule_sequence(rule, count, rng, hint=hint)
