"""The Flower ServerApp: run config -> teacher and strategy -> run -> run directory."""

import logging
from dataclasses import asdict

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcot.budget import check_prompt_epsilon, plan_run
from fedcot.config import RunConfig
from fedcot.data.partition import load_public_bank
from fedcot.errors import FedcotError
from fedcot.mechanism import (
    configured_channel,
    configured_public_model,
    configured_vocabulary,
)
from fedcot.out_of_memory import (
    OutOfMemoryError,
    explain_out_of_memory,
    is_out_of_memory,
)
from fedcot.privacy.accounting import PrivacyPlan
from fedcot.privacy.channels import Channel
from fedcot.privacy.selection import SelectionChannel
from fedcot.report.model_card import write_cards
from fedcot.resuming import check_resuming
from fedcot.runs import RunDirectory, default_root
from fedcot.settings import COMMUNITY, SOCIAL
from fedcot.tasks.registry import configured_task
from fedcot.teacher.configured import configured_teacher
from fedcot.teacher.teacher import Teacher
from strategies import AccountedStrategy, FedCoT, Public, Results
from strategies.accounting import configured_accountant
from strategies.community_run import run_community
from strategies.evolution import BankEvolution
from strategies.opening import known_artefacts, opened_run
from strategies.privacy_report import privacy_report
from strategies.requests import planned_steps
from strategies.results import FAILED
from strategies.social_run import run_social

logger = logging.getLogger("flwr.fedcot")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation; a failed run raises, so that Flower says so."""
    try:
        config = RunConfig.from_run_config(context.run_config)
        run(grid, config)
    except FedcotError as error:
        logger.error("fedcot: %s", error)
        # The cause is named in the line above; a traceback would bury it.
        raise type(error)(str(error)) from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        line = explain_out_of_memory("teacher")
        logger.error("fedcot: %s", line)
        raise OutOfMemoryError(line) from None


def run(grid: Grid, config: RunConfig, teacher: Teacher | None = None) -> RunDirectory:
    """Run the strategy and leave a run directory behind, also when it fails.

    Parameters
    ----------
    grid : Grid
        Flower's.
    config : RunConfig
        Settings of the run.
    teacher : Teacher, optional
        The one that the settings name, if not given.

    Raises
    ------
    ConfigError
        A setting cannot work; nothing was written.
    FedcotError
        The run failed; its summary says why.
    """
    if config.mode == SOCIAL:
        return run_social(grid, config)
    if config.mode == COMMUNITY:
        return run_community(grid, config, _public(config), teacher)
    if config.resume:
        check_resuming(config)
    public = _public(config)
    budget = plan_run(config, public.channel)
    check_prompt_epsilon(config, budget)
    if teacher is None:
        teacher = configured_teacher(
            config,
            task=public.task,
            cache_root=default_root(),
            vocabulary=public.vocabulary,
        )
    artefacts = known_artefacts(config, public)
    with opened_run(config, artefacts=artefacts, teacher=teacher.describe()) as (
        directory,
        run_key,
    ):
        strategy = FedCoT(
            config,
            teacher=teacher,
            public=public,
            results=Results(directory, config),
            run_key=run_key,
        )
        accountant = configured_accountant(
            config,
            directory.ledger,
            planned_steps(config),
            stated_deltas=lambda: strategy.state.charged_delta,
        )
        accounted = AccountedStrategy(strategy, accountant)
        try:
            accounted.start(grid, num_rounds=config.num_server_rounds)
        # Whatever goes wrong, the run directory says so; the error goes on to Flower.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _finish(accounted, strategy, budget, FAILED, reason=reason)
            raise
        _finish(accounted, strategy, budget, accounted.status, reason=accounted.reason)
    return directory


def _public(config: RunConfig) -> Public:
    """Return what server and clients both know."""
    channel = configured_channel(config)
    bank_size = config.num_server_rounds * config.records_per_round
    wants_bank = "random-bank" in config.arm_names
    return Public(
        task=configured_task(config),
        vocabulary=configured_vocabulary(config),
        channel=channel,
        bank=load_public_bank(config, bank_size) if wants_bank else (),
        evolution=_evolution(config, channel),
    )


def _evolution(config: RunConfig, channel: Channel) -> BankEvolution | None:
    if not (config.bank_variations and isinstance(channel, SelectionChannel)):
        return None
    return BankEvolution(channel, configured_public_model(config), config.seed)


def _finish(
    accounted: AccountedStrategy,
    strategy: FedCoT,
    budget: PrivacyPlan,
    status: str,
    *,
    reason: str,
) -> None:
    """Write the summary and say in one line how the run ended."""
    state, results = strategy.state, strategy.results
    if state.members:
        # How many clients there are decides the rate of private training.
        budget = plan_run(
            strategy.config,
            strategy.public.channel,
            num_partitions=len(state.members),
            sizes=[m.identity.num_records for m in state.members.values()],
        )
    # A simulated node may have sent metrics in a reply that was lost or refused.
    simulated = any(m.identity.simulated for m in state.members.values())
    summary = results.summary(
        status=status,
        num_partitions=len(state.members),
        num_rounds=state.server_round,
        privacy=privacy_report(
            strategy.config,
            budget,
            arms=strategy.arms,
            record_epsilon_max=max(state.charged.values(), default=0.0),
            record_delta_max=max(state.charged_delta.values(), default=0.0),
            only_own_prompts=not state.refused
            and set(state.charged.values()) <= {0.0, budget.charge},
            metrics_sent=simulated or state.metrics_sent,
        ),
        traffic=strategy.traffic,
        failures=state.failures,
        refused=state.refused,
        account=accounted.privacy(),
        teacher={
            **strategy.book.teacher.describe(),
            "usage": asdict(strategy.book.teacher.usage),
        },
        reason=reason,
    )
    results.run.write_summary(summary)
    write_cards(results.run.path)
    logger.info("Run directory: %s (%s)", results.run.path, status)
