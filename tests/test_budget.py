"""What each arm's privacy is said to be, from plan and charge."""

import dataclasses
import math

import pytest

from fedcot.budget import (
    EXPOSED_BEFORE,
    RAW,
    TRAINED,
    TRAINED_PRIVATELY,
    UNKNOWN_RATE,
    arm_epsilons,
    arm_lines,
    check_variations,
    plan_arms,
    plan_run,
    private_training,
    record_limit,
    world_channel,
    worst_of,
)
from fedcot.config import RunConfig
from fedcot.data.partition import partition_size
from fedcot.errors import ConfigError
from fedcot.privacy.accounting import DpTraining, training_epsilon
from fedcot.student.dp_settings import training_schedule, used_counts

CONFIG = RunConfig(token_epsilon=8.0)
PLAN = plan_run(CONFIG, world_channel(CONFIG))


def test_the_private_arm_states_what_was_charged() -> None:
    found = arm_epsilons("fedcot", CONFIG, PLAN, silent="", charged=PLAN.prompt_epsilon)
    assert found.record_epsilon == found.prompt_epsilon == PLAN.prompt_epsilon
    assert found.guarantee == PLAN.guarantee


def test_a_record_that_an_earlier_run_exposed_has_no_bound() -> None:
    found = arm_epsilons("fedcot", CONFIG, PLAN, silent="", charged=math.inf)
    assert math.isinf(found.record_epsilon)
    assert math.isinf(found.record_epsilon_at_delta)
    assert EXPOSED_BEFORE in found.guarantee
    assert found.token_epsilon == PLAN.token_epsilon


def test_raw_arms_have_no_bound_and_silent_ones_cost_nothing() -> None:
    for arm in ("distil", "shuffled-rationale"):
        found = arm_epsilons(arm, CONFIG, PLAN, silent="")
        assert math.isinf(found.record_epsilon)
        assert found.guarantee == RAW
    found = arm_epsilons("standalone", CONFIG, PLAN, silent="nothing")
    assert (found.record_epsilon, found.guarantee) == (0.0, "nothing")


def test_an_adapter_that_saw_private_data_is_not_free() -> None:
    free = RunConfig(token_epsilon=8.0, aggregation="fedavg")
    seen = RunConfig(token_epsilon=8.0, aggregation="fedavg", pairing="original")
    assert arm_epsilons("fedcot", free, PLAN, silent="").guarantee == PLAN.guarantee
    found = arm_epsilons("fedcot", seen, PLAN, silent="")
    assert math.isinf(found.record_epsilon)
    assert found.guarantee == TRAINED


def test_without_a_mechanism_no_limit_pretends_to_hold() -> None:
    none = RunConfig(token_epsilon=8.0, mechanism="none")
    assert math.isinf(record_limit(none))
    assert record_limit(CONFIG) == CONFIG.record_epsilon


TRAINED_RUN = RunConfig(
    token_epsilon=2.0,
    aggregation="fedavg",
    pairing="original",
    noise_multiplier=1.5,
    num_partitions=5,
)
TRAINED_PLAN = plan_run(TRAINED_RUN, world_channel(TRAINED_RUN))


def test_adapters_after_dp_sgd_have_an_epsilon_at_delta_together_with_prompts() -> None:
    found = arm_epsilons("fedcot", TRAINED_RUN, TRAINED_PLAN)
    assert math.isinf(found.record_epsilon)
    alone = TRAINED_PLAN.record_epsilon_at_delta, TRAINED_PLAN.training_epsilon
    assert max(alone) < found.record_epsilon_at_delta < sum(alone)
    assert TRAINED_PLAN.guarantee in found.guarantee
    assert TRAINED_PRIVATELY in found.guarantee
    (line,) = [
        line
        for line in arm_lines(plan_arms(TRAINED_RUN, TRAINED_PLAN))
        if line.startswith("arm fedcot")
    ]
    assert "nats at delta, one record" in line
    alone_run = dataclasses.replace(TRAINED_RUN, arms="fedcot")
    *_, last = arm_lines(plan_arms(alone_run, TRAINED_PLAN))
    assert last.startswith("worst arm       fedcot: ")
    assert "nats at delta" in last


def test_of_two_arms_without_a_pure_epsilon_the_raw_one_is_worst() -> None:
    both = dataclasses.replace(TRAINED_RUN, arms="fedcot,distil")
    assert worst_of(plan_arms(both, TRAINED_PLAN)) == "distil"


def test_what_earlier_runs_charged_is_added_to_dp_sgd() -> None:
    plan = TRAINED_PLAN
    planned = arm_epsilons("fedcot", TRAINED_RUN, plan).record_epsilon_at_delta
    for charged in (0.0, plan.charge):
        found = arm_epsilons("fedcot", TRAINED_RUN, plan, charged=charged)
        assert found.record_epsilon_at_delta == planned
    for charged in (plan.charge + plan.training_epsilon, plan.charge + 1.0, 500.0):
        found = arm_epsilons("fedcot", TRAINED_RUN, plan, charged=charged)
        # Granted training is in the charge; never below what is planned.
        assert found.record_epsilon_at_delta == max(charged, planned)
    found = arm_epsilons("fedcot", TRAINED_RUN, plan, charged=math.inf)
    assert math.isinf(found.record_epsilon_at_delta)
    assert EXPOSED_BEFORE in found.guarantee


def test_dp_sgd_protects_no_question_that_is_sent_as_it_is() -> None:
    found = arm_epsilons("distil", TRAINED_RUN, TRAINED_PLAN)
    assert math.isinf(found.record_epsilon_at_delta)
    assert found.guarantee == RAW


