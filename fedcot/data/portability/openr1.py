"""Rows of OpenR1: one problem with several generations, each judged for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.reading import list_of, name_of, text_of
from fedcot.data.portability.turns import USER, Turn, assistant_turn, traces_of
from fedcot.data.traces import Trace

_VERDICTS: Final = ("correctness_math_verify", "correctness_llama")


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like a row of OpenR1."""
    return "problem" in item and "generations" in item


def traces(
    item: dict[str, Any], report: ImportReport, *, only_correct: bool = False
) -> Iterator[Trace]:
    """Yield one trace for each generation whose reasoning is complete.

    Parameters
    ----------
    item : dict
    report : ImportReport
    only_correct : bool
        Whether to leave out what no verifier marked as correct.
    """
    question = Turn(role=USER, text=text_of(item.get("problem")))
    for place, generation in enumerate(list_of(item.get("generations"))):
        if _at(item.get("is_reasoning_complete"), place) is False:
            report.skip(reasons.UNFINISHED)
            continue
        # The second verifier judged only what the first could not read.
        verdicts = {_at(item.get(key), place) for key in _VERDICTS}
        mark = reasons.NOT_MARKED
        if True in verdicts:
            mark = reasons.MARKED_CORRECT
        elif False in verdicts:
            mark = reasons.MARKED_WRONG
        report.note(mark)
        if only_correct and mark != reasons.MARKED_CORRECT:
            report.skip(reasons.WRONG)
            continue
        yield from traces_of(
            [question, assistant_turn(text_of(generation))],
            report,
            model=name_of(item.get("model")),
        )


def _at(values: Any, place: int) -> bool | None:
    listed = list_of(values)
    found = listed[place] if place < len(listed) else None
    return found if isinstance(found, bool) else None
