"""Rules that only examples tell: their questions, their answers, who may see them."""

from itertools import permutations, product

import numpy as np
import pytest

from fedcot.seeding import numpy_generator
from fedcot.world.hidden_rules import (
    FILLERS,
    KINDS,
    LABELS,
    OPERATIONS,
    SIGNS,
    TOPICS,
    UNITS,
    Rule,
    draw_rule,
    rule_words,
    wide_rule,
)

GOLD = Rule("conversion", ("gold", "salt", "7"))
BLICK = Rule("operator", ("blick", "the difference"))
TOOLS = Rule("labels", ("foods", "zib", "tools", "dax"))
# Written by hand: what 6 and 4, and 3 and 8, give.
GIVES = {
    "the sum": ("10", "11"),
    "the difference": ("2", "5"),
    "the product": ("24", "24"),
    "the larger": ("6", "8"),
    "the smaller": ("4", "3"),
    "the first": ("6", "3"),
    "the second": ("4", "8"),
    "the sum plus 1": ("11", "12"),
    "the first doubled": ("12", "6"),
    "the second doubled": ("8", "16"),
}


def every_rule(kind: str) -> list[Rule]:
    if kind == "conversion":
        pairs = permutations(UNITS, 2)
        return [
            Rule("conversion", (*pair, str(rate)))
            for pair, rate in product(pairs, range(2, 10))
        ]
    if kind == "operator":
        return [Rule("operator", parts) for parts in product(SIGNS, OPERATIONS)]
    topics = [pair for pair in permutations(sorted(TOPICS), 2) if pair[0] < pair[1]]
    return [
        Rule("labels", (first, one, second, other))
        for (first, second), (one, other) in product(topics, permutations(LABELS, 2))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_belongs_to_one_split_and_a_quarter_is_held_out(kind) -> None:
    rules = every_rule(kind)
    assert len({rule.parts for rule in rules}) == len(rules)
    held_out = {rule for rule in rules if rule.split == "held-out"}
    assert 0.1 < len(held_out) / len(rules) < 0.4
    for split in ("held-out", "pretraining"):
        rng = numpy_generator(0, split)
        drawn = {draw_rule(split, kind, rng) for _ in range(60)}
        assert len(drawn) > 5
        assert drawn <= (held_out if split == "held-out" else set(rules) - held_out)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operator_gives_what_its_name_says(operation) -> None:
    rule = Rule("operator", ("blick", operation))
    asked = ("tom says 6 blick 4 late", "tom says 3 blick 8 late")
    found = [rule.rationale(question) for question in asked]
    assert [one and one.answer for one in found] == list(GIVES[operation])
    assert all(one and one.text == "" for one in found)


def test_a_conversion_shows_its_step() -> None:
    found = GOLD.rationale("kim trades 12 gold for salt today")
    assert found is not None
    assert (found.text, found.answer) == ("12 * 7 = 84", "84")


@pytest.mark.parametrize(
    ("question", "topic", "answer"),
    [
        ("old plum the rice", "foods", "zib"),
        ("rake my drill new", "tools", "dax"),
    ],
)
def test_a_label_is_that_of_the_topic(question, topic, answer) -> None:
    found = TOOLS.rationale(question)
    assert found is not None
    # The step names the topic.
    assert (found.text, found.answer) == (topic, answer)
    assert TOOLS.labels == ("zib", "dax")
    assert GOLD.labels == BLICK.labels == ()


@pytest.mark.parametrize(
    ("rule", "question"),
    [
        (GOLD, "kim trades 12 salt for gold today"),
        (GOLD, "kim trades 12 gold for wool today"),
        (GOLD, "kim trades gold for salt today"),
        (GOLD, "kim trades 12 gold for salt 3"),
        (BLICK, "tom says 6 zorp 4 late"),
        (BLICK, "tom says 6 blick late"),
        (BLICK, "tom says blick 6 4 late"),
        (TOOLS, "old plum the drill"),
        (TOOLS, "old otter the heron"),
        (TOOLS, ""),
    ],
)
def test_a_question_of_another_kind_has_no_answer(rule, question) -> None:
    assert rule.rationale(question) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_of_a_rule_has_an_answer_in_known_words(kind) -> None:
    known = set(rule_words())
    rng = np.random.default_rng(3)
    for _ in range(40):
        rule = draw_rule("held-out", kind, rng)
        questions = {rule.question(rng) for _ in range(20)}
        assert len(questions) > 12
        found = [rule.rationale(question) for question in questions]
        assert all(found)
        if kind == "labels":
            assert {one.answer for one in found if one} == set(rule.labels)
        told = [*questions, rule.hint]
        words = {word for text in told for word in text.split()}
        assert {word for word in words if not word.isdecimal()} <= known


def test_hints_say_the_rule() -> None:
    assert GOLD.hint == "gold to salt times 7"
    assert BLICK.hint == "blick gives the difference"
    assert TOOLS.hint == "foods gives zib tools gives dax"


@pytest.mark.parametrize("num_topics", [3, 8])
def test_a_wide_rule_labels_more_topics_one_each(num_topics) -> None:
    rng = np.random.default_rng(4)
    rule = wide_rule(num_topics, rng)
    topics, labels = rule.parts[::2], rule.parts[1::2]
    assert len(set(topics)) == len(set(labels)) == num_topics
    asked = [rule.question(rng) for _ in range(200)]
    found = [rule.rationale(question) for question in asked]
    assert {one.text for one in found if one} == set(topics)
    assert all(one and one.answer == labels[topics.index(one.text)] for one in found)


@pytest.mark.parametrize("num_topics", [2, 9])
def test_a_wide_rule_has_three_topics_to_all(num_topics) -> None:
    with pytest.raises(ValueError, match="from 3 to 8"):
        wide_rule(num_topics, np.random.default_rng(4))


def test_what_decides_a_label_stands_last() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        *fillers, first, second = TOOLS.question(rng).split()
        topic = next(t for t in ("foods", "tools") if first in TOPICS[t])
        assert second in TOPICS[topic]
        assert set(fillers) <= set(FILLERS)
