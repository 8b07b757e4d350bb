"""What the in-context model is trained on: public tasks, shown by examples."""

from itertools import islice

import pytest

from fedcot.data.prompts import HINT
from fedcot.data.schema import Rationale
from fedcot.models import in_context_data
from fedcot.models.in_context_data import (
    FEWEST_TOPICS,
    MOST_EXAMPLES,
    MOST_TOPICS,
    MOST_WIDE_EXAMPLES,
    MOST_WORLD_EXAMPLES,
    RULE_SHARES,
    WIDE_SHARE,
    WORLD_SHARE,
    SeenTasks,
    example_pieces,
    in_context_sequences,
    rule_sequence,
    world_sequence,
)
from fedcot.models.in_context_training import encode
from fedcot.models.pretraining_data import SeenProblems
from fedcot.models.tokenizer import build_in_context_tokenizer
from fedcot.seeding import numpy_generator
from fedcot.social.formats import format_named
from fedcot.world.families import FAMILIES, GENERAL_NAMES
from fedcot.world.hidden_rules import KINDS, Rule, draw_rule, wide_rule
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


def drawn_sequences(monkeypatch, count):
    """Return sequences, what was counted, and the rules with counts and hints."""
    drawn = []
    honest = in_context_data.rule_sequence

    def listens(rule, count, rng, *, hint=""):
        drawn.append((rule, count, hint))
        return honest(rule, count, rng, hint=hint)

    monkeypatch.setattr(in_context_data, "rule_sequence", listens)
    seen = SeenTasks()
    sequences = in_context_sequences(
        numpy_generator(0, "x"), seen, families=GENERAL_NAMES
    )
    return list(islice(sequences, count)), seen, drawn


def test_no_rule_that_is_held_out_is_trained_on(monkeypatch) -> None:
    found, seen, drawn = drawn_sequences(monkeypatch, 400)
    narrow = [(rule, count) for rule, count, _ in drawn if len(rule.parts) <= 4]
    assert {rule.split for rule, _ in narrow} == {"pretraining"}
    assert {rule for rule, _ in narrow} == seen.rules
    assert {rule.kind for rule in seen.rules} == set(KINDS)
    assert {count for _, count in narrow} == set(range(1, MOST_EXAMPLES + 1))
    assert {hint for _, _, hint in drawn} == {"before", "after", ""}
    assert seen.counts == {
        "problems_drawn": seen.drawn,
        "distinct_problems": len(seen.hashes),
        "sequences_drawn": len(found),
        "distinct_rules": len(seen.rules),
        "distinct_wide_rules": len(seen.wide_rules),
    }
    assert seen.drawn > 0


def test_kinds_have_their_shares(monkeypatch) -> None:
    """Three standard deviations of a share of 1500 draws are at most 0.04."""
    assert sum(RULE_SHARES.values()) == pytest.approx(1)
    found, _, drawn = drawn_sequences(monkeypatch, 1500)
    assert 1 - len(drawn) / len(found) == pytest.approx(WORLD_SHARE, abs=0.04)
    kinds = [rule.kind for rule, _, _ in drawn]
    for kind, share in RULE_SHARES.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.05)
    labels = [rule for rule, _, _ in drawn if rule.kind == "labels"]
    wide = [rule for rule in labels if len(rule.parts) > 4]
    assert len(wide) / len(labels) == pytest.approx(WIDE_SHARE, abs=0.07)
    assert {len(rule.parts) // 2 for rule in wide} == set(
        range(FEWEST_TOPICS, MOST_TOPICS + 1)
    )


def test_a_student_reads_problems_of_its_families_only(monkeypatch) -> None:
    asked = []
    honest = in_context_data.world_sequence

    def listens(family, *given):
        asked.append(family)
        return honest(family, *given)

    monkeypatch.setattr(in_context_data, "world_sequence", listens)
    drawn_sequences(monkeypatch, 300)
    assert set(asked) == set(GENERAL_NAMES)


def test_the_longest_sequences_fit_into_the_positions() -> None:
    tokenizer = build_in_context_tokenizer()
    rng = numpy_generator(0, "x")
    seen = SeenTasks()
    longest = [
        rule_sequence(
            wide_rule(MOST_TOPICS, rng), MOST_WIDE_EXAMPLES, rng, hint="after"
        ),
        *(
            rule_sequence(
                draw_rule("pretraining", kind, rng), MOST_EXAMPLES, rng, hint="after"
            )
            for kind in KINDS
        ),
        *(
            world_sequence(family, MOST_WORLD_EXAMPLES, rng, seen)
            for family in FAMILIES
            for _ in range(10)
        ),
    ]
    lengths = [len(encode(pieces, tokenizer).ids) for pieces in longest]
    assert max(lengths) <= tokenizer.model_max_length
