"""What a run of social learning says about the privacy of each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedcot.budget import ArmEpsilons, worst_of
from fedcot.config import RunConfig
from fedcot.social.costs import teaching_epsilons
from fedcot.social.settings import PRIVATE_VOTING, VOTING
from fedcot.social.votes import ADJACENCY, UNCHARGED, VoteClaims
from strategies.privacy_report import METRICS_SENT, SEEN_BY_WAITING
from strategies.state import RoundState

COVERS: Final = (
    "epsilon covers private votes alone: what teacher clients say in words has none, "
    "and a gate that keeps copies back bounds nothing"
)
COUNTED: Final = "the same votes, which `voting` counts and whose winners are published"
KEPT_BACK: Final = "how many texts each teacher client sends, which its gate decides"


def social_privacy(
    config: RunConfig, state: RoundState, claims: VoteClaims | None
) -> dict[str, Any]:
    """Return the `privacy` part of the summary, for each part of the conversation.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    state : RoundState
        Of the last round.
    claims : VoteClaims or None
        What private votes cost.
    """
    costs = teaching_epsilons(config, claims)
    uncharged = [METRICS_SENT] if state.metrics_sent else []
    uncharged += [SEEN_BY_WAITING, KEPT_BACK]
    per_arm = {
        name: _line(name, config, cost, uncharged) for name, cost in costs.items()
    }
    worst = worst_of(costs)
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": COVERS,
    }


def _beside(config: RunConfig, *, voted: bool) -> list[str]:
    """Return what an epsilon of votes does not cover."""
    if not voted:
        return []
    is_open = VOTING in config.aggregator_names
    return [*UNCHARGED, *([COUNTED] if is_open else [])]


def _line(
    name: str, config: RunConfig, cost: ArmEpsilons, uncharged: list[str]
) -> Mapping[str, Any]:
    voted = name == PRIVATE_VOTING
    return {
        "unit": "nats per teacher client (all of its records)" if voted else "nats",
        "neighboring_relation": "replace one teacher client" if voted else "none",
        "adjacency": ADJACENCY if voted else "none: no bound holds",
        "mechanism": "report-noisy-max" if voted else "none",
        "token_epsilon": cost.token_epsilon,
        "prompt_epsilon_max": cost.prompt_epsilon,
        "record_epsilon_max": cost.record_epsilon,
        "record_epsilon_at_delta": cost.record_epsilon_at_delta,
        "delta": config.delta,
        "guarantee": cost.guarantee,
        "uncharged": [*uncharged, *_beside(config, voted=voted)],
    }
