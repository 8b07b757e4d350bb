"""Runs whose students are tuned in full: whole models are sent, averaged and kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fedcot.cli import main
from fedcot.node_training import student_base, training_settings
from fedcot.records import TRAIN_DISTILL, DistillReply
from fedcot.student.base import new_adapter
from fedcot.student.training import load_adapter
from tests.fakes import (
    federate,
    rows_of,
    summary_of,
    tiny_config,
    tiny_world,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("tiny_world")
TUNED = {"tuning": "full", "learning_rate": 1e-3, "records_per_round": 8}


def sent_by_round(grid, arm: str) -> list[dict[int, dict[str, np.ndarray]]]:
    """Return what clients sent, by partition, of each round."""
    rounds: list[dict[int, dict[str, np.ndarray]]] = [{}]
    for kind, content in grid.replies:
        if kind == TRAIN_DISTILL:
            reply = DistillReply.decode(content)
            if reply.partition_id in rounds[-1]:
                rounds.append({})
            rounds[-1][reply.partition_id] = reply.adapters[arm]
    return rounds


def own_weights(config) -> dict[str, torch.Tensor]:
    base = student_base(config)
    return {n: p.detach().clone() for n, p in base.model.named_parameters()}


def test_the_mean_of_models_is_weighted_by_rationales(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "a", arms="zero-shot,fedcot", aggregation="fedavg", **TUNED
    )
    before = own_weights(config)
    run, grid = federate(config)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["failures"] == []
    rounds = sent_by_round(grid, "fedcot")
    assert [sorted(sent) for sent in rounds] == [[0, 1, 2]] * 2
    weights = {
        row["partition"]: row["num_pairs"] - row["num_unparsable"]
        for row in rows_of(run, phase="distil", arm="fedcot", round=2)
    }
    assert len(set(weights.values())) > 1
    mean = load_adapter(run.path / "adapters" / "fedcot" / "global")
    assert mean.keys() == before.keys()
    total = sum(weights.values())
    for name, tensor in mean.items():
        parts = [rounds[1][p][name].astype(np.float64) for p in range(3)]
        # Each is another model than the other two, and than the base.
        assert not np.array_equal(parts[0], parts[1])
        expected = sum(weights[p] * parts[p] for p in range(3)) / total
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-7, atol=1e-7)
    after = own_weights(config)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Clients went on from the mean of the first round, not each from its own.
    first = [
        np.concatenate([t.ravel() for t in c.values()]) for c in rounds[0].values()
    ]
    second = [
        np.concatenate([t.ravel() for t in c.values()]) for c in rounds[1].values()
    ]
    middle = np.mean(first, axis=0)
    for own, later in zip(first, second, strict=True):
        assert np.linalg.norm(later - middle) < np.linalg.norm(later - own)


def test_personal_models_stay_and_are_handed_on_as_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(
        tmp_path / "a", arms="standalone", num_server_rounds=1, **TUNED
    )
    run, grid = federate(config, count=2)
    assert summary_of(run)["failures"] == []
    for kind, content in grid.replies:
        if kind == TRAIN_DISTILL:
            assert not DistillReply.decode(content).adapters
    folder = run.path / "adapters" / "standalone" / "partition-1"
    card = (folder / "README.md").read_text()
    assert "All of its weights were tuned" in card
    assert "base_model_relation: finetune" in card
    assert "library_name: transformers" in card
    assert "AutoModelForCausalLM.from_pretrained" in card
    assert "* tuning: `full`" in card
    assert "lora" not in card.lower()
    command = ["export", "merged", str(run.path), "--arm", "standalone"]
    command += ["--partition", "1", "--output", str(tmp_path / "model")]
    code, out, _ = call(capsys, [*command, "--json"])
    assert code == 0
    assert json.loads(out) == {"model": str(tmp_path / "model"), "untied": False}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for name, tensor in load_adapter(folder).items():
        assert torch.equal(model.get_parameter(name), tensor)
    assert (tmp_path / "model" / "README.md").read_text() == card
    assert not list(tmp_path.glob(".model*"))
    code, _, err = call(capsys, command)
    assert code == 2
    assert "`--output`" in err
    other = [*command[:-1], str(tmp_path / "other")]
    code, _, err = call(capsys, [*other, "--base", str(tmp_path)])
    assert code == 2
    assert "`--base` must be left out" in err
    code, out, _ = call(capsys, other)
    assert code == 0
    assert "tuned in full" in out


def call(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, printed.out, printed.err


def test_noise_of_the_server_is_added_to_the_mean_of_models(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "a",
        arms="fedcot",
        aggregation="fedavg",
        server_noise_multiplier=0.3,
        server_clipping_norm=0.5,
        num_server_rounds=1,
        **TUNED,
    )
    run, grid = federate(config)
    assert summary_of(run)["failures"] == []
    mean = load_adapter(run.path / "adapters" / "fedcot" / "global")
    start = new_adapter(student_base(config), training_settings(config), seed=0)
    (sent,) = sent_by_round(grid, "fedcot")
    names = sorted(mean)
    updates = [
        np.concatenate([(c[n] - start[n].numpy()).ravel() for n in names])
        for c in sent.values()
    ]
    clipped = sum(u * min(1.0, 0.5 / np.linalg.norm(u)) for u in updates) / 3
    moved = np.concatenate([(mean[n] - start[n]).numpy().ravel() for n in names])
    noise = moved - clipped
    # Multiplier x norm / clients.
    assert np.std(noise) == pytest.approx(0.3 * 0.5 / 3, rel=0.03)
    assert abs(np.mean(noise)) < 5 * np.std(noise) / np.sqrt(noise.size)
