"""Reasoning that stands in the answer between `<think>` tags, and how to keep it out.

Open models write it so, and so do data sets in formats with no place for reasoning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_TAG: Final = re.compile(r"<(/?)think(?:ing)?\s*>", re.IGNORECASE)
# Also with what a text of its own may have written for the sign <.
_ESCAPABLE: Final = re.compile(r"(&(?:amp;)*lt;|<)(?=/?think)", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"&(lt;|amp;(?:amp;)*lt;)(?=/?think)", re.IGNORECASE)
_OPEN: Final = "<think>\n"
_CLOSE: Final = "\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class Split:
    """What a model wrote, taken apart; its `repr` holds no text of it."""

    reasoning: str = field(repr=False)
    answer: str = field(repr=False)
    is_open: bool  # the last tag was never closed, so there is no answer behind it


def split_thinking(text: str) -> Split:
    """Take the reasoning out of a text.

    All that stands in `<think>` or `<thinking>` is reasoning, and so is what stands
    before a `</think>` that was never opened: some servers write the first tag into
    the prompt. What follows a tag that is never closed is reasoning too.

    Returns
    -------
    Split
        White space around the parts is removed.
    """
    reasoning: list[str] = []
    answer: list[str] = []
    depth = start = 0
    for tag in _TAG.finditer(text):
        piece, start = text[start : tag.start()], tag.end()
        if tag.group(1):
            if not depth:  # closed but never opened: all before it was reasoning
                reasoning, answer = [*reasoning, *answer], []
            reasoning.append(piece)
            depth = max(0, depth - 1)
        else:
            (reasoning if depth else answer).append(piece)
            depth += 1
    (reasoning if depth else answer).append(text[start:])
    return Split(_joined(reasoning), _joined(answer), depth > 0)


def join_thinking(reasoning: str, answer: str) -> str:
    """Return reasoning and answer as one text that `take_apart` undoes exactly.

    A tag that belongs to one of the texts is written with ``&lt;``, so that no reader
    takes it for the end of the reasoning.
    """
    if not reasoning:
        return _escape(answer)
    return f"{_OPEN}{_escape(reasoning)}{_CLOSE}{_escape(answer)}"


def take_apart(text: str) -> tuple[str, str]:
    """Return reasoning and answer of what `join_thinking` wrote.

    Raises
    ------
    ValueError
        It did not write this.
    """
    reasoning, answer = "", text
    if text.startswith(_OPEN):
        reasoning, close, answer = text[len(_OPEN) :].partition(_CLOSE)
        if not close or not reasoning:
            raise ValueError("no end of the reasoning")
    if _TAG.search(reasoning) or _TAG.search(answer):
        raise ValueError("a tag too many")
    return _unescape(reasoning), _unescape(answer)


def _joined(pieces: list[str]) -> str:
    return "\n\n".join(piece.strip() for piece in pieces if piece.strip())


def _escape(text: str) -> str:
    return _ESCAPABLE.sub(
        lambda found: "&lt;" if found.group() == "<" else f"&amp;{found.group()[1:]}",
        text,
    )


def _unescape(text: str) -> str:
    return _ESCAPED.sub(
        lambda found: (
            "<" if found.group(1).lower() == "lt;" else f"&{found.group(1)[4:]}"
        ),
        text,
    )
