"""Greedy evaluation of a student or a teacher on records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedcot.data.schema import Rationale, Record
from fedcot.evaluation.text_scores import sentence_chrf
from fedcot.models.generation import generate_greedy
from fedcot.models.likelihood import target_likelihoods
from fedcot.plain_text import cut
from fedcot.student.base import Adapter, Base, TrainingSettings, adapted
from fedcot.tasks.task import Task
from fedcot.teacher.teacher import Teacher

Prompt = Literal["explain", "predict"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read from one completion; private.

    Attributes
    ----------
    text : str
        As it was written, up to a stop string.
    answer, flexible : str or None
        Strictly and leniently; None if there was none.
    right : bool
        Whether the strict answer is.
    """

    text: str
    answer: str | None
    flexible: str | None
    right: bool


@dataclass(frozen=True)
class Score:
    """Counts and sums over `n` records.

    Attributes
    ----------
    exact_match : int
        Answers that equal the gold answer; what cannot be parsed is wrong.
    parsed : int
        Completions with steps and one answer (for ``predict``: with one answer).
    valid_rationales : int
        Rationales whose every step is true and that lead to the stated answer,
        whether or not it is the right one; 0 for ``predict``.
    correct : tuple of bool
        For each record, in order: paired tests need it.
    flexible_match : int
        Answers that are right if read leniently.
    ranked_match : int
        Records whose likeliest candidate is the right one: the highest total
        log-likelihood after the ``predict`` prompt, the first at a tie. -1 if nothing
        was ranked.
    answer_nats : float
        Log-likelihood of the gold answers after the ``predict`` prompt, summed.
    rationale_nats, rationale_tokens : float, int
        Log-likelihood of the reference rationales after the ``explain`` prompt, summed,
        and their tokens.
    chrf : float
        Sentence chrF of the written against the reference rationales, 0 to 100 each,
        summed; 0 where one of them is missing.
    chance : float
        Accuracy of guessing among the candidates; 0 for open answers.
    predictions : tuple of Prediction
        For each record, in order; private.
    """

    exact_match: int
    parsed: int
    valid_rationales: int
    n: int
    correct: tuple[bool, ...]
    flexible_match: int = 0
    ranked_match: int = -1
    answer_nats: float = 0.0
    rationale_nats: float = 0.0
    rationale_tokens: int = 0
    chrf: float = 0.0
    chance: float = 0.0
    predictions: tuple[Prediction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Likelihoods:
    """What a student finds likely; names as in `Score`."""

    ranked_match: int
    answer_nats: float
    rationale_nats: float
    rationale_tokens: int


def evaluate_student(
    base: Base,
    records: Sequence[Record],
    *,
    adapter: Adapter | None,
    settings: TrainingSettings,
    prompt: Prompt,
    task: Task,
    batch_size: int,
    max_new_tokens: int = 80,
    likelihoods: bool = False,
) -> Score:
    """Score a student, or the base alone if `adapter` is None.

    Parameters
    ----------
    prompt : str
        ``explain``: the answer at the end of a rationale. ``predict``: the answer
        alone.
    task : Task
        Gives the prompts, and reads and judges what is written.
    batch_size : int
        Prompts for each forward pass.
    max_new_tokens : int
        Longest completion of an ``explain`` prompt, in tokens.
    likelihoods : bool
        Whether to measure what needs further passes, and chrF: `ranked_match`,
        `answer_nats`, `rationale_nats`, `rationale_tokens`, `chrf`.
    """
    explains = prompt == "explain"
    references = _references(records, task) if likelihoods else [None] * len(records)
    with adapted(base, settings, seed=0, adapter=adapter) as model:
        template = task.explain_prompt if explains else task.predict_prompt
        written = generate_greedy(
            model.eval(),
            base,
            [template(record.question) for record in records],
            batch_size=batch_size,
            max_new_tokens=max_new_tokens if explains else task.prediction_tokens,
        )
        found = None
        if likelihoods:
            targets = _targets(records, references, task)
            measured = target_likelihoods(model, base, targets, batch_size=batch_size)
            likely = dict(zip(targets, measured, strict=True))
            found = _likelihoods(records, references, likely, task)
    texts = [cut(text, task.stop) for text in written]
    if explains:
        rationales = [task.parse_completion(text) for text in texts]
        score = _score(records, texts, rationales, references, task)
    else:
        score = _count(records, texts, [task.parse_prediction(t) for t in texts], task)
    if found is None:
        return score
    return replace(
        score,
        ranked_match=found.ranked_match,
        answer_nats=found.answer_nats,
        rationale_nats=found.rationale_nats,
        rationale_tokens=found.rationale_tokens,
    )


def evaluate_teacher(
    teacher: Teacher, records: Sequence[Record], *, task: Task
) -> Score:
    """Score the teacher on original questions (in a simulation, or on public data)."""
    completions = teacher.answer([record.question for record in records])
    texts = [completion.text for completion in completions]
    rationales = [completion.rationale for completion in completions]
    return _score(records, texts, rationales, _references(records, task), task)


def _score(
    records: Sequence[Record],
    texts: Sequence[str],
    rationales: Sequence[Rationale | None],
    references: Sequence[Rationale | None],
    task: Task,
) -> Score:
    """Count answers, and rationales with their likeness to the references."""
    answers = [None if found is None else found.answer for found in rationales]
    valid = sum(found is not None and task.is_valid(found) for found in rationales)
    chrf = sum(
        sentence_chrf(found.text, reference.text)
        for found, reference in zip(rationales, references, strict=True)
        if found is not None and reference is not None
    )
    score = _count(records, texts, answers, task)
    return replace(score, valid_rationales=valid, chrf=float(chrf))


def _count(
    records: Sequence[Record],
    texts: Sequence[str],
    answers: Sequence[str | None],
    task: Task,
) -> Score:
    """Count right answers, strictly and leniently."""
    predictions, flexible_match = [], 0
    for record, text, answer in zip(records, texts, answers, strict=True):
        right = answer is not None and task.is_right(answer, record.answer)
        flexible = task.flexible_answer(text)
        predictions.append(Prediction(text, answer, flexible, right))
        if flexible is not None and task.is_right(flexible, record.answer):
            flexible_match += 1
    correct = tuple(made.right for made in predictions)
    return Score(
        exact_match=sum(correct),
        parsed=sum(answer is not None for answer in answers),
        valid_rationales=0,
        n=len(records),
        correct=correct,
        flexible_match=flexible_match,
        chance=_chance(records, task),
        predictions=tuple(predictions),
    )


def _chance(records: Sequence[Record], task: Task) -> float:
    sizes = [len(task.candidates(record)) for record in records]
    return sum(1 / size for size in sizes if size) / max(1, len(sizes))


def _references(records: Sequence[Record], task: Task) -> list[Rationale | None]:
    """Return the rationale that each record carries, if it does and can be read."""
    return [
        task.parse_teacher(cut(record.completion, task.stop))
        if record.completion
        else None
        for record in records
    ]


def _targets(
    records: Sequence[Record], references: Sequence[Rationale | None], task: Task
) -> list[tuple[str, str]]:
    """Return each prompt with a target that is needed, once."""
    wanted: dict[tuple[str, str], None] = {}
    for record, reference in zip(records, references, strict=True):
        answers = (record.answer, *task.candidates(record))
        wanted |= dict.fromkeys(_answer(record, answer, task) for answer in answers)
        if reference is not None:
            wanted[_rationale(record, reference, task)] = None
    return list(wanted)


def _answer(record: Record, answer: str, task: Task) -> tuple[str, str]:
    return task.predict_prompt(record.question), task.prediction(answer)


def _rationale(record: Record, reference: Rationale, task: Task) -> tuple[str, str]:
    return task.explain_prompt(record.question), task.completion(reference)


def _likelihoods(
    records: Sequence[Record],
    references: Sequence[Rationale | None],
    likely: dict[tuple[str, str], tuple[float, int]],
    task: Task,
) -> _Likelihoods:
    """Look up and sum what `_targets` asked for."""
    ranked, any_ranked, answers, nats, tokens = 0, False, 0.0, 0.0, 0
    for record, reference in zip(records, references, strict=True):
        answers += likely[_answer(record, record.answer, task)][0]
        candidates = task.candidates(record)
        if candidates:
            any_ranked = True
            # `max` keeps the first of equals.
            best = max(candidates, key=lambda c: likely[_answer(record, c, task)][0])
            ranked += task.is_right(best, record.answer)
        if reference is not None:
            found = likely[_rationale(record, reference, task)]
            nats, tokens = nats + found[0], tokens + found[1]
    return _Likelihoods(ranked if any_ranked else -1, answers, nats, tokens)
