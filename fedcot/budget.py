"""What a configuration may cost: one place for the limit, the plan and each arm.

The command line, the checks before a run and the server ask here, so that they cannot
say different things about one configuration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot.arms import adapter_is_free, needs_raw_prompts, shares_adapter
from fedcot.config import RunConfig
from fedcot.data.partition import partition_size, partition_sizes
from fedcot.errors import ConfigError
from fedcot.report.reader import nats
from fedcot.settings import COMMUNITY, SOCIAL, UNBOUNDED_MECHANISMS

if TYPE_CHECKING:
    from fedcot.privacy.accounting import DpTraining, PrivacyPlan
    from fedcot.privacy.channels import Channel

SILENT: Final = "no prompt is sent"
NO_PROMPT: Final = f"{SILENT}; see uncharged"
RAW: Final = "none: private questions are sent as they are"
EXPOSED_BEFORE: Final = "an earlier run sent a record of this node unprotected"
TRAINED_BEFORE: Final = (
    "earlier trainings of a record by DP-SGD are in the sum, which so holds at delta "
    "and for zero-out only"
)
TRAINED: Final = "none: adapters trained on private questions or labels are sent"
TRAINED_PRIVATELY: Final = (
    "DP-SGD, (epsilon, delta) of one record over all rounds, zero-out: the record "
    "replaced by one without a gradient; rate and steps are those of the smallest "
    "number of records sampled from"
)
UNKNOWN_RATE: Final = (
    "none stated: the rate of DP-SGD depends on the number of clients; set "
    "num-partitions"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEpsilons:
    """What one arm gives away, in nats, and what holds for it in words."""

    token_epsilon: float
    prompt_epsilon: float
    record_epsilon: float
    record_epsilon_at_delta: float
    guarantee: str


def record_limit(config: RunConfig) -> float:
    """Return the limit for one record, in nats; infinite where no bound holds."""
    unbounded = config.mechanism in UNBOUNDED_MECHANISMS
    return math.inf if unbounded else config.record_epsilon


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


def plan_run(
    config: RunConfig,
    channel: Channel,
    *,
    num_partitions: int | None = None,
    sizes: Sequence[int] = (),
) -> PrivacyPlan:
    """Return what a run's prompts and private training will cost.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    channel : Channel
        The configuration's mechanism.
    num_partitions : int | None
        Clients that the records are split for; None: what the configuration says.
    sizes : sequence of int
        Training records of each client, where they have said so.

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
        training=private_training(config, num_partitions=num_partitions, sizes=sizes),
    )


def private_training(
    config: RunConfig, *, num_partitions: int | None = None, sizes: Sequence[int] = ()
) -> DpTraining | None:
    """Return the DP-SGD that the most used record of the worst client takes part in.

    Parameters
    ----------
    config : RunConfig
        `noise-multiplier`, `batch-size`, `local-epochs`, rounds and numbers of records.
    num_partitions : int | None
        Clients that the records are split for; None: what the configuration says.
    sizes : sequence of int
        Training records of each client; empty: those that the data is split into.

    Returns
    -------
    DpTraining | None
        None where no adapter leaves a client after DP-SGD, or where the number of
        clients, and so the sampling rate, is not known yet.

    Notes
    -----
    A record of the first round trains in every round. A round samples from the records
    used so far: once all whole rounds of a permutation are used up, how many those are
    depends on the next permutation, so the fewest set the rate and all set the steps.
    """
    clients = config.num_partitions if num_partitions is None else num_partitions
    is_needed = any(
        _is_trained(arm, config) and not needs_raw_prompts(arm)
        for arm in config.arm_names
    )
    if not (config.noise_multiplier > 0 and is_needed and clients):
        return None
    found = {
        _training_of(config, records)
        for records in sizes or partition_sizes(config, clients)
    }
    if len(found) == 1:
        return found.pop()
    from fedcot.privacy.composition import training_epsilon

    # Fewer records are sampled at a higher rate, more records in more steps.
    return max(found, key=lambda one: training_epsilon(one, delta=config.delta))


def _training_of(config: RunConfig, records: int) -> DpTraining:
    """Return the training of a client with so many records."""
    from fedcot.privacy.accounting import DpTraining
    from fedcot.student.dp_settings import DpSettings

    per_round = min(config.records_per_round, records)
    whole_rounds = records // per_round
    phases = []
    for number in range(1, config.num_server_rounds + 1):
        fewest = per_round * min(number, whole_rounds)
        most = fewest if number <= whole_rounds else records
        rate = DpSettings.of(config, fewest).sample_rate
        phases.append((rate, DpSettings.of(config, most).steps))
    return DpTraining(noise_multiplier=config.noise_multiplier, phases=tuple(phases))


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


def check_variations(config: RunConfig, clients: int) -> None:
    """Refuse to ask a record twice with another bank: that costs it twice.

    Raises
    ------
    ConfigError
        Some record of a client would be asked more than once.
    """
    if not config.bank_variations:
        return
    records = partition_size(config, clients)
    asked = config.num_server_rounds * min(config.records_per_round, records)
    if asked > records:
        raise ConfigError(
            "`bank-variations` must be false where a record is asked more than once, "
            f"found {asked} prompts of {records} records of a client; pass for example "
            f"`-c num-records={asked * clients}`."
        )


