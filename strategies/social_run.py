"""One run of social learning: configuration to run directory."""

from __future__ import annotations

import logging

from flwr.serverapp import Grid

from fedcot import provenance
from fedcot.config import RunConfig
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from fedcot.report.model_card import write_cards
from fedcot.resuming import check_resuming
from fedcot.runs import RunDirectory
from fedcot.seeding import derive_seed
from fedcot.social.client_model import ClientModel
from fedcot.social.configured import client_model_of, prompted_student, social_identity
from fedcot.social.flow import Flow
from fedcot.social.outline import flow_kinds
from fedcot.social.teacher_silo import has_votes
from fedcot.teacher_source import is_endpoint
from strategies.opening import opened_run
from strategies.results import COMPLETED, FAILED, Results
from strategies.social import SocialLearning
from strategies.social_privacy import social_privacy

logger = logging.getLogger("flwr.fedcot")


def run_social(
    grid: Grid, config: RunConfig, student: ClientModel | None = None
) -> RunDirectory:
    """Run the strategy and leave a run directory behind, also when it fails.

    Parameters
    ----------
    grid : Grid
        Flower's.
    config : RunConfig
        Settings of the run, with ``mode=social``.
    student : ClientModel, optional
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
    if student is None:
        student = prompted_student(config)
    _check_scores(config)
    identity = social_identity(config, provenance.code_hash())
    artefacts = {
        "student": identity.student_hash,
        "test": identity.dataset_hash,
        # Written before the first message, so that the flow is seen to be fixed.
        "flow": Flow(flow_kinds(config)).hash,
    }
    described = {"student": dict(student.describe())}
    with opened_run(config, artefacts=artefacts, teacher=described) as (
        directory,
        run_key,
    ):
        strategy = SocialLearning(
            config,
            student=student,
            results=Results(directory, config),
            run_key=run_key,
            source=_source(config),
        )
        try:
            strategy.start(grid, num_rounds=1)
        # Whatever goes wrong, the run directory says so; the error goes on to Flower.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _finish(strategy, directory, FAILED, reason)
            raise
        _finish(strategy, directory, COMPLETED, "")
    return directory


def _check_scores(config: RunConfig) -> None:
    """Ask an endpoint for one score, where clients will vote with it.

    Else the refusal would come when everything is written, and on the clients.

    Raises
    ------
    ConfigError
        It does not say how likely a text is.
    """
    if not has_votes(config):
        return
    for place, source in enumerate(config.client_models):
        if is_endpoint(source):
            client_model_of(config, place).score([("One and one is", " two")])


def _source(config: RunConfig) -> RandomSource:
    """Return what private votes are drawn with."""
    if config.test_tape:
        return TapeRandomSource(derive_seed(config.seed, "votes"))
    return SystemRandomSource()


def _finish(
    strategy: SocialLearning, directory: RunDirectory, status: str, reason: str
) -> None:
    """Write the summary and say in one line how the run ended."""
    claims = [found.claims for found in strategy.chosen.values() if found.claims]
    summary = strategy.social_results.summary(
        strategy.state,
        status=status,
        traffic=strategy.traffic,
        reason=reason,
        models={"student": dict(strategy.model.describe())},
        protocol=strategy.guard.describe() if strategy.guard else {},
        privacy=social_privacy(
            strategy.config, strategy.state, claims[0] if claims else None
        ),
    )
    directory.write_summary(summary)
    write_cards(directory.path)
    logger.info("Run directory: %s (%s)", directory.path, status)
