"""The run directory of a run, opened or opened again, with what made the run in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedcot import provenance
from fedcot.config import RunConfig
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.resuming import check_same_run, data_hash
from fedcot.runs import RunDirectory, new_run_key
from strategies.requests import Public

logger = logging.getLogger("flwr.fedcot")


@contextmanager
def opened_run(
    config: RunConfig,
    *,
    artefacts: Mapping[str, str],
    teacher: Mapping[str, Any],
) -> Iterator[tuple[RunDirectory, str]]:
    """Hold a run's directory, new or gone on with, and write down what made the run.

    Parameters
    ----------
    config : RunConfig
    artefacts : mapping of str to str
        Hashes of models and data.
    teacher : mapping of str
        What describes the models that write.

    Yields
    ------
    RunDirectory, str
        The directory, and the 16 hex digits that name the run on its nodes.

    Raises
    ------
    ConfigError
        The directory cannot be used, or the run that goes on is another one.
    """
    if config.resume:
        directory = RunDirectory.reopen(config.run_dir)
    else:
        directory = RunDirectory.create(config.run_dir, name=config.name)
    logger.info("Run directory: %s", directory.path)
    with directory.held():
        run_key = directory.run_key if config.resume else new_run_key()
        stated = _stated(config, artefacts, teacher, run_key)
        if config.resume:
            check_same_run(directory.read_config(), stated)
            directory.put_aside()
        directory.write_config(stated)
        yield directory, run_key


def known_artefacts(config: RunConfig, public: Public) -> dict[str, str]:
    """Return the hashes of a run whose server and clients know a task and a mechanism.

    Raises
    ------
    ConfigError
        A model or a file cannot be had.
    """
    return {
        "student": artefact_hash(config.student, "student"),
        "vocabulary": vocabulary_hash(config),
        "channel": public.channel.hash,
        "dataset": public.task.hash,
        "data": data_hash(config),
    }


def _stated(
    config: RunConfig,
    artefacts: Mapping[str, str],
    teacher: Mapping[str, Any],
    run_key: str,
) -> dict[str, Any]:
    """Return settings, versions and hashes: all that made the run."""
    return {
        "run_config": config.to_run_config(),
        "seed": config.seed,
        "canaries": config.canaries,
        "run_key": run_key,
        "code_hash": provenance.code_hash(),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
        "artefacts": dict(artefacts),
        "teacher": dict(teacher),
    }
