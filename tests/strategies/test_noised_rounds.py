"""Whole runs with noise on what clients send, or on its mean."""

import json

import numpy as np
import pytest

from fedcot.student.base import is_random_half
from fedcot.student.training import load_adapter
from strategies.client_privacy import starting_adapter
from tests.fakes import federate, tiny_config, tiny_world  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_world")
AVERAGED = {"arms": "fedcot", "aggregation": "fedavg", "test_tape": False}


def summary_of(run):
    return json.loads((run.path / "summary.json").read_text())


def test_adapters_by_dp_sgd_have_a_finite_epsilon(tmp_path):
    config = tiny_config(
        tmp_path / "a",
        **AVERAGED,
        pairing="original",
        noise_multiplier=4.0,
        record_epsilon=1000.0,
        num_partitions=3,
    )
    run, _ = federate(config)
    summary = summary_of(run)
    assert summary["status"] == "completed"
    assert summary["failures"] == []
    line = summary["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == "inf"  # no pure epsilon exists
    assert 0 < line["record_epsilon_at_delta"] < 172
    assert (run.path / "adapters" / "fedcot" / "global").is_dir()


def test_a_noised_mean_is_handed_out_and_keeps_the_frozen_half(tmp_path):
    config = tiny_config(
        tmp_path / "a",
        **AVERAGED,
        server_noise_multiplier=1.0,
        freeze_lora_a=True,
    )
    run, _ = federate(config)
    assert summary_of(run)["status"] == "completed"
    mean = load_adapter(run.path / "adapters" / "fedcot" / "global")
    for name, start in starting_adapter(config).items():
        same = np.array_equal(mean[name].numpy(), start)
        assert same == is_random_half(name)
        if not same:
            # Noise of 1 over three clients and two rounds, far above any update.
            assert 0.2 < np.std(mean[name].numpy()) < 1.0
