"""What is checked before a run writes its first byte.

Everything here raises `ConfigError` with one line, and touches nothing.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.runs import check_free

if TYPE_CHECKING:
    from fedcot.privacy.channels import Channel


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
    _check_nodes(config, num_supernodes)
    _check_run_dir(run_dir)
    _check_data(config, config.num_partitions or num_supernodes)
    _check_prompt_epsilon(config)
    _check_models(config)


def world_channel(config: RunConfig, *, slots: int | None = None) -> Channel:
    """Return a configuration's mechanism over the vocabulary of the built-in world.

    Parameters
    ----------
    config : RunConfig
        Names mechanism and token epsilon.
    slots : int | None
        Tokens of a prompt, >= 1; None: the world's own length.
    """
    from fedcot.privacy.channels import build_channel
    from fedcot.privacy.vocabulary import world_vocabulary

    vocabulary = world_vocabulary()
    if slots is not None:
        vocabulary = dataclasses.replace(vocabulary, length=slots)
    return build_channel(config.mechanism, vocabulary, config.token_epsilon)


def _check_nodes(config: RunConfig, num_supernodes: int) -> None:
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


def _check_run_dir(run_dir: Path) -> None:
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
    from fedcot.models.sources import model_folder

    model_folder(config.teacher, "teacher")
    model_folder(config.student, "student")


def _check_prompt_epsilon(config: RunConfig) -> None:
    from fedcot.privacy.accounting import prompt_epsilon

    channel = world_channel(config)
    cost = prompt_epsilon(channel.token_epsilon, channel.slots)
    limit = config.prompt_epsilon
    if "fedcot" in config.arm_names and 0 < limit < cost:
        raise ConfigError(
            f"`prompt-epsilon` must be 0 or at least {channel.slots} slots x "
            f"token-epsilon ({cost:.4f}), found {limit}; pass for example "
            "`-c prompt-epsilon=0.0`."
        )
