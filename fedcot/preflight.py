"""What is checked before a run writes its first byte.

Everything here raises `ConfigError` with one line and writes nothing, except that a
model that is named by its Hugging Face id is brought into the local cache: the run
itself works offline.
"""

from __future__ import annotations

import os
from pathlib import Path

from fedcot.budget import (
    check_prompt_epsilon,
    check_variations,
    plan_run,
    world_channel,
)
from fedcot.config import RunConfig
from fedcot.data.partition import partition_sizes
from fedcot.errors import ConfigError
from fedcot.resuming import check_resuming
from fedcot.runs import check_free, check_resumable
from fedcot.settings import COMMUNITY, RECORDED, SOCIAL
from fedcot.teacher_source import is_local


def check_run(config: RunConfig, *, num_supernodes: int, run_dir: Path) -> None:
    """Check that the nodes, the models, the data and the run directory can work.

    Parameters
    ----------
    config : RunConfig
        Already checked value by value.
    num_supernodes : int
        Simulated nodes, >= 1.
    run_dir : Path
        Where the run wants to write.

    Raises
    ------
    ConfigError
        Something cannot work.
    """
    check_nodes(config, num_supernodes)
    _check_run_dir(config, run_dir)
    clients = config.num_partitions or num_supernodes
    if config.mode == SOCIAL:
        from fedcot.social.outline import check_teaching

        check_teaching(config, clients)
        return
    _check_data(config, clients)
    plan = plan_run(config, world_channel(config), num_partitions=clients)
    check_prompt_epsilon(config, plan)
    if config.mode == COMMUNITY:
        from fedcot.community.costs import check_record_limit

        check_record_limit(config, plan, partition_sizes(config, clients))
    check_variations(config, clients)
    _check_models(config)


def check_nodes(config: RunConfig, num_supernodes: int) -> None:
    """Refuse a number of nodes that the settings do not fit.

    Raises
    ------
    ConfigError
        There are none, or others than `num-partitions` says.
    """
    if num_supernodes < 1:
        raise ConfigError(
            f"`--num-supernodes` must be >= 1, found {num_supernodes}; "
            "pass for example `--num-supernodes 5`."
        )
    if config.num_partitions not in (0, num_supernodes):
        raise ConfigError(
            f"`num-partitions` must be 0 or the number of nodes ({num_supernodes}), "
            f"found {config.num_partitions}; "
            f"pass for example `--num-supernodes {config.num_partitions}`."
        )


def _check_run_dir(config: RunConfig, run_dir: Path) -> None:
    if config.resume:
        check_resumable(run_dir)
        check_resuming(config)
    else:
        check_free(run_dir)
    existing = next(place for place in (run_dir, *run_dir.parents) if place.exists())
    if not os.access(existing, os.W_OK):
        raise ConfigError(
            f"`run-dir` must be writable, found `{existing}` is not; "
            "pass for example `--run-dir runs/first`."
        )


def _check_data(config: RunConfig, num_partitions: int) -> None:
    from fedcot.data.partition import load_partition

    load_partition(config, num_partitions - 1, num_partitions)


def _check_models(config: RunConfig) -> None:
    from fedcot.models.sources import check_weights, model_folder

    if is_local(config.teacher):
        check_weights(model_folder(config.teacher, "teacher"), "teacher")
    check_weights(model_folder(config.student, "student"), "student")
    check_model_settings(config)


def check_model_settings(config: RunConfig) -> None:
    """Check what the settings ask of teacher and student, without loading either.

    Raises
    ------
    ConfigError
        A library is missing, or a dataset carries no rationales for a recorded teacher,
        or answers that `provider-level` has no example for.
    """
    from fedcot.community.level_prompts import check_answer_kind
    from fedcot.models.weights import check_quantization
    from fedcot.teacher.configured import recorded_dataset

    check_answer_kind(config)

    if config.teacher == RECORDED:
        recorded_dataset(config)
    elif is_local(config.teacher):
        check_quantization(config.teacher_quantization, "teacher")
    check_quantization(config.student_quantization, "student")
