"""Communities through `flwr run` on Ray give what they give in this process."""

import json

import pytest

import client_app
import server_app
from fedcot.launch import launch
from tests.communities import community_config
from tests.deployment.models import save_tiny_model
from tests.fakes import node_configs
from tests.grid import LocalGrid
from tests.invariant.test_equivalence import adapters_of

pytestmark = pytest.mark.ray


def measured(run) -> dict:
    summary = json.loads((run.path / "summary.json").read_text())
    for student in summary["community"]["students"].values():
        student.pop("seconds", None)
    names = ("status", "failures", "accuracy", "rationale_validity", "community")
    return {name: summary[name] for name in names}


def test_ray_and_this_process_give_the_same_bytes(tmp_path):
    settings = {
        # The built-in provider is right often enough that there is something to learn.
        "student": str(save_tiny_model(tmp_path / "model")),
        "communities": "library,bakery",
        "sharing": "pooled,federated",
        "num_records": 16,
        "test_records": 2,
        "max_new_tokens": 80,
        "phase_timeout": 240.0,
    }
    # Paths of one length: they are in what is sent, and its bytes are counted.
    config = community_config(tmp_path / "rays", **settings)
    outcome = launch(config, num_supernodes=2)
    assert outcome.exit_code == 0, outcome.reason
    on_ray = server_app.RunDirectory(outcome.run_dir)

    config = community_config(tmp_path / "here", **settings)
    grid = LocalGrid(client_app.app, node_configs(2), config.to_run_config())
    here = server_app.run(grid, config)

    assert measured(on_ray) == measured(here)
    assert measured(here)["status"] == "completed"
    assert measured(here)["failures"] == []
    assert adapters_of(on_ray) == adapters_of(here)
    # Three coalitions, pooled, federated and answers alone; and one control.
    assert len(adapters_of(here)) == 3 * 3 + 1
    traces = measured(here)["community"]["traces"]
    assert all(traces[name]["offered"]["library+bakery"] > 0 for name in traces)
