"""Greedy evaluation of a student or a teacher on records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedcot.data.prompts import explain_prompt, parse_completion, predict_prompt
from fedcot.data.schema import Rationale, Record
from fedcot.models.generation import generate_greedy
from fedcot.student.base import Adapter, Base, TrainingSettings, adapted
from fedcot.teacher.transformers_teacher import TransformersTeacher
from fedcot.world.verifier import verify

Prompt = Literal["explain", "predict"]
EVALUATION_BATCH = 128
PREDICTION_TOKENS = 8


@dataclass(frozen=True)
class Score:
    """Counts over `n` records.

    Attributes
    ----------
    exact_match : int
        Answers that equal the gold answer; what cannot be parsed is wrong.
    parsed : int
        Completions with steps and one answer (for ``predict``: with one word).
    valid_rationales : int
        Rationales whose every step is true and that lead to the stated answer,
        whether or not it is the right one; 0 for ``predict``.
    correct : tuple of bool
        For each record, in order: paired tests need it.
    """

    exact_match: int
    parsed: int
    valid_rationales: int
    n: int
    correct: tuple[bool, ...]


def _score(records: Sequence[Record], rationales: Sequence[Rationale | None]) -> Score:
    correct = tuple(
        rationale is not None and rationale.answer == record.answer
        for record, rationale in zip(records, rationales, strict=True)
    )
    valid = sum(
        rationale is not None and verify(rationale.text, rationale.answer).valid
        for rationale in rationales
    )
    parsed = sum(rationale is not None for rationale in rationales)
    return Score(sum(correct), parsed, valid, len(records), correct)


def _score_predictions(records: Sequence[Record], texts: Sequence[str]) -> Score:
    answers = [text.split() for text in texts]
    correct = tuple(
        answer == [record.answer]
        for record, answer in zip(records, answers, strict=True)
    )
    parsed = sum(len(answer) == 1 for answer in answers)
    return Score(sum(correct), parsed, 0, len(records), correct)


def evaluate_student(
    base: Base,
    records: Sequence[Record],
    *,
    adapter: Adapter | None,
    settings: TrainingSettings,
    prompt: Prompt,
    max_new_tokens: int = 80,
) -> Score:
    """Score a student, or the base alone if `adapter` is None.

    Parameters
    ----------
    prompt : str
        ``explain``: the answer at the end of a rationale. ``predict``: the answer
        alone.
    """
    with adapted(base, settings, seed=0, adapter=adapter) as model:
        template = explain_prompt if prompt == "explain" else predict_prompt
        texts = generate_greedy(
            model.eval(),
            base.tokenizer,
            [template(record.question) for record in records],
            batch_size=EVALUATION_BATCH,
            max_new_tokens=max_new_tokens if prompt == "explain" else PREDICTION_TOKENS,
        )
    if prompt == "predict":
        return _score_predictions(records, texts)
    return _score(records, [parse_completion(text) for text in texts])


def evaluate_teacher(teacher: TransformersTeacher, records: Sequence[Record]) -> Score:
    """Score the teacher on original questions (in a simulation, or on public data)."""
    completions = teacher.answer([record.question for record in records])
    return _score(records, [completion.rationale for completion in completions])
