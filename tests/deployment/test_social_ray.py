"""Social learning through `flwr run` on Ray gives what it gives in this process."""

import json

import pytest

import client_app
import server_app
from fedcot.config import load_config
from fedcot.launch import launch
from fedcot.social.flow import check_log
from tests.fakes import node_configs
from tests.grid import LocalGrid

pytestmark = pytest.mark.ray

SETTINGS = {
    "mode": "social",
    "task": "conversion",
    "partitioner": "iid",
    "client-model": "builtin-small",
    "prompted-student": "builtin-small",
    "num-server-rounds": 1,
    "num-records": 60,
    "hold-out": 12,
    "example-counts": "0,2",
    "samples-per-prompt": 2,
    "max-new-tokens": 24,
    "gate-distance": 0.0,
}


def measured(run) -> dict:
    summary = json.loads((run.path / "summary.json").read_text())
    check_log(summary["social"]["protocol"])
    # Messages name their run, so that their hashes are those of one run.
    for step in summary["social"]["protocol"]["steps"]:
        step["sent"] = list(step["sent"].values())
    prompts = {path.name: path.read_text() for path in run.path.glob("prompts/*.txt")}
    names = ("status", "failures", "accuracy", "social")
    return {"prompts": prompts, **{name: summary[name] for name in names}}


def test_ray_and_this_process_give_the_same_students(tmp_path):
    # Paths of one length: they are in what is sent, and its bytes are counted.
    config = load_config(None, {**SETTINGS, "run-dir": str(tmp_path / "rays")})
    outcome = launch(config, num_supernodes=2)
    assert outcome.exit_code == 0, outcome.reason
    on_ray = measured(server_app.RunDirectory(outcome.run_dir))

    config = load_config(None, {**SETTINGS, "run-dir": str(tmp_path / "here")})
    grid = LocalGrid(client_app.app, node_configs(2), config.to_run_config())
    here = measured(server_app.run(grid, config))

    for name, part in here["social"].items():
        assert on_ray["social"][name] == part, name
    assert on_ray == here
    assert here["status"] == "completed"
    assert here["failures"] == []
    # The shipped pair reads the rate off two examples, generated or private.
    assert here["accuracy"]["zero-shot"]["mean"] < 0.5
    for kind in ("original", "random", "voting", "instruction"):
        assert here["accuracy"][kind]["mean"] > 0.9
