"""Check a rationale line by line, without ever evaluating text as code."""

import re
from dataclasses import dataclass

from fedcot.world.problem import Problem

_EQUATION = re.compile(r"(\d{1,4}) ([+*-]) (\d{1,4}) = (\d{1,6})")
_COMPARISON = re.compile(r"(\d{1,4}) > (\d{1,4}) ([a-z]+)")


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
        Every arithmetic step after the first starts from the result before it.
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


def _check_step(part: str) -> tuple[StepCheck, str]:
    """Return the check and the left operand ("" for a comparison)."""
    equation = _EQUATION.search(part)
    if equation is not None:
        left, right, stated = (int(equation[group]) for group in (1, 3, 4))
        symbol = equation[2]
        if symbol == "+":
            actual = left + right
        elif symbol == "-":
            actual = left - right
        else:
            actual = left * right
        return StepCheck(part, actual == stated, equation[4]), equation[1]
    comparison = _COMPARISON.search(part)
    if comparison is not None:
        larger, smaller = int(comparison[1]), int(comparison[2])
        return StepCheck(part, larger > smaller, comparison[3]), ""
    return StepCheck(part, False, ""), ""


def verify(rationale: str, answer: str) -> Verification:
    """Check a rationale of granularity 2, 3 or 4 by itself, without the question.

    Parameters
    ----------
    rationale : str
        Steps separated by commas, for example ``12 - 5 = 7 , 7 + 3 = 10``.
    answer : str
        The answer that it is said to lead to.
    """
    checks: list[StepCheck] = []
    chained = True
    for part in (part.strip() for part in rationale.split(",")):
        check, left = _check_step(part)
        if checks and left and left != checks[-1].result:
            chained = False
        checks.append(check)
    follows = bool(checks) and checks[-1].result == answer.strip() != ""
    return Verification(tuple(checks), chained, follows)


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
