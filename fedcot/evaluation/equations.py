"""Which equations in a rationale are false.

Read are plain equations (``84 / 2 = 42``, ``$3 x 4 = $12``, chains like ``a + b = c - d
= e``) and the marks of GSM8K (``<<48/2=24>>``). What does not read plainly is left
alone: unknowns, powers, units between numbers, sums of percentages, parts like ``half
of 20 + 3 = 13``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from fedcot.evaluation.arithmetic import NUMBER, evaluate

# Rationales are far shorter; this bounds the time.
MAX_TEXT: Final = 10_000

_MARK: Final = re.compile(r"<<([^<>\n]{1,200})>>")
_TOKEN: Final = re.compile(
    rf"(?P<bullet>^[ \t]*[-*+•][ \t])"
    rf"|(?P<unclear>[0-9]+:[0-9]+|[!<>≠≈≤≥]=?|[\^√²³½¼¾])"
    rf"|[$£€¥]?[ ]?(?P<number>{NUMBER}%?)"
    rf"|(?P<sign>[-−–+*/×÷]|(?<=[\s\d)])[xX](?=[\s\d($]))"  # noqa: RUF001
    rf"|(?P<bracket>[()])|(?P<equals>==?)|(?P<word>[^\W\d_]+)|(?P<other>[^ \t])",
    re.MULTILINE,
)
_PLAIN: Final = str.maketrans("xX", "**")
# Behind these words a number is only a part of what is meant; so it is before others.
_PARTIAL: Final = {"of", "times", "plus", "minus", "over", "by", "per", "than"}
_SCALES: Final = {"hundred", "thousand", "million", "billion", "dozen", "k"}
_GOES_ON: Final = _SCALES | {"remainder", "r", "of", "times", "plus", "minus"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def is_math(self) -> bool:
        return self.kind in ("number", "sign", "bracket")

    @property
    def ends_operand(self) -> bool:
        return self.kind == "number" or self.text == ")"

    @property
    def starts_operand(self) -> bool:
        return self.kind == "number" or self.text == "("


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of an equation, readable both ways if it has percentages."""

    tokens: tuple[_Token, ...]

    def values(self) -> set[Fraction]:
        found = {evaluate(self._text("/100")), evaluate(self._text(""))}
        return {value for value in found if value is not None}

    def _text(self, percent: str) -> str:
        texts = (
            f"({token.text[:-1]}{percent})" if token.text[-1] == "%" else token.text
            for token in self.tokens
        )
        return " ".join(texts).translate(_PLAIN)

    @property
    def key(self) -> str:
        return self._text("%")

    @property
    def is_calculation(self) -> bool:
        return any(token.kind == "sign" for token in self.tokens[1:])

    @property
    def is_sum_of_shares(self) -> bool:
        """Whether it calculates with percentages alone, of something unnamed."""
        numbers = [token.text for token in self.tokens if token.kind == "number"]
        return self.is_calculation and all(text[-1] == "%" for text in numbers)

    @property
    def tolerance(self) -> Fraction:
        """One unit of the last place of a single decimal; 0 for all else."""
        text = "".join(token.text for token in self.tokens).lstrip("-").rstrip("%")
        if self.is_calculation or "." not in text:
            return Fraction(0)
        return Fraction(1, 10 ** len(text.partition(".")[2]))


def wrong_equations(text: str) -> int:
    """Return how many different equations in a text are false.

    Both sides of every ``=`` with a calculation on at least one side are compared
    exactly. A side that is a single decimal may be rounded or cut: it has to be less
    than one unit of its last written place away, so ``2 / 3 = 0.66`` and ``= 0.67`` are
    true and ``= 0.65`` and ``= 1`` are false. A percentage counts as written or as a
    share. In a chain, neighbours are compared. An equation that stands in the text and
    again in a mark counts once.

    Parameters
    ----------
    text : str
        A rationale; its first `MAX_TEXT` characters are read.
    """
    text = text[:MAX_TEXT]
    if "=" not in text:
        return 0
    parts = [match[1] for match in _MARK.finditer(text)]
    parts.append(_MARK.sub("", text))
    return len({key for part in parts for key in _false(part)})


def _false(text: str) -> Iterator[tuple[str, str]]:
    tokens = [
        _Token(kind, found[kind], *found.span(kind))
        for found in _TOKEN.finditer(text)
        if (kind := str(found.lastgroup))
    ]
    for at, token in enumerate(tokens):
        if token.kind != "equals":
            continue
        left, right = _left(tokens, at), _right(tokens, at)
        if left is None or right is None:
            continue
        if left.is_sum_of_shares or right.is_sum_of_shares:
            continue
        if left.is_calculation or right.is_calculation:
            slack = max(left.tolerance, right.tolerance)
            differences = [abs(a - b) for a in left.values() for b in right.values()]
            if differences and not any(d == 0 or d < slack for d in differences):
                yield left.key, right.key


def _left(tokens: list[_Token], at: int) -> _Side | None:
    start = at
    while start > 0 and tokens[start - 1].is_math:
        if start < at and _apart(tokens[start - 1], tokens[start]):
            return None
        start -= 1
    if start == at:
        return None
    first, before = tokens[start], tokens[start - 1] if start else None
    if before is not None and before.kind == "word":
        touches = before.end == first.start
        if touches or first.text == "-" or before.text.lower() in _PARTIAL:
            return None
    if before is not None and (before.kind == "unclear" or _split(before, first)):
        return None
    return _Side(_balanced(tokens[start:at]))


def _right(tokens: list[_Token], at: int) -> _Side | None:
    end = at + 1
    while end < len(tokens) and tokens[end].is_math:
        if end > at + 1 and _apart(tokens[end - 1], tokens[end]):
            return None
        end += 1
    if end == at + 1:
        return None
    last, after = tokens[end - 1], tokens[end] if end < len(tokens) else None
    if after is not None and after.kind == "word":
        letter = after.start == last.end and len(after.text) == 1
        if letter or after.text.lower() in _GOES_ON:
            return None
    follower = tokens[end + 1] if end + 1 < len(tokens) else None
    if after is not None and (after.kind == "unclear" or _split(after, follower)):
        return None
    if last.text == "-":  # a dash
        end -= 1
    return _Side(_balanced(tokens[at + 1 : end]))


def _apart(first: _Token, second: _Token) -> bool:
    """Whether two operands stand beside each other, as in ``5 1/2``."""
    return first.ends_operand and second.starts_operand


def _split(mark: _Token, number: _Token | None) -> bool:
    """Whether a comma or a full stop stands in a number, as in ``16,0000``."""
    if number is None or number.kind != "number":
        return False
    return mark.text in (",", ".") and mark.end == number.start


def _balanced(tokens: list[_Token]) -> tuple[_Token, ...]:
    """Drop brackets around the whole equation, which have one end on this side."""
    start, end, depth = 0, len(tokens), 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
    while depth > 0 and start < end and tokens[start].text == "(":
        start, depth = start + 1, depth - 1
    while depth < 0 and start < end and tokens[end - 1].text == ")":
        end, depth = end - 1, depth + 1
    return tuple(tokens[start:end])
