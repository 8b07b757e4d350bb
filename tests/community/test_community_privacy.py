"""What the summary of a run of communities says about privacy."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from fedcot.budget import TRAINED_BEFORE, plan_arms, plan_run
from fedcot.community.costs import TOGETHER
from fedcot.mechanism import configured_channel
from fedcot.privacy.accounting import TRAINING_ADJACENCY
from strategies.community_privacy import EARLIER_RUNS, OFFERED, community_privacy
from strategies.privacy_report import METRICS_SENT, SEEN_BY_WAITING
from strategies.state import Member, RoundState
from tests.communities import community_config


def stated(tmp_path, state: dict[str, Any] | None = None, **more: Any):
    own = {"test_tape": False, "record_epsilon": 250.0, **more}
    config = community_config(tmp_path, **own)
    identity: Any = SimpleNamespace(num_records=9)
    round_state = RoundState(
        server_round=1,
        members={n: Member(n, identity) for n in range(3)},
        **(state or {}),
    )
    plan = plan_run(config, configured_channel(config), num_partitions=3)
    return community_privacy(config, round_state, plan), plan


def test_every_way_has_its_own_line_with_unit_and_relation(tmp_path):
    found, plan = stated(
        tmp_path, sharing="pooled,perturbed,federated", noise_multiplier=2.0
    )
    lines = found["per_arm"]
    # The controls see what is pooled.
    arms = {"pooled", "perturbed", "federated", "label-only", "random-label"}
    assert set(lines) == arms
    for line in lines.values():
        assert line["unit"] == plan.unit
        assert line["neighboring_relation"] == plan.neighboring_relation
        assert line["delta"] == 1e-6
    assert lines["label-only"] == lines["pooled"]
    mechanisms = {arm: line["mechanism"] for arm, line in lines.items()}
    assert mechanisms == {
        "pooled": "none",
        "label-only": "none",
        "random-label": "none",
        "perturbed": "rank",
        "federated": "dp-sgd",
    }
    assert lines["federated"]["record_epsilon_at_delta"] < math.inf
    assert found["worst_arm"]["record_epsilon_at_delta"] == math.inf
    assert found["worst_arm"]["arm"] in {"pooled", "label-only", "random-label"}


def test_without_pooled_traces_there_are_no_controls(tmp_path):
    found, _ = stated(tmp_path, sharing="perturbed")
    assert set(found["per_arm"]) == {"perturbed"}
    assert found["worst_arm"]["arm"] == "perturbed"


@pytest.mark.parametrize("sent", [False, True])
def test_what_no_epsilon_covers_is_listed(tmp_path, sent):
    found, _ = stated(tmp_path, {"metrics_sent": sent}, sharing="perturbed")
    uncharged = found["per_arm"]["perturbed"]["uncharged"]
    assert (METRICS_SENT in uncharged) == sent
    # Also an honest member of a deployment says how much it has.
    assert {SEEN_BY_WAITING, OFFERED} <= set(uncharged)


def test_what_the_account_charged_is_stated(tmp_path):
    _, plan = stated(tmp_path, sharing="perturbed")
    one = plan.charge
    found, _ = stated(tmp_path, {"charged": {0: one, 1: 0.0}}, sharing="perturbed")
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == one
    assert line["record_epsilon_at_delta"] == plan.record_epsilon_at_delta
    # Earlier runs are in the ledger's sum: no composition holds for them.
    found, _ = stated(tmp_path, {"charged": {0: 1.5 * one}}, sharing="perturbed")
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == line["record_epsilon_at_delta"] == 1.5 * one


@pytest.mark.parametrize("sharing", ["perturbed", "pooled,perturbed,federated"])
def test_what_ledgers_state_of_earlier_runs_is_stated_at_its_delta(tmp_path, sharing):
    """Without noise no training of this run is in the sum, whatever else it shares."""
    _, plan = stated(tmp_path, sharing=sharing)
    state = {
        "charged": {0: plan.charge, 1: 2 * plan.charge},
        "charged_delta": {0: 2e-6, 1: 1e-7},
    }
    found, _ = stated(tmp_path, state, sharing=sharing, delta=1e-9)
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == math.inf
    assert line["record_epsilon_at_delta"] == 2 * plan.charge
    assert line["delta"] == 1e-9 + 2e-6
    # The sum holds for fewer neighbours than the prompts alone.
    assert line["guarantee"].endswith(TRAINED_BEFORE)
    assert line["adjacency"].endswith(TRAINING_ADJACENCY)
    assert line["mechanism"] == "rank"
    assert EARLIER_RUNS not in line["uncharged"]


@pytest.mark.parametrize("sharing", ["perturbed", "perturbed,federated"])
def test_a_record_that_went_out_before_has_no_bound(tmp_path, sharing):
    found, _ = stated(
        tmp_path, {"charged": {0: math.inf}}, sharing=sharing, noise_multiplier=2.0
    )
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == math.inf
    assert line["record_epsilon_at_delta"] == math.inf


def test_trainings_of_the_run_are_no_earlier_ones(tmp_path):
    """From the second round on ledgers state them; every line is as it was planned."""
    more = {
        "sharing": "perturbed,federated",
        "noise_multiplier": 2.0,
        "num_partitions": 3,
        "num_server_rounds": 2,
    }
    _, plan = stated(tmp_path, **more)
    found, _ = stated(
        tmp_path,
        {"charged": {0: plan.charge + 3.0}, "charged_delta": {0: 2e-6}},
        **more,
    )
    lines = found["per_arm"]
    config = community_config(tmp_path, test_tape=False, record_epsilon=250.0, **more)
    planned = plan_arms(config, plan)
    assert set(lines) == set(planned) == {"perturbed", "federated", TOGETHER}
    for arm, line in lines.items():
        assert line["record_epsilon_max"] == planned[arm].record_epsilon
        assert line["record_epsilon_at_delta"] == planned[arm].record_epsilon_at_delta
        assert line["guarantee"] == planned[arm].guarantee
        assert line["delta"] == 1e-6
        assert EARLIER_RUNS in line["uncharged"]
    assert lines["perturbed"]["record_epsilon_max"] == plan.record_epsilon
    assert lines["perturbed"]["record_epsilon_at_delta"] == plan.record_epsilon_at_delta
    assert lines[TOGETHER]["record_epsilon_at_delta"] == pytest.approx(
        lines["federated"]["record_epsilon_at_delta"] + plan.record_epsilon
    )


@pytest.mark.parametrize(
    ("sharing", "mechanism"),
    [
        ("perturbed,federated", "rank and dp-sgd"),
        ("federated,synthetic", "dp-sgd"),
    ],
)
def test_what_ways_give_away_together_names_its_mechanisms_and_neighbours(
    tmp_path, sharing, mechanism
):
    found, _ = stated(tmp_path, sharing=sharing, noise_multiplier=2.0)
    worst = found["worst_arm"]
    assert worst["arm"] == TOGETHER
    assert worst["mechanism"] == mechanism
    assert worst["adjacency"].endswith(TRAINING_ADJACENCY)
