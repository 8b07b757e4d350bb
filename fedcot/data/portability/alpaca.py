"""Alpaca's form, `instruction`, `input` and `output`, also with reasoning in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.reading import name_of, text_of
from fedcot.data.portability.turns import USER, Turn, assistant_turn, traces_of
from fedcot.data.traces import Trace, TraceClass

# The answer is what stands to the end of the last line. A longer text, or one with
# another sentence in it, may hold reasoning and is not taken for it.
_MARKER: Final = re.compile(r"\bthe answer is(?:\s*:|\b)[ \t]*", re.IGNORECASE)
_LONGEST: Final = 200
_SENTENCE: Final = re.compile(r"[.!?]\s|\n|\bbecause\b|\bsince\b", re.IGNORECASE)


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like a row of Alpaca."""
    return "instruction" in item and "output" in item


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the trace of a row."""
    parts = [text_of(item.get(key)).strip() for key in ("instruction", "input")]
    reply = assistant_turn(text_of(item.get("output")))
    found = None if reply.reasoning else split_marker(reply.text)
    if found:
        reply.reasoning, reply.text = found
        if reply.reasoning:
            reply.trace_class = TraceClass.FULL
    question = Turn(role=USER, text="\n\n".join(part for part in parts if part))
    yield from traces_of(
        [question, reply],
        report,
        provider=name_of(item.get("provider")),
        model=name_of(item.get("model")),
    )


def split_marker(text: str) -> tuple[str, str] | None:
    """Return what stands before and after the last "The answer is".

    Returns
    -------
    tuple of str or None
        Reasoning and answer without the full stop; None where the text does not end
        with the marker and one short answer.
    """
    markers = list(_MARKER.finditer(text))
    if not markers:
        return None
    answer = text[markers[-1].end() :].strip()
    answer = answer.removesuffix(".").rstrip()
    if not answer or len(answer) > _LONGEST or _SENTENCE.search(answer):
        return None
    return text[: markers[-1].start()].strip(), answer
