"""Grok's export: one object with all conversations, each with its responses.

`thinking_trace` and `agent_thinking_traces` are the reasoning. Whoever is not `human`
is the model; some versions write its name as the sender.
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

PROVIDER: Final = "grok"
CONTAINER: Final = "conversations"
_PEOPLE: Final = frozenset({"human", "user"})


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like one of Grok's conversations."""
    return "responses" in item


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    conversation = mapping_of(item.get("conversation"))
    wrapped = (mapping_of(one) for one in list_of(item.get("responses")))
    messages = [mapping_of(one.get("response", one)) for one in wrapped]
    report.note(reasons.NULL_MESSAGE, sum(not message for message in messages))
    messages = [message for message in messages if message]
    path = current_path(
        messages,
        lambda message: text_of(message.get("_id")),
        lambda message: text_of(message.get("parent_response_id")),
        leaf=text_of(conversation.get("leaf_response_id")),
    )
    on_path = set(path)
    for place, message in enumerate(messages):
        if place not in on_path and not _is_person(message):
            report.skip(reasons.OFF_PATH)
    yield from traces_of(
        (_turn(messages[place]) for place in path),
        report,
        provider=PROVIDER,
        created=time_of(conversation.get("create_time")),
    )


def _is_person(message: dict[str, Any]) -> bool:
    return text_of(message.get("sender")).lower() in _PEOPLE


def _turn(message: dict[str, Any]) -> Turn:
    turn = Turn(
        role=USER if _is_person(message) else ASSISTANT,
        text=text_of(message.get("message")),
        model=name_of(message.get("model")),
        created=time_of(message.get("create_time")),
    )
    if turn.role == ASSISTANT:
        sender = name_of(message.get("sender"))
        if not turn.model and sender.lower() != ASSISTANT:
            turn.model = sender
        agents = list_of(message.get("agent_thinking_traces"))
        parts = [message, *(mapping_of(agent) for agent in agents)]
        texts = [text_of(part.get("thinking_trace")).strip() for part in parts]
        turn.reasoning = "\n\n".join(text for text in texts if text)
        if turn.reasoning:
            turn.trace_class = TraceClass.FULL
    return turn
