"""What each way of sharing gives away, against schedules written by hand."""

import math
from typing import Any

import pytest

from fedcot.budget import TRAINED, TRAINED_PRIVATELY, UNKNOWN_RATE, plan_run, worst_of
from fedcot.community.costs import (
    SHARED,
    TOGETHER,
    check_record_limit,
    most_trainings,
    sharing_epsilons,
)
from fedcot.community.pool import training_config
from fedcot.errors import ConfigError
from fedcot.mechanism import configured_channel
from fedcot.node_state import MAX_RECORD_DELTA
from fedcot.privacy import composition
from fedcot.privacy.composition import training_epsilon
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.records import MOST_RECORDS
from tests.communities import community_config

EVERY = "pooled,perturbed,federated,synthetic,prompt"


def costs(tmp_path, *, sizes=(8, 8, 8), charged=None, is_own=True, **more: Any):
    own = {"sharing": EVERY, "test_tape": False, "record_epsilon": 250.0, **more}
    config = community_config(tmp_path, **own)
    plan = plan_run(config, configured_channel(config), num_partitions=3)
    found = sharing_epsilons(config, plan, sizes=sizes, charged=charged, is_own=is_own)
    return found, plan


def by_hand(rate: float, steps: int, noise: float = 2.0, delta: float = 1e-6):
    """Return the epsilon of so many steps in one round; rounds make no difference."""
    return training_epsilon(
        DpTraining(noise_multiplier=noise, phases=((rate, steps),)), delta=delta
    )


@pytest.mark.parametrize(
    ("coalitions", "most"),
    [
        ("alone", 1),
        ("grand", 1),
        ("alone,grand", 2),
        ("all", 4),  # of seven coalitions of three
        ("library,library+bakery,grand", 3),
        ("bakery,library+harbor", 1),
    ],
)
def test_the_most_used_community_counts(tmp_path, coalitions, most):
    for rounds in (1, 3):
        config = community_config(
            tmp_path, coalitions=coalitions, num_server_rounds=rounds
        )
        assert most_trainings(config) == most * rounds


def test_traces_and_prompts_have_no_bound_and_say_who_sees_them(tmp_path):
    found, _ = costs(tmp_path)
    for arm in ("pooled", "prompt"):
        assert found[arm].guarantee == SHARED
    assert found["federated"].guarantee == TRAINED
    assert "generator" in found["synthetic"].guarantee
    for arm in set(found) - {"perturbed"}:
        assert found[arm].record_epsilon_at_delta == math.inf
        assert found[arm].record_epsilon == math.inf
    assert list(found) == EVERY.split(",")
    assert worst_of(found) != "perturbed"


def test_perturbed_questions_cost_what_the_mechanism_charges(tmp_path):
    found, plan = costs(tmp_path)
    line = found["perturbed"]
    assert line.prompt_epsilon == plan.prompt_epsilon == line.record_epsilon
    assert line.record_epsilon_at_delta == plan.record_epsilon_at_delta
    # An earlier run is in the sum, and composes no more.
    found, _ = costs(tmp_path, charged=2 * plan.charge, is_own=False)
    assert found["perturbed"].record_epsilon == 2 * plan.charge
    assert found["perturbed"].record_epsilon_at_delta == 2 * plan.charge


def test_private_trainings_of_a_record_compose(tmp_path):
    # Batches of 4 out of 8: at a rate of one half, two steps an epoch.
    more = {"noise_multiplier": 2.0, "num_server_rounds": 2, "generator_epochs": 3}
    found, _ = costs(tmp_path, coalitions="alone,grand", local_epochs=2, **more)
    federated, synthetic = found["federated"], found["synthetic"]
    # Four steps in each of two rounds, for each of two coalitions.
    assert federated.record_epsilon_at_delta == pytest.approx(by_hand(0.5, 16))
    # Three epochs, once.
    assert synthetic.record_epsilon_at_delta == pytest.approx(by_hand(0.5, 6))
    for cost in (federated, synthetic):
        assert cost.record_epsilon == math.inf
        assert cost.guarantee == TRAINED_PRIVATELY
    # What is pooled as it is stays without a bound.
    assert found["pooled"].record_epsilon_at_delta == math.inf


def test_the_worst_member_counts(tmp_path):
    more = {"noise_multiplier": 2.0, "coalitions": "grand"}
    found, _ = costs(tmp_path, sizes=(16, 4, 16), **more)
    # Batches of 4: everybody in every step of the small one; a quarter of the large.
    worst = max(by_hand(1.0, 1), by_hand(0.25, 4))
    assert found["federated"].record_epsilon_at_delta == pytest.approx(worst)
    assert by_hand(1.0, 1) != pytest.approx(by_hand(0.25, 4))


def test_a_member_that_states_many_records_costs_no_time(tmp_path, monkeypatch):
    """Composed step by step, so many steps take minutes."""
    honest = composition.training_distribution

    def soon(training, interval):
        assert training.num_steps <= composition.MOST_STEPS
        return honest(training, interval)

    monkeypatch.setattr(composition, "training_distribution", soon)
    more = {"noise_multiplier": 2.0, "coalitions": "grand", "batch_size": 1}
    found, _ = costs(tmp_path, sizes=(MOST_RECORDS,), **more)
    large = found["federated"].record_epsilon_at_delta
    assert 0 < large < by_hand(1 / 100, 100)
    # A small member beside it is the worst one, as alone.
    both, _ = costs(tmp_path, sizes=(MOST_RECORDS, 4), **more)
    alone, _ = costs(tmp_path, sizes=(4,), **more)
    assert both["federated"] == alone["federated"]


