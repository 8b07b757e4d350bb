"""What each arm's privacy is said to be, from plan and charge."""

import math

from fedcot.budget import (
    EXPOSED_BEFORE,
    RAW,
    TRAINED,
    arm_epsilons,
    plan_run,
    record_limit,
    world_channel,
)
from fedcot.config import RunConfig

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
