"""What a configuration may cost: one place for the limit, the plan and each arm.

The command line, the checks before a run and the server ask here, so that they cannot
say different things about one configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot.arms import adapter_is_free, needs_raw_prompts, shares_adapter
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.report.reader import nats

if TYPE_CHECKING:
    from fedcot.privacy.accounting import PrivacyPlan
    from fedcot.privacy.channels import Channel

SILENT: Final = "no prompt is sent"
NO_PROMPT: Final = f"{SILENT}; see uncharged"
RAW: Final = "none: private questions are sent as they are"
EXPOSED_BEFORE: Final = "an earlier run sent a record of this node unprotected"
TRAINED: Final = "none: adapters trained on private questions or labels are sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEpsilons:
    """What one arm gives away, in nats, and what holds for it in words."""

    token_epsilon: float
    prompt_epsilon: float
    record_epsilon: float
    record_epsilon_at_delta: float
    guarantee: str


def record_limit(config: RunConfig) -> float:
    """Return the limit for one record, in nats; infinite without a mechanism."""
    return math.inf if config.mechanism == "none" else config.record_epsilon


def world_channel(config: RunConfig, *, slots: int | None = None) -> Channel:
    """Return a configuration's mechanism over the vocabulary of the built-in world.

    Parameters
    ----------
    config : RunConfig
        Names mechanism and token epsilon.
    slots : int | None
        Tokens of a prompt, >= 1; None: the world's own length.
    """
    from fedcot.mechanism import configured_channel

    return configured_channel(config, slots=slots)


def plan_run(config: RunConfig, channel: Channel) -> PrivacyPlan:
    """Return what a run's prompts will cost, under the limit that the run has.

    Raises
    ------
    ConfigError
        A value breaks its rule.
    """
    from fedcot.privacy.accounting import plan

    return plan(
        channel,
        record_epsilon=record_limit(config),
        rounds=config.num_server_rounds,
        delta=config.delta,
        is_private=not config.test_tape,
    )


def check_prompt_epsilon(config: RunConfig, plan: PrivacyPlan) -> None:
    """Refuse a mechanism that is charged more per prompt than `prompt-epsilon`.

    Raises
    ------
    ConfigError
        Nothing was written.
    """
    limit = config.prompt_epsilon
    if "fedcot" in config.arm_names and 0 < limit < plan.charge:
        raise ConfigError(
            f"`prompt-epsilon` must be 0 or at least {plan.slots} slots x "
            f"token-epsilon ({nats(plan.charge)}), found {limit}; pass for example "
            "`-c prompt-epsilon=0.0`."
        )


def arm_epsilons(
    arm: str,
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    charged: float | None = None,
    silent: str = NO_PROMPT,
) -> ArmEpsilons:
    """Return what one arm gives away.

    Parameters
    ----------
    charged : float | None
        Nats charged to the record that was charged most; None: what is planned.
    silent : str
        The guarantee of an arm that sends no prompt.
    """
    token, prompt, record, at_delta, guarantee = 0.0, 0.0, 0.0, 0.0, silent
    if needs_raw_prompts(arm):
        token = prompt = record = at_delta = math.inf
        guarantee = RAW
    elif arm == "fedcot":
        token, prompt, guarantee = (
            plan.token_epsilon,
            plan.prompt_epsilon,
            plan.guarantee,
        )
        record = plan.record_epsilon if charged is None else charged
        if math.isinf(token):
            # Seeded draws were charged, but nothing is guaranteed for them.
            record = math.inf
        at_delta = min(record, plan.record_epsilon_at_delta)
        if record > prompt:
            # The node's ledger remembers earlier runs: only their sum is stated.
            at_delta = record
            if math.isinf(record) and not math.isinf(token):
                guarantee = f"none: {EXPOSED_BEFORE}; this run alone: {guarantee}"
    shared = shares_adapter(arm, config.aggregation)
    if shared and not adapter_is_free(arm, config.pairing):
        record = at_delta = math.inf
        guarantee = TRAINED
    return ArmEpsilons(
        token_epsilon=token,
        prompt_epsilon=prompt,
        record_epsilon=record,
        record_epsilon_at_delta=at_delta,
        guarantee=guarantee,
    )


def worst_arm(record_epsilons: Mapping[str, float]) -> str:
    """Return the arm whose records give away most: the run is as private as that."""
    return max(record_epsilons, key=lambda arm: record_epsilons[arm])


def plan_arms(config: RunConfig, plan: PrivacyPlan) -> dict[str, ArmEpsilons]:
    """Return what every arm of a configuration will give away."""
    return {
        arm: arm_epsilons(arm, config, plan, silent=SILENT) for arm in config.arm_names
    }


def arm_lines(arms: Mapping[str, ArmEpsilons]) -> Iterator[str]:
    """Yield one line per arm and one for the run as a whole."""
    for arm, costs in arms.items():
        epsilon = nats(costs.record_epsilon)
        yield f"arm {arm:<19} {epsilon} nats, one record ({costs.guarantee})"
    worst = worst_arm({arm: costs.record_epsilon for arm, costs in arms.items()})
    epsilon = nats(arms[worst].record_epsilon)
    yield (
        f"worst arm       {worst}: {epsilon} nats, one record; the run as a whole is "
        "as private as this arm"
    )
