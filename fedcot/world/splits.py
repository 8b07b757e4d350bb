"""Splits that cannot share a problem: the hash of a question decides its split.

No list of used problems has to be kept, and no seed, order or count can make two
splits overlap.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fedcot.seeding import numpy_generator
from fedcot.world.generator import MAX_DEPTH, generate_problem
from fedcot.world.problem import Problem

Split = Literal["pretraining", "train", "validation", "test", "bank"]

TRAINED_DEPTHS = (1, 2, 3, 4)
DEEP_DEPTHS = tuple(range(TRAINED_DEPTHS[-1] + 1, MAX_DEPTH + 1))
LARGEST_REPETITION = 2000
# Shares of the hash space, in hundredths; they add up to 100.
_SHARES: dict[Split, int] = {
    "pretraining": 50,
    "train": 20,
    "validation": 5,
    "test": 10,
    "bank": 15,
}


def split_of(problem_hash: str) -> Split:
    """Return the only split that may hold a problem.

    Parameters
    ----------
    problem_hash : str
        `Problem.hash`: 64 hexadecimal digits.
    """
    bucket = int(problem_hash[:16], 16) % 100
    for split, share in _SHARES.items():
        if bucket < share:
            return split
        bucket -= share
    raise ValueError("the shares of the splits must add up to 100.")


def draw_problem(
    split: Split, family: str, depths: Sequence[int], rng: np.random.Generator
) -> Problem:
    """Return one problem of a family that belongs to a split."""
    while True:
        depth = int(depths[int(rng.integers(len(depths)))])
        problem = generate_problem(family, depth, rng)
        if split_of(problem.hash) == split:
            return problem


def draw_problems(
    split: Split,
    families: Sequence[str],
    count: int,
    *,
    seed: int,
    depths: Sequence[int] = TRAINED_DEPTHS,
    purpose: str = "",
) -> list[Problem]:
    """Return distinct problems, the families in turn.

    Parameters
    ----------
    split : str
        Which split they belong to.
    families : sequence of str
        Taken in turn, so that every family has the same share (up to one problem).
    count : int
        How many problems.
    seed, purpose
        Together with the split they fix the result.

    Raises
    ------
    ValueError
        If the families do not have that many problems of these depths.
    """
    rng = numpy_generator(seed, "world", split, purpose)
    seen: set[str] = set()
    problems: list[Problem] = []
    repeated = 0
    while len(problems) < count:
        family = families[len(problems) % len(families)]
        problem = draw_problem(split, family, depths, rng)
        if problem.hash not in seen:
            seen.add(problem.hash)
            problems.append(problem)
            repeated = 0
        elif (repeated := repeated + 1) > LARGEST_REPETITION:
            raise ValueError(
                f"`count` must be at most what the families hold, found {count}: "
                f"{family!r} gave only known problems after {len(problems)}."
            )
    return problems
