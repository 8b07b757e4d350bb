"""Pairings put the right question to the right rationale, and count what they drop."""

import pytest

from fedcot.config import RunConfig
from fedcot.data.prompts import explain_prompt
from fedcot.data.schema import Rationale, Record
from fedcot.errors import ConfigError
from fedcot.node_pairs import NodePairs
from fedcot.student import examples as examples_module
from fedcot.student.examples import (
    Pair,
    label_examples,
    pair_examples,
    self_rationales,
)
from fedcot.tasks.world import WorldTask
from tests.tiny import tiny_base

RECORD = Record("Tom has 12 marbles. Loses 5. How many now?", "7", "marbles")
SEEN = "tom has 12 marbles loses 6 how many now"
PAIRS = [
    Pair(RECORD, SEEN, Rationale("12 - 6 = 6", "6")),  # True, another answer.
    Pair(RECORD, SEEN, Rationale("12 - 5 = 7", "7")),  # True, the label.
    Pair(RECORD, SEEN, Rationale("12 - 6 = 7", "7")),  # False step.
    Pair(RECORD, SEEN, None),  # Could not be parsed.
]
BASE, TASK = tiny_base(), WorldTask()


def test_perturbed_pairs_the_perturbed_question_with_its_own_rationale() -> None:
    found = pair_examples(PAIRS, pairing="perturbed", task=TASK, base=BASE)
    assert found.counts == {
        "pairs": 4,
        "unparsable": 1,
        "invalid_step": 1,
        "label_mismatch": 0,
        "kept": 2,
    }
    assert [example.prompt for example in found.examples] == [explain_prompt(SEEN)] * 2
    assert found.examples[0].target == "12 - 6 = 6 answer: 6"


def test_original_pairs_the_original_question_and_may_filter_by_label() -> None:
    found = pair_examples(PAIRS, pairing="original", task=TASK, base=BASE)
    assert {example.prompt for example in found.examples} == {
        explain_prompt(RECORD.question)
    }
    assert found.counts["kept"] == 2
    filtered = pair_examples(
        PAIRS, pairing="original", task=TASK, base=BASE, label_filter=True
    )
    assert filtered.counts["label_mismatch"] == filtered.counts["kept"] == 1
    assert filtered.examples[0].target == "12 - 5 = 7 answer: 7"


def test_adapted_uses_what_the_frozen_base_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts: list[str] = []

    def scripted(_model, _tokenizer, given, **_kwargs):
        prompts.extend(given)
        return ["12 - 5 = 7 answer: 7", "no answer here", "12 - 5 = 7 answer: 7"]

    monkeypatch.setattr("fedcot.student.examples.generate_greedy", scripted)
    found = pair_examples(
        PAIRS, pairing="adapted", task=TASK, base=BASE, label_filter=True
    )
    assert prompts[0] == (
        f"adapt: {SEEN} rationale: 12 - 6 = 6 answer: 6 question: "
        "tom has 12 marbles loses 5 how many now rationale:"
    )
    assert found.counts["unparsable"] == 2
    assert found.counts["kept"] == len(found.examples) == 2
    assert found.examples[0].prompt == explain_prompt(RECORD.question)


def test_the_label_filter_is_refused_where_it_would_break_the_guarantee() -> None:
    with pytest.raises(ConfigError, match="label_filter"):
        pair_examples(
            PAIRS, pairing="perturbed", task=TASK, base=BASE, label_filter=True
        )


def test_an_unknown_pairing_is_refused() -> None:
    with pytest.raises(ConfigError, match="pairing"):
        pair_examples(PAIRS, pairing="best", task=TASK, base=BASE)


def test_label_examples_ask_the_original_question() -> None:
    (example,) = label_examples([RECORD], TASK)
    assert example.prompt == (
        "predict: tom has 12 marbles loses 5 how many now answer:"
    )
    assert (example.target, example.task) == ("7", "predict")


def test_self_rationales_come_one_for_each_record() -> None:
    assert len(self_rationales(BASE, [RECORD] * 3, task=TASK, max_new_tokens=4)) == 3


def test_under_private_training_the_base_writes_each_rationale_alone(
    monkeypatch, tmp_path
):
    seen = []

    def generate(model, tokenizer, prompts, *, batch_size, max_new_tokens):
        seen.append(batch_size)
        return ["1 + 1 = 2 answer: 2"] * len(prompts)

    monkeypatch.setattr(examples_module, "generate_greedy", generate)
    monkeypatch.setattr(NodePairs, "_pairs", lambda self, source, records: list(PAIRS))
    for noise in (0.0, 1.0):
        config = RunConfig(
            token_epsilon=8.0,
            aggregation="fedavg",
            pairing="adapted",
            noise_multiplier=noise,
        )
        NodePairs(config, partition_id=0, folder=tmp_path, base=lambda: BASE).pairing(
            "fedcot", {}, []
        )
    assert seen == [64, 1]
