"""Shipped mappings on folders that have the columns of the hub's data sets."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from fedcot.data.loading import LoadedData, load_dataset
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.registry import task_of
from tests.tasks.writing import config_for

# One row each, as the data sets' own cards show their columns.
SCIENCE = {
    "id": "x",
    "question": "Which one?",
    "choices": {"text": ["ice", "steam", "fog"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
ROWS: dict[str, dict[str, Any]] = {
    "commonsense-qa": {
        "id": "x",
        "question": "Which one?",
        "question_concept": "water",
        "choices": {
            "label": ["A", "B", "C", "D", "E"],
            "text": ["ice", "steam", "fog", "rain", "sea"],
        },
        "answerKey": "B",
    },
    "gsm8k": {
        "question": "Which one?",
        "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24",
    },
    "svamp": {
        "ID": "x",
        "Body": "There are 3 foxes",
        "Question": "Which one?",
        "Equation": "( 290.0 / 2.0 )",
        "Answer": "145",
        "Type": "Common-Division",
        "question_concat": "",
    },
    "strategyqa": {
        "qid": "x",
        "term": "t",
        "description": "d",
        "question": "Which one?",
        "answer": True,
        "facts": "One fact. Another.",
    },
    "arc": SCIENCE,
    "openbookqa": {
        "id": "x",
        "question_stem": "Which one?",
        "choices": {"text": ["ice", "steam"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "boolq": {"question": "is it", "answer": False, "passage": "It is not."},
    "e-snli": {
        "premise": "A fox runs.",
        "hypothesis": "A fox moves.",
        "label": 0,
        "explanation_1": "Running is moving.",
        "explanation_2": "",
        "explanation_3": "",
    },
}
WANTED = {
    "commonsense-qa": ("b", ""),
    "gsm8k": ("24", "It is 48/2 = 24. The answer is 24."),
    "svamp": ("145", ""),
    "strategyqa": ("yes", "One fact. Another. So the answer is yes."),
    "arc": ("b", ""),
    "openbookqa": ("b", ""),
    "boolq": ("no", ""),
    "e-snli": ("entailment", "Running is moving. So the answer is entailment."),
}


def saved(folder: Path, name: str, rows: list[dict[str, Any]]) -> LoadedData:
    """Save rows as the hub's folder would be, and load them by a shipped mapping."""
    source = load_mapping(name).source
    asked = "hypothesis" if name == "e-snli" else "question"
    asked = {"openbookqa": "question_stem", "svamp": "Question"}.get(name, asked)
    tests = [{**row, asked: f"{row[asked]} again"} for row in rows]
    splits = {source.train_split: rows, source.test_split: tests}
    place = folder.joinpath(*source.hub.split("/"))
    found = {key: datasets.Dataset.from_list(value) for key, value in splits.items()}
    datasets.DatasetDict(found).save_to_disk(str(place / source.config))
    return load_dataset(config_for(name, folder))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_row_of_the_hub_s_becomes_a_record(tmp_path: Path, name: str) -> None:
    loaded = saved(tmp_path, name, [ROWS[name]])
    (record,) = loaded.train
    assert (record.answer, record.completion) == WANTED[name]
    task = task_of(name)
    assert record.question == task.question(record.parts)
    assert len(record.parts) == len(task.fields)
    assert loaded.rows == {"train": 1, "test": 1}
    assert loaded.skipped == {"train": {}, "test": {}}
    if record.completion:
        read = task.parse_teacher(record.completion)
        assert read is not None
        assert read.answer == record.answer


def test_the_text_of_a_question_with_several_parts(tmp_path: Path) -> None:
    (record,) = saved(tmp_path, "e-snli", [ROWS["e-snli"]]).train
    assert record.parts == ("A fox runs.", "A fox moves.")
    assert record.question == (
        "Premise: A fox runs.\nHypothesis: A fox moves.\n"
        "Does the hypothesis follow: entailment, neutral or contradiction?"
    )
    (record,) = saved(tmp_path, "boolq", [ROWS["boolq"]]).train
    assert record.question == "It is not.\nis it"
    (record,) = saved(tmp_path, "svamp", [ROWS["svamp"]]).train
    assert record.question == "There are 3 foxes\nWhich one?"
    assert record.domain == "Common-Division"


def test_facts_may_be_a_list(tmp_path: Path) -> None:
    row = {**ROWS["strategyqa"], "facts": ["One fact.", "Another."]}
    (record,) = saved(tmp_path, "strategyqa", [row]).train
    assert record.completion == WANTED["strategyqa"][1]


def test_rows_without_a_gold_label_are_counted(tmp_path: Path) -> None:
    rows = [ROWS["e-snli"], {**ROWS["e-snli"], "label": -1}]
    loaded = saved(tmp_path, "e-snli", rows)
    why = {"the answer is none of the labels": 1}
    assert loaded.skipped == {"train": why, "test": why}
    rows = [SCIENCE, {**SCIENCE, "answerKey": "4"}]
    loaded = saved(tmp_path / "arc", "arc", rows)
    why = {"the answer is none of the choices": 1}
    assert loaded.skipped == {"train": why, "test": why}


RECORDED = {
    # With a completion cut at the first blank line or `Q:`, and `answer is (x)` only.
    "commonsense-qa-recorded": ((7388, 9741, 182), (962, 1221, 16)),
    # Human steps: one in GSM8K says `the final answer is 15 gallons` on its way to 120.
    "gsm8k-recorded": ((7472, 7473, 0), (1319, 1319, 0)),
    "strategyqa-recorded": ((2061, 2061, 0), (229, 229, 0)),
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_labels_of_real_recordings(data_folder: Path, name: str) -> None:
    loaded = load_dataset(config_for(name, data_folder))
    counts = [loaded.labels[split] for split in ("train", "test")]
    found = tuple((count.right, count.rows, count.unparsed) for count in counts)
    assert found == RECORDED[name]
    assert loaded.skipped == {"train": {}, "test": {}}
    assert len(loaded.train) == found[0][1]
    assert len(loaded.test) == found[1][1]


def test_real_equations_are_compared_by_value(data_folder: Path) -> None:
    loaded = load_dataset(config_for("svamp-recorded", data_folder))
    assert loaded.train[0].answer == "42"
    for split, rows in (("train", 800), ("test", 200)):
        counts = loaded.labels[split]
        assert counts.rows == rows
        assert 0.70 < counts.right / rows < 0.80
        assert counts.unparsed < 0.05 * rows
