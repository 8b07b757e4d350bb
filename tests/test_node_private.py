"""A node charges its ledger before it trains by DP-SGD what it sends."""

from dataclasses import replace

import pytest

from fedcot import node_private
from fedcot.errors import ConfigError
from fedcot.node import Node
from fedcot.node_state import Owner
from fedcot.privacy.ledger import Ledger
from tests.fakes import tiny_config, tiny_world  # noqa: F401
from tests.test_node import deployed_owner, distil_request, request

NOISED = {
    "aggregation": "fedavg",
    "pairing": "original",
    "noise_multiplier": 2.0,
    "test_tape": False,
}


def trained_on(monkeypatch) -> list[int]:
    """Return a list that gets the number of real records of each training."""
    seen: list[int] = []
    plain = node_private.train_adapter_privately

    def watched(base, records, settings, **given):
        seen.append(sum(bool(record) for record in records))
        return plain(base, records, settings, **given)

    monkeypatch.setattr(node_private, "train_adapter_privately", watched)
    return seen


@pytest.mark.usefixtures("tiny_world")
def test_a_deployed_node_sends_what_it_charged_for(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, **NOISED)
    owner = deployed_owner(tmp_path / "state", **{"max-record-epsilon": 1e6})
    node, seen = Node(config, owner), trained_on(monkeypatch)
    asked = node.perturb(request(""))
    keys = [prompt.record_key for prompt in asked.prompts]
    reply = node.distil(distil_request("", keys))
    assert "fedcot" in reply.adapters
    assert seen[0] > 0
    with Ledger(owner.folder("") / "ledger", record_epsilon=1e6) as ledger:
        totals = ledger.totals()
        spent = [ledger.spent(key) for key in node._keys(ledger)]
    assert totals.exposed == 0
    cost = node._training(distil_request("")).private.epsilon(len(node.partition.train))
    assert 0 < cost < float("inf")
    assert max(spent) == pytest.approx(asked.prompt_epsilon + cost, abs=1e-6)
    # Delivered again: nothing is trained and nothing is charged.
    again = node.distil(distil_request("", keys))
    with Ledger(owner.folder("") / "ledger", record_epsilon=1e6) as ledger:
        assert [ledger.spent(key) for key in node._keys(ledger)] == spent
    assert len(seen) == 1
    for name, tensor in reply.adapters["fedcot"].items():
        assert (again.adapters["fedcot"][name] == tensor).all()


@pytest.mark.usefixtures("tiny_world")
def test_records_that_may_not_be_charged_do_not_train(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, **NOISED)
    owner = deployed_owner(tmp_path / "state", **{"max-record-epsilon": 1e-3})
    node, seen = Node(config, owner), trained_on(monkeypatch)
    reply = node.distil(distil_request(""))
    assert seen == [0]
    assert "fedcot" in reply.adapters
    with Ledger(owner.folder("") / "ledger", record_epsilon=1e-3) as ledger:
        assert {ledger.spent(key) for key in node._keys(ledger)} == {0.0}


@pytest.mark.usefixtures("tiny_world")
def test_the_server_cannot_choose_a_delta_that_makes_training_free(
    tmp_path, monkeypatch
):
    config = tiny_config(tmp_path, **NOISED, delta=0.97)
    owner = deployed_owner(tmp_path / "state", **{"max-record-epsilon": 1e6})
    seen = trained_on(monkeypatch)
    with pytest.raises(ConfigError, match="`delta` must be at most the node's"):
        Node(config, owner).distil(distil_request(""))
    # Refused before anything was charged or written.
    assert not (tmp_path / "state").exists()
    assert seen == []
    # Nothing is trained privately: the delta is of no use here.
    free = tiny_config(tmp_path, test_tape=False, delta=0.97)
    Node(free, owner).distil(distil_request(""))


@pytest.mark.usefixtures("tiny_world")
def test_runs_add_up_to_the_owner_s_limit_of_deltas(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, **NOISED)
    limits = {"max-record-epsilon": 1e6, "max-record-delta": 2e-6}
    owner = deployed_owner(tmp_path / "state", **limits)
    seen = trained_on(monkeypatch)
    stated = []
    for run in ("a", "b", "c"):
        node = Node(config, owner)
        stated.append(node.perturb(request("", run_key=run * 16)).spent_record_delta)
        node.distil(replace(distil_request(""), run_key=run * 16))
    assert stated == pytest.approx([0.0, 1e-6, 2e-6], abs=1e-14)
    assert stated[0] == 0.0
    assert seen[0] == seen[1] > 0
    assert seen[2] == 0


@pytest.mark.usefixtures("tiny_world")
def test_a_simulated_node_trains_at_the_settings_delta_in_ten_runs(tmp_path):
    config = tiny_config(tmp_path, **NOISED)
    assert config.delta == 1e-6
    settings = {"partition-id": 0, "num-partitions": 2, "simulation": True}
    node = Node(config, Owner.from_node_config(settings))
    private = node._training(distil_request(str(tmp_path))).private
    with node._ledger(str(tmp_path)) as ledger:
        keys = node._keys(ledger)
        names = {key: key for key in keys}

        def charge(run):
            return private.charge(
                ledger,
                names,
                num_records=len(keys),
                run=run,
                trainings=["dp-sgd fedcot"],
            )

        assert all(charge(str(run)) == set(keys) for run in range(10))
        assert charge("one more") == set()
