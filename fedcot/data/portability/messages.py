"""The messages of OpenAI's interface, one conversation a line; also fedcot's own file.

Reasoning stands in `reasoning_content`, as servers with that interface write it, or in
`reasoning`, in a part of the content, or between `<think>` tags.
"""

from __future__ import annotations

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
from fedcot.data.portability.turns import (
    ASSISTANT,
    USER,
    Turn,
    assistant_turn,
    traces_of,
)
from fedcot.data.traces import Trace

_ROLES: Final = {
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
}
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_APART: Final = ("thinking", "reasoning")
_TEXT_PARTS: Final = ("text", "input_text", "output_text")


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like a conversation of messages."""
    return "messages" in item


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the traces of a conversation."""
    if KEY in item:
        try:
            yield trace_of(item)
        except ValueError:
            report.skip(reasons.MALFORMED)
        return
    messages = [mapping_of(one) for one in list_of(item.get("messages"))]
    report.note(reasons.NULL_MESSAGE, sum(not message for message in messages))
    yield from traces_of(
        (turn for message in messages for turn in _turns(message, report)),
        report,
        provider=name_of(item.get("provider")),
        model=name_of(item.get("model")),
        created=time_of(item.get("created", item.get("created_at"))),
    )


def _turns(message: dict[str, Any], report: ImportReport) -> Iterator[Turn]:
    role = _ROLES.get(text_of(message.get("role")).lower())
    if role is None:
        return
    content = message.get("content")
    parts = [mapping_of(part) for part in list_of(content)]
    texts = [text_of(content)]
    texts += [
        text_of(part.get("text"))
        for part in parts
        if part.get("type", "text") in _TEXT_PARTS
    ]
    text = "\n".join(text for text in texts if text.strip())
    if role == USER:
        report.note(reasons.NO_TEXT_PART, bool(parts) and not text)
        yield Turn(role=USER, text=text)
        return
    apart = [text_of(message.get(key)) for key in _REASONING]
    # Some servers write the same reasoning under two names.
    found = [next((text for text in apart if text.strip()), "")]
    for part in parts:
        if part.get("type") in _APART:
            found += [
                text_of(part.get(key)) for key in ("thinking", "reasoning", "text")
            ]
    yield assistant_turn(
        text,
        reasoning="\n\n".join(text.strip() for text in found if text.strip()),
        model=name_of(message.get("model")),
    )


def row_of(trace: Trace) -> dict[str, Any]:
    """Return a trace as `trace_of` reads it."""
    reply = {"role": ASSISTANT, "content": trace.answer}
    if trace.reasoning:
        reply["reasoning_content"] = trace.reasoning
    return {
        "messages": [{"role": USER, "content": trace.question}, reply],
        KEY: metadata_of(trace),
    }


def trace_of(row: Any) -> Trace:
    """Return the trace that `row_of` wrote.

    Raises
    ------
    ValueError
        It did not write this row.
    """
    messages = [mapping_of(one) for one in list_of(mapping_of(row).get("messages"))]
    if [one.get("role") for one in messages] != [USER, ASSISTANT]:
        raise ValueError("not one question and one answer")
    question, reply = messages
    return own_trace(
        row.get(KEY),
        question.get("content"),
        reply.get("reasoning_content", ""),
        reply.get("content"),
    )
