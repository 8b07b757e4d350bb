"""Whether a run's students tell the records that they learnt from test records.

What a student of mode fedcot learns of a private record, besides rationales, is its
label. So a text is the prompt that asks for an answer, with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedcot.data.partition import load_partition
from fedcot.evaluation.adapter_audit import TrainedAdapter, find_adapters
from fedcot.evaluation.insertion import canary_records
from fedcot.evaluation.memorization import Pair, audit_members
from fedcot.node_pairs import used_indices
from fedcot.node_training import student_base, training_settings
from fedcot.student.training import load_adapter
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.data.schema import Record
    from fedcot.tasks.task import Task

# An answer that is longer is not found as a copy.
_ANSWER_TOKENS = 16


def audit_labels(
    run_dir: Path,
    config: RunConfig,
    *,
    num_partitions: int,
    num_rounds: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Audit every adapter of a simulated run of mode fedcot for its clients' labels.

    Members are the records that a client used, without canaries, which are of another
    distribution; controls are its test records.

    Returns
    -------
    dict
        By student, then by client: see `fedcot.evaluation.memorization.MemberAudit`.
        Without a client of which a side has no texts.
    """
    adapters = find_adapters(run_dir, config, num_partitions)
    found: dict[str, Any] = {}
    for done, adapter in enumerate(adapters):
        if on_progress is not None:
            on_progress(done, len(adapters))
        reports = _audited(config, adapter, num_partitions, num_rounds)
        found.setdefault(adapter.student, {}).update(reports)
    if on_progress is not None:
        on_progress(len(adapters), len(adapters))
    return found


def _audited(
    config: RunConfig, adapter: TrainedAdapter, num_partitions: int, num_rounds: int
) -> dict[str, Any]:
    task = configured_task(config)
    members: dict[str, list[Pair]] = {}
    controls: dict[str, list[Pair]] = {}
    for partition_id in adapter.partitions:
        partition = load_partition(config, partition_id, num_partitions)
        planted = {
            record.question
            for record in canary_records(
                config, partition_id, num_partitions, domain=""
            )
        }
        total = len(partition.train)
        rounds = used_indices(config, partition_id, num_rounds, total)
        used = sorted({index for indices in rounds for index in indices})
        own = [partition.train[index] for index in used]
        name = f"partition-{partition_id}"
        members[name] = _pairs(
            [record for record in own if record.question not in planted], task
        )
        controls[name] = _pairs(partition.test, task)
    known = {pair for pairs in members.values() for pair in pairs}
    controls = {
        name: [pair for pair in pairs if pair not in known]
        for name, pairs in controls.items()
    }
    audited = {n: own for n, own in members.items() if own and controls[n]}
    if not audited:
        return {}
    report = audit_members(
        student_base(config),
        load_adapter(adapter.folder),
        audited,
        controls,
        settings=training_settings(config),
        batch_size=config.evaluation_batch_size,
        max_new_tokens=_ANSWER_TOKENS,
    )
    members_found: dict[str, Any] = report.to_dict()["members"]
    return members_found


def _pairs(records: Sequence[Record], task: Task) -> list[Pair]:
    """Return prompts with their answers, each once."""
    return list(
        dict.fromkeys(
            (task.predict_prompt(record.question), task.prediction(record.answer))
            for record in records
        )
    )
