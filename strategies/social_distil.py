"""The hybrid: what teacher clients shared, distilled into weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedcot.community.scoring import score_student
from fedcot.config import RunConfig
from fedcot.data.partition import load_partition
from fedcot.data.schema import Record
from fedcot.errors import FedcotError
from fedcot.models.sources import model_folder
from fedcot.social.aggregation import Pool
from fedcot.social.configured import role_of
from fedcot.social.demonstrations import Demonstration
from fedcot.teacher_source import is_endpoint
from strategies.coalition_students import PooledTraining
from strategies.measures import estimate
from strategies.results import Results
from strategies.state import RoundState

logger = logging.getLogger("flwr.fedcot")

DISTILLED = "distilled.social"


def distilled_student(
    config: RunConfig,
    pool: Pool,
    test: Sequence[Demonstration],
    state: RoundState,
    results: Results,
) -> dict[str, Any]:
    """Train a LoRA student on all shared examples, and score it.

    The student is that of the other modes (`student`), so that modes can be compared on
    the same split. Training on what was shared is post-processing of it.

    Returns
    -------
    dict
        `accuracy` on the public questions, `own` on those of simulated clients, and
        what it was trained on.
    """
    training = PooledTraining(config)
    traces, num_invalid = training.checked(list(pool.demonstrations))
    student = training.train(traces, num_invalid, arm="distilled")
    if not student.adapter:
        return {"accuracy": estimate(0, 0), "own": None, "num_examples": 0}
    results.save_global("distilled", student.adapter)
    public = [Record(one.question, one.answer, "") for one in test]
    own = [
        record
        for partition, member in sorted(state.members.items())
        if member.identity.simulated
        for record in load_partition(
            config, partition, member.identity.num_partitions
        ).test
    ]

    def scored(records: Sequence[Record]) -> dict[str, float]:
        found = score_student(config, DISTILLED, records, adapter=student.adapter)
        return estimate(found.exact_match, found.num_records)

    return {
        "accuracy": scored(public),
        "own": scored(own) if own else None,
        "num_examples": student.num_traces,
        "num_invalid": num_invalid,
        "num_tokens": student.num_tokens,
        "loss": student.loss,
        "seconds": student.seconds,
    }


def fedavg_bytes(config: RunConfig, results: Results) -> dict[str, Any] | None:
    """Return what a client sends and gets in one round of FedAvg with LoRA.

    Of the model that reads the prompts, with the run's own adapter settings; None where
    it is behind an endpoint, or an adapter cannot be put into it: a figure for
    comparison must not end a run. Values of float32 alone, without any framing.
    """
    if is_endpoint(config.prompted_student):
        return None
    try:
        return _fedavg_bytes(config, results)
    except (FedcotError, ValueError, MemoryError) as error:
        logger.warning("├── Cost of FedAvg not known (%s)", type(error).__name__)
        return None


def _fedavg_bytes(config: RunConfig, results: Results) -> dict[str, Any]:
    role, source = role_of(config.prompted_student, "prompted-student")
    folder = model_folder(source, role)
    same = Results(results.run, replace(config, student=str(folder)))
    parameters = sum(int(np.prod(shape)) for shape in same.adapter_shapes().values())
    return {
        "uplink_bytes": 4 * parameters,
        "downlink_bytes": 4 * parameters,
        "parameters": parameters,
        "what": "one round of FedAvg with LoRA of the same student, values alone",
    }
