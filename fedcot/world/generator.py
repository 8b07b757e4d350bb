"""Generate problems of a family from a generator passed in.

Every quantity stays within [1, 99], and every number that stands in a question within
[1, 40], so that questions use the public vocabulary only.
"""

from collections.abc import Sequence

import numpy as np

from fedcot.world.families import (
    FAMILIES,
    NAMES,
    Chain,
    Change,
    Comparison,
    Exchange,
)
from fedcot.world.problem import Operation, Problem, Step

LARGEST_QUANTITY = 99
MAX_DEPTH = 6


def _apply(operation: Operation, left: int, right: int) -> int:
    if operation == "add":
        return left + right
    if operation == "subtract":
        return left - right
    return left * right


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _number(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _change_step(
    change: Change, total: int, rng: np.random.Generator
) -> tuple[Step, str]:
    amount = change.factor or _number(rng, 2, 12)
    result = _apply(change.operation, total, amount)
    step = Step(change.operation, total, amount, str(result), change.cause)
    return step, change.clause.format(amount=amount)


def _chain(family: Chain, depth: int, rng: np.random.Generator) -> Problem | None:
    noun = _choice(rng, family.nouns)
    steps: list[Step] = []
    if family.opens_with_product:
        count, size = _number(rng, 2, 9), _number(rng, 2, 9)
        total = count * size
        # The larger factor first: one table to learn instead of two.
        left, right = max(count, size), min(count, size)
        steps.append(Step("multiply", left, right, str(total), "start"))
        numbers = {"count": count, "size": size}
    else:
        total = _number(rng, 4, 40)
        numbers = {"start": total}
    opening = _choice(rng, family.openings).format(
        name=_choice(rng, NAMES).capitalize(), noun=noun, **numbers
    )
    clauses: list[str] = []
    while len(steps) < depth:
        change = family.changes[int(rng.integers(len(family.changes)))]
        step, clause = _change_step(change, total, rng)
        total = int(step.result)
        if not 1 <= total <= LARGEST_QUANTITY:
            return None
        steps.append(step)
        clauses.append(clause)
    closing = _choice(rng, family.closings).format(noun=noun)
    order = [closing, opening, *clauses]
    if not family.closing_first:
        order = [opening, *clauses, closing]
    text = " ".join(order)
    return Problem(family.name, text, tuple(steps), str(total), noun)


def _exchange(family: Exchange, depth: int, rng: np.random.Generator) -> Problem | None:
    noun = _choice(rng, family.nouns)
    held = [_number(rng, 4, 40), _number(rng, 4, 40)]
    opening = family.opening.format(first=held[0], second=held[1], noun=noun)
    parts = [family.request.format(noun=noun), opening]
    steps: list[Step] = []
    for _ in range(depth):
        giver = int(rng.integers(2))
        amount = _number(rng, 2, 12)
        before = held[0]
        held[giver] -= amount
        held[1 - giver] += amount
        if min(held) < 1 or max(held) > LARGEST_QUANTITY:
            return None
        operation: Operation = "add" if giver else "subtract"
        cause = family.gain if giver else family.loss
        steps.append(Step(operation, before, amount, str(held[0]), cause))
        parts.append(family.transfers[giver].format(amount=amount))
    text = " ".join(parts)
    return Problem(family.name, text, tuple(steps), str(held[0]), noun)


def _comparison(family: Comparison, depth: int, rng: np.random.Generator) -> Problem:
    names = [str(name) for name in rng.permutation(list(NAMES))[: depth + 1]]
    numbers = [
        int(number)
        for number in rng.choice(np.arange(1, 10), size=depth + 1, replace=False)
    ]
    entries = [
        _choice(rng, family.entries).format(name=name.capitalize(), number=number)
        for name, number in zip(names, numbers, strict=True)
    ]
    leader, best = names[0], numbers[0]
    steps: list[Step] = []
    for name, number in zip(names[1:], numbers[1:], strict=True):
        led = best
        if (number < best) == family.smallest:
            leader, best = name, number
        steps.append(Step("compare", led, number, f"{best} {leader}", "compare"))
    opening, closing = _choice(rng, family.openings), _choice(rng, family.closings)
    text = f"{opening} {', '.join(entries)}. {closing}"
    return Problem(family.name, text, tuple(steps), leader, "")


def generate_problem(family: str, depth: int, rng: np.random.Generator) -> Problem:
    """Return one problem of a family.

    Parameters
    ----------
    family : str
        A key of `fedcot.world.families.FAMILIES`.
    depth : int
        Number of steps, 1 to `MAX_DEPTH`.
    rng : numpy.random.Generator
        Advances by a number of draws that depends on rejected candidates.

    Raises
    ------
    ValueError
        If the family is unknown or the depth is out of range.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"`family` must be one of {sorted(FAMILIES)}, found {family!r}."
        )
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"`depth` must be in [1, {MAX_DEPTH}], found {depth}.")
    definition = FAMILIES[family]
    while True:
        problem: Problem | None
        if isinstance(definition, Chain):
            problem = _chain(definition, depth, rng)
        elif isinstance(definition, Exchange):
            problem = _exchange(definition, depth, rng)
        else:
            problem = _comparison(definition, depth, rng)
        if problem is not None:
            return problem
