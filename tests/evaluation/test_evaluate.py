"""Scores count what a scripted student wrote, and sum what a real one finds likely."""

import math
from collections.abc import Sequence

import pytest
import torch

from fedcot.data.prompts import parse_completion
from fedcot.data.schema import Rationale, Record
from fedcot.evaluation.evaluate import (
    Prediction,
    Prompt,
    Score,
    evaluate_student,
    evaluate_teacher,
)
from fedcot.evaluation.text_scores import sentence_chrf
from fedcot.models.loading import LoadedModel
from fedcot.student.base import Adapter, TrainingSettings, new_adapter
from fedcot.tasks.world import WorldTask
from fedcot.teacher.teacher import Completion, Usage
from tests.tiny import tiny_base

RECORDS = [Record(f"Question {n}", "7", "library") for n in range(5)]
WRITTEN = [
    "12 - 5 = 7 answer: 7",  # Right, valid.
    "12 - 4 = 7 answer: 7",  # Right answer, false step.
    "12 - 6 = 6 answer: 6",  # Valid, another answer.
    "12 - 5 = 7",  # No answer: counts as wrong.
    "7",  # No steps: counts as wrong.
]


class ChoiceTask(WorldTask):
    """The world's text, with three candidates for some records and a stop string."""

    stop = ("###",)

    def candidates(self, record: Record) -> tuple[str, ...]:
        return record.choices


def _script(monkeypatch: pytest.MonkeyPatch, texts: Sequence[str]) -> dict[str, object]:
    seen: dict[str, object] = {}

    def scripted(_model, _loaded, prompts, **settings):
        seen.update(settings, prompts=prompts)
        return list(texts)

    monkeypatch.setattr("fedcot.evaluation.evaluate.generate_greedy", scripted)
    return seen


def _evaluate(
    records: Sequence[Record] = RECORDS,
    prompt: Prompt = "explain",
    base: LoadedModel | None = None,
    adapter: Adapter | None = None,
    task: WorldTask | None = None,
    batch_size: int = 128,
    **settings: int,
) -> Score:
    return evaluate_student(
        base or tiny_base(),
        records,
        adapter=adapter,
        settings=TrainingSettings(),
        prompt=prompt,
        task=task or WorldTask(),
        batch_size=batch_size,
        **settings,
    )


def test_explain_counts_answers_parses_and_valid_rationales(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = _script(monkeypatch, WRITTEN)
    score = _evaluate(max_new_tokens=33, batch_size=2)
    assert seen["prompts"][0] == "explain: question 0 rationale:"
    assert (seen["batch_size"], seen["max_new_tokens"]) == (2, 33)
    assert score.correct == (True, True, False, False, False)
    counts = (score.exact_match, score.parsed, score.valid_rationales, score.n)
    assert counts == (2, 3, 2, 5)
    # Leniently the last word counts: the world needs no phrase.
    assert score.flexible_match == 4
    assert score.predictions[2] == Prediction(WRITTEN[2], "6", "6", False)
    assert score.predictions[3] == Prediction(WRITTEN[3], None, "7", False)


def test_predict_counts_one_word_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _script(monkeypatch, ["7", " 7 ", "77", "7 7", ""])
    score = _evaluate(prompt="predict")
    assert seen["prompts"][0] == "predict: question 0 answer:"
    assert seen["max_new_tokens"] == WorldTask.prediction_tokens
    assert score.correct == (True, True, False, False, False)
    assert (score.parsed, score.valid_rationales) == (3, 0)
    assert score.flexible_match == 3
    assert [made.answer for made in score.predictions] == ["7", "7", "77", None, None]


def test_what_follows_a_stop_string_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _script(monkeypatch, ["7### and more"] * 5)
    assert _evaluate(prompt="predict", task=ChoiceTask()).exact_match == 5
    assert _evaluate(prompt="predict").exact_match == 0


def test_without_likelihoods_nothing_further_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _script(monkeypatch, WRITTEN)

    def never(*_args, **_settings):
        raise AssertionError

    monkeypatch.setattr("fedcot.evaluation.evaluate.target_likelihoods", never)
    score = _evaluate()
    assert (score.ranked_match, score.answer_nats, score.chance) == (-1, 0.0, 0.0)
    assert (score.rationale_nats, score.rationale_tokens, score.chrf) == (0.0, 0, 0.0)


CHOICES = ("7", "8", "9")
MEASURED = [
    Record("Question 7", "8", "a", choices=CHOICES, completion="12 - 4 = 8 answer: 8"),
    Record("Question 8", "9", "a", choices=CHOICES, completion="no answer here"),
    Record("Question 9", "7", "a", choices=CHOICES[:2]),
    Record(
        "Question 12 and 5",
        "17",
        "a",
        completion="12 + 5 = 17 , 17 - 0 = 17 answer: 17### Q: answer: 3",
    ),
]


def _nats(base: LoadedModel, prompt: str, target: str) -> tuple[float, int]:
    """Return the log-likelihood of one target, token by token."""
    tokenizer = base.tokenizer
    ids = tokenizer(prompt)["input_ids"]
    wanted = [*tokenizer(target)["input_ids"], tokenizer.eos_token_id]
    nats = 0.0
    for token in wanted:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([ids])).logits[0, -1]
        nats += torch.log_softmax(logits.double(), -1)[token].item()
        ids = [*ids, token]
    return nats, len(wanted)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_likelihoods_are_those_of_one_token_after_another(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _script(monkeypatch, [""] * 4)
    base, task = tiny_base(), ChoiceTask()
    score = _evaluate(
        MEASURED, base=base, task=task, likelihoods=True, batch_size=batch_size
    )
    answers = {
        (record.question, answer): _nats(
            base, task.predict_prompt(record.question), answer
        )
        for record in MEASURED
        for answer in (*record.choices, record.answer)
    }
    gold = sum(answers[record.question, record.answer][0] for record in MEASURED)
    assert score.answer_nats == pytest.approx(gold, rel=1e-4)
    ranked = sum(
        max(record.choices, key=lambda c: answers[record.question, c][0])
        == record.answer
        for record in MEASURED[:3]
    )
    assert score.ranked_match == ranked
    rationales = [
        _nats(base, "explain: question 7 rationale:", "12 - 4 = 8 answer: 8"),
        _nats(
            base,
            "explain: question 12 and 5 rationale:",
            "12 + 5 = 17 , 17 - 0 = 17 answer: 17",
        ),
    ]
    assert score.rationale_nats == pytest.approx(
        sum(r[0] for r in rationales), rel=1e-4
    )
    assert score.rationale_tokens == sum(r[1] for r in rationales)


def test_chance_is_the_mean_over_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, [""] * 4)
    score = _evaluate(MEASURED, task=ChoiceTask())
    assert score.chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2 + 0) / 4)


