"""The Flower ServerApp: run config -> teacher and strategy -> run -> run directory."""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcot import provenance
from fedcot.budget import check_prompt_epsilon, plan_run, record_limit
from fedcot.config import RunConfig
from fedcot.data.partition import load_public_bank
from fedcot.errors import FedcotError
from fedcot.mechanism import (
    configured_channel,
    configured_public_model,
    configured_vocabulary,
    vocabulary_hash,
)
from fedcot.models.sources import artefact_hash
from fedcot.privacy.accounting import PrivacyPlan
from fedcot.privacy.channels import Channel
from fedcot.privacy.selection import SelectionChannel
from fedcot.runs import RunDirectory, new_run_key
from fedcot.teacher.transformers_teacher import TransformersTeacher
from strategies import AccountedStrategy, FedCoT, PrivacyAccountant, Public, Results
from strategies.composition import best_order
from strategies.evolution import BankEvolution
from strategies.privacy_report import privacy_report
from strategies.questions import Teacher
from strategies.requests import planned_steps
from strategies.results import FAILED

logger = logging.getLogger("flwr.fedcot")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation; a failed run raises, so that Flower says so."""
    try:
        config = RunConfig.from_run_config(context.run_config)
        teacher = TransformersTeacher(
            config.teacher,
            batch_size=config.teacher_batch_size,
            max_new_tokens=config.max_new_tokens,
        )
        run(grid, config, teacher)
    except FedcotError as error:
        logger.error("fedcot: %s", error)
        # The cause is named in the line above; a traceback would bury it.
        raise type(error)(str(error)) from None


def run(grid: Grid, config: RunConfig, teacher: Teacher) -> RunDirectory:
    """Run the strategy and leave a run directory behind, also when it fails.

    Raises
    ------
    ConfigError
        A setting cannot work; nothing was written.
    FedcotError
        The run failed; its summary says why.
    """
    vocabulary = configured_vocabulary(config)
    channel = configured_channel(config)
    budget = plan_run(config, channel)
    check_prompt_epsilon(config, budget)
    bank_size = config.num_server_rounds * config.records_per_round
    wants_bank = "random-bank" in config.arm_names
    bank = load_public_bank(config, bank_size) if wants_bank else ()
    directory = RunDirectory.create(config.run_dir, name=config.name)
    logger.info("Run directory: %s", directory.path)
    run_key = new_run_key()
    directory.write_config(
        {
            "run_config": config.to_run_config(),
            "seed": config.seed,
            "run_key": run_key,
            "code_hash": provenance.code_hash(),
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
            "artefacts": {
                "teacher": artefact_hash(config.teacher, "teacher"),
                "student": artefact_hash(config.student, "student"),
                "vocabulary": vocabulary_hash(config),
                "channel": channel.hash,
            },
        }
    )
    results = Results(directory, config)
    strategy = FedCoT(
        config,
        teacher=teacher,
        public=Public(
            vocabulary=vocabulary,
            channel=channel,
            bank=bank,
            evolution=_evolution(config, channel),
        ),
        results=results,
        run_key=run_key,
    )
    accounted = AccountedStrategy(strategy, _accountant(config, directory))
    try:
        accounted.start(grid, num_rounds=config.num_server_rounds)
    # Whatever goes wrong, the run directory says so; the error goes on to Flower.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _finish(accounted, strategy, budget, FAILED, reason=reason)
        raise
    _finish(accounted, strategy, budget, accounted.status, reason=accounted.reason)
    return directory


def _evolution(config: RunConfig, channel: Channel) -> BankEvolution | None:
    if not (config.bank_variations and isinstance(channel, SelectionChannel)):
        return None
    return BankEvolution(channel, configured_public_model(config), config.seed)


def _accountant(config: RunConfig, directory: RunDirectory) -> PrivacyAccountant:
    return PrivacyAccountant(
        directory.ledger,
        record_epsilon=record_limit(config),
        delta=config.delta,
        order=best_order(planned_steps(config), delta=config.delta),
    )


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
            strategy.config, strategy.public.channel, num_partitions=len(state.members)
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
        reason=reason,
    )
    results.run.write_summary(summary)
    logger.info("Run directory: %s (%s)", results.run.path, status)
