"""Exact arithmetic on text that a model wrote: small, bounded, and without `eval`.

Values are fractions, so that ``0.1 + 0.2`` equals ``0.3``. Length and depth have
limits, so a long or deeply nested text costs no more than a short one.
`fedcot.evaluation.equations` finds the equations in a rationale.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

# Longer expressions are no answers to word problems; 500 digits also stay far below
# the 4,300 that Python converts at most.
MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 32
# Decimals up to this many places are written as such, others as fractions.
_PLACES: Final = 12

NUMBER: Final = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_TOKEN: Final = re.compile(rf"\s*({NUMBER}|[-+*/()])")
_SIGNS: Final = str.maketrans("−–×÷", "--*/")  # noqa: RUF001


class _RefusedError(Exception):
    """The text is not an expression."""


def evaluate(text: str) -> Fraction | None:
    """Return the exact value of an expression over ``+ - * / ( )`` and decimals.

    Parameters
    ----------
    text : str
        Numbers may have thousands separators; ``×``, ``÷``, ``−`` and ``–`` are
        read as ``*``, ``/`` and ``-``.

    Returns
    -------
    Fraction or None
        None for anything else: other signs, an unfinished expression, a division by
        zero, more than `MAX_LENGTH` characters, brackets and signs nested deeper than
        `MAX_DEPTH`.
    """  # noqa: RUF002
    if len(text) > MAX_LENGTH:
        return None
    text = text.strip().translate(_SIGNS)
    tokens, end = [], 0
    while end < len(text):
        found = _TOKEN.match(text, end)
        if found is None:
            return None
        tokens.append(found[1])
        end = found.end()
    try:
        return _Parser(tokens).value()
    except (_RefusedError, ZeroDivisionError):
        return None


class _Parser:
    """Recursive descent: a sum of products of signed numbers and brackets."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def value(self) -> Fraction:
        value = self._sum(0)
        if self.at < len(self.tokens):
            raise _RefusedError
        return value

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while self._next() in ("+", "-"):
            plus = self._next() == "+"
            self.at += 1
            other = self._product(depth)
            value = value + other if plus else value - other
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while self._next() in ("*", "/"):
            times = self._next() == "*"
            self.at += 1
            other = self._factor(depth)
            value = value * other if times else value / other
        return value

    def _factor(self, depth: int) -> Fraction:
        token = self._next()
        self.at += 1
        if depth > MAX_DEPTH or token in ("", "+", "*", "/", ")"):
            raise _RefusedError
        if token == "-":
            return -self._factor(depth + 1)
        if token != "(":
            return Fraction(token.replace(",", ""))
        value = self._sum(depth + 1)
        if self._next() != ")":
            raise _RefusedError
        self.at += 1
        return value


def canonical(value: Fraction) -> str:
    """Return the one spelling of a value.

    Whole numbers as ``12``, decimals of at most 12 places as ``0.5``, everything else
    in lowest terms as ``1/3``.
    """
    top, bottom = abs(value.numerator), value.denominator
    sign = "-" if value < 0 else ""
    if bottom == 1:
        return f"{sign}{top}"
    for places in range(1, _PLACES + 1):
        if 10**places % bottom == 0:
            digits = f"{top * 10**places // bottom:0{places + 1}d}"
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return f"{sign}{top}/{bottom}"