def arm_epsilons(
    arm: str,
    config: RunConfig,
    plan: PrivacyPlan,
    *,
    charged: float | None = None,
    charged_delta: float = 0.0,
    is_own: bool = True,
    silent: str = NO_PROMPT,
) -> ArmEpsilons:
    """Return what one arm gives away.

    Parameters
    ----------
    charged : float | None
        Nats charged to the record that was charged most, for prompts and for private
        training as the ledger adds them up; None: what is planned.
    charged_delta : float
        Sum of the deltas at which a record's earlier trainings are charged; with any,
        no pure epsilon holds, and what holds at a delta holds at `delta` plus this.
    is_own : bool
        Whether nothing but this run's prompts was charged to any record; then they
        compose at delta, else only the sum is stated.
    silent : str
        The guarantee of an arm that sends no prompt.
    """
    costs = _prompt_epsilons(arm, plan, charged=charged, is_own=is_own, silent=silent)
    if charged_delta > 0 and arm == "fedcot":
        costs = dataclasses.replace(
            costs,
            record_epsilon=math.inf,
            record_epsilon_at_delta=costs.record_epsilon,
            guarantee=f"{costs.guarantee}; {TRAINED_BEFORE}",
        )
    if _is_trained(arm, config):
        # What another mechanism charged does not compose as this run's prompt does.
        own = charged is None or (is_own and charged <= plan.charge)
        known = None if own else charged
        return _with_training(costs, config, plan, charged=known)
    return costs


def _prompt_epsilons(
    arm: str, plan: PrivacyPlan, *, charged: float | None, is_own: bool, silent: str
) -> ArmEpsilons:
    """Return what the prompts of an arm give away."""
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
        if math.isinf(prompt):
            # Seeded draws were charged, but nothing is guaranteed for them.
            record = math.inf
        # Composition at delta is that of this run's prompt alone.
        alone = is_own and charged in (None, plan.charge)
        at_delta = min(record, plan.record_epsilon_at_delta) if alone else record
        if record > prompt:
            # The node's ledger remembers earlier runs: only their sum is stated.
            at_delta = record
            if math.isinf(record) and not math.isinf(prompt):
                guarantee = f"none: {EXPOSED_BEFORE}; this run alone: {guarantee}"
    return ArmEpsilons(
        token_epsilon=token,
        prompt_epsilon=prompt,
        record_epsilon=record,
        record_epsilon_at_delta=at_delta,
        guarantee=guarantee,
    )


def _with_training(
    costs: ArmEpsilons, config: RunConfig, plan: PrivacyPlan, *, charged: float | None
) -> ArmEpsilons:
    """Return what an arm gives away whose adapters saw private data."""
    at_delta, guarantee = math.inf, costs.guarantee
    if not config.noise_multiplier:
        guarantee = TRAINED
    elif not plan.training_epsilon:
        guarantee = UNKNOWN_RATE
    elif math.isfinite(costs.record_epsilon_at_delta):
        at_delta = _together(plan, charged)
        guarantee = f"{costs.guarantee}; adapters: {TRAINED_PRIVATELY}"
    return dataclasses.replace(
        costs,
        record_epsilon=math.inf,
        record_epsilon_at_delta=at_delta,
        guarantee=guarantee,
    )


def _together(plan: PrivacyPlan, charged: float | None) -> float:
    """Return prompts and DP-SGD of one record together, in nats at delta."""
    if charged is None:
        return plan.trained_record_epsilon
    # What was granted for training is in the sum already, at this run's delta.
    return max(charged, plan.trained_record_epsilon)


def _is_trained(arm: str, config: RunConfig) -> bool:
    """Whether an adapter leaves a client that saw private questions or labels."""
    shared = shares_adapter(arm, config.aggregation)
    return shared and not adapter_is_free(arm, config.pairing)


def worst_of(arms: Mapping[str, ArmEpsilons]) -> str:
    """Return the worst arm; of those without a pure epsilon the worst at delta."""
    return max(
        arms,
        key=lambda arm: (
            arms[arm].record_epsilon,
            arms[arm].record_epsilon_at_delta,
        ),
    )


def plan_arms(config: RunConfig, plan: PrivacyPlan) -> dict[str, ArmEpsilons]:
    """Return what every arm, or way of sharing, of a configuration will give away."""
    if config.mode == SOCIAL:
        from fedcot.social.costs import teaching_epsilons

        return teaching_epsilons(config)
    if config.mode == COMMUNITY:
        from fedcot.community.costs import sharing_epsilons

        known = config.num_partitions
        sizes = partition_sizes(config, known) if known else ()
        return sharing_epsilons(config, plan, sizes=sizes)
    return {
        arm: arm_epsilons(arm, config, plan, silent=SILENT) for arm in config.arm_names
    }


def arm_lines(arms: Mapping[str, ArmEpsilons]) -> Iterator[str]:
    """Yield one line per arm and one for the run as a whole."""
    for arm, costs in arms.items():
        yield f"arm {arm:<19} {_record_shown(costs)}, one record ({costs.guarantee})"
    worst = worst_of(arms)
    yield (
        f"worst arm       {worst}: {_record_shown(arms[worst])}, one record; the run "
        "as a whole is as private as this arm"
    )


def _record_shown(costs: ArmEpsilons) -> str:
    """Return what a record gives away: the pure epsilon, or that at delta."""
    pure, at_delta = costs.record_epsilon, costs.record_epsilon_at_delta
    if math.isinf(pure) and math.isfinite(at_delta):
        return f"{nats(at_delta)} nats at delta"
    return f"{nats(pure)} nats"