def test_what_is_not_known_yet_is_not_stated(tmp_path):
    more = {"noise_multiplier": 2.0}
    found, _ = costs(tmp_path, sizes=(), **more)
    assert found["federated"].guarantee == UNKNOWN_RATE
    assert found["federated"].record_epsilon_at_delta == math.inf
    seeded, _ = costs(tmp_path, test_tape=True, **more)
    for arm in ("federated", "synthetic"):
        assert seeded[arm].guarantee == SEEDED_GUARANTEE
        assert seeded[arm].record_epsilon_at_delta == math.inf


@pytest.mark.parametrize(
    ("arm", "epochs"),
    [
        ("synthetic", 7),
        ("synthetic.0123456789abcdef", 7),
        ("federated.library", 2),
        ("federated.synthetic", 2),
        ("library", 2),
        ("synthetic-arts", 2),
    ],
)
def test_a_generator_has_its_own_epochs(tmp_path, arm, epochs):
    config = community_config(tmp_path, local_epochs=2, generator_epochs=7)
    assert training_config(config, arm).local_epochs == epochs


def test_ways_that_the_same_records_pay_for_are_added_up(tmp_path):
    more = {
        "sharing": "perturbed,federated,synthetic",
        "noise_multiplier": 2.0,
        "coalitions": "alone,grand",
        "num_server_rounds": 3,
        "local_epochs": 2,
        "generator_epochs": 5,
        "batch_size": 4,
    }
    found, plan = costs(tmp_path, sizes=(8, 8, 8), **more)
    # Batches of 4 out of 8: two steps an epoch; two coalitions and three rounds.
    trained = by_hand(0.5, 2 * 2 * 2 * 3 + 5 * 2)
    together = found[TOGETHER]
    assert together.record_epsilon_at_delta == pytest.approx(
        trained + plan.prompt_epsilon
    )
    assert together.record_epsilon == math.inf
    assert worst_of(found) == TOGETHER
    alone = [one.record_epsilon_at_delta for n, one in found.items() if n != TOGETHER]
    assert max(alone) < together.record_epsilon_at_delta < sum(alone)


@pytest.mark.parametrize("sharing", ["federated", "pooled,federated,synthetic"])
def test_nothing_is_added_up_where_one_says_it_all(tmp_path, sharing):
    found, _ = costs(tmp_path, sharing=sharing, noise_multiplier=2.0)
    assert TOGETHER not in found


def test_a_budget_that_ends_too_early_is_refused_before_the_run(tmp_path):
    more = {
        "sharing": "federated,synthetic",
        "noise_multiplier": 2.0,
        "coalitions": "alone,grand",
        "num_server_rounds": 3,
        "local_epochs": 2,
        "generator_epochs": 5,
        "batch_size": 4,
        "test_tape": False,
    }
    # As the ledger adds them: an epsilon for each coalition, and the generator's.
    charged = 2 * by_hand(0.5, 2 * 2 * 3) + by_hand(0.5, 5 * 2)
    for limit, is_enough in ((charged * 1.001, True), (charged * 0.999, False)):
        config = community_config(tmp_path, record_epsilon=limit, **more)
        plan = plan_run(config, configured_channel(config), num_partitions=3)
        if is_enough:
            check_record_limit(config, plan, (8, 8, 8))
            continue
        with pytest.raises(ConfigError, match="`record-epsilon` must be at least"):
            check_record_limit(config, plan, (8, 8, 8))


@pytest.mark.parametrize(
    ("sharing", "coalitions", "delta", "trainings"),
    [
        ("federated", "all", 2.4e-6, 4),
        ("federated,synthetic", "all", 1.9e-6, 5),
        # The generator is trained once, whatever the coalitions.
        ("perturbed,synthetic", "all", 9.6e-6, 1),
    ],
)
def test_more_trainings_than_a_node_s_deltas_allow_are_refused_before_the_run(
    tmp_path, sharing, coalitions, delta, trainings
):
    for asked, is_allowed in ((delta, True), (delta * 1.06, False)):
        config = community_config(
            tmp_path,
            sharing=sharing,
            coalitions=coalitions,
            delta=asked,
            noise_multiplier=8.0,
            num_server_rounds=3,
            record_epsilon=1e6,
            test_tape=False,
        )
        plan = plan_run(config, configured_channel(config), num_partitions=3)
        if is_allowed:
            check_record_limit(config, plan, (8, 8, 8))
            continue
        with pytest.raises(ConfigError) as caught:
            check_record_limit(config, plan, (8, 8, 8))
        line = str(caught.value)
        assert f"`delta` x {trainings} private trainings" in line
        assert f"at most the {MAX_RECORD_DELTA} that" in line
        assert f"found {asked}" in line
        # What the line passes for example is enough.
        enough = float(line.partition("-c delta=")[2].partition("`")[0])
        assert enough * trainings <= MAX_RECORD_DELTA


def test_without_private_training_no_delta_is_added_up(tmp_path):
    for more in ({"sharing": "pooled,perturbed"}, {"noise_multiplier": 0.0}):
        own = {"sharing": "federated", "noise_multiplier": 8.0, **more}
        config = community_config(
            tmp_path, delta=1e-4, record_epsilon=250.0, test_tape=False, **own
        )
        plan = plan_run(config, configured_channel(config), num_partitions=3)
        check_record_limit(config, plan, (8, 8, 8))
