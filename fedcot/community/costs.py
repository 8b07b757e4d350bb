"""What each way of sharing traces gives away, planned or charged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from fedcot.errors import ConfigError
from fedcot.node_state import MAX_RECORD_DELTA
from fedcot.privacy.nats import delta_in_femto
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.report.reader import nats
from fedcot.student.dp_settings import DpSettings

if TYPE_CHECKING:
    from fedcot.privacy.accounting import PrivacyPlan
    from fedcot.privacy.loss_distributions import DpTraining


# What the same records pay for all ways of sharing of a run.
TOGETHER: Final = "together"
SHARED: Final = (
    "none: traces reach their coalition as they are, within the scope of their owners"
)


GUARANTEES: Final = {
    POOLED: SHARED,
    PROMPT: SHARED,
    FEDERATED: TRAINED,
    SYNTHETIC: "none: texts of a generator that was trained on private traces are sent",
}


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
        As for `fedcot.budget.arm_epsilons`, for perturbed questions. What ways give
        away together is that of this run alone.
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
            found[name] = _trained(config, sizes, (name,))
        else:
            found[name] = _unbounded(GUARANTEES[name])
    if len(found) > 1:
        found |= _together(config, plan, sizes, found)
    return found


def check_record_limit(
    config: RunConfig, plan: PrivacyPlan, sizes: Sequence[int]
) -> None:
    """Refuse a simulation whose ledgers would refuse a record before its end.

    A member's ledger is charged for all rounds at once, an epsilon and a delta for each
    coalition and for the generator, and adds them up. A simulated node allows a fixed
    sum of deltas; a record beyond it would train without a gradient.

    Raises
    ------
    ConfigError
        Nothing was written.
    """
    if not config.noise_multiplier > 0 or not sizes:
        return
    from fedcot.privacy.composition import training_epsilon

    times = most_trainings(config) // config.num_server_rounds
    counts = {
        name: count
        for name, count in ((FEDERATED, times), (SYNTHETIC, 1))
        if name in config.sharing_names
    }
    _check_deltas(config, sum(counts.values()))
    total = plan.charge if PERTURBED in config.sharing_names else 0.0
    for name, count in counts.items():
        rounds = {name: _rounds(config, name)}
        total += count * max(
            training_epsilon(_training(config, size, rounds), delta=config.delta)
            for size in set(sizes)
        )
    if total > config.record_epsilon:
        raise ConfigError(
            "`record-epsilon` must be at least what one record is charged over the run "
            f"({nats(total)} nats, for {times} coalitions), found "
            f"{config.record_epsilon}; raise it or noise-multiplier, or ask for fewer "
            "rounds, epochs or coalitions."
        )


def _check_deltas(config: RunConfig, count: int) -> None:
    """Refuse more trainings of a record than a simulated node's sum of deltas allows.

    Compared as `fedcot.privacy.ledger` compares.
    """
    if count * delta_in_femto(config.delta) <= delta_in_femto(MAX_RECORD_DELTA):
        return
    enough = 10.0 ** math.floor(math.log10(MAX_RECORD_DELTA / count))
    raise ConfigError(
        f"`delta` x {count} private trainings of one record (one for each coalition "
        "of its member, one for a generator) must be at most the "
        f"{MAX_RECORD_DELTA} that simulated nodes allow, found {config.delta}; pass "
        f"for example `-c delta={enough}`, or ask for fewer coalitions."
    )


def _together(
    config: RunConfig,
    plan: PrivacyPlan,
    sizes: Sequence[int],
    found: Mapping[str, ArmEpsilons],
) -> dict[str, ArmEpsilons]:
    """Return what ways with a bound give away together: the same records pay them all.

    Nothing where one of them has no bound, which then says it for the run.
    """
    if any(math.isinf(one.record_epsilon_at_delta) for one in found.values()):
        return {}
    trained = tuple(name for name in found if name != PERTURBED)
    costs = _trained(config, sizes, trained)
    if PERTURBED in found:
        # A pure epsilon adds to one that holds at delta.
        at_delta = costs.record_epsilon_at_delta + plan.record_epsilon
        costs = replace(
            costs,
            record_epsilon_at_delta=at_delta,
            guarantee=f"{found[PERTURBED].guarantee}; {costs.guarantee}",
        )
    return {TOGETHER: costs}


def most_trainings(config: RunConfig) -> int:
    """Return how often a record is trained on at most: rounds times coalitions."""
    coalitions = parse_coalitions(config.coalitions, config.community_names)
    most = max(
        sum(name in coalition for coalition in coalitions)
        for name in config.community_names
    )
    return most * config.num_server_rounds


def _rounds(config: RunConfig, name: str) -> int:
    """Return how often one adapter of a way of sharing is trained."""
    return config.num_server_rounds if name == FEDERATED else 1


def _trained(
    config: RunConfig, sizes: Sequence[int], names: Sequence[str]
) -> ArmEpsilons:
    """Return what ways of sharing give away under DP-SGD; the worst member counts."""
    if not sizes:
        return _unbounded(UNKNOWN_RATE)
    if config.test_tape:
        return _unbounded(SEEDED_GUARANTEE)
    from fedcot.privacy.composition import training_epsilon

    times = {FEDERATED: most_trainings(config), SYNTHETIC: 1}
    at_delta = max(
        training_epsilon(
            _training(config, size, {name: times[name] for name in names}),
            delta=config.delta,
        )
        for size in set(sizes)
    )
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=math.inf,
        record_epsilon_at_delta=at_delta,
        guarantee=TRAINED_PRIVATELY,
    )


def _training(config: RunConfig, size: int, times: Mapping[str, int]) -> DpTraining:
    """Return all trainings of one member's record."""
    from fedcot.privacy.loss_distributions import DpTraining

    phases: list[tuple[float, int]] = []
    for name, count in times.items():
        one = DpSettings.of(training_config(config, name), size)
        phases += [(one.sample_rate, one.steps)] * count
    return DpTraining(noise_multiplier=config.noise_multiplier, phases=tuple(phases))


def _unbounded(guarantee: str) -> ArmEpsilons:
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=math.inf,
        record_epsilon_at_delta=math.inf,
        guarantee=guarantee,
    )
