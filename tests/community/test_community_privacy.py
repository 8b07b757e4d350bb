"""What the summary of a run of communities says about privacy."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from fedcot.budget import plan_run
from fedcot.mechanism import configured_channel
from strategies.community_privacy import OFFERED, community_privacy
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


def test_earlier_deltas_are_stated(tmp_path):
    _, plan = stated(tmp_path, sharing="perturbed")
    state = {"charged": {0: 2 * plan.charge}, "charged_delta": {0: 1e-7}}
    line = stated(tmp_path, state, sharing="perturbed")[0]["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == math.inf
    assert line["record_epsilon_at_delta"] == 2 * plan.charge


@pytest.mark.parametrize("sharing", ["perturbed", "perturbed,federated"])
def test_a_record_that_went_out_before_has_no_bound(tmp_path, sharing):
    found, _ = stated(
        tmp_path, {"charged": {0: math.inf}}, sharing=sharing, noise_multiplier=2.0
    )
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == math.inf
    assert line["record_epsilon_at_delta"] == math.inf


def test_trainings_beside_them_are_no_epsilon_of_perturbed_questions(tmp_path):
    """These stand in a line of their own."""
    _, plan = stated(tmp_path, sharing="perturbed")
    found, _ = stated(
        tmp_path,
        {"charged": {0: plan.charge + 3.0}},
        sharing="perturbed,federated",
        noise_multiplier=2.0,
    )
    line = found["per_arm"]["perturbed"]
    assert line["record_epsilon_max"] == plan.record_epsilon
