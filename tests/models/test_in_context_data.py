"""What the in-context model is trained on: public tasks, shown by examples."""

from itertools import islice

import pytest

from fedcot.data.prompts import HINT
from fedcot.data.schema import Rationale
from fedcot.models import in_context_data
from fedcot.models.in_context_data import (
    MOST_EXAMPLES,
    example_pieces,
    in_context_sequences,
    rule_sequence,
    world_sequence,
)
from fedcot.models.pretraining_data import SeenProblems
from fedcot.seeding import numpy_generator
from fedcot.social.formats import format_named
from fedcot.world.hidden_rules import Rule
from fedcot.world.splits import split_of
from fedcot.world.verifier import verify

RULE = Rule("operator", ("blick", "the sum"))
WORLD = format_named("world")


def text_of(pieces) -> str:
    return " ".join(piece.text for piece in pieces)


def shown(pieces):
    """Return the demonstrations of a sequence, read as those of a student are."""
    examples = [piece for piece in pieces if not piece.text.startswith(HINT)]
    return [
        WORLD.read(text_of(examples[at : at + 2])) for at in range(0, len(examples), 2)
    ]


def test_a_question_weighs_little_and_an_answer_all() -> None:
    plain = example_pieces("6 blick 4", Rationale("", "10"))
    assert [(piece.text, piece.weight) for piece in plain] == [
        ("question: 6 blick 4", 0.1),
        ("answer: 10", 1.0),
    ]
    reasoned = example_pieces("12 gold", Rationale("12 * 3 = 36", "36"))
    assert reasoned[1].text == "rationale: 12 * 3 = 36 answer: 36"


@pytest.mark.parametrize(("hint", "weight"), [("before", 0.1), ("after", 1.0)])
def test_a_hint_stands_where_it_was_asked_for(hint, weight) -> None:
    found = rule_sequence(RULE, 3, numpy_generator(0, "x"), hint=hint)
    assert len(found) == 2 * 3 + 1
    told = found[0 if hint == "before" else -1]
    assert (told.text, told.weight) == ("hint: blick gives the sum", weight)
    assert [one.answer for one in shown(found)] == [
        RULE.rationale(one.question).answer for one in shown(found)
    ]


def test_without_a_hint_there_are_examples_only() -> None:
    found = rule_sequence(RULE, 5, numpy_generator(0, "x"))
    assert len(found) == 10
    assert HINT not in text_of(found)


def test_problems_of_the_world_are_public_and_their_steps_hold(monkeypatch) -> None:
    drawn = []
    honest = in_context_data.draw_problem

    def listens(*given):
        drawn.append(honest(*given))
        return drawn[-1]

    monkeypatch.setattr(in_context_data, "draw_problem", listens)
    seen = SeenProblems()
    found = world_sequence("harbor", 4, numpy_generator(0, "x"), seen)
    assert seen.drawn == 4
    assert {split_of(problem.hash) for problem in drawn} == {"pretraining"}
    for one, problem in zip(shown(found), drawn, strict=True):
        assert one.question == problem.question
        assert verify(one.reasoning, one.answer).valid


def test_no_rule_that_is_held_out_is_trained_on(monkeypatch) -> None:
    drawn = []
    honest = in_context_data.rule_sequence

    def listens(rule, count, rng, *, hint=""):
        drawn.append((rule, count, hint))
        return honest(rule, count, rng, hint=hint)

    monkeypatch.setattr(in_context_data, "rule_sequence", listens)
    sequences = in_context_sequences(numpy_generator(0, "x"), SeenProblems())
    found = list(islice(sequences, 400))
    assert {rule.split for rule, _, _ in drawn} == {"pretraining"}
    assert {rule.kind for rule, _, _ in drawn} == {"conversion", "labels", "operator"}
    assert {hint for _, _, hint in drawn} == {"before", "after", ""}
    assert {count for _, count, _ in drawn} == set(range(1, MOST_EXAMPLES + 1))
    assert 0.6 < len(drawn) / len(found) < 0.8
