"""What a run of communities says about the privacy of each way of sharing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fedcot.budget import TRAINED_PRIVATELY, ArmEpsilons, worst_of
from fedcot.community.costs import sharing_epsilons
from fedcot.community.settings import PERTURBED, POOLED
from fedcot.config import RunConfig
from fedcot.privacy.accounting import TRAINING_ADJACENCY, PrivacyPlan
from strategies.privacy_report import METRICS_SENT, SEEN_BY_WAITING
from strategies.state import RoundState

CONSENT: Final = (
    "epsilon covers perturbed questions and private training; whom a trace may reach "
    "is its owner's consent, which bounds nothing"
)

OFFERED: Final = (
    "how many traces each member offers to each coalition, how many were withdrawn, "
    "and a hash that changes with them"
)


def community_privacy(
    config: RunConfig, state: RoundState, plan: PrivacyPlan
) -> dict[str, Any]:
    """Return the `privacy` part of the summary: each way of sharing by itself.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    state : RoundState
        Of the last round.
    plan : PrivacyPlan
        Of the mechanism that perturbed traces are made with.
    """
    uncharged = [METRICS_SENT] if state.metrics_sent else []
    uncharged.append(SEEN_BY_WAITING)
    uncharged.append(OFFERED)
    charged = max(state.charged.values(), default=0.0)
    prompts = set(config.sharing_names) == {PERTURBED}
    costs = sharing_epsilons(
        config,
        plan,
        sizes=[member.identity.num_records for member in state.members.values()],
        # Private trainings of other arms are in the account's sum, which is no epsilon
        # of perturbed questions; these cost each record the same.
        # What an earlier run sent unprotected is in it too, and is not left out.
        charged=charged if prompts or math.isinf(charged) else None,
        charged_delta=max(state.charged_delta.values(), default=0.0),
        is_own=not state.refused and set(state.charged.values()) <= {0.0, plan.charge},
    )
    if POOLED in costs:
        costs |= dict.fromkeys(config.control_names, costs[POOLED])
    per_arm = {
        arm: _line(arm, config, plan, cost, uncharged) for arm, cost in costs.items()
    }
    worst = worst_of(costs)
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": CONSENT,
    }


def _line(
    arm: str,
    config: RunConfig,
    plan: PrivacyPlan,
    cost: ArmEpsilons,
    uncharged: list[str],
) -> Mapping[str, Any]:
    trained = cost.guarantee == TRAINED_PRIVATELY
    mechanism = config.mechanism if arm == PERTURBED else "none"
    return {
        "unit": plan.unit,
        "neighboring_relation": plan.neighboring_relation,
        "adjacency": (
            f"{plan.adjacency}; training: {TRAINING_ADJACENCY}"
            if trained
            else plan.adjacency
        ),
        "mechanism": "dp-sgd" if trained else mechanism,
        "token_epsilon": cost.token_epsilon,
        "prompt_epsilon_max": cost.prompt_epsilon,
        "record_epsilon_max": cost.record_epsilon,
        "record_epsilon_at_delta": cost.record_epsilon_at_delta,
        "delta": config.delta,
        "guarantee": cost.guarantee,
        "uncharged": uncharged,
    }
