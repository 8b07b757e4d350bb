"""Named extractors: how an answer is read from what a model wrote.

Every kind of answer has a strict and a flexible extractor, reported side by side. The
strict one wants the answer phrase that prompts show (``answer is``; for numbers also
the ``####`` of GSM8K) with a readable answer right behind it. The flexible one takes
the last thing in the text that looks like an answer, as lm-eval's ``flexible-extract``
takes the last number. None is written as ``[invalid]`` and counts as wrong.

=================  ==========================  ==================================
kind               strict, behind the phrase   flexible
=================  ==========================  ==================================
numeric            ``12``, ``-$1,200.50``,     last number
                   ``3/4``, ``2 1/2 hours``
equation           ``(84 / 2)`` or ``42``, up  last expression that has a value
                   to the end of the sentence
multiple-choice    exactly `` (b)``            last ``(b)``, ``(B)``, ``option B``
yes-no             yes, no, true or false,     last of these words
                   then the end of a clause
label              a label, then the end of a  last label that is named
                   clause
free-text          all that follows            the whole text
=================  ==========================  ==================================

Several answer phrases in one text, strictly: ``multiple-choice`` and ``equation`` are
read only if all readable ones say the same, and the steps then reach up to the last
(the loaders of Distilling Step-by-Step,
https://github.com/google-research/distilling-step-by-step, refuse a second phrase); for
the others the first readable one counts, as for the first match of lm-eval's strict
filters. A readable number behind ``####`` comes before one behind the phrase.

One value has one spelling: numbers as `fedcot.evaluation.arithmetic.canonical` writes
them, choices as a small letter, ``yes`` or ``no``, labels as the mapping spells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from fedcot.data.schema import Rationale
from fedcot.evaluation.answers import EXTRACTORS, Extractor, Public, plain_words

__all__ = [
    "EXTRACTORS",
    "INVALID",
    "extract",
    "read_answer",
    "same_answer",
    "split_answer",
]

INVALID: Final = "[invalid]"
# A text with more phrases is a loop of the model: the rest adds nothing.
MAX_PHRASES: Final = 100

_PHRASE: Final = re.compile(r"\banswer is\b")
_MARK_TEXT: Final = "####"
_MARK: Final = re.compile(_MARK_TEXT)
# How far before the phrase its clause can begin, in characters.
_CLAUSE: Final = 200
_BREAK: Final = re.compile(r"[.!?;:,](?=\s)|\n")
_LEADS: Final = r"(?i:and|so|thus|therefore|hence|then|finally)\b[,:]?"
_OPENING: Final = re.compile(
    rf"\b(?:{_LEADS}\s+(?:[a-z]+\s+){{0,3}}|(?:The|My|Our)\s+(?:[a-z]+\s+)?)$"
)
_LEFT_OVER: Final = re.compile(rf"(?:(?:^|(?<=\s)){_LEADS}\s*)+$")


def extract(
    kind: str,
    text: str,
    *,
    strict: bool,
    choices: int = 0,
    labels: tuple[str, ...] = (),
) -> str | None:
    """Return the answer in a text, in its one spelling, or None.

    Parameters
    ----------
    kind : str
        One of `EXTRACTORS`.
    text : str
        A completion, already cut at the stop strings.
    strict : bool
        Whether the answer phrase is needed.
    choices : int
        Number of choices, from 1 to 26; for ``multiple-choice`` only.
    labels : tuple of str
        The labels there are; for ``label`` only.

    Raises
    ------
    ValueError
        There is no such kind, or its choices or labels are missing.
    """
    extractor, public = _of(kind, choices, labels)
    if not strict:
        return extractor.anywhere(text, public)
    found = _stated(extractor, text, public)
    return None if found is None else found[1]


def read_answer(
    kind: str, text: str, *, choices: int = 0, labels: tuple[str, ...] = ()
) -> str | None:
    """Return the one spelling of a text that is nothing but an answer, or None.

    For the answers of a data set, and for answers without a rationale. A unit may
    follow a number.

    Raises
    ------
    ValueError
        As `extract`.
    """
    extractor, public = _of(kind, choices, labels)
    return extractor.bare(text, public)


def split_answer(
    kind: str, text: str, *, choices: int = 0, labels: tuple[str, ...] = ()
) -> Rationale | None:
    """Split a completion, strictly, into the steps before the answer and the answer.

    The clause that holds the answer phrase goes: of ``84 / 2 = 42. So the answer is
    (84 / 2).`` the steps are ``84 / 2 = 42.``.

    Returns
    -------
    Rationale or None
        None if `extract` finds no answer, or if there are no steps before it.

    Raises
    ------
    ValueError
        As `extract`.
    """
    extractor, public = _of(kind, choices, labels)
    found = _stated(extractor, text, public)
    if found is None:
        return None
    start, answer = found
    marked = text.startswith(_MARK_TEXT, start)
    steps = text[:start].strip() if marked else _without_clause(text[:start])
    return Rationale(steps, answer) if steps else None


def same_answer(kind: str, a: str, b: str) -> bool:
    """Whether two answers are the same; ``[invalid]`` equals nothing.

    Numbers and equations are compared by value, free text after the normalisation of
    SQuAD, the others without regard to case.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    if kind not in EXTRACTORS:
        raise ValueError(_unknown(kind))
    if INVALID in (a, b):
        return False
    if kind in ("numeric", "equation"):
        first, second = (read_answer("equation", x.strip()) for x in (a, b))
        return first is not None and first == second
    if kind == "free-text":
        return plain_words(a) == plain_words(b)
    return a.strip().casefold() == b.strip().casefold()


def _of(kind: str, choices: int, labels: tuple[str, ...]) -> tuple[Extractor, Public]:
    if kind not in EXTRACTORS:
        raise ValueError(_unknown(kind))
    if kind == "multiple-choice" and not 1 <= choices <= 26:
        raise ValueError(f"`choices` must be from 1 to 26, found {choices}.")
    if kind == "label" and not (labels and all(labels)):
        raise ValueError("`labels` must hold one or more texts that are not empty.")
    return EXTRACTORS[kind], Public(choices, labels)


def _unknown(kind: str) -> str:
    return f"`kind` must be one of {', '.join(EXTRACTORS)}, found `{kind}`."


def _stated(extractor: Extractor, text: str, public: Public) -> tuple[int, str] | None:
    """Return the start of the phrase that counts, and its answer."""
    found = _readable(extractor, _PHRASE, text, public)
    if extractor.unanimous:
        answers = list(found)
        agree = len({answer for _, answer in answers}) == 1
        return answers[-1] if agree and answers[-1][1] else None
    if extractor.marked:
        marked = next(_readable(extractor, _MARK, text, public), None)
        return marked or next(found, None)
    return next(found, None)


def _readable(
    extractor: Extractor, phrase: re.Pattern[str], text: str, public: Public
) -> Iterator[tuple[int, str]]:
    for match in islice(phrase.finditer(text), MAX_PHRASES):
        answer = extractor.behind(text, match.end(), public)
        if answer is not None:
            yield match.start(), answer


def _without_clause(before: str) -> str:
    """Return the text before the clause that a phrase ends, without what led to it."""
    tail = before[-_CLAUSE:]
    kept = before[: len(before) - len(tail)]
    opening = _OPENING.search(tail)
    if opening is not None:
        tail = tail[: opening.start()]
    else:
        breaks = [match.end() for match in _BREAK.finditer(tail)]
        tail = tail[: breaks[-1]] if breaks else ""
    return (kept + _LEFT_OVER.sub("", tail)).strip().rstrip(",;:").rstrip()
