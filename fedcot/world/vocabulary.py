"""The public vocabulary of the built-in world.

Every list here is public by construction: it follows from the families' templates, not
from anybody's records.
"""

import re
from dataclasses import fields
from functools import cache

from fedcot.plain_text import normalize
from fedcot.world.families import FAMILIES, NAMES, Change

LARGEST_QUESTION_NUMBER = 40
# The longest question of a client domain at trained depth, in words. Every released
# prompt is padded or cut to this length, so that a private question's does not show.
PUBLIC_LENGTH = 21

_PLACEHOLDER = re.compile(r"\{\w+\}")


def _template_texts() -> list[str]:
    texts: list[str] = list(NAMES)
    for family in FAMILIES.values():
        for field in fields(family):
            value = getattr(family, field.name)
            values = value if isinstance(value, tuple) else (value,)
            for item in values:
                if isinstance(item, Change):
                    texts.append(item.clause)
                elif isinstance(item, str) and field.name not in _NOT_IN_QUESTIONS:
                    texts.append(item)
    return texts


_NOT_IN_QUESTIONS = ("name", "gain", "loss")


@cache
def question_words() -> tuple[str, ...]:
    """Return every word and number that a question may hold, in a fixed order.

    Returns
    -------
    tuple of str
        The words in alphabetical order, then the whole numbers from 0 to
        `LARGEST_QUESTION_NUMBER` as decimal strings.
    """
    words: set[str] = set()
    for text in _template_texts():
        words.update(normalize(_PLACEHOLDER.sub(" ", text)).split())
    numbers = [str(number) for number in range(LARGEST_QUESTION_NUMBER + 1)]
    return (*sorted(words), *numbers)


@cache
def cause_words() -> tuple[str, ...]:
    """Return the words that only rationales of granularity 3 and 4 use, sorted."""
    words = {"now", "so", "compare", "start"}
    for family in FAMILIES.values():
        for field in fields(family):
            value = getattr(family, field.name)
            if field.name in ("gain", "loss"):
                words.add(value)
            elif field.name == "changes":
                words.update(change.cause for change in value)
    return tuple(sorted(words))
