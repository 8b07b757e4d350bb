"""The run directory: where it goes, what it refuses, and that results are whole."""

import json
import os
from pathlib import Path

import pytest

from fedcot import provenance
from fedcot.errors import ConfigError
from fedcot.runs import RunDirectory, new_run_key, write_json


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEDCOT_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_default_run_gets_a_new_folder_and_latest_points_to_it(root):
    first = RunDirectory.create(name="main-job")
    assert first.path.parent == root
    assert first.path.name.endswith("-main-job")
    assert (root / "latest").resolve() == first.path
    second = RunDirectory.create(name="main-job")
    assert second.path != first.path
    assert (root / "latest").resolve() == second.path
    # A relative link still works after the folder was moved.
    assert not (root / "latest").readlink().is_absolute()


def test_without_a_variable_runs_go_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDCOT_RUNS_DIR")
    monkeypatch.chdir(tmp_path)
    assert RunDirectory.create(name="a").path.parent == tmp_path / "runs"


def test_a_folder_elsewhere_leaves_latest_alone(root, tmp_path):
    RunDirectory.create(str(tmp_path / "elsewhere" / "a"))
    assert not (root / "latest").exists()


def test_a_real_folder_called_latest_is_left_alone(root):
    (root / "latest").mkdir(parents=True)
    RunDirectory.create(name="a")
    assert not (root / "latest").is_symlink()


def test_a_path_that_is_a_file_is_refused_and_kept(tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(ConfigError, match=r"`run-dir` must be a folder"):
            RunDirectory.create(str(path))
    assert file.read_text() == "mine"


def test_an_earlier_run_is_not_overwritten(tmp_path):
    run = RunDirectory.create(str(tmp_path / "a"))
    run.write_config({"seed": 1})
    with pytest.raises(ConfigError, match="earlier run"):
        RunDirectory.create(str(tmp_path / "a"))
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 1}


def test_a_deleted_current_folder_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOT_RUNS_DIR", "")
    gone = tmp_path / "gone"
    gone.mkdir()
    before = Path.cwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(ConfigError, match="which was deleted") as caught:
            RunDirectory.create()
    finally:
        os.chdir(before)
    assert "\n" not in str(caught.value)


def test_json_is_strict_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": float("inf"), "b": [float("nan"), 1.5], "c": ()})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": "inf",
        "b": [None, 1.5],
        "c": [],
    }
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    # A result that cannot be written leaves the old one and nothing beside it.
    assert [item.name for item in tmp_path.iterdir()] == ["summary.json"]


def test_lines_are_appended(tmp_path):
    run = RunDirectory.create(str(tmp_path / "a"))
    run.append_progress("distil", 1, 2, 5, epsilon=1.5)
    run.append_progress("distil", 1, 3, 5)
    lines = (run.path / "progress.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(r["phase"], r["round"], r["done"], r["total"]) for r in rows] == [
        ("distil", 1, 2, 5),
        ("distil", 1, 3, 5),
    ]
    assert rows[0]["epsilon"] == 1.5


def test_run_keys_differ():
    assert len({new_run_key() for _ in range(100)}) == 100


def hash_of(folder: Path, monkeypatch) -> str:
    """Hash a package that lies in some folder."""
    monkeypatch.setattr(provenance, "CODE_ROOTS", ("codepackage", "codemodule"))
    monkeypatch.syspath_prepend(str(folder))
    provenance.importlib.invalidate_caches()
    provenance.code_hash.cache_clear()
    try:
        return provenance.code_hash()
    finally:
        provenance.code_hash.cache_clear()


def write_code(folder: Path, *, text: bytes = b"x = 1\ny = 2\n") -> Path:
    package = folder / "codepackage" / "inner"
    package.mkdir(parents=True)
    (folder / "codepackage" / "__init__.py").write_bytes(b"")
    (package / "__init__.py").write_bytes(text)
    (folder / "codemodule.py").write_bytes(b"z = 3\n")
    return folder


def test_the_code_hash_depends_on_the_code_and_nothing_else(tmp_path, monkeypatch):
    first = hash_of(write_code(tmp_path / "a"), monkeypatch)
    # Another place, other line ends and a compiled file beside it.
    copy = write_code(tmp_path / "b", text=b"x = 1\r\ny = 2\r\n")
    cache = copy / "codepackage" / "__pycache__"
    cache.mkdir()
    (cache / "left.py").write_bytes(b"w = 4\n")
    assert hash_of(copy, monkeypatch) == first
    changed = write_code(tmp_path / "c", text=b"x = 1\ny = 3\n")
    assert hash_of(changed, monkeypatch) != first
    moved = write_code(tmp_path / "d")
    (moved / "codemodule.py").rename(moved / "codepackage" / "codemodule.py")
    assert hash_of(moved, monkeypatch) != first


def test_a_bundle_is_told_its_commit(monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "0123abcd")
    assert provenance.git_commit() == "0123abcd"


def test_versions_and_commit_are_known(monkeypatch):
    monkeypatch.delenv(provenance.COMMIT_VARIABLE, raising=False)
    versions = provenance.versions()
    assert versions["flwr"].startswith("1.")
    assert set(versions) == {"python", *provenance.LIBRARIES}
    commit = provenance.git_commit()
    assert commit is None or len(commit.rstrip("+")) == 40
