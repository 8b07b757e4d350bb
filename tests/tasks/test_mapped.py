"""The task of a mapping: from parts to text, from rows' answers to one spelling."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.data.schema import Rationale, Record
from fedcot.plain_text import cut
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import load_mapping, shipped_mappings
from fedcot.tasks.registry import task_of
from tests.tasks.writing import CHOICES, SUMS, write_mapping

QA = "commonsense-qa-recorded"


def task_for(folder: Path, text: str) -> MappedTask:
    return MappedTask(load_mapping(write_mapping(folder, text)))


def shipped(name: str) -> MappedTask:
    return MappedTask(load_mapping(name))


def test_a_question_is_written_as_in_distilling_step_by_step() -> None:
    task = shipped(QA)
    parts = task.parts(
        {"question": "Where is it?"}, ["here", "there", "far", "no", "x"]
    )
    question = task.question(parts)
    assert question == (
        "Where is it?\nAnswer Choices:\n(a) here\n(b) there\n(c) far\n(d) no\n(e) x"
    )
    prompt = task.teacher_prompt(question)
    assert prompt.user == f"Q: {question}\nA:"
    assert prompt.text == prompt.user
    assert task.fields == (
        ("question", 24), ("choice-a", 3), ("choice-b", 3), ("choice-c", 3),
        ("choice-d", 3), ("choice-e", 3),
    )  # fmt: skip


def test_missing_parts_are_left_out_and_letters_stay() -> None:
    task = shipped(QA)
    parts = task.parts({"question": "Where?"}, ["here", "", "far"])
    assert parts == ("Where?", "here", "", "far", "", "")
    assert task.question(parts) == "Where?\nAnswer Choices:\n(a) here\n(c) far"
    assert task.question(("Where?", "", "", "", "", "")) == "Where?"
    assert task.question(("", "", "", "", "", "")) == ""


@pytest.mark.parametrize("count", [0, 1, 5, 7])
def test_a_wrong_number_of_parts_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="has 6 parts"):
        shipped(QA).question(("x",) * count)


@pytest.mark.parametrize("name", shipped_mappings())
def test_parts_go_through_a_vocabulary_and_come_back(name: str) -> None:
    task = shipped(name)
    slots = tuple(count for _, count in task.fields)
    vocabulary = Vocabulary(("", "<unk>", "fox", "hen"), sum(slots), {}, slots)
    parts = ["fox hen"] * len(slots)
    decoded = vocabulary.decode_parts(vocabulary.encode_parts(parts))
    assert task.question(decoded) == task.question(parts)
    assert task.question(parts).count("fox hen") == len(slots)


@pytest.mark.parametrize("name", shipped_mappings())
def test_demonstrations_are_written_like_the_question_at_hand(name: str) -> None:
    task = shipped(name)
    prompt = task.teacher_prompt("Is it?")
    assert len(prompt.demonstrations) == len(task.mapping.demonstrations)
    for shown, example in zip(
        prompt.demonstrations, task.mapping.demonstrations, strict=True
    ):
        asked, answered = shown
        parts = task.parts(example.parts, example.choices)
        assert asked == task.teacher_prompt(task.question(parts)).user
        read = task.parse_teacher(answered)
        assert read == Rationale(example.rationale, example.answer)
        assert task.is_valid(read)
    assert prompt.messages[-1] == {"role": "user", "content": "Q: Is it?\nA:"}
    text = "\n\n".join([*map(" ".join, prompt.demonstrations), prompt.user])
    assert prompt.text.endswith(text)


def test_a_student_s_prompts_and_targets() -> None:
    task = shipped("gsm8k-recorded")
    steps = Rationale("2 + 2 = 4.", "4")
    assert task.completion(steps) == "2 + 2 = 4. The answer is 4."
    assert task.prediction("4") == "4"
    assert "What?" in task.predict_prompt("What?")
    assert "What?" in task.explain_prompt("What?")
    assert task.predict_prompt("What?") != task.explain_prompt("What?")
    adapt = task.adapt_prompt("Which?", steps, "What?")
    places = [adapt.index(x) for x in ("Which?", task.completion(steps), "What?")]
    assert places == sorted(places)
    assert task.parse_completion(" 2 + 2 = 4. The answer is 4.") == steps
    assert task.parse_prediction(" 4") == "4"
    assert task.parse_prediction("about four") is None


STEPS = st.text(alphabet="abc ", min_size=1).filter(str.strip)


@given(STEPS, st.sampled_from("abcde"))
def test_a_completion_reads_back_as_it_was_written(steps: str, answer: str) -> None:
    task = task_of(QA)
    rationale = Rationale(f"Say {steps.strip()}.", answer)
    assert task.parse_completion(task.completion(rationale)) == rationale
    assert task.parse_prediction(task.prediction(answer)) == answer


def test_a_completion_ends_where_the_next_question_begins() -> None:
    task = shipped(QA)
    text = "It is near. So the answer is (b).\nQ: Next?\nA: So the answer is (c)."
    assert task.parse_teacher(text) == Rationale("It is near.", "b")
    assert task.strict_answer(text) == "b"
    assert task.flexible_answer(text) == "b"
    assert task.flexible_answer("I would say (C)") == "c"
    assert task.strict_answer("I would say (C)") is None


@given(st.text(alphabet="ab\nQ:", max_size=20))
def test_cut_is_the_shortest_of_all_cuts(text: str) -> None:
    stops = ["\n\n", "Q:", "b"]
    expected = min((text.split(stop)[0] for stop in stops), key=len)
    assert cut(text, stops) == expected
    assert cut(text, []) == text


@pytest.mark.parametrize(
    ("value", "names", "gold"),
    [
        ("B", ["A", "B", "C"], "b"),
        ("2", ["1", "2", "3"], "b"),
        ("C", [], "c"),
        ("(c)", [], "c"),
        ("hen", [], "b"),
        (" hen ", [], "b"),
        ("0", [], "a"),
        (2, [], "c"),
        (2.0, [], "c"),
        ("c", ["x", "y", "c"], "c"),
        ("a", ["b", "a", "c"], "b"),
        ("d", [], None),
        (3, [], None),
        (-1, [], None),
        ("owl", ["A", "B", "C"], None),
        ("", [], None),
        (1.5, [], None),
        (float("nan"), [], None),
    ],
)
def test_the_answer_of_a_choice(value: Any, names: list[str], gold: str | None) -> None:
    assert shipped(QA).gold(value, ["fox", "hen", "cow"], names) == gold


def test_the_first_of_two_equal_choices_is_the_gold_one() -> None:
    assert shipped(QA).gold("hen", ["fox", "hen", "hen"]) == "b"


def test_places_may_count_from_one(tmp_path: Path) -> None:
    text = CHOICES.replace('"multiple-choice"', '"multiple-choice"\nfirst = 1')
    task = task_for(tmp_path, text)
    found = [task.gold(place, ["fox", "hen"]) for place in (0, 1, 2, 3)]
    assert found == [None, "a", "b", None]


@pytest.mark.parametrize(
    ("name", "value", "gold"),
    [
        ("strategyqa", True, "yes"),
        ("strategyqa", False, "no"),
        ("strategyqa", "True", "yes"),
        ("strategyqa", "no", "no"),
        ("strategyqa", 1, "yes"),
        ("strategyqa", "0", "no"),
        ("strategyqa", 2, None),
        ("strategyqa", "perhaps", None),
        ("e-snli", 0, "entailment"),
        ("e-snli", 2, "contradiction"),
        ("e-snli", "Neutral", "neutral"),
        ("e-snli", -1, None),
        ("e-snli", 3, None),
        ("e-snli", "maybe", None),
        ("gsm8k", "1,024", "1024"),
        ("gsm8k", 12.0, "12"),
        ("gsm8k", 0.5, "0.5"),
        ("gsm8k", 10**20, str(10**20)),
        ("gsm8k", 1e20, str(10**20)),
        ("gsm8k", float("inf"), None),
        ("gsm8k", float("nan"), None),
        ("gsm8k", True, None),
        ("gsm8k", "twelve", None),
        ("svamp-recorded", "( ( 17.0 + 15.0 ) + 2.0 )", "34"),
        ("svamp-recorded", "( 1.0 / 0.0 )", None),
        ("svamp-recorded", "__import__('os')", None),
    ],
)
def test_an_answer_in_the_data_has_one_spelling(
    name: str, value: Any, gold: str | None
) -> None:
    assert shipped(name).gold(value) == gold


def test_candidates_are_the_answers_that_there_are() -> None:
    record = Record("q", "a", "", choices=("fox", "", "hen"))
    assert shipped(QA).candidates(record) == ("a", "c")
    assert shipped("boolq").candidates(record) == ("yes", "no")
    labels = ("entailment", "neutral", "contradiction")
    assert shipped("e-snli").candidates(record) == labels
    assert shipped("gsm8k").candidates(record) == ()


def test_false_equations_are_invalid_where_the_mapping_says_so(tmp_path: Path) -> None:
    right, wrong = Rationale("2 + 2 = 4.", "4"), Rationale("2 + 2 = 5.", "5")
    checked = shipped("gsm8k")
    assert checked.checks_steps
    assert [checked.is_valid(r) for r in (right, wrong)] == [True, False]
    unchecked = task_for(tmp_path, SUMS)
    assert not unchecked.checks_steps
    assert unchecked.is_valid(wrong)


def test_equal_answers_need_not_look_the_same() -> None:
    assert shipped("gsm8k").is_right("12", "12.0")
    assert not shipped("gsm8k").is_right("12", "13")
    assert shipped("svamp-recorded").is_right("84 / 2", "42")
    assert not shipped(QA).is_right("[invalid]", "[invalid]")


def test_the_registry_gives_the_task_of_a_name() -> None:
    task = task_of("gsm8k")
    assert isinstance(task, MappedTask)
    assert (task.name, task.hash) == ("gsm8k", load_mapping("gsm8k").hash)
    assert task_of("gsm8k") is task
    assert task.stop == ("\nQ:",)
    assert task.prediction_tokens >= 8
