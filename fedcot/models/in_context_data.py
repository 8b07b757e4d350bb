"""Endless sequences of examples that the in-context model is trained on.

A sequence shows questions of one task with their answers. Its model learns to answer
from what stands before, to ask more questions of the same task, and to say the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from fedcot.data.prompts import ANSWER, HINT, QUESTION, RATIONALE
from fedcot.data.schema import Rationale
from fedcot.models.pretraining_data import SeenProblems
from fedcot.world.hidden_rules import Kind, Rule, draw_rule, wide_rule
from fedcot.world.splits import TRAINED_DEPTHS, draw_problem

FEWEST_EXAMPLES, MOST_EXAMPLES = 1, 17
# Examples of the world have five times as many tokens.
MOST_WORLD_EXAMPLES: Final = 5
WORLD_SHARE: Final = 0.2
# Of the sequences that show rules; they sum to 1. What is harder to read off examples
# is shown more often.
RULE_SHARES: Final[Mapping[Kind, float]] = MappingProxyType(
    {"conversion": 0.2, "labels": 0.2, "operator": 0.6}
)
# Of the rules about labels: those with more topics than a task has (`wide_rule`).
WIDE_SHARE: Final = 0.7
FEWEST_TOPICS, MOST_TOPICS = 3, 8
FEWEST_WIDE_EXAMPLES, MOST_WIDE_EXAMPLES = 4, 32
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


@dataclass
class SeenTasks(SeenProblems):
    """Counts for the training record: of problems of the world and of rules.

    Attributes
    ----------
    num_sequences : int
        Of both.
    rules : set of Rule
        Distinct ones, without the wide ones: those belong to no split.
    wide_rules : set of Rule
        Distinct ones.
    """

    num_sequences: int = 0
    rules: set[Rule] = field(default_factory=set)
    wide_rules: set[Rule] = field(default_factory=set)

    @property
    def counts(self) -> dict[str, int]:
        """Everything that was drawn, by its name in the record."""
        return {
            "problems_drawn": self.drawn,
            "distinct_problems": len(self.hashes),
            "sequences_drawn": self.num_sequences,
            "distinct_rules": len(self.rules),
            "distinct_wide_rules": len(self.wide_rules),
        }


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
    rng: np.random.Generator, seen: SeenTasks, *, families: Sequence[str]
) -> Iterator[list[Piece]]:
    """Yield sequences of all kinds of public tasks.

    Parameters
    ----------
    rng : numpy.random.Generator
    seen : SeenTasks
        Counts what is drawn.
    families : sequence of str
        Of the world, equally likely; at least one.
    """
    while True:
        seen.num_sequences += 1
        if rng.random() < WORLD_SHARE:
            family = families[int(rng.integers(len(families)))]
            count = int(rng.integers(1, MOST_WORLD_EXAMPLES + 1))
            yield world_sequence(family, count, rng, seen)
            continue
        rule, count = _drawn(rng, seen)
        place = rng.random() / HINT_SHARE
        hint = "before" if place < 0.5 else "after" if place < 1 else ""
        yield rule_sequence(rule, count, rng, hint=hint)


def _drawn(rng: np.random.Generator, seen: SeenTasks) -> tuple[Rule, int]:
    """Return a rule and how many examples show it."""
    kinds, shares = list(RULE_SHARES), list(RULE_SHARES.values())
    kind = kinds[int(rng.choice(len(kinds), p=shares))]
    if kind == "labels" and rng.random() < WIDE_SHARE:
        rule = wide_rule(int(rng.integers(FEWEST_TOPICS, MOST_TOPICS + 1)), rng)
        seen.wide_rules.add(rule)
        return rule, int(rng.integers(FEWEST_WIDE_EXAMPLES, MOST_WIDE_EXAMPLES + 1))
    rule = draw_rule("pretraining", kind, rng)
    seen.rules.add(rule)
    return rule, int(rng.integers(FEWEST_EXAMPLES, MOST_EXAMPLES + 1))


def described() -> dict[str, Any]:
    """Return what the sequences are drawn by, for the training record."""
    return {
        "world_share": WORLD_SHARE,
        "rule_shares": dict(RULE_SHARES),
        "wide_share": WIDE_SHARE,
        "hint_share": HINT_SHARE,
        "question_weight": QUESTION_WEIGHT,
        "most_examples": MOST_EXAMPLES,
        "most_wide_examples": MOST_WIDE_EXAMPLES,
        "most_world_examples": MOST_WORLD_EXAMPLES,
    }
