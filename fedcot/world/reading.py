"""Read a question of the built-in world back: its family, its noun and its exact steps.

The words of a question decide its problem, so what a person exported can be compared
with the truth although nobody kept the problem. Punctuation and case do not count: the
question that a model was shown has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from fedcot.plain_text import normalize
from fedcot.world.families import (
    FAMILIES,
    NAMES,
    Chain,
    Change,
    Comparison,
    Exchange,
    Family,
)
from fedcot.world.generator import LARGEST_QUANTITY, MAX_DEPTH
from fedcot.world.problem import Operation, Problem, Step

_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,3})"
_NAME: Final = "|".join(NAMES)
_GIVES_AWAY: Final[tuple[Operation, Operation]] = ("subtract", "add")
_ARITHMETIC: Final = {
    "add": lambda left, right: left + right,
    "subtract": lambda left, right: left - right,
    "multiply": lambda left, right: left * right,
}

_Reading = tuple[tuple[Step, ...], str, str]  # steps, answer and noun


def read_problem(question: str) -> Problem | None:
    """Return the problem that a question states.

    Parameters
    ----------
    question : str
        As a person wrote it, or normalised.

    Returns
    -------
    Problem or None
        Its `text` is `question`; all else is as the generator made it. None where the
        words follow no family's templates in full, where they follow more than one
        reading with different steps, or where the generator could not have made it: a
        quantity outside [1, 99], more than `MAX_DEPTH` steps, equal numbers or names
        in a comparison.
    """
    words = normalize(question)
    found = [
        Problem(name, question, steps, answer, noun)
        for name, family in FAMILIES.items()
        for steps, answer, noun in _readings(family, words)
    ]
    if not found or any(other != found[0] for other in found[1:]):
        return None
    return found[0]


def _readings(family: Family, words: str) -> Iterator[_Reading]:
    if isinstance(family, Chain):
        found = _chains(family, words)
    elif isinstance(family, Exchange):
        found = _exchanges(family, words)
    else:
        found = _comparisons(family, words)
    for reading in found:
        if 1 <= len(reading[0]) <= MAX_DEPTH:
            yield reading


def _chains(family: Chain, words: str) -> Iterator[_Reading]:
    first, last = family.openings, family.closings
    if family.closing_first:
        starts = [f"{closing} {opening}" for closing in last for opening in first]
        ends = [""]
    else:
        starts, ends = list(first), list(last)
    nouns = "|".join(family.nouns)
    for start in starts:
        for end in ends:
            match = _bounded(start, end, nouns).fullmatch(words)
            if match is None:
                continue
            changes = _clauses(tuple(c.clause for c in family.changes), match["middle"])
            for clauses in changes:
                picked = [(family.changes[at], amount) for at, amount in clauses]
                steps = _chain_steps(family, match.groupdict(), picked)
                if steps:
                    yield steps, steps[-1].result, match["noun"]


def _chain_steps(
    family: Chain, given: dict[str, str | None], changes: list[tuple[Change, int]]
) -> tuple[Step, ...]:
    """Return the steps; none where a quantity leaves its range."""
    steps: list[Step] = []
    if family.opens_with_product:
        count, size = int(given["count"] or 0), int(given["size"] or 0)
        total = count * size
        left, right = max(count, size), min(count, size)
        steps.append(Step("multiply", left, right, str(total), "start"))
    else:
        total = int(given["start"] or 0)
    totals = [total]
    for change, stated in changes:
        amount = change.factor or stated
        result = _ARITHMETIC[change.operation](total, amount)
        steps.append(Step(change.operation, total, amount, str(result), change.cause))
        total = result
        totals.append(total)
    in_range = all(1 <= one <= LARGEST_QUANTITY for one in totals)
    return tuple(steps) if in_range else ()


def _exchanges(family: Exchange, words: str) -> Iterator[_Reading]:
    start = f"{family.request} {family.opening}"
    match = _bounded(start, "", "|".join(family.nouns)).fullmatch(words)
    if match is None:
        return
    for clauses in _clauses(family.transfers, match["middle"]):
        held = [int(match["first"]), int(match["second"])]
        in_range = True
        steps: list[Step] = []
        for giver, amount in clauses:
            before = held[0]
            held[giver] -= amount
            held[1 - giver] += amount
            in_range &= min(held) >= 1 and max(held) <= LARGEST_QUANTITY
            cause = family.gain if giver else family.loss
            operation = _GIVES_AWAY[giver]
            steps.append(Step(operation, before, amount, str(held[0]), cause))
        if steps and in_range:
            yield tuple(steps), steps[-1].result, match["noun"]


def _comparisons(family: Comparison, words: str) -> Iterator[_Reading]:
    for opening in family.openings:
        for closing in family.closings:
            match = _bounded(opening, closing, "").fullmatch(words)
            if match is None:
                continue
            entries = _entries(family.entries, match["middle"])
            names, numbers = [e[0] for e in entries], [e[1] for e in entries]
            if len(set(names)) != len(names) or len(set(numbers)) != len(numbers):
                continue
            steps = tuple(_compared(entries, smallest=family.smallest))
            if steps:
                yield steps, steps[-1].result.split()[-1], ""


def _compared(entries: Sequence[tuple[str, int]], *, smallest: bool) -> Iterator[Step]:
    if not entries:
        return
    leader, best = entries[0]
    for name, number in entries[1:]:
        led = best
        if (number < best) == smallest:
            leader, best = name, number
        yield Step("compare", led, number, f"{best} {leader}", "compare")


def _entries(templates: tuple[str, ...], middle: str) -> list[tuple[str, int]]:
    """Return every name with its number; none where something else is there too."""
    (template,) = templates
    one = _pattern(template, "")
    if re.fullmatch(rf"(?: {one})+", middle) is None:
        return []
    return [(m["name"], int(m["number"])) for m in re.finditer(one, middle)]


def _clauses(templates: tuple[str, ...], middle: str) -> list[list[tuple[int, int]]]:
    """Return every way to read text as clauses: which one, and its amount or 0."""
    if not middle:
        return [[]]
    found: list[list[tuple[int, int]]] = []
    for at, template in enumerate(templates):
        match = re.match(rf" {_pattern(template, '')}(?= |$)", middle)
        if match is not None:
            amount = int(match.groupdict().get("amount") or 0)
            rest = _clauses(templates, middle[match.end() :])
            found += [[(at, amount), *more] for more in rest]
    return found


@cache
def _bounded(start: str, end: str, nouns: str) -> re.Pattern[str]:
    """Return a pattern of a whole question with anything between its two ends."""
    text = f"{start} {{middle}} {end}" if end else f"{start} {{middle}}"
    seen: set[str] = set()
    pieces: list[str] = []
    for index, piece in enumerate(_PLACEHOLDER.split(text)):
        if index % 2 == 0:
            pieces.append(re.escape(normalize(piece)))
        elif piece in seen:
            pieces.append(f"(?P={piece})")
        else:
            seen.add(piece)
            pieces.append(_group(piece, nouns))
    joined = " ".join(piece for piece in pieces if piece)
    # The middle brings the blank before each of its clauses, and may be empty.
    return re.compile(joined.replace(" (?P<middle>", "(?P<middle>"))


def _group(name: str, nouns: str) -> str:
    if name == "middle":
        return "(?P<middle>(?: [a-z0-9]+)*?)"
    if name in ("noun", "name"):
        return f"(?P<{name}>{nouns if name == 'noun' else _NAME})"
    return f"(?P<{name}>{_NUMBER})"


@cache
def _pattern(template: str, nouns: str) -> str:
    """Return a template of a clause as the pattern of its normalised words."""
    pieces = [
        re.escape(normalize(piece)) if index % 2 == 0 else _group(piece, nouns)
        for index, piece in enumerate(_PLACEHOLDER.split(template))
    ]
    return " ".join(piece for piece in pieces if piece)
