"""How each kind of answer is read: behind an answer phrase, alone, or anywhere.

Behind a phrase and alone, what does not read plainly is refused; anywhere in a text,
the last thing that looks like an answer counts. Digits of other scripts are no digits
here. All searches take time linear in the text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Final

from fedcot.evaluation.arithmetic import MAX_LENGTH, NUMBER, canonical, evaluate

# A number with more characters is a loop of the model, and no answer.
MAX_NUMBER: Final = 60
# A lenient search looks at so many characters, and tries so many expressions, from the
# end: what stands further away is not the conclusion.
_TAIL: Final = 20_000
_TRIED: Final = 32
_MINUS: Final = "-−–"  # noqa: RUF001
_SIGNS: Final = f"{_MINUS}+*/×÷"  # noqa: RUF001

_GAP: Final = re.compile(r":?\s*")
_VALUE: Final = re.compile(
    rf"(?P<sign>[{_MINUS}+]?)\s?[$£€¥]?\s?(?P<inner>[{_MINUS}]?)"
    rf"(?P<whole>{NUMBER})(?:\s?/\s?(?P<bottom>{NUMBER})"
    rf"|[ ](?P<top>[0-9]+)/(?P<under>[0-9]+))?"
)
# Behind a number these say that it is a part of something else: a list or a decimal
# comma, a time, an exponent, an expression.
_GOES_ON: Final = re.compile(
    rf"[.,:][0-9]|[eE][-+]?[0-9]|\s*[{_SIGNS}^=xX]\s*[$(]?\s*[0-9]"
)
_ANY_NUMBER: Final = re.compile(
    rf"(?P<sign>(?:(?<![\w)\]])[{_MINUS}])?)[$£€¥]?(?P<whole>{NUMBER})"
    rf"(?:/(?P<bottom>{NUMBER}))?"
)
_EXPRESSION: Final = re.compile(rf"(?:{NUMBER}|[{_SIGNS}() \t])+")
_STRICT_CHOICE: Final = re.compile(r" \(([a-z])\)")
_ANY_CHOICE: Final = re.compile(
    r"\(([A-Za-z])\)|\b(?i:answer|option|choice)(?: is)?:?\s([A-Za-z])\b"
)
_BARE_CHOICE: Final = re.compile(r"\s*\(?([A-Za-z])\)?\.?\s*")
_TRUTH: Final = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
_YES_NO: Final = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_OPENING: Final = tuple("\"'“‘(*")  # noqa: RUF001
# An answer that is a word ends the sentence or the clause: no other word may follow.
_END: Final = re.compile(r"[\"'”’)*]{0,3}\s{0,3}(?:$|[.,;:!\n])")  # noqa: RUF001
_LOOK: Final = 8
_NO_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Public:
    """What is public about the answers: the number of choices, the labels."""

    choices: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extractor:
    """How one kind of answer is read.

    Attributes
    ----------
    behind : callable
        Reads the answer that starts at a position, right behind the answer phrase.
    anywhere : callable
        Reads the last answer of a text.
    bare : callable
        Reads a text that is nothing but the answer.
    unanimous : bool
        Whether several answer phrases have to say the same.
    marked : bool
        Whether ``####`` is an answer phrase too.
    """

    behind: Callable[[str, int, Public], str | None]
    anywhere: Callable[[str, Public], str | None]
    bare: Callable[[str, Public], str | None]
    unanimous: bool = False
    marked: bool = False


def plain_words(text: str) -> list[str]:
    """Return the words of a text as SQuAD compares them.

    Small letters, without ASCII punctuation and without the articles a, an and the
    (``normalize_answer`` of https://rajpurkar.github.io/SQuAD-explorer/).
    """
    bare = text.lower().translate(_NO_PUNCTUATION)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def _tail(text: str) -> str:
    """Return the end of a text, from a white space on if it had to be cut."""
    if len(text) <= _TAIL:
        return text
    cut = re.search(r"\s", text[-_TAIL:])
    return text[-_TAIL:][cut.start() if cut else 0 :]


def _begin(text: str, at: int) -> int:
    """Return where the answer begins: behind a colon and white space."""
    gap = _GAP.match(text, at)
    return at if gap is None else gap.end()


def _ends(text: str, at: int) -> bool:
    return _END.match(text[at : at + _LOOK]) is not None


def _fraction(text: str) -> Fraction | None:
    return Fraction(text.replace(",", "")) if len(text) <= MAX_NUMBER else None


def _value(match: re.Match[str]) -> str | None:
    """Return the spelling of a matched number; None if it is too long or has no end."""
    parts = match.groupdict()
    value = _fraction(parts["whole"])
    bottom = _fraction(parts.get("bottom") or parts.get("under") or "1")
    top = _fraction(parts.get("top") or "0")
    if value is None or top is None or not bottom:
        return None
    value = value / bottom if parts.get("bottom") else value + top / bottom
    negative = (parts["sign"] not in ("", "+")) != bool(parts.get("inner"))
    return canonical(-value if negative else value)


def _number_behind(text: str, at: int, public: Public) -> str | None:
    match = _VALUE.match(text, _begin(text, at))
    if match is None or _GOES_ON.match(text, match.end()):
        return None
    # A digit of another script, or a sign like one half.
    if text[match.end() : match.end() + 1].isnumeric():
        return None
    return _value(match)


def _last_number(text: str, public: Public) -> str | None:
    last = None
    for match in _ANY_NUMBER.finditer(_tail(text)):
        last = match
    return None if last is None else _value(last)


def _bare_number(text: str, public: Public) -> str | None:
    return _number_behind(text.strip(), 0, public)


def _exact(expression: str) -> str | None:
    value = evaluate(expression)
    return None if value is None else canonical(value)


def _equation_behind(text: str, at: int, public: Public) -> str | None:
    start = _begin(text, at)
    match = _EXPRESSION.match(text, start, start + MAX_LENGTH + 1)
    if match is None or not _ends(text, match.end()):
        return None
    return _exact(match[0])


def _last_equation(text: str, public: Public) -> str | None:
    runs = [match[0] for match in _EXPRESSION.finditer(_tail(text))]
    for run in reversed(runs[-_TRIED:]):
        answer = _exact(run) or _exact(run.strip("() \t"))
        if answer is not None:
            return answer
    return _last_number(text, public)


def _bare_equation(text: str, public: Public) -> str | None:
    return _exact(text)


def _choice_behind(text: str, at: int, public: Public) -> str | None:
    match = _STRICT_CHOICE.match(text, at)
    if match is None:
        return None
    # A letter that is no choice is not skipped: it contradicts all that are.
    return match[1] if _is_choice(match[1], public) else ""


def _last_choice(text: str, public: Public) -> str | None:
    alone = _bare_choice(text, public)
    if alone is not None:
        return alone
    found = _ANY_CHOICE.finditer(_tail(text))
    letters = [(match[1] or match[2]).lower() for match in found]
    return next((x for x in reversed(letters) if _is_choice(x, public)), None)


def _bare_choice(text: str, public: Public) -> str | None:
    match = _BARE_CHOICE.fullmatch(text)
    letter = match[1].lower() if match else ""
    return letter if letter and _is_choice(letter, public) else None


def _is_choice(letter: str, public: Public) -> bool:
    return ord(letter) - ord("a") < public.choices


def _word_behind(text: str, at: int, pattern: re.Pattern[str]) -> str | None:
    start = _begin(text, at)
    start += text.startswith(_OPENING, start)
    match = pattern.match(text, start)
    return match[1] if match is not None and _ends(text, match.end()) else None


def _truth_behind(text: str, at: int, public: Public) -> str | None:
    return _YES_NO.get((_word_behind(text, at, _TRUTH) or "").lower())


def _last_truth(text: str, public: Public) -> str | None:
    words = _TRUTH.findall(_tail(text))
    return _YES_NO[words[-1].lower()] if words else None


def _bare_truth(text: str, public: Public) -> str | None:
    return _YES_NO.get(text.strip().rstrip(".").lower())


@cache
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    # The longest first, so that a label is never read as one that it begins with.
    longest = sorted(labels, key=len, reverse=True)
    names = "|".join(re.escape(label) for label in longest)
    return re.compile(rf"(?<!\w)({names})(?!\w)", re.IGNORECASE)


def _spelled(word: str, public: Public) -> str | None:
    return {x.casefold(): x for x in public.labels}.get(word.casefold())


def _label_behind(text: str, at: int, public: Public) -> str | None:
    return _spelled(_word_behind(text, at, _pattern(public.labels)) or "", public)


def _last_label(text: str, public: Public) -> str | None:
    words = _pattern(public.labels).findall(_tail(text))
    return _spelled(words[-1], public) if words else None


def _bare_label(text: str, public: Public) -> str | None:
    text = text.strip()
    return _spelled(text, public) or _spelled(text.rstrip("."), public)


def _text_behind(text: str, at: int, public: Public) -> str | None:
    return text[_begin(text, at) :].strip() or None


def _whole_text(text: str, public: Public) -> str | None:
    return text.strip() or None


EXTRACTORS: Final[dict[str, Extractor]] = {
    "numeric": Extractor(_number_behind, _last_number, _bare_number, marked=True),
    "equation": Extractor(
        _equation_behind, _last_equation, _bare_equation, unanimous=True
    ),
    "multiple-choice": Extractor(
        _choice_behind, _last_choice, _bare_choice, unanimous=True
    ),
    "yes-no": Extractor(_truth_behind, _last_truth, _bare_truth),
    "label": Extractor(_label_behind, _last_label, _bare_label),
    "free-text": Extractor(_text_behind, _whole_text, _whole_text),
}
