"""What a run says about the privacy of each arm; nothing is stated without its unit."""

from collections.abc import Mapping
from typing import Any, Final

from fedcot.budget import (
    NO_PROMPT,
    TRAINED_BEFORE,
    TRAINED_PRIVATELY,
    ArmEpsilons,
    arm_epsilons,
)
from fedcot.config import RunConfig
from fedcot.privacy.accounting import TRAINING_ADJACENCY, PrivacyPlan

METRICS_SENT: Final = (
    "simulation-only: losses, accuracies, which test answers are right, counts of "
    "filtered and used examples and training times were sent to the server"
)
# No message holds them, but whoever waits for a client sees them.
SEEN_BY_WAITING: Final = "response times and failures of clients"
PROMPTS_ONLY: Final = "epsilon covers prompts only"
MESSAGES: Final = "epsilon covers what messages hold"
NOTHING: Final = "nothing derived from private records is put into a message"


def privacy_report(
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    arms: tuple[str, ...],
    record_epsilon_max: float,
    record_delta_max: float = 0.0,
    only_own_prompts: bool = False,
    metrics_sent: bool,
) -> dict[str, Any]:
    """Return the `privacy` part of the summary.

    Parameters
    ----------
    plan : PrivacyPlan
        Of the mechanism that ran.
    arms : tuple of str
        The arms that ran.
    record_epsilon_max : float
        Nats charged to the record that was charged most, over all rounds.
    record_delta_max : float
        Sum of the deltas of earlier trainings that a node's ledger stated, the largest.
    only_own_prompts : bool
        Whether no record was charged anything but this run's prompts.
    metrics_sent : bool
        Whether a client sent losses and accuracies, as they do in a simulation.
    """
    uncharged = [METRICS_SENT] if metrics_sent else []
    uncharged.append(SEEN_BY_WAITING)
    per_arm = {
        arm: _arm_line(
            plan,
            arm_epsilons(
                arm,
                config,
                plan,
                charged=record_epsilon_max,
                charged_delta=record_delta_max,
                is_own=only_own_prompts,
                silent=NO_PROMPT if metrics_sent else NOTHING,
            ),
            mechanism=config.mechanism if arm == "fedcot" else "none",
            delta=config.delta + (record_delta_max if arm == "fedcot" else 0.0),
            uncharged=uncharged,
        )
        for arm in arms
    }
    worst = max(
        arms,
        key=lambda arm: (
            per_arm[arm]["record_epsilon_max"],
            per_arm[arm]["record_epsilon_at_delta"],
        ),
    )
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": PROMPTS_ONLY if metrics_sent else MESSAGES,
    }


def adjacency_of(plan: PrivacyPlan, costs: ArmEpsilons) -> str:
    """Return between which neighbours a bound holds: with training fewer than without.

    Parameters
    ----------
    plan : PrivacyPlan
        Of the mechanism.
    costs : ArmEpsilons
        Its guarantee says whether trainings, of this run or earlier ones, are in it.
    """
    if any(text in costs.guarantee for text in (TRAINED_PRIVATELY, TRAINED_BEFORE)):
        return f"{plan.adjacency}; training: {TRAINING_ADJACENCY}"
    return plan.adjacency


def _arm_line(
    plan: PrivacyPlan,
    costs: ArmEpsilons,
    *,
    mechanism: str,
    delta: float,
    uncharged: list[str],
) -> Mapping[str, Any]:
    return {
        "unit": plan.unit,
        "neighboring_relation": plan.neighboring_relation,
        "adjacency": adjacency_of(plan, costs),
        "mechanism": mechanism,
        "token_epsilon": costs.token_epsilon,
        "prompt_epsilon_max": costs.prompt_epsilon,
        "record_epsilon_max": costs.record_epsilon,
        "record_epsilon_at_delta": costs.record_epsilon_at_delta,
        "delta": delta,
        "guarantee": costs.guarantee,
        "uncharged": uncharged,
    }
