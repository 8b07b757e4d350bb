"""Which canaries an audit run has, and which client holds which.

All of it follows from the settings, so that an audit finds out from `config.json` alone
what was inserted, and nothing secret has to be written down.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fedcot.data.schema import Record
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import (
    PATTERNS,
    Canary,
    CanaryTrial,
    canary_holders,
    draw_trials,
)
from fedcot.seeding import numpy_generator
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.config import RunConfig


def inserted_trials(config: RunConfig, size: int) -> tuple[CanaryTrial, ...]:
    """Return every canary of an audit run with references, which are held by nobody.

    Parameters
    ----------
    config : RunConfig
        With ``canaries > 0``, in mode fedcot or community.
    size : int
        Canary and references together (N), >= 2; it decides nothing about canaries.

    Raises
    ------
    ConfigError
        The pattern has too few secrets, or the task cannot hold its canaries.
    """
    task = configured_task(config)
    if len(task.fields) > 1:
        raise ConfigError(
            "`canaries` must be 0 for a dataset whose questions have several parts, "
            f"found {config.canaries} with `{config.dataset}`; pass `-c canaries=0`."
        )
    return draw_trials(
        PATTERNS[config.canary_pattern],
        task,
        trials=config.canaries,
        size=size,
        seed=config.seed,
    )


@lru_cache(maxsize=8)
def inserted_canaries(config: RunConfig) -> tuple[Canary, ...]:
    """Return every canary of an audit run, see `inserted_trials`; else none."""
    if not config.canaries:
        return ()
    return tuple(trial.canary for trial in inserted_trials(config, 2))


@lru_cache(maxsize=4096)
def holders_of(config: RunConfig, number: int, num_partitions: int) -> tuple[int, ...]:
    """Return the clients that hold the canary of a number, in rising order.

    Raises
    ------
    ConfigError
        There are fewer clients than should hold it.
    """
    wanted = config.canary_insertion
    if wanted.isdigit() and int(wanted) > num_partitions:
        raise ConfigError(
            f"`canary-insertion` must be all, one or a number from 1 to "
            f"{num_partitions}, the number of clients, found {wanted}; pass "
            "`-c canary-insertion=all`."
        )
    names = [str(partition) for partition in range(num_partitions)]
    rng = numpy_generator(config.seed, "canary-holders", number)
    return tuple(map(int, canary_holders(names, wanted, rng)))


def held_numbers(
    config: RunConfig, partition_id: int, num_partitions: int
) -> tuple[int, ...]:
    """Return the numbers of the canaries that a client holds, in rising order."""
    return tuple(
        number
        for number in range(config.canaries)
        if partition_id in holders_of(config, number, num_partitions)
    )


def num_inserted(config: RunConfig, partition_id: int, num_partitions: int) -> int:
    """Return how many records a client holds more than without canaries."""
    held = held_numbers(config, partition_id, num_partitions)
    return len(held) * config.canary_repeats


def canary_records(
    config: RunConfig, partition_id: int, num_partitions: int, *, domain: str
) -> tuple[Record, ...]:
    """Return the canaries of a client as records, each as often as the run says.

    Those of one canary stand together, in the order of `held_numbers`.

    Parameters
    ----------
    domain : str
        What the records say they are about; never sent.

    Raises
    ------
    ConfigError
        See `inserted_trials` and `holders_of`.
    """
    canaries = inserted_canaries(config)
    return tuple(
        Record(canaries[number].question, canaries[number].answer, domain)
        for number in held_numbers(config, partition_id, num_partitions)
        for _ in range(config.canary_repeats)
    )


def canary_traces(
    config: RunConfig, partition_id: int, num_partitions: int
) -> tuple[Trace, ...]:
    """Return the canaries of a member as traces of its own.

    Raises
    ------
    ConfigError
        See `inserted_trials` and `holders_of`.
    """
    canaries = inserted_canaries(config)
    return tuple(
        Trace(
            question=canaries[number].question,
            reasoning=canaries[number].reasoning,
            answer=canaries[number].answer,
            trace_class=TraceClass.FULL,
            scope=Scope(config.trace_scope),
        )
        for number in held_numbers(config, partition_id, num_partitions)
    )
