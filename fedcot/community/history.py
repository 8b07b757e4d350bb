"""What a simulated member asked the provider, and what it made of the answers.

A deployed node has no such thing: its owner imports an export (`fedcot import`) into
the node's own store (`fedcot traces add`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedcot.community.granularity import reduce_reasoning, rewrite
from fedcot.community.scenario import Behaviour, behave
from fedcot.data.traces import REASONED, Scope, Trace, TraceClass

if TYPE_CHECKING:
    import numpy as np

    from fedcot.config import RunConfig
    from fedcot.data.schema import Record
    from fedcot.tasks.task import Task
    from fedcot.teacher.teacher import Teacher


@dataclass(frozen=True, slots=True)
class History:
    """The traces of a member, and what was left out of them.

    Attributes
    ----------
    traces : tuple of Trace
    num_asked, num_unparsed : int
        Questions put to the provider, and answers that could not be read.
    num_wrong : int
        Left out by `trace-filter=answer`: the answer is not the member's own.
    num_unlevelled : int
        Left out because they could not be rewritten to the level asked for.
    """

    traces: tuple[Trace, ...]
    num_asked: int
    num_unparsed: int
    num_wrong: int
    num_unlevelled: int


def ask_provider(
    provider: Teacher,
    records: Sequence[Record],
    *,
    config: RunConfig,
    task: Task,
    behaviour: Behaviour | None,
    rng: np.random.Generator,
) -> History:
    """Return what a member has after it put its questions to the provider.

    In this order: the provider answers and hands out as much of its reasoning as
    `provider-reasoning` says; the member drops answers that are not its own
    (`trace-filter=answer`), rewrites the rest to its `granularity`, and then does what
    the scenario makes it do.

    Parameters
    ----------
    provider : Teacher
    records : sequence of Record
        The member's questions, with the answers that it knows.
    behaviour : Behaviour or None
        What the member does against the plan.
    rng : numpy Generator
        For the scenario.
    """
    completions = provider.answer([record.question for record in records])
    handed_out = TraceClass(config.provider_reasoning)
    traces: list[Trace] = []
    unparsed = wrong = unlevelled = 0
    for record, completion in zip(records, completions, strict=True):
        rationale = completion.rationale
        if rationale is None:
            unparsed += 1
            continue
        if config.trace_filter == "answer" and not task.is_right(
            rationale.answer, record.answer
        ):
            wrong += 1
            continue
        reasoning = reduce_reasoning(rationale.text, handed_out)
        if reasoning and config.granularity:
            levelled = rewrite(
                record.question, replace(rationale, text=reasoning), config
            )
            if levelled is None:
                unlevelled += 1
                continue
            reasoning = levelled
        kind = (
            handed_out if reasoning or handed_out not in REASONED else TraceClass.ABSENT
        )
        traces.append(
            Trace(
                question=record.question,
                reasoning=reasoning,
                answer=rationale.answer,
                provider=provider.name,
                trace_class=kind,
                scope=Scope(config.trace_scope),
            )
        )
    return History(
        traces=behave(traces, behaviour, rng=rng),
        num_asked=len(records),
        num_unparsed=unparsed,
        num_wrong=wrong,
        num_unlevelled=unlevelled,
    )
