"""The Flower ServerApp: run config -> teacher and strategy -> run -> run directory."""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcot import provenance
from fedcot.budget import check_prompt_epsilon, plan_run, record_limit
from fedcot.config import RunConfig
from fedcot.data.partition import load_public_bank
from fedcot.errors import FedcotError
from fedcot.mechanism import configured_channel
from fedcot.models.sources import artefact_hash
from fedcot.privacy.accounting import PrivacyPlan
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.report.reader import nats
from fedcot.runs import RunDirectory, new_run_key
from fedcot.teacher.transformers_teacher import TransformersTeacher
from strategies import FedCoT, PromptAccountant, Public, Results
from strategies.privacy_report import privacy_report
from strategies.questions import Teacher
from strategies.results import COMPLETED, EXHAUSTED, FAILED

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
    vocabulary = world_vocabulary()
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
                "vocabulary": vocabulary.hash,
                "channel": channel.hash,
            },
        }
    )
    results = Results(directory, config)
    strategy = FedCoT(
        config,
        teacher=teacher,
        public=Public(vocabulary=vocabulary, channel=channel, bank=bank),
        accountant=PromptAccountant(
            directory.ledger, record_epsilon=record_limit(config)
        ),
        results=results,
        run_key=run_key,
    )
    try:
        strategy.start(grid, num_rounds=config.num_server_rounds)
    # Whatever goes wrong, the run directory says so; the error goes on to Flower.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _finish(strategy, budget, FAILED, reason=reason)
        raise
    if strategy.state.refused or strategy.state.exhausted:
        limit = nats(strategy.accountant.record_epsilon)
        reason = (
            f"a prompt costs {nats(budget.charge)} nats, more than some record has "
            f"left of its {limit} nats over all rounds: "
            f"{strategy.state.refused} releases were refused"
        )
        _finish(strategy, budget, EXHAUSTED, reason=reason)
    else:
        _finish(strategy, budget, COMPLETED, reason="")
    return directory


def _finish(strategy: FedCoT, budget: PrivacyPlan, status: str, *, reason: str) -> None:
    """Write the summary and say in one line how the run ended."""
    state, results = strategy.state, strategy.results
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
            metrics_sent=simulated or state.metrics_sent,
        ),
        traffic=strategy.traffic,
        failures=state.failures,
        refused=state.refused,
        reason=reason,
    )
    results.run.write_summary(summary)
    logger.info("Run directory: %s (%s)", results.run.path, status)
