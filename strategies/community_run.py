"""One run of communities: configuration to run directory."""

from __future__ import annotations

import logging
from dataclasses import asdict

from flwr.serverapp import Grid

from fedcot.budget import plan_run
from fedcot.config import RunConfig
from fedcot.report.model_card import write_cards
from fedcot.resuming import check_resuming
from fedcot.runs import RunDirectory, default_root
from fedcot.teacher.configured import configured_teacher
from fedcot.teacher.teacher import Teacher
from strategies.accounted import AccountedStrategy
from strategies.accounting import configured_accountant
from strategies.community import Community
from strategies.community_privacy import community_privacy
from strategies.community_requests import planned_trainings
from strategies.opening import known_artefacts, opened_run
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
    if config.resume:
        check_resuming(config)
    if provider is None:
        provider = configured_teacher(
            config, task=public.task, cache_root=default_root()
        )
    artefacts = known_artefacts(config, public)
    with opened_run(config, artefacts=artefacts, teacher=provider.describe()) as (
        directory,
        run_key,
    ):
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
                    config,
                    directory.ledger,
                    planned_trainings(config),
                    # The state is another object in every round.
                    stated_deltas=lambda: strategy.state.charged_delta,
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
