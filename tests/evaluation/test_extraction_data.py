"""The extractors on completions of a real large model, beside the reference loaders."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fedcot.evaluation.extraction import extract, read_answer, split_answer
from fedcot.plain_text import cut

STOP = ("\n\n", "Q:")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _completions(folder: Path, split: str) -> list[str]:
    paths = sorted(folder.glob(f"llm/{split}_CoT_*.json"))
    return [cut(text, STOP) for p in paths for text in json.loads(p.read_text())]


@pytest.mark.parametrize(
    ("split", "rows", "right", "unparsed"),
    [("train", 9741, 7388, 182), ("test", 1221, 962, 16)],
)
def test_commonsense_qa(
    data_folder: Path, split: str, rows: int, right: int, unparsed: int
) -> None:
    folder = data_folder / "distilling_step_by_step" / "cqa"
    questions = _rows(folder / f"cqa_{split}.json")
    completions = _completions(folder, split)
    assert len(questions) == len(completions) == rows
    read = [
        extract("multiple-choice", text, strict=True, choices=5) for text in completions
    ]
    # By text: some training questions have the right choice twice.
    hits = [
        letter is not None and row["choices"]["abcde".index(letter)] == row["answer"]
        for letter, row in zip(read, questions, strict=True)
    ]
    assert sum(hits) == right
    assert read.count(None) == unparsed


def test_the_steps_are_those_of_distilling_step_by_step(data_folder: Path) -> None:
    folder = data_folder / "distilling_step_by_step" / "cqa"
    compared = 0
    for text in _completions(folder, "test"):
        theirs = text.rstrip().split("So the answer is")
        ours = split_answer("multiple-choice", text, choices=5)
        if len(theirs) == 2 and ours is not None:
            assert ours.text == theirs[0].strip()
            compared += 1
    assert compared > 1190


def test_svamp_equations_have_the_value_of_the_reference(data_folder: Path) -> None:
    folder = data_folder / "distilling_step_by_step" / "svamp"
    compared = right = 0
    for split in ("train", "test"):
        labels = [row["label"] for row in _rows(folder / f"svamp_{split}.json")]
        for label, text in zip(labels, _completions(folder, split), strict=True):
            ours = split_answer("equation", text)
            whole = re.search(r"The answer is (\([0-9+\-*/ .()]*\))\.?\s*$", text)
            if whole is not None:
                expected = read_answer("equation", whole[1])
                assert ours is not None or expected is None
                assert ours is None or ours.answer == expected
                compared += expected is not None
            right += ours is not None and ours.answer == read_answer("equation", label)
    assert compared > 930
    assert right == 749


def test_every_answer_of_gsm8k_is_read(data_folder: Path) -> None:
    for row in _rows(data_folder / "gsm8k" / "test.jsonl"):
        steps, _, last = row["answer"].rpartition("\n#### ")
        found = split_answer("numeric", row["answer"])
        assert found is not None
        assert (found.text, found.answer) == (steps.strip(), last.replace(",", ""))
        assert extract("numeric", row["answer"], strict=False) == found.answer
