"""A merged model computes what base and adapter compute, without PEFT."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedcot.cli import main
from fedcot.errors import ConfigError, FedcotError
from fedcot.models import merging
from fedcot.models.merging import merge_adapter
from fedcot.models.sources import artefact_hash
from fedcot.student.base import TrainingSettings, load_base, new_adapter
from fedcot.student.training import save_adapter
from tests.models.kinds import tiny_kind
from tests.models.word_models import word_model
from tests.report.test_model_card import entry, finished, made


def save_base(folder: Path, kind: str) -> Path:
    if kind == "tied":
        return word_model(folder, "llama")
    loaded = tiny_kind(kind)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def save_random_adapter(base: Path, folder: Path, targets: str) -> Path:
    loaded = load_base(str(base))
    settings = TrainingSettings(lora_r=4, target_modules=targets)
    generator = torch.Generator().manual_seed(1)
    adapter = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in new_adapter(loaded, settings, seed=0).items()
    }
    save_adapter(loaded, adapter, settings, folder)
    return folder


def logits(model: torch.nn.Module, rows: int) -> torch.Tensor:
    ids = torch.arange(3, 33).reshape(2, 15) % rows
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    with torch.inference_mode():
        return model(**inputs).logits


@pytest.mark.parametrize(
    ("kind", "targets", "unties"),
    [
        ("tied", "all-linear,embeddings", True),
        ("tied", "all-linear", False),
        ("llama", "all-linear,embeddings", False),
        ("gpt2", "all-linear,embeddings", False),
        ("t5", "all-linear", False),
        ("bart", "auto", False),
    ],
)
def test_logits_are_those_of_base_and_adapter(tmp_path, kind, targets, unties) -> None:
    base = save_base(tmp_path / "base", kind)
    adapter = save_random_adapter(base, tmp_path / "adapter", targets)
    found = merge_adapter(str(base), adapter, tmp_path / "merged", card="# A card\n")
    assert found is unties
    seq2seq = kind in ("t5", "bart")
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    plain = auto.from_pretrained(base).eval()
    rows = plain.get_input_embeddings().weight.shape[0]
    before = logits(plain, rows)
    expected = logits(PeftModel.from_pretrained(plain, adapter).eval(), rows)
    merged = logits(auto.from_pretrained(tmp_path / "merged").eval(), rows)
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-4)
    assert (expected - before).abs().max() > 0.1
    assert (tmp_path / "merged" / "README.md").read_text() == "# A card\n"
    assert not list(tmp_path.glob("merged/*.bin")) + list(tmp_path.glob("merged/ad*"))
    text = "girl played"
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")(text).input_ids == (
        AutoTokenizer.from_pretrained(base)(text).input_ids
    )
    # The base that others of this process share is as it was.
    shared = load_base(str(base)).model
    assert not any("lora" in name for name, _ in shared.named_parameters())
    torch.testing.assert_close(logits(shared, rows), before, rtol=1e-5, atol=1e-4)


def test_without_untying_the_logits_would_be_others(tmp_path, monkeypatch) -> None:
    """The check of what was written finds it, and nothing is left behind."""
    base = save_base(tmp_path / "base", "tied")
    adapter = save_random_adapter(base, tmp_path / "adapter", "embeddings")
    monkeypatch.setattr(merging, "_untie", lambda model: False)
    with pytest.raises(FedcotError, match="other logits"):
        merge_adapter(str(base), adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_matrix_that_encoder_and_decoder_share_is_refused(tmp_path, kind) -> None:
    loaded = save_base(tmp_path / "base", kind)
    adapter = save_random_adapter(loaded, tmp_path / "adapter", "embeddings")
    with pytest.raises(ConfigError, match="share") as caught:
        merge_adapter(str(loaded), adapter, tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_another_base_is_refused(tmp_path) -> None:
    base = save_base(tmp_path / "base", "tied")
    adapter = save_random_adapter(base, tmp_path / "adapter", "all-linear")
    right = artefact_hash(str(base), "student")
    other = save_base(tmp_path / "other", "llama")
    with pytest.raises(ConfigError, match=f"{right}.*found"):
        merge_adapter(str(other), adapter, tmp_path / "merged", base_hash=right)
    with pytest.raises(ConfigError, match="must fit the adapter"):
        merge_adapter(str(other), adapter, tmp_path / "merged")
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="--output"):
        merge_adapter(str(base), adapter, tmp_path / "there")
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no adapter_model"):
        merge_adapter(str(base), adapter, tmp_path / "merged")
    name = next(iter(weights))
    save_file(
        {**weights, name: weights[name] * torch.nan}, adapter / merging.ADAPTER_WEIGHTS
    )
    with pytest.raises(FedcotError, match="no numbers"):
        merge_adapter(str(base), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_the_command_merges_an_adapter_of_a_run(tmp_path, capsys) -> None:
    base = save_base(tmp_path / "base", "tied")
    run = tmp_path / "run"
    place = run / "adapters" / "fedcot" / "partition-1"
    place.mkdir(parents=True)
    save_random_adapter(base, place, "all-linear,embeddings")
    config = made(student=str(base))
    config["artefacts"]["student"] = artefact_hash(str(base), "student")
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(finished(fedcot=entry(8.0))))
    command = ("export", "merged", run, "--arm", "fedcot", "--output", tmp_path / "new")
    code, out, _ = call(capsys, *command, "--partition", 1, "--json")
    assert code == 0
    assert json.loads(out) == {"model": str(tmp_path / "new"), "untied": True}
    card = (tmp_path / "new" / "README.md").read_text()
    assert "client 1" in card
    assert "library_name: transformers" in card
    assert str(tmp_path) not in card
    for more, named in (
        ((), "--partition"),
        (("--partition", 1, "--global"), "--partition"),
        (("--partition", 0), "adapter_config.json"),
        (("--global",), "adapter_config.json"),
        (("--partition", 1), "--output"),
    ):
        output = tmp_path / "new" if named == "--output" else tmp_path / "x"
        code, _, err = call(
            capsys,
            "export",
            "merged",
            run,
            "--arm",
            "fedcot",
            "--output",
            output,
            *more,
        )
        assert code == 2
        assert named in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_the_command_merges_the_student_of_a_coalition(tmp_path, capsys) -> None:
    base = save_base(tmp_path / "base", "tied")
    run = tmp_path / "run"
    place = run / "adapters" / "pooled" / "library+bakery"
    place.mkdir(parents=True)
    save_random_adapter(base, place, "all-linear")
    config = made(student=str(base), mode="community")
    (run / "config.json").write_text(json.dumps(config | {"artefacts": {}}))
    community = {"coalitions": ["library", "library+bakery"], "students": {}}
    summary = {**finished(pooled=entry("inf")), "community": community}
    (run / "summary.json").write_text(json.dumps(summary))
    output = tmp_path / "new"
    command = ("export", "merged", run, "--arm", "pooled", "--output", output)
    code, _, err = call(capsys, *command, "--coalition", "../../x")
    assert code == 2
    assert "`--coalition` must be one of the run" in err
    assert "library, library+bakery" in err
    code, _, err = call(capsys, *command, "--coalition", "library", "--global")
    assert code == 2
    assert "found 2" in err
    code, _, err = call(capsys, *command, "--coalition", "library+bakery")
    assert code == 0, err
    assert "coalition library+bakery" in (output / "README.md").read_text()
    assert (output / "model.safetensors").is_file()
