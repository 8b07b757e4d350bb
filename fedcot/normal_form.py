"""The form of a text that public words are compared in."""

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+|\d+")


def normalize(text: str) -> str:
    """Return the words and whole numbers of a text in lower case, one space between.

    Punctuation, casing and spacing do not survive, so they cannot leak.
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    return " ".join(_WORD.findall(folded))
