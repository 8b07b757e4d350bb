"""Scores count what a scripted student wrote."""

import pytest

from fedcot.data.schema import Record
from fedcot.evaluation.evaluate import evaluate_student, evaluate_teacher
from fedcot.student.base import TrainingSettings
from fedcot.teacher.transformers_teacher import Completion, TransformersTeacher
from tests.tiny import tiny_base

RECORDS = [Record(f"Question {n}", "7", "library") for n in range(5)]
WRITTEN = [
    "12 - 5 = 7 answer: 7",  # Right, valid.
    "12 - 4 = 7 answer: 7",  # Right answer, false step.
    "12 - 6 = 6 answer: 6",  # Valid, another answer.
    "12 - 5 = 7",  # No answer: counts as wrong.
    "7",  # No steps: counts as wrong.
]


def _script(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> list[str]:
    seen: list[str] = []

    def scripted(_model, _tokenizer, prompts, **_kwargs):
        seen.extend(prompts)
        return texts

    monkeypatch.setattr("fedcot.evaluation.evaluate.generate_greedy", scripted)
    return seen


def test_explain_counts_answers_parses_and_valid_rationales(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = _script(monkeypatch, WRITTEN)
    score = evaluate_student(
        tiny_base(),
        RECORDS,
        adapter=None,
        settings=TrainingSettings(),
        prompt="explain",
    )
    assert seen[0] == "explain: question 0 rationale:"
    assert score.correct == (True, True, False, False, False)
    assert (score.exact_match, score.parsed, score.valid_rationales, score.n) == (
        2,
        3,
        2,
        5,
    )


def test_predict_counts_one_word_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _script(monkeypatch, ["7", " 7 ", "77", "7 7", ""])
    score = evaluate_student(
        tiny_base(),
        RECORDS,
        adapter=None,
        settings=TrainingSettings(),
        prompt="predict",
    )
    assert seen[0] == "predict: question 0 answer:"
    assert score.correct == (True, True, False, False, False)
    assert (score.parsed, score.valid_rationales) == (3, 0)


def test_the_teacher_is_scored_by_the_same_rules() -> None:
    from fedcot.data.prompts import parse_completion

    class Scripted(TransformersTeacher):
        def __init__(self) -> None:
            self.name = "scripted"

        def answer(self, questions, *, on_progress=None):
            assert questions == [record.question for record in RECORDS]
            return [Completion(text, parse_completion(text)) for text in WRITTEN]

    score = evaluate_teacher(Scripted(), RECORDS)
    assert (score.exact_match, score.parsed, score.valid_rationales) == (2, 3, 2)
