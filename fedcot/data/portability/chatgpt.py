"""ChatGPT's export: messages in a graph, of which one path is what the person saw.

`thoughts` are summaries of the reasoning, `reasoning_recap` is a status, and messages
in a channel other than `final`, or to a tool, are no answer.
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
from fedcot.data.portability.turns import ASSISTANT, USER, Turn, traces_of
from fedcot.data.traces import Trace, TraceClass

PROVIDER: Final = "chatgpt"
# What is in none of these may be reasoning and is kept out of the answer.
_VISIBLE: Final = ("text", "multimodal_text")
_RECIPIENTS: Final = (None, "", "all")
_CHANNELS: Final = (None, "", "final")


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like one of ChatGPT's conversations."""
    return "mapping" in item


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    nodes = mapping_of(item.get("mapping"))
    path = _path(nodes, item.get("current_node"))
    on_path = set(path)
    messages = []
    for name, node in nodes.items():
        message = mapping_of(mapping_of(node).get("message"))
        report.note(reasons.NULL_MESSAGE, not message)
        if name not in on_path and _is_answer(message):
            report.skip(reasons.OFF_PATH)
    for name in path:
        message = mapping_of(mapping_of(nodes[name]).get("message"))
        if message:
            messages.append(message)
    yield from traces_of(
        (turn for message in messages for turn in _turns(message, report)),
        report,
        provider=PROVIDER,
        model=name_of(item.get("default_model_slug")),
        created=time_of(item.get("create_time")) or time_of(item.get("update_time")),
    )


def _path(nodes: dict[str, Any], current: Any) -> list[str]:
    """Return the names of the nodes from the root to the current one."""
    if not isinstance(current, str) or current not in nodes:
        current = _last_leaf(nodes)
    path: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current in nodes and current not in seen:
        seen.add(current)
        path.append(current)
        current = mapping_of(nodes[current]).get("parent")
    return path[::-1]


def _last_leaf(nodes: dict[str, Any]) -> str | None:
    """Return the last node that is nobody's parent; an old export names no node."""
    parents = {text_of(mapping_of(node).get("parent")) for node in nodes.values()}
    return next((name for name in reversed(nodes) if name not in parents), None)


def _role(message: dict[str, Any]) -> str:
    return text_of(mapping_of(message.get("author")).get("role"))


def _is_hidden(message: dict[str, Any]) -> bool:
    metadata = mapping_of(message.get("metadata"))
    hidden = metadata.get("is_visually_hidden_from_conversation")
    weight = message.get("weight")
    return hidden is True or (weight == 0 and weight is not None)


def _is_shown(message: dict[str, Any]) -> bool:
    content = mapping_of(message.get("content"))
    return (
        content.get("content_type", "text") in _VISIBLE
        and message.get("recipient") in _RECIPIENTS
        and message.get("channel") in _CHANNELS
    )


def _is_answer(message: dict[str, Any]) -> bool:
    is_shown = _role(message) == ASSISTANT and _is_shown(message)
    return is_shown and not _is_hidden(message)


def _turns(message: dict[str, Any], report: ImportReport) -> Iterator[Turn]:
    role = _role(message)
    if role not in (USER, ASSISTANT):
        return
    if _is_hidden(message):
        report.note(reasons.HIDDEN)
        return
    content = mapping_of(message.get("content"))
    created = time_of(message.get("create_time"))
    model = name_of(mapping_of(message.get("metadata")).get("model_slug"))
    kind = content.get("content_type", "text")
    turn = Turn(role=role, model=model, created=created)
    if role == ASSISTANT and kind == "thoughts":
        turn.reasoning = _thoughts(content)
        if turn.reasoning:
            turn.trace_class = TraceClass.SUMMARY
    elif role == ASSISTANT and kind == "reasoning_recap":
        # Its text, `content` or `text`, is a status and is dropped.
        turn.trace_class = TraceClass.RECAP_ONLY
    elif _is_shown(message):
        turn.text = _text(content, report)
    else:
        report.note(reasons.NOT_VISIBLE)
        return
    yield turn


def _thoughts(content: dict[str, Any]) -> str:
    texts = []
    for thought in list_of(content.get("thoughts")):
        if isinstance(thought, str):
            texts.append(thought.strip())
            continue
        parts = [
            text_of(mapping_of(thought).get(key)) for key in ("summary", "content")
        ]
        texts.append("\n".join(part.strip() for part in parts if part.strip()))
    return "\n\n".join(text for text in texts if text)


def _text(content: dict[str, Any], report: ImportReport) -> str:
    parts = content.get("parts")
    if not isinstance(parts, list):
        return text_of(content.get("text"))
    texts = []
    for part in parts:
        # A part is a text, an image, a spoken message with what was said, or null.
        text = part if isinstance(part, str) else text_of(mapping_of(part).get("text"))
        report.note(reasons.NO_TEXT_PART, isinstance(part, dict) and not text)
        if text.strip():
            texts.append(text)
    return "\n".join(texts)
