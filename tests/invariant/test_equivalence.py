"""What must not change a result: order, repetition, and how often a run is started.

Byte equality is demanded of the adapters, which is the strictest form there is.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.fakes import (
    federate,
    tiny_config,
    tiny_world,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("tiny_world")
ARMS = "random-bank,distil,fedcot"


def adapters_of(run) -> dict[str, bytes]:
    root = run.path / "adapters"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.safetensors"))
    }


def numbers_of(run) -> dict:
    summary = json.loads((run.path / "summary.json").read_text())
    names = ("accuracy", "accuracy_by_prompt", "accuracy_deep", "rationale_validity")
    return {name: summary[name] for name in names}


def losses_of(run) -> list[dict]:
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    kept = [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows if "arm" in row
    ]
    return sorted(kept, key=lambda row: json.dumps(row, sort_keys=True))


def test_the_order_of_replies_and_the_node_ids_change_nothing(tmp_path):
    # Failure would mean that a result depends on which client was faster.
    first, _ = federate(tiny_config(tmp_path / "a", arms=ARMS), seed=0)
    second, _ = federate(tiny_config(tmp_path / "b", arms=ARMS), seed=1, late=3)
    assert adapters_of(first) == adapters_of(second)
    assert len(adapters_of(first)) == 9
    assert numbers_of(first) == numbers_of(second)
    assert losses_of(first) == losses_of(second)


def test_averaged_adapters_do_not_depend_on_the_order_of_replies(tmp_path):
    settings = {"arms": "fedcot", "aggregation": "fedavg", "num_server_rounds": 1}
    first, _ = federate(tiny_config(tmp_path / "a", **settings), seed=0)
    second, _ = federate(tiny_config(tmp_path / "b", **settings), seed=2, late=2)
    shared = {
        name: data for name, data in adapters_of(first).items() if "global" in name
    }
    assert len(shared) == 1
    assert adapters_of(first) == adapters_of(second)


def test_one_seed_gives_one_result_for_arms_without_privacy(tmp_path):
    # Draws come from the operating system here, and must reach the arm fedcot only.
    runs = [
        federate(
            tiny_config(
                tmp_path / name,
                arms="standalone,distil,fedcot",
                num_server_rounds=1,
                test_tape=False,
            ),
            count=2,
        )[0]
        for name in ("a", "b")
    ]
    kept = [
        {n: d for n, d in adapters_of(run).items() if not n.startswith("fedcot/")}
        for run in runs
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 4
    other, _ = federate(
        tiny_config(tmp_path / "c", arms="standalone", num_server_rounds=1, seed=1),
        count=2,
    )
    standalone = {n: d for n, d in kept[0].items() if n.startswith("standalone/")}
    assert adapters_of(other).keys() == standalone.keys()
    assert adapters_of(other) != standalone


def test_a_private_arm_repeats_from_the_stored_releases(tmp_path):
    settings = {"arms": "fedcot", "num_server_rounds": 1, "test_tape": False}
    first, _ = federate(tiny_config(tmp_path / "a", **settings), count=2)
    for ledger in Path(first.path).glob("nodes/*/ledger"):
        shutil.copytree(ledger, tmp_path / "b" / ledger.relative_to(first.path))
    again, _ = federate(tiny_config(tmp_path / "b", **settings), count=2)
    fresh, _ = federate(tiny_config(tmp_path / "c", **settings), count=2)
    assert adapters_of(again) == adapters_of(first)
    assert adapters_of(fresh) != adapters_of(first)


def test_an_arm_does_not_depend_on_which_other_arms_run(tmp_path):
    settings = {"num_server_rounds": 1}
    alone, _ = federate(tiny_config(tmp_path / "a", arms="fedcot", **settings), count=2)
    among, _ = federate(tiny_config(tmp_path / "b", arms=ARMS, **settings), count=2)
    kept = {n: d for n, d in adapters_of(among).items() if n.startswith("fedcot/")}
    assert adapters_of(alone) == kept


def test_saved_adapters_give_the_scores_of_the_summary_again(tmp_path, monkeypatch):
    from fedcot.evaluation.evaluate import evaluate_student
    from fedcot.node_training import training_settings
    from fedcot.student.training import load_adapter
    from fedcot.tasks.world import WorldTask
    from tests.fakes import fake_partition
    from tests.tiny import tiny_base

    config = tiny_config(tmp_path / "a", arms="standalone", local_epochs=60)
    run, _ = federate(config, count=1)
    score = evaluate_student(
        tiny_base(),
        fake_partition(config, 0, 1).test,
        adapter=load_adapter(run.adapter_folder("standalone", 0)),
        settings=training_settings(config),
        prompt="predict",
        task=WorldTask(),
        batch_size=config.evaluation_batch_size,
    )
    reported = numbers_of(run)["accuracy"]["standalone"]
    # Something was learnt, so the base alone would not pass.
    assert reported["mean"] > 0
    assert score.exact_match / score.n == reported["mean"]
