"""A node charges its ledger before it trains by DP-SGD what it sends."""

import pytest

from fedcot.node import Node
from fedcot.privacy.ledger import Ledger
from fedcot.student import dp
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
    plain = dp.train_adapter_privately

    def watched(base, records, settings, **given):
        seen.append(sum(bool(record) for record in records))
        return plain(base, records, settings, **given)

    monkeypatch.setattr(dp, "train_adapter_privately", watched)
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
