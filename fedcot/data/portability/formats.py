"""The formats that can be read, and how one is told from another by its content."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from fedcot.data.portability import (
    alpaca,
    chatgpt,
    claude,
    copilot,
    gemini,
    grok,
    messages,
    openr1,
    pam,
    sharegpt,
)
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.json_stream import json_items, leading_keys
from fedcot.data.portability.reading import list_of, loads, mapping_of
from fedcot.data.traces import Trace
from fedcot.errors import ConfigError

AUTO: Final = "auto"
COPILOT: Final = "copilot"
GROK: Final = "grok"
OPENR1: Final = "openr1"
HEAD_BYTES: Final = 2**20  # that are looked at to tell a format
_LOOKED_AT: Final = 20  # items in them
_LINES: Final = frozenset({".jsonl", ".ndjson"})


class Format(NamedTuple):
    """How a format of JSON is recognised and read, one conversation at a time."""

    is_conversation: Callable[[dict[str, Any]], bool]
    traces: Callable[[dict[str, Any], ImportReport], Iterator[Trace]]


# In this order; a row of OpenR1 has `messages` too.
JSON_FORMATS: Final = {
    OPENR1: Format(openr1.is_conversation, openr1.traces),
    "chatgpt": Format(chatgpt.is_conversation, chatgpt.traces),
    "claude": Format(claude.is_conversation, claude.traces),
    GROK: Format(grok.is_conversation, grok.traces),
    "pam": Format(pam.is_conversation, pam.traces),
    "sharegpt": Format(sharegpt.is_conversation, sharegpt.traces),
    "messages": Format(messages.is_conversation, messages.traces),
    "alpaca": Format(alpaca.is_conversation, alpaca.traces),
    "gemini": Format(gemini.is_conversation, gemini.traces),
}
FORMATS: Final = (*JSON_FORMATS, COPILOT)


class Shape(NamedTuple):
    """What a file looks like.

    Attributes
    ----------
    format : str
        Empty if it is none of `FORMATS`.
    is_lines : bool
        Whether each line is a JSON text of its own.
    container : str
        The key of the array that holds the conversations, where they stand in one
        object.
    """

    format: str
    is_lines: bool = False
    container: str = ""


def check_format(name: str) -> None:
    """Refuse a format that is not known.

    Raises
    ------
    ConfigError
        It is neither `AUTO` nor one of `FORMATS`.
    """
    if name != AUTO and name not in FORMATS:
        raise ConfigError(
            f"`--format` must be {AUTO} or one of {', '.join(FORMATS)}, found "
            f"{name!r}; leave it out to have it told from the content."
        )


def shape_of(name: str, head: bytes) -> Shape:
    """Tell the shape of a file from its beginning.

    Parameters
    ----------
    name : str
        Of the file.
    head : bytes
        At most `HEAD_BYTES`, without a mark of their order.
    """
    text = head.lstrip()
    suffix = PurePosixPath(name).suffix.lower()
    if text[:1] not in (b"{", b"["):
        header = text.partition(b"\n")[0].decode("utf-8", "replace")
        return Shape(COPILOT if copilot.columns_of(header) else "")
    if text[:1] == b"{" and _is_grok(name, text):
        return Shape(GROK, container=grok.CONTAINER)
    is_lines = suffix in _LINES or _has_lines(text)
    items = _items_in(text) or [dict.fromkeys(leading_keys(text))]
    for item in items:
        for known, found in JSON_FORMATS.items():
            if found.is_conversation(item):
                return Shape(known, is_lines)
    return Shape("", is_lines)


def _items_in(text: bytes) -> list[dict[str, Any]]:
    """Return the first objects that are whole."""
    found: list[dict[str, Any]] = []
    for item in json_items(io.BytesIO(text).read, limit=HEAD_BYTES):
        if isinstance(item, bytes):
            try:
                value = loads(item)
            except ValueError:
                continue
            found += [value] if isinstance(value, dict) else []
        if len(found) == _LOOKED_AT:
            break
    return found


def _has_lines(text: bytes) -> bool:
    """Say whether the first line is an object and something follows it."""
    line, _, rest = text.partition(b"\n")
    if text[:1] != b"{" or rest.lstrip()[:1] != b"{":
        return False
    try:
        return isinstance(loads(line), dict)
    except ValueError:
        return False


def _is_grok(name: str, text: bytes) -> bool:
    """Say whether an object holds all conversations of Grok."""
    try:
        items = list_of(mapping_of(loads(text)).get(grok.CONTAINER))
    except ValueError:
        # It does not end here; a conversation of ShareGPT has no such keys.
        keys = leading_keys(text)
        is_inside = b'"responses"' in text and not keys & {"responses", "messages"}
        return grok.CONTAINER in keys and (is_inside or name.startswith("prod-grok"))
    return any(grok.is_conversation(mapping_of(item)) for item in items)
