"""One run of communities: configuration to run directory."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from flwr.serverapp import Grid

from fedcot import provenance
from fedcot.budget import plan_run
from fedcot.config import RunConfig
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.report.model_card import write_cards
from fedcot.resuming import check_resuming, check_same_run, data_hash
from fedcot.runs import RunDirectory, default_root, new_run_key
from fedcot.tasks.registry import configured_task
from fedcot.teacher.configured import configured_teacher
from fedcot.teacher.teacher import Teacher
from strategies.accounted import AccountedStrategy
from strategies.accounting import configured_accountant
from strategies.community import Community
from strategies.community_privacy import community_privacy
from strategies.community_requests import planned_trainings
from strategies.requests import Public
from strategies.results import COMPLETED, FAILED, Results

logger = logging.getLogger("flwr.fedcot")


def run_community(
    grid: Grid, config: RunConfig, public: Public, provider: Teacher | None = None
) -> RunDirectory:
    """Run the strategy and leave a run directory behind, also when it fails.

    Parameters
    ----------
    grid : Grid
        Flower's.
    config : RunConfig
        Settings of the run, with ``mode=community``.
    public : Public
        Task, vocabulary and mechanism.
    provider : Teacher, optional
        The one that the settings name, if not given.

    Raises
    ------
    ConfigError
        A setting cannot work; nothing was written.
    FedcotError
        The run failed; its summary says why.
    """
    if provider is None:
        provider = configured_teacher(
            config, task=configured_task(config), cache_root=default_root()
        )
    if config.resume:
        check_resuming(config)
        directory = RunDirectory.reopen(config.run_dir)
    else:
        directory = RunDirectory.create(config.run_dir, name=config.name)
    logger.info("Run directory: %s", directory.path)
    with directory.held():
        run_key = directory.run_key if config.resume else new_run_key()
        stated = _stated(config, provider, run_key)
        if config.resume:
            check_same_run(directory.read_config(), stated)
            directory.put_aside()
        directory.write_config(stated)
        strategy = Community(
            config,
            provider=provider,
            public=public,
            results=Results(directory, config),
            run_key=run_key,
        )
        running: AccountedStrategy | Community = strategy
        if strategy.spends:
            running = AccountedStrategy(
                strategy,
                configured_accountant(
                    config, directory.ledger, planned_trainings(config)
                ),
            )
        try:
            running.start(grid, num_rounds=config.num_server_rounds)
        # Whatever goes wrong, the run directory says so; the error goes on to Flower.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _finish(strategy, directory, FAILED, reason)
            raise
        if isinstance(running, AccountedStrategy):
            _finish(strategy, directory, running.status, running.reason, running)
        else:
            _finish(strategy, directory, COMPLETED, "")
    return directory


def _stated(config: RunConfig, provider: Teacher, run_key: str) -> dict[str, Any]:
    """Return settings, versions and hashes: all that made the run."""
    return {
        "run_config": config.to_run_config(),
        "seed": config.seed,
        "run_key": run_key,
        "code_hash": provenance.code_hash(),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
        "artefacts": {
            "student": artefact_hash(config.student, "student"),
            "vocabulary": vocabulary_hash(config),
            "dataset": configured_task(config).hash,
            "data": data_hash(config),
        },
        "teacher": dict(provider.describe()),
    }


def _finish(
    strategy: Community,
    directory: RunDirectory,
    status: str,
    reason: str,
    accounted: AccountedStrategy | None = None,
) -> None:
    """Write the summary and say in one line how the run ended."""
    provider = strategy.provider
    summary = strategy.community_results.summary(
        strategy.state,
        status=status,
        traffic=strategy.traffic,
        reason=reason,
        teacher={**provider.describe(), "usage": asdict(provider.usage)},
        privacy=community_privacy(
            strategy.config,
            strategy.state,
            plan_run(
                strategy.config,
                strategy.public.channel,
                num_partitions=len(strategy.state.members) or None,
            ),
        ),
        account=accounted.privacy() if accounted else {},
    )
    directory.write_summary(summary)
    write_cards(directory.path)
    logger.info("Run directory: %s (%s)", directory.path, status)
