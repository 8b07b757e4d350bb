"""ShareGPT's form: `conversations` of `from` and `value`; reasoning in think tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.own import KEY, metadata_of, own_trace
from fedcot.data.portability.reading import list_of, mapping_of, name_of, text_of
from fedcot.data.portability.thinking import join_thinking, take_apart
from fedcot.data.portability.turns import (
    USER,
    Turn,
    assistant_turn,
    traces_of,
)
from fedcot.data.traces import Trace

_PEOPLE: Final = frozenset({"human", "user"})
_MODELS: Final = frozenset(
    {"gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard"}
)
_KEYS: Final = ("conversations", "conversation")


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like a conversation of ShareGPT."""
    return any(key in item for key in _KEYS) and "responses" not in item


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    listed = next((item[key] for key in _KEYS if key in item), None)
    messages = [mapping_of(message) for message in list_of(listed)]
    if KEY in item:
        try:
            yield _own(item[KEY], messages)
        except ValueError:
            report.skip(reasons.MALFORMED)
        return
    report.note(reasons.NULL_MESSAGE, sum(not message for message in messages))
    yield from traces_of(
        (turn for message in messages for turn in _turns(message)),
        report,
        provider=name_of(item.get("provider")),
        model=name_of(item.get("model")),
    )


def _turns(message: dict[str, Any]) -> Iterator[Turn]:
    sender = text_of(message.get("from", message.get("role"))).lower()
    text = text_of(message.get("value", message.get("content")))
    if sender in _PEOPLE:
        yield Turn(role=USER, text=text)
    elif sender in _MODELS:
        yield assistant_turn(text)


def _own(metadata: Any, messages: list[dict[str, Any]]) -> Trace:
    if [one.get("from") for one in messages] != ["human", "gpt"]:
        raise ValueError("not one question and one answer")
    question, reply = (one.get("value") for one in messages)
    if not isinstance(reply, str):
        raise ValueError("a part is no text")
    reasoning, answer = take_apart(reply)
    return own_trace(metadata, question, reasoning, answer)


def row_of(trace: Trace) -> dict[str, Any]:
    """Return a trace as a conversation of two messages."""
    reply = join_thinking(trace.reasoning, trace.answer)
    return {
        "conversations": [
            {"from": "human", "value": trace.question},
            {"from": "gpt", "value": reply},
        ],
        KEY: metadata_of(trace),
    }
