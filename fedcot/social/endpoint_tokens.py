"""The tokens that the reply of an endpoint lists, and how likely each of them was.

A reply may leave them out or list them in a form of its own. What cannot be read counts
as not there, and never as a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedcot.plain_text import valid_unicode
from fedcot.social.client_model import Sampled
from fedcot.teacher.failures import malformed
from fedcot.teacher.replies import written_reply
from fedcot.teacher.teacher import Written


@dataclass(frozen=True, slots=True)
class Replied(Written):
    """A completion with its tokens as the server lists them.

    Of a sampled text the last ones may stand behind its end; of an echo they are those
    of the text alone, and the first has no log-probability.
    """

    text: str = field(repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)
    token_bytes: tuple[bytes, ...] = field(default=(), repr=False)
    log_probabilities: tuple[float | None, ...] = field(default=(), repr=False)


def as_replied(written: Written) -> Replied:
    """Return what is a `Replied` already: a pool of requests hands on `Written`."""
    if not isinstance(written, Replied):
        raise TypeError("replies must be read by `replied_tokens` or `echoed_tokens`.")
    return written


def replied_tokens(reply: object, api: str, stop: Sequence[str]) -> Replied:
    """Return a completion with the tokens that the server lists, if it does."""
    written = written_reply(reply, api=api, stop=stop)
    tokens = _listed_tokens(reply)
    return Replied(
        written.text,
        prompt_tokens=written.prompt_tokens,
        completion_tokens=written.completion_tokens,
        is_cut=written.is_cut,
        served_by=written.served_by,
        tokens=tuple(token for token, _, _ in tokens),
        token_bytes=tuple(spelled for _, spelled, _ in tokens),
        log_probabilities=tuple(value for _, _, value in tokens),
    )


def echoed_tokens(reply: object) -> Replied:
    """Return the tokens of a text that was sent, without what was written behind it.

    Raises
    ------
    PassingFailure
        The reply does not hold a log-probability for every token but the first.
    """
    written = written_reply(reply, api="completions")
    count = written.prompt_tokens
    tokens = _listed_tokens(reply)
    if count < 1 or not count <= len(tokens) <= count + 1:
        raise malformed("a reply that does not list the tokens of a prompt")
    kept = tokens[:count]
    if any(value is None for _, _, value in kept[1:]):
        raise malformed("a reply without log-probabilities of a prompt")
    texts = tuple(token for token, _, _ in kept)
    return Replied(
        "".join(texts),
        prompt_tokens=count,
        served_by=written.served_by,
        tokens=texts,
        log_probabilities=tuple(value for _, _, value in kept),
    )


def sampled_text(written: Written) -> Sampled:
    """Return what was sampled, with its mean over the tokens that the text needs."""
    replied = as_replied(written)
    count = _needed_tokens(replied)
    if count is None:
        return Sampled(replied.text, None, replied.completion_tokens)
    values = replied.log_probabilities[:count]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known and len(known) == count else None
    return Sampled(replied.text, mean, count)


def _needed_tokens(replied: Replied) -> int | None:
    """Return how many tokens a text needs; None where the tokens do not spell it."""
    spelled = _spelled(replied.token_bytes)
    at = spelled.find(replied.text)
    # Some servers take blanks off the beginning of a text.
    if at < 0 or spelled[:at].strip() or not replied.token_bytes:
        return None
    count = len(replied.token_bytes)
    wanted = spelled[:at] + replied.text if replied.text else ""
    while count and _spelled(replied.token_bytes[: count - 1]).startswith(wanted):
        count -= 1
    return count


def _spelled(parts: Sequence[bytes]) -> str:
    return b"".join(parts).decode("utf-8", "replace")


_Token = tuple[str, bytes, float | None]


def _listed_tokens(reply: object) -> list[_Token]:
    """Return the tokens of a reply; none where it lists none that can be read.

    Chats have a list of objects (OpenAI's ``logprobs.content``), completions lists of
    texts and numbers side by side; llama.cpp has the first form for both.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    listed = choice.get("logprobs") if isinstance(choice, dict) else None
    if not isinstance(listed, dict):
        return []
    rows = listed.get("content")
    if not isinstance(rows, list):
        tokens, values = listed.get("tokens"), listed.get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(values, list):
            return []
        if len(tokens) != len(values):
            return []
        pairs = zip(tokens, values, strict=True)
        rows = [{"token": token, "logprob": value} for token, value in pairs]
    if not all(isinstance(row, dict) for row in rows):
        return []
    if not all(isinstance(row.get("token"), str) for row in rows):
        return []
    return [
        (row["token"], _bytes_of(row), _log_probability(row.get("logprob")))
        for row in rows
    ]


def _bytes_of(row: dict[str, Any]) -> bytes:
    """Return what a token stands for: half a character has no text of its own."""
    given = row.get("bytes")
    if isinstance(given, list) and all(
        type(byte) is int and 0 <= byte < 256 for byte in given
    ):
        return bytes(given)
    return valid_unicode(row["token"]).encode()


def _log_probability(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    # Rounding may leave a little above 0.
    return min(number, 0.0) if math.isfinite(number) and number < 1e-3 else None
