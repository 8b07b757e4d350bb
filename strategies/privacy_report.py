"""What a run says about the privacy of each arm; nothing is stated without its unit."""

import math
from collections.abc import Mapping
from typing import Any, Final

from fedcot.arms import adapter_is_free, needs_raw_prompts, shares_adapter
from fedcot.config import RunConfig
from fedcot.privacy.accounting import PrivacyPlan

METRICS_SENT: Final = (
    "simulation-only: losses, accuracies, counts of filtered and used examples and "
    "training times were sent to the server"
)
PROMPTS_ONLY: Final = "epsilon covers prompts only"
NOTHING: Final = "nothing derived from private records is sent"
RAW: Final = "none: private questions are sent as they are"
TRAINED: Final = "none: adapters trained on private questions or labels are sent"


def privacy_report(
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    arms: tuple[str, ...],
    record_epsilon_max: float,
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
    metrics_sent : bool
        Whether clients sent losses and accuracies, as they do in a simulation.
    """
    uncharged = [METRICS_SENT] if metrics_sent else []
    per_arm = {
        arm: _arm_line(arm, config, plan, record_epsilon_max, uncharged) for arm in arms
    }
    worst = max(arms, key=lambda arm: per_arm[arm]["record_epsilon_max"])
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": PROMPTS_ONLY if metrics_sent else "everything that is sent",
    }


def _arm_line(
    arm: str,
    config: RunConfig,
    plan: PrivacyPlan,
    record_epsilon_max: float,
    uncharged: list[str],
) -> Mapping[str, Any]:
    shared = shares_adapter(arm, config.aggregation)
    exposed = shared and not adapter_is_free(arm, config.pairing)
    token, prompt, record, guarantee = 0.0, 0.0, 0.0, NOTHING
    at_delta = 0.0
    if needs_raw_prompts(arm):
        token = prompt = record = at_delta = math.inf
        guarantee = RAW
    elif arm == "fedcot":
        token, prompt = plan.token_epsilon, plan.prompt_epsilon
        guarantee = plan.guarantee
        # Seeded draws were charged, but nothing is guaranteed for them.
        record = math.inf if math.isinf(token) else record_epsilon_max
        at_delta = min(record, plan.record_epsilon_at_delta)
        if record > prompt:
            # The node's ledger remembers earlier runs: only their sum is stated.
            at_delta = record
    if exposed:
        record = at_delta = math.inf
        guarantee = TRAINED
    return {
        "unit": plan.unit,
        "neighboring_relation": plan.neighboring_relation,
        "adjacency": plan.adjacency,
        "mechanism": config.mechanism if arm == "fedcot" else "none",
        "token_epsilon": token,
        "prompt_epsilon_max": prompt,
        "record_epsilon_max": record,
        "record_epsilon_at_delta": at_delta,
        "delta": config.delta,
        "guarantee": guarantee,
        "uncharged": uncharged,
    }
