"""What each way of sharing traces gives away, planned or charged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fedcot.budget import (
    TRAINED,
    TRAINED_PRIVATELY,
    UNKNOWN_RATE,
    ArmEpsilons,
    arm_epsilons,
)
from fedcot.community.coalitions import parse_coalitions
from fedcot.community.pool import training_config
from fedcot.community.settings import FEDERATED, PERTURBED, POOLED, PROMPT, SYNTHETIC
from fedcot.config import RunConfig
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.student.dp_settings import DpSettings

if TYPE_CHECKING:
    from fedcot.privacy.accounting import PrivacyPlan


SHARED: Final = (
    "none: traces reach their coalition as they are, within the scope of their owners"
)


def sharing_epsilons(
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    sizes: Sequence[int],
    charged: float | None = None,
    charged_delta: float = 0.0,
    is_own: bool = True,
) -> dict[str, ArmEpsilons]:
    """Return what each way of sharing gives away of one record, by its name.

    Pooled traces and prompts leave as they are, within the scope that their owners
    gave: no epsilon bounds that. Perturbed questions cost what the mechanism charges.
    Adapters and generators have no bound without noise; under DP-SGD all trainings of
    one record compose: one for each round and each coalition that its member is in.

    Parameters
    ----------
    plan : PrivacyPlan
        Of the mechanism.
    sizes : sequence of int
        Training records of each member; empty if not known yet.
    charged, charged_delta, is_own
        As for `fedcot.budget.arm_epsilons`, for perturbed questions.
    """
    found: dict[str, ArmEpsilons] = {}
    for name in config.sharing_names:
        if name == PERTURBED:
            found[name] = arm_epsilons(
                "fedcot",
                config,
                plan,
                charged=charged,
                charged_delta=charged_delta,
                is_own=is_own,
            )
        elif name in (FEDERATED, SYNTHETIC) and config.noise_multiplier > 0:
            times = most_trainings(config) if name == FEDERATED else 1
            found[name] = _trained(training_config(config, name), sizes, times)
        else:
            is_text = name in (POOLED, PROMPT)
            found[name] = _unbounded(SHARED if is_text else TRAINED)
    return found


def most_trainings(config: RunConfig) -> int:
    """Return how often a record is trained on at most: rounds times coalitions."""
    coalitions = parse_coalitions(config.coalitions, config.community_names)
    most = max(
        sum(name in coalition for coalition in coalitions)
        for name in config.community_names
    )
    return most * config.num_server_rounds


def _trained(config: RunConfig, sizes: Sequence[int], times: int) -> ArmEpsilons:
    """Return what adapters under DP-SGD give away; the worst member counts."""
    from fedcot.privacy.composition import training_epsilon
    from fedcot.privacy.loss_distributions import DpTraining

    if not sizes:
        return _unbounded(UNKNOWN_RATE)
    if config.test_tape:
        return _unbounded(SEEDED_GUARANTEE)
    trainings = {
        DpTraining(
            noise_multiplier=one.noise_multiplier,
            phases=((one.sample_rate, one.steps),) * times,
        )
        for one in (DpSettings.of(config, size) for size in set(sizes))
    }
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=math.inf,
        record_epsilon_at_delta=max(
            training_epsilon(one, delta=config.delta) for one in trainings
        ),
        guarantee=TRAINED_PRIVATELY,
    )


def _unbounded(guarantee: str) -> ArmEpsilons:
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=math.inf,
        record_epsilon_at_delta=math.inf,
        guarantee=guarantee,
    )
