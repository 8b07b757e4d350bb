"""What the JSON of an endpoint's reply says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fedcot.plain_text import cut, valid_unicode
from fedcot.teacher.failures import malformed
from fedcot.teacher.teacher import Written

LONGEST_NAME: Final = 200
MOST_TOKENS: Final = 2**40


def written_reply(reply: object, *, api: str, stop: Sequence[str] = ()) -> Written:
    """Return the completion in a reply.

    A text that is null counts as empty: a model that thinks first sends that when it
    reaches the length limit before it has begun to answer.

    Parameters
    ----------
    reply : object
        Parsed JSON, anything at all.
    api : str
        ``chat`` or ``completions``.
    stop : sequence of str
        The text is cut before the first of these: servers differ in whether they
        leave it there.

    Raises
    ------
    PassingFailure
        It holds no completion.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(reply, dict) or not isinstance(choices, list) or not choices:
        raise malformed("a reply without choices")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    holder = choice.get("message") if api == "chat" else choice
    name = "content" if api == "chat" else "text"
    text = holder.get(name, 0) if isinstance(holder, dict) else 0
    if text is not None and not isinstance(text, str):
        raise malformed("a reply without a text")
    text = text or ""
    kept = cut(valid_unicode(text), stop)
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Written(
        kept,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        is_cut=choice.get("finish_reason") == "length" and len(kept) == len(text),
        served_by=_served_by(reply),
    )


def listed_models(reply: object) -> list[str]:
    """Return the names in a list of models.

    Raises
    ------
    PassingFailure
        It is no such list.
    """
    rows = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(rows, list):
        raise malformed("a reply without a list of models")
    names = [row.get("id") if isinstance(row, dict) else None for row in rows]
    if not all(isinstance(name, str) and name for name in names):
        raise malformed("a reply without a list of models")
    return [valid_unicode(str(name)) for name in names]


def _count(value: Any) -> int:
    """Return a number of tokens; 0 where it is none."""
    is_count = type(value) is int and 0 <= value <= MOST_TOKENS
    return value if is_count else 0


def _served_by(reply: dict[str, Any]) -> str:
    """Return model and fingerprint as the server names them, on one line."""
    names = (reply.get("model"), reply.get("system_fingerprint"))
    text = " ".join(name for name in names if isinstance(name, str))
    printable = "".join(sign for sign in text if sign.isprintable())
    return valid_unicode(printable)[:LONGEST_NAME].strip()
