"""What a run is called on a node: its folder and its records' names follow from it."""

import hashlib
import json
from dataclasses import fields
from typing import Final

from fedcot.config import RunConfig
from fedcot.models.sources import artefact_hash
from fedcot.node_state import Owner
from fedcot.tasks.registry import configured_task

# Settings that change neither what is sent nor what it means.
NEUTRAL_SETTINGS: Final = (
    "name",
    "run_dir",
    "resume",
    "phase_timeout",
    "device",
    "data_dir",
    "evaluation_batch_size",
    "teacher_batch_size",
    "teacher_cache",
    "teacher_concurrency",
    "teacher_input_price",
    "teacher_output_price",
    "teacher_requests_per_minute",
    "teacher_retries",
    "teacher_timeout",
)


def run_name(config: RunConfig, owner: Owner, run_key: str) -> str:
    """Return what a run is called on a node.

    A run key alone is the server's to choose. With everything that decides what is
    sent and what it is trained on as part of the name, one run never goes on from what
    another one left.

    Parameters
    ----------
    run_key : str
        16 hex digits from the server.
    """
    return f"{run_key}-{_fingerprint(config, owner)}"


def _fingerprint(config: RunConfig, owner: Owner) -> str:
    """Return 16 hex digits over settings, student, mapping and share of the data."""
    settings = {
        item.name: getattr(config, item.name)
        for item in fields(config)
        if item.name not in NEUTRAL_SETTINGS
    }
    decisive = {
        **settings,
        "student_hash": artefact_hash(config.student, "student"),
        "dataset_hash": configured_task(config).hash,
        "partition_id": owner.partition_id,
        "num_partitions": owner.num_partitions,
    }
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