def test_a_student_that_knows_nothing_ranks_the_first_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [MEASURED[0], MEASURED[2]]
    _script(monkeypatch, [""] * 2)
    base = tiny_base()
    with torch.no_grad():
        base.model.get_input_embeddings().weight.zero_()
    score = _evaluate(records, base=base, task=ChoiceTask(), likelihoods=True)
    # All tokens are equally likely, and an answer is one word and the end.
    each = -math.log(base.model.config.vocab_size)
    assert score.answer_nats == pytest.approx(2 * 2 * each)
    assert score.rationale_nats == pytest.approx(score.rationale_tokens * each)
    assert score.ranked_match == 1  # the record whose answer is its first choice


def test_likelihoods_are_those_of_the_adapted_student(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _script(monkeypatch, [""] * 4)
    base, task = tiny_base(), ChoiceTask()
    start = new_adapter(base, TrainingSettings(), seed=0)
    torch.manual_seed(0)
    moved = {name: t + torch.randn_like(t) for name, t in start.items()}
    scores = [
        _evaluate(MEASURED, base=base, task=task, adapter=adapter, likelihoods=True)
        for adapter in (None, start, moved)
    ]
    assert scores[0].answer_nats == pytest.approx(scores[1].answer_nats)
    assert abs(scores[2].answer_nats - scores[0].answer_nats) > 1
    assert abs(scores[2].rationale_nats - scores[0].rationale_nats) > 1


def test_chrf_sums_the_rationales_that_can_be_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = ["12 - 5 = 7 answer: 7"] * 3 + ["12 + 5 = 18"]
    _script(monkeypatch, written)
    score = _evaluate(MEASURED, task=ChoiceTask(), likelihoods=True)
    # The second and third have no reference, the fourth wrote no rationale.
    assert score.chrf == pytest.approx(sentence_chrf("12 - 5 = 7", "12 - 4 = 8"))
    assert 0 < score.chrf < 100


def test_the_student_really_writes() -> None:
    scores = [_evaluate(MEASURED, batch_size=size, max_new_tokens=6) for size in (1, 4)]
    assert scores[0] == scores[1]
    assert all(0 < len(made.text.split()) <= 6 for made in scores[0].predictions)


def test_no_records_are_no_error() -> None:
    score = _evaluate([], likelihoods=True)
    assert (score.n, score.ranked_match, score.answer_nats) == (0, -1, 0.0)


class Scripted:
    name = "scripted"
    usage = Usage()

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def describe(self):
        return {}

    def answer(self, questions, *, on_progress=None):
        assert len(questions) == len(self.texts)
        return [Completion(text, parse_completion(text)) for text in self.texts]


def test_the_teacher_is_scored_by_the_same_rules() -> None:
    score = evaluate_teacher(Scripted(WRITTEN), RECORDS, task=WorldTask())
    assert (score.exact_match, score.parsed, score.valid_rationales) == (2, 3, 2)
    assert (score.flexible_match, score.ranked_match, score.n) == (4, -1, 5)
    assert score.predictions[0].text == WRITTEN[0]


def test_a_teacher_that_writes_the_references_gets_full_chrf() -> None:
    texts = [MEASURED[0].completion, "12 - 3 = 9 answer: 9", "", "a b answer: 17"]
    score = evaluate_teacher(Scripted(texts), MEASURED, task=ChoiceTask())
    likeness = sentence_chrf("a b", "12 + 5 = 17 , 17 - 0 = 17")
    assert score.chrf == pytest.approx(100 + likeness)
    assert score.exact_match == 3


class Judge(ChoiceTask):
    """A task with rules of its own: everything is valid, and case does not count."""

    def is_right(self, answer: str, gold: str) -> bool:
        return answer.lower() == gold.lower()

    def is_valid(self, rationale: Rationale) -> bool:
        return True


def test_the_task_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, ["steps answer: Yes"])
    score = _evaluate([Record("Why?", "yes", "a")], task=Judge())
    assert (score.exact_match, score.valid_rationales) == (1, 1)
    assert score.flexible_match == 1
