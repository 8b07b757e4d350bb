"""Portable AI Memory v1.0: an open form of conversation that marks reasoning.

A message with `is_thought` is reasoning. Schema: portable-ai-memory-conversation,
https://portable-ai-memory.org (code Apache-2.0, text CC-BY-4.0).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.own import KEY, metadata_of, own_trace
from fedcot.data.portability.reading import (
    list_of,
    mapping_of,
    name_of,
    text_of,
    time_of,
)
from fedcot.data.portability.turns import ASSISTANT, USER, Turn, current_path, traces_of
from fedcot.data.traces import Trace, TraceClass

SCHEMA: Final = "portable-ai-memory-conversation"
SCHEMA_VERSION: Final = "1.0"
_PROVIDER: Final = re.compile(r"[a-z0-9_-]{2,32}")
_UNKNOWN: Final = "unknown"
# The schema demands a time; the true one, or none, stands in the metadata.
_NO_TIME: Final = "1970-01-01T00:00:00Z"


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like a conversation of PAM."""
    if item.get("schema"):
        return bool(item["schema"] == SCHEMA)
    return {"schema", "schema_version", "messages"} <= set(item)


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    listed = [mapping_of(message) for message in list_of(item.get("messages"))]
    metadata = mapping_of(item.get("raw_metadata"))
    if KEY in metadata:
        try:
            yield _own(metadata[KEY], listed)
        except ValueError:
            report.skip(reasons.MALFORMED)
        return
    report.note(reasons.NULL_MESSAGE, sum(not message for message in listed))
    messages = [message for message in listed if message]
    path = current_path(
        messages,
        lambda message: text_of(message.get("id")),
        lambda message: text_of(message.get("parent_id")),
    )
    on_path = set(path)
    for place, message in enumerate(messages):
        is_reply = message.get("role") == ASSISTANT and not message.get("is_thought")
        if place not in on_path and is_reply:
            report.skip(reasons.OFF_PATH)
    provider = name_of(mapping_of(item.get("provider")).get("name"))
    yield from traces_of(
        (turn for place in path for turn in _turns(messages[place], report)),
        report,
        provider="" if provider == _UNKNOWN else provider,
        model=name_of(item.get("model")),
        created=time_of(mapping_of(item.get("temporal")).get("created_at")),
    )


def _turns(message: dict[str, Any], report: ImportReport) -> Iterator[Turn]:
    role = message.get("role")
    if role not in (USER, ASSISTANT):
        return
    text = _text(message.get("content"), report)
    turn = Turn(
        role=role,
        model=name_of(message.get("model")),
        created=time_of(message.get("created_at")),
    )
    # Whatever is marked and not plainly false is kept out of the answer.
    if role == ASSISTANT and message.get("is_thought"):
        turn.reasoning = text.strip()
        if turn.reasoning:
            turn.trace_class = TraceClass.FULL
    else:
        turn.text = text
    yield turn


def _text(content: Any, report: ImportReport) -> str:
    if isinstance(content, str):
        return content
    found = mapping_of(content)
    if found.get("type") != "multipart":
        return text_of(found.get("text"))
    texts = [
        text_of(mapping_of(part).get("text")) for part in list_of(found.get("parts"))
    ]
    report.note(reasons.NO_TEXT_PART, sum(not text for text in texts))
    return "\n".join(text for text in texts if text.strip())


def _own(metadata: Any, messages: list[dict[str, Any]]) -> Trace:
    roles = [(one.get("role"), one.get("is_thought")) for one in messages]
    thoughts = [(ASSISTANT, True)] if len(messages) == 3 else []
    if roles != [(USER, False), *thoughts, (ASSISTANT, False)]:
        raise ValueError("not one question and one answer")
    texts = [mapping_of(one.get("content")).get("text") for one in messages]
    return own_trace(metadata, texts[0], texts[1] if thoughts else "", texts[-1])


def conversation_of(trace: Trace, place: int) -> dict[str, Any]:
    """Return a trace as a conversation of the schema.

    Parameters
    ----------
    trace : Trace
    place : int
        In the export; makes ids of equal traces differ.
    """
    created = time_of(trace.created) or _NO_TIME
    parts = [(USER, trace.question, False)]
    if trace.reasoning:
        parts.append((ASSISTANT, trace.reasoning, True))
    parts.append((ASSISTANT, trace.answer, False))
    own = f"{trace.key}:{place}"
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{own}:{n}")) for n in range(len(parts))]
    messages = [
        {
            "id": ids[n],
            "role": role,
            "content": {"type": "text", "text": text},
            "created_at": created,
            "parent_id": ids[n - 1] if n else None,
            "children_ids": ids[n + 1 : n + 2],
            "model": (trace.model or None) if role == ASSISTANT else None,
            "is_thought": is_thought,
        }
        for n, (role, text, is_thought) in enumerate(parts)
    ]
    is_name = _PROVIDER.fullmatch(trace.provider)
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, own)),
        "provider": {"name": trace.provider if is_name else _UNKNOWN},
        "temporal": {"created_at": created},
        "messages": messages,
        "model": trace.model or None,
        "raw_metadata": {KEY: metadata_of(trace)},
    }
