"""Communities with students of other kinds: encoder-decoders, and tuned in full."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fedcot import node_training
from fedcot.community.messages import TRAIN_COALITION, CoalitionTrainReply
from fedcot.models.loading import LoadedModel, load_model
from fedcot.student.training import load_adapter
from tests.communities import (
    NAMES,
    adding_provider,  # noqa: F401
    community_config,
    gather,
)
from tests.fakes import rows_of, summary_of, tiny_world  # noqa: F401
from tests.tiny_architectures import save_architecture

GRAND = "+".join(NAMES)


@pytest.fixture(name="encoder_decoder")
def tiny_t5(
    provider: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoadedModel]:
    """Put a T5 where the runs of the tests have a Llama."""
    base = load_model(
        save_architecture("t5", tmp_path / "t5", initializer_range=0.2), "student"
    )
    monkeypatch.setattr(node_training, "load_base", lambda source, options: base)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    yield base
    after = base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_coalition_distils_an_encoder_decoder(
    tmp_path, provider, encoder_decoder, tuning
):
    config = community_config(
        tmp_path / "a",
        sharing="pooled,federated",
        tuning=tuning,
        learning_rate=1e-3,
        hold_out=2,
        coalitions="grand",
        controls="none",
        test_records=2,
        max_new_tokens=2,
    )
    run, grid = gather(config, provider)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["failures"] == []
    students = summary["community"]["students"]
    for arm in ("pooled", "federated"):
        assert set(students[f"{arm}.{GRAND}"]["own"]) == set(NAMES)
    check_mean(run, grid)
    folder = run.path / "adapters" / "pooled" / GRAND
    card = (folder / "README.md").read_text()
    assert "text2text-generation" in card
    assert "AutoModelForSeq2SeqLM" in card
    found = load_adapter(folder)
    assert (folder / "model.safetensors").is_file() == (tuning == "full")
    if tuning == "full":
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        assert found.keys() == dict(model.named_parameters()).keys()
        for name, parameter in encoder_decoder.model.named_parameters():
            assert torch.equal(model.get_parameter(name), found[name])
            if "relative_attention" not in name:
                assert not torch.equal(found[name], parameter), name


def check_mean(run, grid) -> None:
    weights = {
        row["partition"]: row["num_offered"][-1]
        for row in rows_of(run, phase="collect", round=1)
    }
    sent = [
        CoalitionTrainReply.decode(content)
        for kind, content in grid.replies
        if kind == TRAIN_COALITION
    ]
    assert len(sent) == len(NAMES)
    total = sum(weights.values())
    saved = load_adapter(run.path / "adapters" / "federated" / GRAND)
    for name, tensor in saved.items():
        expected = sum(
            weights[reply.partition_id]
            / total
            * reply.adapters[GRAND][name].astype(np.float64)
            for reply in sent
        )
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-7, atol=1e-7)


def test_every_coalition_has_a_model_of_its_own(tmp_path, provider):
    config = community_config(
        tmp_path / "a",
        sharing="pooled,synthetic",
        tuning="full",
        learning_rate=1e-3,
        generator_epochs=1,
        audit_members=True,
    )
    run, _ = gather(config, provider)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    # One epoch is too little for a generator: nothing that it wrote could be read.
    assert summary["failures"] == [
        f"synthetic.{label}: no student, because there was no trace to learn from"
        for label in (*NAMES, GRAND)
    ]
    contents = {}
    for label in (*NAMES, GRAND):
        folder = run.path / "adapters" / "pooled" / label
        AutoModelForCausalLM.from_pretrained(folder)
        contents[label] = (folder / "model.safetensors").read_bytes()
        card = (folder / "README.md").read_text()
        assert f"coalition {label}" in card
        assert "All of its weights were tuned" in card
    assert len(set(contents.values())) == 4
    again, _ = gather(
        community_config(
            tmp_path / "b",
            sharing="pooled",
            tuning="full",
            learning_rate=1e-3,
        ),
        provider,
    )
    for label, content in contents.items():
        place = again.path / "adapters" / "pooled" / label / "model.safetensors"
        assert place.read_bytes() == content
