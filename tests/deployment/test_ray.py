"""The whole app through `flwr run` on Ray gives what it gives in this process."""

import json

import pytest

import client_app
import server_app
from fedcot.launch import launch
from tests.deployment.models import save_tiny_model
from tests.fakes import node_configs, tiny_config
from tests.grid import LocalGrid
from tests.invariant.test_equivalence import adapters_of, losses_of, numbers_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_ray_and_this_process_give_the_same_bytes(tmp_path):
    model = str(save_tiny_model(tmp_path / "model"))
    settings = {
        "teacher": model,
        "student": model,
        "arms": "standalone,distil,fedcot",
        "num_server_rounds": 1,
        "num_records": 16,
        "phase_timeout": 120.0,
    }
    config = tiny_config(tmp_path / "ray", **settings)
    outcome = launch(config, num_supernodes=2)
    assert outcome.exit_code == 0, outcome.reason
    on_ray = server_app.RunDirectory(outcome.run_dir)

    config = tiny_config(tmp_path / "here", **settings)
    grid = LocalGrid(client_app.app, node_configs(2), config.to_run_config())
    here = server_app.run(grid, config)

    assert adapters_of(on_ray) == adapters_of(here)
    assert len(adapters_of(here)) == 6
    assert numbers_of(on_ray) == numbers_of(here)
    assert losses_of(on_ray) == losses_of(here)
    codes = [
        json.loads((run.path / "config.json").read_text())["code_hash"]
        for run in (on_ray, here)
    ]
    assert codes[0] == codes[1]
