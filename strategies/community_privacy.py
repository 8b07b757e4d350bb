"""What a run of communities says about the privacy of each way of sharing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fedcot.budget import RAW, TRAINED, TRAINED_PRIVATELY
from fedcot.community.coalitions import parse_coalitions
from fedcot.community.pool import training_config
from fedcot.community.settings import (
    FEDERATED,
    PERTURBED,
    POOLED,
    PROMPT,
    SYNTHETIC,
)
from fedcot.config import RunConfig
from fedcot.privacy.accounting import TRAINING_ADJACENCY, PrivacyPlan
from fedcot.privacy.composition import training_epsilon
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.student.dp_settings import DpSettings
from strategies.coalition_students import LABEL_ONLY, RANDOM_LABEL
from strategies.privacy_report import METRICS_SENT, SEEN_BY_WAITING, privacy_report
from strategies.state import RoundState

CONSENT: Final = (
    "epsilon covers perturbed questions and private training; whom a trace may reach "
    "is its owner's consent, which bounds nothing"
)
CONTROLS: Final = (LABEL_ONLY, RANDOM_LABEL)


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
    per_arm: dict[str, Mapping[str, Any]] = {}
    for arm in config.sharing_names:
        if arm == PERTURBED:
            per_arm[arm] = _perturbed(config, state, plan)
        elif arm in (FEDERATED, SYNTHETIC) and config.noise_multiplier > 0:
            trainings = _most_trainings(config) if arm == FEDERATED else 1
            per_arm[arm] = _trained(
                training_config(config, arm), state, plan, trainings, uncharged
            )
        else:
            raw = arm in (POOLED, PROMPT)
            per_arm[arm] = _unprotected(plan, RAW if raw else TRAINED, uncharged)
    if POOLED in per_arm:
        per_arm |= dict.fromkeys(CONTROLS, per_arm[POOLED])
    worst = max(
        per_arm,
        key=lambda arm: (
            per_arm[arm]["record_epsilon_max"],
            per_arm[arm]["record_epsilon_at_delta"],
        ),
    )
    return {
        "worst_arm": {"arm": worst, **per_arm[worst]},
        "per_arm": per_arm,
        "covers": CONSENT,
    }


def _perturbed(
    config: RunConfig, state: RoundState, plan: PrivacyPlan
) -> Mapping[str, Any]:
    """Return the line of FedCoT's arm, which is what perturbed traces are."""
    charged = max(state.charged.values(), default=0.0)
    found = privacy_report(
        config,
        plan,
        arms=("fedcot",),
        record_epsilon_max=charged,
        record_delta_max=max(state.charged_delta.values(), default=0.0),
        only_own_prompts=set(state.charged.values()) <= {0.0, plan.charge},
        metrics_sent=state.metrics_sent,
    )
    line: Mapping[str, Any] = found["per_arm"]["fedcot"]
    return line


def _trained(
    config: RunConfig,
    state: RoundState,
    plan: PrivacyPlan,
    trainings: int,
    uncharged: list[str],
) -> Mapping[str, Any]:
    """Return the line of adapters, or of a generator, under DP-SGD.

    Parameters
    ----------
    trainings : int
        By DP-SGD that one record takes part in, over all rounds and coalitions.
    """
    sizes = {member.identity.num_records for member in state.members.values()}
    found = [DpSettings.of(config, size) for size in sizes]
    at_delta = max(
        (
            training_epsilon(
                DpTraining(
                    noise_multiplier=one.noise_multiplier,
                    phases=((one.sample_rate, one.steps),) * trainings,
                ),
                delta=config.delta,
            )
            for one in found
        ),
        default=math.inf,
    )
    if config.test_tape:
        at_delta = math.inf
    return {
        **_unprotected(plan, TRAINED_PRIVATELY, uncharged),
        "adjacency": f"{plan.adjacency}; training: {TRAINING_ADJACENCY}",
        "mechanism": "dp-sgd",
        "record_epsilon_at_delta": at_delta,
        "delta": config.delta,
        "guarantee": SEEDED_GUARANTEE if config.test_tape else TRAINED_PRIVATELY,
    }


def _most_trainings(config: RunConfig) -> int:
    """Return how often one record is trained on: rounds times coalitions it is in."""
    coalitions = parse_coalitions(config.coalitions, config.community_names)
    most = max(
        sum(name in coalition for coalition in coalitions)
        for name in config.community_names
    )
    return most * config.num_server_rounds


def _unprotected(
    plan: PrivacyPlan, guarantee: str, uncharged: list[str]
) -> Mapping[str, Any]:
    return {
        "unit": plan.unit,
        "neighboring_relation": plan.neighboring_relation,
        "adjacency": plan.adjacency,
        "mechanism": "none",
        "token_epsilon": math.inf,
        "prompt_epsilon_max": math.inf,
        "record_epsilon_max": math.inf,
        "record_epsilon_at_delta": math.inf,
        "delta": 0.0,
        "guarantee": guarantee,
        "uncharged": uncharged,
    }
