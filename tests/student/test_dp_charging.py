"""What a node's DP-SGD is charged, to each record, and where its noise comes from."""

import dataclasses

import numpy as np
import pytest

from fedcot import node_private
from fedcot.config import RunConfig
from fedcot.node_private import PrivateTraining
from fedcot.privacy.ledger import Ledger

CONFIG = RunConfig(
    token_epsilon=8.0,
    aggregation="fedavg",
    pairing="original",
    noise_multiplier=2.0,
    num_server_rounds=2,
    records_per_round=4,
    local_epochs=1,
    batch_size=2,
)


def test_every_training_is_charged_to_every_record_that_takes_part(tmp_path):
    private = PrivateTraining(CONFIG, partition_id=0)
    cost = private.epsilon(8)
    assert 0 < cost < 100
    with Ledger(tmp_path, record_epsilon=2.5 * cost) as ledger:
        keys = ledger.record_keys(["one", "two", "three"])
        names = dict(zip("abc", keys, strict=True))

        def charge(run, trainings, which="ab"):
            taking_part = {name: names[name] for name in which}
            return private.charge(
                ledger, taking_part, num_records=8, run=run, trainings=trainings
            )

        assert charge("first", ["fedcot"]) == {"a", "b"}
        assert charge("first", ["fedcot"]) == {"a", "b"}  # asked again, paid once
        assert ledger.spent(keys[0]) == pytest.approx(cost, abs=1e-8)
        assert charge("second", ["fedcot"]) == {"a", "b"}
        assert ledger.spent(keys[1]) == pytest.approx(2 * cost, abs=1e-8)
        assert ledger.totals().max_delta == pytest.approx(2 * CONFIG.delta)
        # Two of them have nothing left for a third; the other one pays for both arms.
        assert charge("third", ["fedcot", "standalone"], "abc") == {"c"}
        assert [ledger.spent(key) for key in keys] == pytest.approx(
            [2 * cost] * 3, abs=1e-8
        )


def test_noise_is_the_system_s_unless_a_test_asks_for_a_tape(monkeypatch):
    given = []
    monkeypatch.setattr(
        node_private,
        "train_adapter_privately",
        lambda *_, source, **__: given.append(source),
    )

    def noise(*, tape=False, partition=0, arm="fedcot", server_round=1):
        config = dataclasses.replace(CONFIG, test_tape=tape)
        PrivateTraining(config, partition_id=partition).train(
            arm,
            [[]] * 4,
            base=None,
            settings=None,
            server_round=server_round,
            seed=0,
            adapter=None,
        )
        source = given[-1]
        assert source.private == (not tape)
        return tuple(source.below(np.full(8, 2**40)).tolist())

    assert noise() != noise()
    first = noise(tape=True)
    assert first == noise(tape=True)
    # Two adapters with the same noise would show the difference of their gradients.
    others = {
        noise(tape=True, partition=1),
        noise(tape=True, arm="standalone"),
        noise(tape=True, server_round=2),
    }
    assert len({first, *others}) == 4
