"""Models are found by name or folder, and named in one line where they are not."""

from pathlib import Path

import pytest

from fedcot.errors import ConfigError
from fedcot.models import sources
from fedcot.models.loading import load_model
from fedcot.models.sources import artefact_hash, model_folder, split_revision
from fedcot.models.tokenizer import build_tokenizer
from tests.tiny import tiny_base


def _save(folder: Path, seed: int = 0) -> None:
    base = tiny_base(seed)
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("role", ["teacher", "student", "public-lm"])
def test_the_built_in_models_are_there(role: str) -> None:
    assert (model_folder("builtin", role) / "model.safetensors").is_file()


@pytest.mark.parametrize("role", ["in-context-teacher", "in-context-student"])
def test_the_in_context_pair_lies_beside_them(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "builtin_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="fedcot pretrain") as caught:
        model_folder("builtin", role)
    assert f"the built-in model `{role}`" in str(caught.value)
    folder = tmp_path / role.replace("-", "_")
    _save(folder)
    assert model_folder("builtin", role) == folder
    assert artefact_hash("builtin", role) == artefact_hash(str(folder), "student")


@pytest.mark.parametrize("source", ["/nowhere/model", "./nowhere", "nowhere"])
def test_a_missing_folder_is_one_clear_line(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model_folder(source, "teacher")
    message = str(caught.value)
    assert "no such model folder" in message
    assert source in message
    assert "\n" not in message


def test_a_hub_id_that_cannot_be_fetched_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="no such Hugging Face model"):
        model_folder("nobody/no-such-model", "student")


def test_a_local_folder_is_loaded_with_its_tokenizer(tmp_path: Path) -> None:
    _save(tmp_path)
    loaded = load_model(str(tmp_path), "student")
    assert loaded.tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert load_model(str(tmp_path), "student") is loaded


def test_the_hash_changes_with_the_weights_and_not_with_the_place(
    tmp_path: Path,
) -> None:
    places = [tmp_path / name for name in ("one", "two", "three")]
    for place, seed in zip(places, (0, 0, 1), strict=True):
        _save(place, seed)
    one, two, three = (artefact_hash(str(place), "student") for place in places)
    assert one == two
    assert one != three


def test_what_decides_the_prompts_is_part_of_the_hash(tmp_path: Path) -> None:
    _save(tmp_path)
    before = artefact_hash(str(tmp_path), "student")
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with_template = artefact_hash(str(tmp_path), "student")
    (tmp_path / "README.md").write_text("Says nothing to the model.")
    assert with_template != before
    assert artefact_hash(str(tmp_path), "student") == with_template


@pytest.mark.parametrize(
    ("source", "name", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name@main", "owner/name", "main"),
        ("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
    ],
)
def test_a_hub_id_may_name_a_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source, name, revision
) -> None:
    asked = []

    def fetch(repository: str, **given) -> str:
        asked.append((repository, given["revision"], given["local_files_only"]))
        return str(tmp_path)

    _save(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert split_revision(source) == (name, revision)
    assert model_folder(source, "student") == tmp_path
    assert model_folder(source, "student", fetch=False) == tmp_path
    assert asked == [(name, revision, False), (name, revision, True)]


@pytest.mark.parametrize("source", ["~/models", "owner/name@", "a/b/c", "./a"])
def test_what_is_no_hub_id_is_never_fetched(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ConfigError, match="no such model folder"):
        model_folder(source, "student")
