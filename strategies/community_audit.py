"""What students give away of the traces that their coalition was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedcot.community.membership import load_controls
from fedcot.community.messages import SharedTrace
from fedcot.community.pool import community_settings, trace_examples
from fedcot.config import RunConfig
from fedcot.data.traces import Trace, TraceClass
from fedcot.evaluation.memorization import audit_members
from fedcot.node_training import student_base, tensors
from fedcot.tasks.registry import configured_task
from fedcot.teacher.teacher import Teacher

# Below this many controls no rate at one per cent of false alarms can be stated.
CONTROLS: Final = 100


def audit_students(
    config: RunConfig,
    provider: Teacher,
    traces: Mapping[int, Sequence[SharedTrace]],
    communities: Mapping[int, str],
    students: Mapping[str, Mapping[str, NDArray[np.float32]]],
) -> dict[str, Any]:
    """Audit every student with respect to every community's traces.

    Parameters
    ----------
    provider : Teacher
        Answers the control questions, which nobody trained on.
    traces : mapping of int to sequence of SharedTrace
        What each partition gave to the pool.
    communities : mapping of int to str
        Whose member each partition is.
    students : mapping of str to adapter
        By arm.

    Returns
    -------
    dict
        By arm, then by community: see `fedcot.evaluation.memorization.MemberAudit`.
        Empty where nobody gave anything, without a community for which no control
        could be had.
    """
    task, base = configured_task(config), student_base(config)

    def pairs(some: Sequence[Trace | SharedTrace]) -> list[tuple[str, str]]:
        examples = trace_examples(some, task, label_share=0.0)
        return list(dict.fromkeys((one.prompt, one.target) for one in examples))

    given: dict[str, list[tuple[str, str]]] = {}
    for partition, offered in sorted(traces.items()):
        given.setdefault(communities[partition], []).extend(pairs(offered))
    members = {name: list(dict.fromkeys(own)) for name, own in given.items() if own}
    seen = {pair for own in members.values() for pair in own}
    controls = {
        name: [
            pair
            for pair in pairs(_controls(config, provider, name))
            if pair not in seen
        ]
        for name in members
    }
    members = {name: own for name, own in members.items() if controls[name]}
    if not members:
        return {}
    return {
        arm: audit_members(
            base,
            tensors(adapter),
            members,
            controls,
            settings=community_settings(config),
            batch_size=config.evaluation_batch_size,
            max_new_tokens=config.max_new_tokens,
        ).to_dict()
        for arm, adapter in students.items()
    }


def _controls(config: RunConfig, provider: Teacher, community: str) -> list[Trace]:
    """Return traces like a community's own: same mix, same provider, same filter."""
    task = configured_task(config)
    records = load_controls(config, community, CONTROLS)
    completions = provider.answer([record.question for record in records])
    return [
        Trace(
            question=record.question,
            reasoning=one.rationale.text,
            answer=one.rationale.answer,
            trace_class=TraceClass.FULL,
        )
        for record, one in zip(records, completions, strict=True)
        if one.rationale and task.is_right(one.rationale.answer, record.answer)
    ]
