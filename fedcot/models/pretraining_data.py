"""Endless public training data of the built-in models, from a generator passed in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from fedcot.data.prompts import (
    adapt_prompt,
    completion,
    explain_prompt,
    predict_prompt,
)
from fedcot.data.schema import Rationale
from fedcot.models.public_lm import EMPTY
from fedcot.world.families import FAMILIES, GENERAL_NAMES
from fedcot.world.problem import Problem
from fedcot.world.splits import TRAINED_DEPTHS, draw_problem
from fedcot.world.vocabulary import PUBLIC_LENGTH, question_words

# Share of the teacher's questions whose words are disturbed, and how much at most. A
# large model reads past a wrong word; a small one has to be shown that it can.
NOISY_SHARE = 0.3
LARGEST_NOISE = 0.2
PREDICT_SHARE = 0.1
ADAPT_SHARE = 0.3

Pair = tuple[str, str]


@dataclass
class SeenProblems:
    """Counts for the training record."""

    drawn: int = 0
    hashes: set[str] = field(default_factory=set)

    def add(self, problem: Problem) -> None:
        """Count a problem."""
        self.drawn += 1
        self.hashes.add(problem.hash)


def disturb(question: str, rng: np.random.Generator, rate: float) -> str:
    """Replace, drop and append words at random; numbers stay.

    Numbers carry the problem: were they disturbed, the rationale would no longer be
    that of the question.
    """
    words = question_words()
    kept: list[str] = []
    for word in question.split():
        if word.isdigit() or rng.random() >= rate:
            kept.append(word)
        elif rng.random() < 0.8:
            kept.append(words[int(rng.integers(len(words)))])
    tail = max(0, PUBLIC_LENGTH - len(kept))
    extra = int((rng.random(tail) < rate).sum())
    kept.extend(words[int(rng.integers(len(words)))] for _ in range(extra))
    return " ".join(kept)


def perturb_uniformly(question: str, rng: np.random.Generator, keep: float) -> str:
    """Keep each slot with a probability, else put any word of the vocabulary there.

    This is what a rank mechanism with one preferred word does, over a padded prompt.
    It is training noise for the adaptation task, not a private release.
    """
    choices = ("", *question_words())
    slots = question.split()[:PUBLIC_LENGTH]
    slots += [""] * (PUBLIC_LENGTH - len(slots))
    noisy = [
        slot if rng.random() < keep else choices[int(rng.integers(len(choices)))]
        for slot in slots
    ]
    return " ".join(word for word in noisy if word)


def _draw(
    families: Sequence[str], rng: np.random.Generator, seen: SeenProblems
) -> Problem:
    family = families[int(rng.integers(len(families)))]
    problem = draw_problem("pretraining", family, TRAINED_DEPTHS, rng)
    seen.add(problem)
    return problem


def _explained(problem: Problem) -> str:
    return completion(Rationale(problem.rationale(), problem.answer))


def teacher_pairs(rng: np.random.Generator, seen: SeenProblems) -> Iterator[Pair]:
    """Yield `explain` pairs of all families, some with disturbed questions."""
    families = tuple(FAMILIES)
    while True:
        problem = _draw(families, rng, seen)
        question = problem.question
        if rng.random() < NOISY_SHARE:
            question = disturb(question, rng, rng.random() * LARGEST_NOISE)
        yield explain_prompt(question), _explained(problem)


def student_pairs(
    rng: np.random.Generator,
    seen: SeenProblems,
    *,
    num_plain: int,
    adaptations: Callable[[], Sequence[Pair]],
) -> Iterator[Pair]:
    """Yield `predict`, `explain` and later `adapt` pairs of the general families.

    Parameters
    ----------
    num_plain : int
        Pairs before the first `adapt` pair: reasoning is learnt first.
    adaptations : callable
        Returns the public `adapt` pairs to draw from; called when they are needed.
    """
    for number in count():
        if number == num_plain:
            adapted = adaptations()
        task = rng.random()
        if number >= num_plain and task < ADAPT_SHARE:
            yield adapted[int(rng.integers(len(adapted)))]
            continue
        problem = _draw(GENERAL_NAMES, rng, seen)
        if task >= 1 - PREDICT_SHARE:
            yield predict_prompt(problem.question), problem.answer
        else:
            yield explain_prompt(problem.question), _explained(problem)


def adaptation_pair(problem: Problem, perturbed: str, rationale: Rationale) -> Pair:
    """Return the public `adapt` pair of a problem and its perturbed question."""
    prompt = adapt_prompt(perturbed, rationale, problem.question)
    return prompt, _explained(problem)


def question_pairs(rng: np.random.Generator, seen: SeenProblems) -> Iterator[Pair]:
    """Yield questions of all families for the public language model."""
    families = tuple(FAMILIES)
    while True:
        yield EMPTY, _draw(families, rng, seen).question
