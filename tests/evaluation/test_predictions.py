"""The predictions file: complete, private, and replaced as a whole."""

import json
import stat
from pathlib import Path

import pytest

from fedcot.data.schema import Record
from fedcot.evaluation.evaluate import Prediction, Score
from fedcot.evaluation.predictions import write_predictions

RECORDS = [Record("What?", "7.0", "library"), Record("Why?", "yes", "garden")]
MADE = (
    Prediction("3 + 4 = 7. The answer is 7.", "7", "7", True),
    Prediction("\ud800 no\x00\n‮", None, "no", False),
)
SCORE = Score(1, 1, 0, 2, (True, False), predictions=MADE)


def test_each_record_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "fedcot" / "test-explain.jsonl"
    write_predictions(path, RECORDS, SCORE)
    rows = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert rows == [
        {
            "index": 0,
            "prediction": "7",
            "flexible": "7",
            "gold": "7.0",
            "right": True,
            "text": MADE[0].text,
        },
        {
            "index": 1,
            "prediction": "[invalid]",
            "flexible": "no",
            "gold": "yes",
            "right": False,
            "text": MADE[1].text,
        },
    ]


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "arm" / "test.jsonl"
    write_predictions(path, RECORDS, SCORE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("old\n" * 100)
    write_predictions(path, RECORDS, SCORE)
    assert len(path.read_text().splitlines()) == 2
    assert [found.name for found in tmp_path.iterdir()] == ["test.jsonl"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("old\n")

    def full(_descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("fedcot.evaluation.predictions.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_predictions(path, RECORDS, SCORE)
    assert path.read_text() == "old\n"
    assert [found.name for found in tmp_path.iterdir()] == ["test.jsonl"]


def test_a_score_over_other_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_predictions(tmp_path / "test.jsonl", RECORDS[:1], SCORE)
    assert not list(tmp_path.iterdir())
