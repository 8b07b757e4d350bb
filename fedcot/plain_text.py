"""What is done to a text before words, models or messages take it."""

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]+|\d+")


def normalize(text: str) -> str:
    """Return the words and whole numbers of a text in lower case, one space between.

    Punctuation, casing and spacing do not survive, so they cannot leak.
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_WORD.findall(folded))


def valid_unicode(text: str) -> str:
    """Return a text that has bytes: a question mark stands for half a character.

    JSON may hold such halves (lone surrogates); no tokenizer, file or message in UTF-8
    takes them.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def cut(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first of some strings."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text
