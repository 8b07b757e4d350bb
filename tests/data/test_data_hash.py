"""The hash of a dataset names its records: the same again, another after any change."""

from pathlib import Path

import pytest

from fedcot.config import RunConfig
from fedcot.resuming import data_hash
from tests.tasks.writing import SUMS, config_for, sums, write_lines, write_mapping


def hash_of(folder: Path, train: list[dict], test: list[dict]) -> str:
    folder.mkdir()
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", test)
    return data_hash(config_for(write_mapping(folder, SUMS), folder))


def test_the_same_records_have_the_same_hash_in_any_folder(tmp_path: Path) -> None:
    found = hash_of(tmp_path / "a", sums(0, 4), sums(900, 2))
    assert len(found) == 64
    assert found == hash_of(tmp_path / "b", sums(0, 4), sums(900, 2))


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("key", ["q", "a"])
def test_one_changed_cell_changes_it(tmp_path: Path, part: str, key: str) -> None:
    rows = {"train": sums(0, 4), "test": sums(900, 2)}
    before = hash_of(tmp_path / "a", **rows)
    rows[part][1] = {**rows[part][1], key: "77"}
    assert hash_of(tmp_path / "b", **rows) != before


def test_the_built_in_world_follows_from_its_settings() -> None:
    assert data_hash(RunConfig(token_epsilon=8.0)) == ""
