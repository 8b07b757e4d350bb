"""Reasoning as a row of steps: cut apart, put together, shortened, padded. No model.

A level is always counted from coarse to fine. All of it is deterministic, so a member
can make its traces coarser without asking anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from fedcot.errors import ConfigError

Measure = Callable[[str], int]

# What padding repeats. A full stop says nothing in prose, as in "Let's think dot by
# dot" (https://arxiv.org/abs/2404.15758); the built-in pair has no punctuation, so it
# takes a word that no rationale of the world uses.
TEXT_FILLER: Final = "."
WORLD_FILLER: Final = "the"

_LINE_END: Final = re.compile(r"\n\s*")
_SENTENCE_END: Final = re.compile(r"[.!?…][\"'”’)\]]{0,3}\s+")  # noqa: RUF001
# Full stops that end no sentence, in small letters and without the last stop.
_ABBREVIATIONS: Final = frozenset(
    {
        *("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "cf", "al", "fig"),
        *("eq", "approx", "ca", "e.g", "i.e", "a.m", "p.m", "u.s", "u.k"),
    }
)
_LIST_MARK: Final = re.compile(r"\s*(?:[0-9]{1,3}|[A-Za-z])[.)]\s+")
_INITIAL: Final = re.compile(r"(?:^|[\s(])[A-Z]\.\s+$")
_LAST_WORD: Final = re.compile(r"(\S{1,12})\.\s+$")
_LOOK: Final = 40  # characters before a stop that can say that it ends nothing


def split_steps(text: str) -> list[str]:
    """Return the steps of a reasoning: its lines, and the sentences in them.

    No step ends at a decimal point, an abbreviation, an initial, the number of a list
    item, or before a small letter.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
        Each step keeps the white space behind it, so that ``"".join(steps)`` is the
        text without white space around it. Empty for a text without words.
    """
    text = text.strip()
    if not text:
        return []
    found = {match.end() for match in _LINE_END.finditer(text)}
    ends = sorted(found | set(_sentence_ends(text)))
    steps: list[str] = []
    start = 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        if end < len(text) and _LIST_MARK.fullmatch(piece):
            continue
        steps.append(piece)
        start = end
    return steps


def join_steps(steps: Sequence[str]) -> str:
    """Return steps as one text, without white space around it.

    ``join_steps(split_steps(text)) == text.strip()``.
    """
    return "".join(steps).strip()


def _sentence_ends(text: str) -> list[int]:
    ends = []
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        before = text[max(0, end - _LOOK) : end]
        word = _LAST_WORD.search(before)
        is_short = word and word[1].lstrip("(\"'").lower() in _ABBREVIATIONS
        if not (text[end : end + 1].islower() or _INITIAL.search(before) or is_short):
            ends.append(end)
    return ends


def count_words(text: str) -> int:
    """Return the number of words, as white space separates them."""
    return len(text.split())


def coarsen(steps: Sequence[str], level: int, levels: int) -> list[str]:
    """Return the last steps of a reasoning, more of them the finer the level.

    Our definition: level k of K keeps the last ``ceil(n k / K)`` of n steps. A coarser
    level is the end of each finer one, and what is concluded last always stays. It
    takes reasoning away from the left, as Internalize CoT step by step does token by
    token (https://arxiv.org/abs/2405.14838).

    Parameters
    ----------
    steps : sequence of str
    level : int
        From 0 (no reasoning, the answer only) to `levels` (all steps).
    levels : int
        1 or more.

    Raises
    ------
    ConfigError
        The level is out of range.
    """
    if levels < 1 or not 0 <= level <= levels:
        raise ConfigError(
            f"`level` must be 0 to {max(levels, 1)}, from no reasoning to all of it, "
            f"found {level}; pass one of these."
        )
    kept = -(-len(steps) * level // levels)
    return list(steps[len(steps) - kept :])


def pad_to(text: str, length: int, filler: str, measure: Measure) -> str:
    """Return a text with filler before it, as near to a length as filler allows.

    The filler stands before the reasoning: what follows it, steps and answer, is read
    as without it, and the verifier of the built-in world passes over it. The control
    of https://arxiv.org/abs/2502.18001: as long as a finer level, but with nothing more
    in it.

    Parameters
    ----------
    text : str
    length : int
        Wanted, as `measure` counts; a text that is longer stays as it is.
    filler : str
        One word that is public and in the student's vocabulary.
    measure : callable
        Length of a text, for example in tokens of the student.

    Raises
    ------
    ConfigError
        The filler has white space in it, or adds no length.
    """
    _check_filler(filler, measure)
    short = length - measure(text)
    if short <= 0:
        return text
    each = measure(" ".join([filler] * 2)) - measure(filler)
    if each < 1:
        raise ConfigError(
            f"`filler` must add to the length of a text, found {filler!r}, which adds "
            f"{each}; pass another word."
        )

    def padded(count: int) -> str:
        return (
            " ".join([filler] * count + [text]) if text else " ".join([filler] * count)
        )

    count = short // each
    # Tokenizers may merge filler and text: the estimate can be off by a few.
    candidates = [padded(near) for near in range(max(0, count - 2), count + 3)]
    return min(candidates, key=lambda one: abs(measure(one) - length))


def pad_all(
    texts: Sequence[str], lengths: Sequence[int], filler: str, measure: Measure
) -> list[str]:
    """Return texts with filler so that their mean length is that of finer ones.

    Where a text is longer than its finer one, which prompted levels allow, what it has
    too much is taken off the length of those after it: the sums agree, so that a
    comparison of the two levels is not one of lengths.

    Parameters
    ----------
    texts, lengths : sequence of str, sequence of int
        Coarse texts, and for each the length of its finer one.
    filler, measure
        As for `pad_to`.

    Raises
    ------
    ConfigError
        The texts are longer in all than the finer ones: filler cannot shorten them.
    """
    sizes = [measure(text) for text in texts]
    if len(sizes) != len(lengths) or sum(sizes) > sum(lengths):
        raise ConfigError(
            "`lengths` must be one for each text and as many tokens in all at least, "
            f"found {sum(lengths)} for {len(sizes)} texts of {sum(sizes)}; pad to a "
            "finer level."
        )
    # From the longest excess on: what is left over at the end is one filler at most.
    order = sorted(range(len(sizes)), key=lambda i: lengths[i] - sizes[i])
    found, over = [""] * len(sizes), 0
    for at in order:
        goal = lengths[at] - over
        found[at] = pad_to(texts[at], goal, filler, measure)
        over = measure(found[at]) - goal
    return found


def _check_filler(filler: str, measure: Measure) -> None:
    if len(filler.split()) != 1 or filler != filler.strip() or measure(filler) < 1:
        raise ConfigError(
            f"`filler` must be one word that has a length, found {filler!r}; pass for "
            f"example {TEXT_FILLER!r}."
        )
