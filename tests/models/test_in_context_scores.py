"""What a score says of a model that is always right, and of one that never is."""

import pytest

from fedcot.data.prompts import ANSWER, QUESTION, RATIONALE
from fedcot.models.in_context_scores import (
    EXAMPLE_COUNTS,
    answer_accuracy,
    draw_trials,
    example_accuracy,
    score_in_context,
)
from fedcot.models.in_context_training import with_more_tokens
from fedcot.models.tokenizer import build_in_context_tokenizer
from fedcot.seeding import numpy_generator
from fedcot.social.formats import format_named
from fedcot.world.hidden_rules import KINDS
from tests.tiny import tiny_base

WORLD = format_named("world")


def written(right) -> str:
    steps = f"{RATIONALE} {right.text} " if right.text else ""
    return f" {steps}{ANSWER} {right.answer}"


@pytest.mark.parametrize("kind", KINDS)
def test_trials_hold_right_examples_of_held_out_rules(kind) -> None:
    trials = draw_trials(kind, 30, 8, seed=0)
    assert {trial.rule.split for trial in trials} == {"held-out"}
    for trial in trials:
        assert len(trial.examples) == 8
        assert trial.question not in [one.question for one in trial.examples]
        for one in trial.examples:
            right = trial.rule.rationale(one.question)
            assert (one.reasoning, one.answer) == (right.text, right.answer)
        assert trial.prompt.endswith(f"{QUESTION} {trial.question}")
        assert trial.prompt.startswith(trial.opening.removesuffix(QUESTION))
    fewer = draw_trials(kind, 30, 2, seed=0)
    assert [one.question for one in fewer] == [one.question for one in trials]
    assert [one.examples for one in fewer] == [one.examples[:2] for one in trials]
    assert draw_trials(kind, 30, 8, seed=1) != trials


@pytest.mark.parametrize("kind", KINDS)
def test_answers_count_where_they_are_right(kind) -> None:
    trials = draw_trials(kind, 20, 4, seed=0)
    right = [written(one.rule.rationale(one.question)) for one in trials]
    asked = []

    def always(prompts):
        asked.extend(prompts)
        return right

    assert answer_accuracy(trials, always) == 1.0
    assert asked == [trial.prompt for trial in trials]
    assert answer_accuracy(trials, lambda _: [f" {ANSWER} never"] * 20) == 0.0
    assert answer_accuracy(trials, lambda _: ["never"] * 20) == 0.0
    assert answer_accuracy(trials, lambda _: [*right[:5], *["x"] * 15]) == 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_examples_count_where_question_steps_and_answer_are_right(kind) -> None:
    trials = draw_trials(kind, 20, 2, seed=0)
    rng = numpy_generator(0, "x")
    questions = [trial.rule.question(rng) for trial in trials]
    right = [
        f" {asked}{written(trial.rule.rationale(asked))}"
        for trial, asked in zip(trials, questions, strict=True)
    ]
    asked = []

    def always(prompts):
        asked.extend(prompts)
        return right

    assert example_accuracy(trials, always) == 1.0
    assert asked == [trial.opening for trial in trials]
    assert all(prompt.endswith(f" {QUESTION}") for prompt in asked)
    wrong = [f"{text}7" for text in right]
    assert example_accuracy(trials, lambda _: wrong) == 0.0
    # No question of the rule, or none that can be read.
    assert example_accuracy(trials, lambda _: [f" tom {ANSWER} 3"] * 20) == 0.0
    assert example_accuracy(trials, lambda _: [f" {ANSWER} {ANSWER}"] * 20) == 0.0
    assert example_accuracy(trials, lambda _: [*right[:15], *wrong[15:]]) == 0.75


def test_right_answers_with_wrong_steps_are_no_examples() -> None:
    trials = draw_trials("conversion", 10, 2, seed=0)
    texts = []
    for trial in trials:
        one = trial.examples[0]
        texts.append(
            f" {one.question} {RATIONALE} {one.reasoning} + 0 {ANSWER} {one.answer}"
        )
    assert example_accuracy(trials, lambda _: texts) == 0.0


def test_an_untrained_model_gets_every_number() -> None:
    tokenizer = build_in_context_tokenizer()
    model = with_more_tokens(tiny_base().model, len(tokenizer), seed=0)
    found = score_in_context(model, tokenizer, 3, seed=0)
    assert set(found) == {"answers", "examples"}
    assert set(found["answers"]) == set(found["examples"]) == set(KINDS)
    for kind in KINDS:
        assert list(found["answers"][kind]) == [str(count) for count in EXAMPLE_COUNTS]
        assert all(0 <= share < 1 for share in found["answers"][kind].values())
    assert found == score_in_context(model, tokenizer, 3, seed=0)
