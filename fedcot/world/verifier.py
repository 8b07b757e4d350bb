"""Check a rationale line by line, without ever evaluating text as code."""

import re
from dataclasses import dataclass
from itertools import pairwise

from fedcot.world.problem import Problem

_EQUATION = re.compile(r"(\d{1,4}) ([+*-]) (\d{1,4}) = (\d{1,6})")
_COMPARISON = re.compile(r"(\d{1,4}) or (\d{1,4}) = (\d{1,4}) ([a-z]+)")


@dataclass(frozen=True, slots=True)
class StepCheck:
    """One step as written: what it says, and whether that is true."""

    text: str
    valid: bool
    result: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a rationale is worth.

    Attributes
    ----------
    steps : tuple of StepCheck
        One for each comma-separated part.
    chained : bool
        Every step after the first starts from the number that the step before it
        gave, and all comparisons look for the most or all for the least.
    answer_follows : bool
        The stated answer is the result of the last step.
    """

    steps: tuple[StepCheck, ...]
    chained: bool
    answer_follows: bool

    @property
    def valid(self) -> bool:
        """Every step is true, the steps connect, and they lead to the answer."""
        return (
            bool(self.steps)
            and all(step.valid for step in self.steps)
            and self.chained
            and self.answer_follows
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """What one part of a rationale says."""

    check: StepCheck
    left: str
    total: str  # the number that the next step starts from
    direction: str = ""  # of a comparison: `most` or `least`


def _arithmetic(part: str, equation: re.Match[str]) -> _Part:
    left, right, stated = (int(equation[group]) for group in (1, 3, 4))
    symbol = equation[2]
    if symbol == "+":
        actual = left + right
    elif symbol == "-":
        actual = left - right
    else:
        actual = left * right
    check = StepCheck(part, actual == stated, equation[4])
    return _Part(check, equation[1], equation[4])


def _compared(part: str, comparison: re.Match[str]) -> _Part:
    left, right, stated = (int(comparison[group]) for group in (1, 2, 3))
    check = StepCheck(part, stated in (left, right), comparison[4])
    direction = "most" if stated == max(left, right) else "least"
    return _Part(check, comparison[1], comparison[3], direction)


def _read(part: str) -> _Part:
    if (equation := _EQUATION.search(part)) is not None:
        return _arithmetic(part, equation)
    if (comparison := _COMPARISON.search(part)) is not None:
        return _compared(part, comparison)
    return _Part(StepCheck(part, False, ""), "", "")


def verify(rationale: str, answer: str) -> Verification:
    """Check a rationale of granularity 2, 3 or 4 by itself, without the question.

    Parameters
    ----------
    rationale : str
        Steps separated by commas, for example ``12 - 5 = 7 , 7 + 3 = 10``.
    answer : str
        The answer that it is said to lead to.
    """
    parts = [_read(part.strip()) for part in rationale.split(",")]
    chained = all(
        after.left == before.total and after.direction == before.direction
        for before, after in pairwise(parts)
    )
    checks = tuple(part.check for part in parts)
    return Verification(checks, chained, checks[-1].result == answer.strip() != "")


def solves(rationale: str, answer: str, problem: Problem) -> bool:
    """Whether a rationale makes exactly the problem's steps and reaches its answer.

    Granularity 1 (results only) is accepted as well: its parts must be the results.
    """
    parts = [part.strip() for part in rationale.split(",")]
    if answer.strip() != problem.answer or len(parts) != problem.depth:
        return False
    return all(
        part == step.result or step.equation() in part
        for part, step in zip(parts, problem.steps, strict=True)
    )