def test_dp_sgd_of_seeded_draws_guarantees_nothing() -> None:
    tape = dataclasses.replace(TRAINED_RUN, test_tape=True)
    found = arm_epsilons("fedcot", tape, plan_run(tape, world_channel(tape)))
    assert math.isinf(found.record_epsilon_at_delta)
    assert TRAINED_PRIVATELY not in found.guarantee


def test_without_a_number_of_clients_no_epsilon_of_dp_sgd_is_stated() -> None:
    config = dataclasses.replace(TRAINED_RUN, num_partitions=0)
    channel = world_channel(config)
    found = arm_epsilons("fedcot", config, plan_run(config, channel))
    assert math.isinf(found.record_epsilon_at_delta)
    assert found.guarantee == UNKNOWN_RATE
    known = plan_run(config, channel, num_partitions=5)
    assert known.trained_record_epsilon == TRAINED_PLAN.trained_record_epsilon


def test_no_dp_sgd_is_planned_where_no_adapter_needs_it() -> None:
    for changes in (
        {"noise_multiplier": 0.0},
        {"pairing": "perturbed", "arms": "fedcot"},
        {"arms": "distil,standalone"},
    ):
        config = dataclasses.replace(TRAINED_RUN, **changes)
        assert private_training(config) is None


@pytest.mark.parametrize(
    ("records", "per_round", "rounds", "batch"),
    [(1280, 128, 2, 16), (1280, 100, 4, 16), (500, 30, 5, 16), (50, 128, 3, 16)],
)
def test_the_plan_of_dp_sgd_is_at_least_what_any_client_trains(
    records: int, per_round: int, rounds: int, batch: int
) -> None:
    """Equal while the first permutation lasts; never below after it."""
    config = dataclasses.replace(
        TRAINED_RUN,
        num_records=records,
        records_per_round=min(per_round, records),
        num_server_rounds=rounds,
        batch_size=batch,
    )
    planned = private_training(config)
    assert planned is not None
    size = partition_size(config, 5)
    for client in (0, 3):
        schedule = training_schedule(config, used_counts(config, client, size))
        done = tuple((each.sample_rate, each.steps) for each in schedule)
        actual = DpTraining(noise_multiplier=1.5, phases=done)
        for (rate, steps), (real_rate, real_steps) in zip(
            planned.phases, done, strict=True
        ):
            assert rate >= real_rate
            assert steps >= real_steps
        assert training_epsilon(planned, delta=1e-6) >= training_epsilon(
            actual, delta=1e-6
        )
        if rounds * config.records_per_round <= size:
            assert planned == actual


def test_of_clients_of_several_sizes_the_worst_is_planned() -> None:
    config = dataclasses.replace(TRAINED_RUN, records_per_round=64, num_server_rounds=3)
    sizes = (40, 300, 17, 129)
    alone = {size: private_training(config, sizes=[size]) for size in sizes}
    epsilons = {
        size: training_epsilon(one, delta=config.delta)
        for size, one in alone.items()
        if one is not None
    }
    assert len(set(epsilons.values())) == 4
    worst = max(epsilons, key=epsilons.__getitem__)
    for order in (sizes, sizes[::-1]):
        assert private_training(config, sizes=order) == alone[worst]
    stated = plan_run(config, world_channel(config), sizes=sizes)
    assert stated.trained_record_epsilon >= max(epsilons.values())


def test_composition_at_delta_is_stated_only_for_a_prompt_of_its_own() -> None:
    config = dataclasses.replace(CONFIG, token_epsilon=0.2)
    plan = plan_run(config, world_channel(config))
    assert plan.record_epsilon_at_delta < 0.8
    own = arm_epsilons("fedcot", config, plan, charged=plan.charge)
    assert own.record_epsilon_at_delta == plan.record_epsilon_at_delta
    # The node refused this run's prompts; what it states was charged by an earlier one.
    earlier = arm_epsilons("fedcot", config, plan, charged=4.1)
    assert earlier.record_epsilon_at_delta == 4.1
    mixed = arm_epsilons("fedcot", config, plan, charged=plan.charge, is_own=False)
    assert mixed.record_epsilon_at_delta == plan.charge


def test_beside_dp_sgd_another_mechanism_s_charge_is_not_composed_away() -> None:
    config = dataclasses.replace(
        TRAINED_RUN, token_epsilon=0.5, noise_multiplier=20.0, local_epochs=1
    )
    plan = plan_run(config, world_channel(config))
    assert plan.trained_record_epsilon < 8.0 < plan.charge
    stated = arm_epsilons("fedcot", config, plan, charged=8.0, is_own=False)
    assert stated.record_epsilon_at_delta == 8.0
    own = arm_epsilons("fedcot", config, plan, charged=plan.charge)
    assert own.record_epsilon_at_delta == plan.trained_record_epsilon


def test_an_earlier_training_leaves_no_pure_epsilon() -> None:
    found = arm_epsilons("fedcot", CONFIG, PLAN, charged=196.0, charged_delta=2e-6)
    assert math.isinf(found.record_epsilon)
    assert found.record_epsilon_at_delta == 196.0
    assert "zero-out only" in found.guarantee


def test_variations_that_ask_a_record_twice_are_refused() -> None:
    config = dataclasses.replace(
        CONFIG,
        mechanism="selection",
        prompt_epsilon=8.0,
        bank_variations=True,
        num_records=500,
        records_per_round=100,
        num_server_rounds=2,
    )
    with pytest.raises(ConfigError, match="`bank-variations` must be false"):
        check_variations(config, 5)
    check_variations(config, 2)
