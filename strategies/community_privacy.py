"""What a run of communities says about the privacy of each way of sharing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fedcot.budget import TRAINED_PRIVATELY, ArmEpsilons, worst_of
from fedcot.community.costs import TOGETHER, sharing_epsilons
from fedcot.community.settings import FEDERATED, PERTURBED, POOLED, SYNTHETIC
from fedcot.config import RunConfig
from fedcot.privacy.accounting import PrivacyPlan
from strategies.privacy_report import METRICS_SENT, SEEN_BY_WAITING, adjacency_of
from strategies.state import RoundState

CONSENT: Final = (
    "epsilon covers perturbed questions and private training; whom a trace may reach "
    "is its owner's consent, which bounds nothing"
)

OFFERED: Final = (
    "how many traces each member offers to each coalition, how many were withdrawn, "
    "and a hash that changes with them"
)
EARLIER_RUNS: Final = (
    "what earlier runs charged the same records, which their node's ledger adds up"
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
    charged, charged_delta = _charged(config, state)
    costs = sharing_epsilons(
        config,
        plan,
        sizes=[member.identity.num_records for member in state.members.values()],
        charged=charged,
        charged_delta=charged_delta,
        is_own=charged is None
        or (not state.refused and set(state.charged.values()) <= {0.0, plan.charge}),
    )
    if POOLED in costs:
        costs |= dict.fromkeys(config.control_names, costs[POOLED])
    per_arm = {
        arm: _line(
            arm,
            config,
            plan,
            cost,
            delta=config.delta + (charged_delta if arm == PERTURBED else 0.0),
            uncharged=(
                [*uncharged, EARLIER_RUNS]
                if TRAINED_PRIVATELY in cost.guarantee
                or (arm == PERTURBED and charged is None)
                else uncharged
            ),
        )
        for arm, cost in costs.items()
    }
    worst = worst_of(costs)
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": CONSENT,
    }


def _charged(config: RunConfig, state: RoundState) -> tuple[float | None, float]:
    """Return what was charged for perturbed questions, and the sum of deltas with it.

    None for what is planned: where this run trains privately, that is in the account's
    sum and in what ledgers state from the second round on, and is no epsilon of
    perturbed questions, which cost each record the same. What an earlier run sent
    unprotected makes the sum infinite, and is never left out.
    """
    charged = max(state.charged.values(), default=0.0)
    if config.noise_multiplier > 0 and {FEDERATED, SYNTHETIC} & {*config.sharing_names}:
        return (charged if math.isinf(charged) else None), 0.0
    return charged, max(state.charged_delta.values(), default=0.0)


def _line(
    arm: str,
    config: RunConfig,
    plan: PrivacyPlan,
    cost: ArmEpsilons,
    *,
    delta: float,
    uncharged: list[str],
) -> Mapping[str, Any]:
    mechanisms = []
    if arm == PERTURBED or (arm == TOGETHER and PERTURBED in config.sharing_names):
        mechanisms.append(config.mechanism)
    if TRAINED_PRIVATELY in cost.guarantee:
        mechanisms.append("dp-sgd")
    return {
        "unit": plan.unit,
        "neighboring_relation": plan.neighboring_relation,
        "adjacency": adjacency_of(plan, cost),
        "mechanism": " and ".join(mechanisms) or "none",
        "token_epsilon": cost.token_epsilon,
        "prompt_epsilon_max": cost.prompt_epsilon,
        "record_epsilon_max": cost.record_epsilon,
        "record_epsilon_at_delta": cost.record_epsilon_at_delta,
        "delta": delta,
        "guarantee": cost.guarantee,
        "uncharged": uncharged,
    }
