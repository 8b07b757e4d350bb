"""From messages to traces: one trace for each question that got an answer.

The question is the last message of the person before the answer; what was said earlier
in a conversation is not in the trace. Several messages of the model in a row are one
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.thinking import split_thinking
from fedcot.data.traces import Trace, TraceClass

USER: Final = "user"
ASSISTANT: Final = "assistant"


@dataclass(slots=True, kw_only=True)
class Turn:
    """One message; its `repr` holds no text of it.

    Attributes
    ----------
    role : str
        `USER` or `ASSISTANT`; other roles make no turn.
    text : str
        What the person saw.
    reasoning : str
        What stands apart from it.
    trace_class : TraceClass
        Of this message; recap-only for a status such as "Thought for 8 s".
    model : str
    created : str
        ISO 8601 in UTC, or empty.
    is_open : bool
        Whether the reasoning never ended.
    """

    role: str
    text: str = field(default="", repr=False)
    reasoning: str = field(default="", repr=False)
    trace_class: TraceClass = TraceClass.ABSENT
    model: str = ""
    created: str = ""
    is_open: bool = False


def assistant_turn(text: str, *, reasoning: str = "", model: str = "") -> Turn:
    """Return a model's message with the reasoning taken out of the text."""
    split = split_thinking(text)
    parts = (reasoning.strip(), split.reasoning)
    reasoning = "\n\n".join(part for part in parts if part)
    return Turn(
        role=ASSISTANT,
        text=split.answer,
        reasoning=reasoning,
        trace_class=TraceClass.FULL if reasoning else TraceClass.ABSENT,
        model=model,
        is_open=split.is_open,
    )


def traces_of(
    turns: Iterable[Turn],
    report: ImportReport,
    *,
    provider: str = "",
    model: str = "",
    created: str = "",
) -> Iterator[Trace]:
    """Yield the traces of a conversation.

    Parameters
    ----------
    turns : iterable of Turn
        In the order of the conversation.
    report : ImportReport
        Counts what makes no trace.
    provider, model, created : str
        Of the conversation, where a message says nothing.
    """
    question: Turn | None = None
    replies: list[Turn] = []
    for turn in turns:
        if turn.role == ASSISTANT:
            replies.append(turn)
            continue
        yield from _trace(question, replies, report, (provider, model, created))
        question, replies = turn, []
    yield from _trace(question, replies, report, (provider, model, created))


def _trace(
    question: Turn | None,
    replies: Sequence[Turn],
    report: ImportReport,
    conversation: tuple[str, str, str],
) -> Iterator[Trace]:
    asked = question.text.strip() if question else ""
    answer = _joined(turn.text for turn in replies)
    if not answer:
        is_open = any(turn.is_open for turn in replies)
        if question or is_open:
            report.skip(reasons.UNFINISHED if is_open else reasons.NO_ANSWER)
        return
    if not asked:
        report.skip(reasons.NO_QUESTION)
        return
    provider, model, created = conversation
    reasoning = _joined(turn.reasoning for turn in replies)
    times = [question.created if question else "", *(turn.created for turn in replies)]
    yield Trace(
        question=asked,
        reasoning=reasoning,
        answer=answer,
        provider=provider,
        model=_first(turn.model for turn in replies) or model,
        created=_first(times) or created,
        trace_class=_class_of(replies, bool(reasoning)),
    )


def _class_of(replies: Sequence[Turn], has_reasoning: bool) -> TraceClass:
    """Return the weakest class of the reasoning that there is."""
    found = {turn.trace_class for turn in replies}
    if has_reasoning:
        is_summary = TraceClass.SUMMARY in found
        return TraceClass.SUMMARY if is_summary else TraceClass.FULL
    recap = TraceClass.RECAP_ONLY
    return recap if recap in found else TraceClass.ABSENT


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text.strip() for text in texts if text.strip())


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def current_path(
    messages: Sequence[Any],
    identity: Callable[[Any], Hashable],
    parent: Callable[[Any], Hashable],
    *,
    leaf: Hashable = None,
) -> list[int]:
    """Return the places of the messages that lead to a leaf, the first one first.

    A message without a parent that is known follows the message before it in the list,
    since some exports name the parents of some messages only, or of none.

    Parameters
    ----------
    messages : sequence
        In the order of the export.
    identity, parent : callable
        Take a message and return what names it and its parent.
    leaf : hashable, optional
        The last message of the path; the last of the list if it is not known.

    Returns
    -------
    list of int
        Each place once; a circle of parents ends where it would begin again.
    """
    places: dict[Hashable, int] = {}
    for place, message in enumerate(messages):
        name = identity(message)
        if name:
            places.setdefault(name, place)
    place = places.get(leaf, len(messages) - 1)
    path: list[int] = []
    seen: set[int] = set()
    while place >= 0 and place not in seen:
        seen.add(place)
        path.append(place)
        place = places.get(parent(messages[place]), place - 1)
    return path[::-1]
