"""Claude's export: a list of messages, each with blocks of text, thinking and tools.

`thinking` is the reasoning. Where it is empty and only `summaries` are there, the trace
is a summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.reading import (
    list_of,
    mapping_of,
    name_of,
    text_of,
    time_of,
)
from fedcot.data.portability.turns import ASSISTANT, USER, Turn, current_path, traces_of
from fedcot.data.traces import Trace, TraceClass

PROVIDER: Final = "claude"
_ROLES: Final = {"human": USER, "user": USER, "assistant": ASSISTANT}


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like one of Claude's conversations."""
    if "chat_messages" in item:
        return True
    messages = list_of(item.get("messages"))
    return any("sender" in mapping_of(message) for message in messages)


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    listed = list_of(item.get("chat_messages", item.get("messages")))
    messages = [mapping_of(message) for message in listed]
    report.note(reasons.NULL_MESSAGE, sum(not message for message in messages))
    messages = [message for message in messages if message]
    path = current_path(
        messages,
        lambda message: text_of(message.get("uuid")),
        lambda message: text_of(message.get("parent_message_uuid")),
        leaf=text_of(item.get("current_leaf_message_uuid")),
    )
    on_path = set(path)
    for place, message in enumerate(messages):
        if place not in on_path and _role(message) == ASSISTANT:
            report.skip(reasons.OFF_PATH)
    yield from traces_of(
        (turn for place in path for turn in _turns(messages[place], report)),
        report,
        provider=PROVIDER,
        model=name_of(item.get("model")),
        created=time_of(item.get("created_at")),
    )


def _role(message: dict[str, Any]) -> str:
    return _ROLES.get(text_of(message.get("sender")).lower(), "")


def _turns(message: dict[str, Any], report: ImportReport) -> Iterator[Turn]:
    role = _role(message)
    if not role:
        return
    turn = Turn(
        role=role,
        model=name_of(message.get("model")),
        created=time_of(message.get("created_at")),
    )
    blocks = [mapping_of(block) for block in list_of(message.get("content"))]
    if blocks:
        # `text` of the message would repeat the blocks, in some exports the thinking.
        texts = (
            text_of(one.get("text")) for one in blocks if one.get("type") == "text"
        )
        turn.text = "\n\n".join(text for text in texts if text.strip())
    else:
        turn.text = text_of(message.get("text")) or text_of(message.get("content"))
    if role == ASSISTANT:
        _think(turn, [one for one in blocks if one.get("type") == "thinking"], report)
    yield turn


def _think(turn: Turn, blocks: list[dict[str, Any]], report: ImportReport) -> None:
    """Give a turn the reasoning of its blocks."""
    found: list[str] = []
    for block in blocks:
        text = text_of(block.get("thinking")).strip()
        kind = TraceClass.FULL
        if not text:
            texts = [_summary(one) for one in list_of(block.get("summaries"))]
            text = "\n\n".join(one for one in texts if one)
            kind = TraceClass.SUMMARY
        if text:
            found.append(text)
            if turn.trace_class is not TraceClass.SUMMARY:
                turn.trace_class = kind
            report.note(reasons.CUT_OFF, block.get("cut_off") is True)
    turn.reasoning = "\n\n".join(found)


def _summary(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return text_of(mapping_of(value).get("summary")).strip()
