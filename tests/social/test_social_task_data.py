"""Tasks hold every question once, say what they left out, and repeat from a seed."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from fedcot.social.generated_tasks import (
    INSERTED,
    NOT_A_WORD,
    hidden_rule_data,
    random_insertion_data,
)
from fedcot.social.task_data import (
    IN_TEST,
    NOT_A_LABEL,
    NOT_ASKED_FOR,
    NOT_WRITABLE,
    ONE_WORD,
    REPEATED,
    UNBALANCED,
    TaskData,
    boolq_data,
    content_key,
    gsm8k_data,
    lambada_data,
    load_task_data,
    sms_spam_data,
    task_names,
)
from fedcot.social.task_rows import (
    assembled,
    data_folder,
    distinct,
    one_line,
    public_order,
    spam_rows,
    writable,
)
from fedcot.world.hidden_rules import KINDS, draw_rule

SECRET = "what-only-one-patient-asks"


def check_task(data: TaskData) -> None:
    """What holds for every task."""
    keys = [content_key(one) for one in (*data.train, *data.test)]
    assert len(set(keys)) == len(keys)
    form = format_named(data.format_name)
    for one in (*data.train[:50], *data.test[:50]):
        assert form.read(form.write(one)) == one
        assert bool(one.reasoning) <= form.has_reasoning
        if data.labels:
            assert one.answer in data.labels
    assert all(count > 0 for count in data.dropped.values())
    assert data.train[0].question not in repr(data)


def examples(count: int, labels: int = 2, start: int = 0) -> tuple[Demonstration, ...]:
    names = ("spam", "not spam", "c", "d")
    return tuple(
        Demonstration(f"question {number}", names[number % labels])
        for number in range(start, start + count)
    )


# SMS Spam


def written_spam(folder: Path, rows: list[str]) -> str:
    (folder / "sms_spam").mkdir()
    text = "\r\n".join(["v1,v2,,,", *rows]) + "\r\n"
    (folder / "sms_spam" / "spam.csv").write_bytes(text.encode("latin-1"))
    return str(folder)


def test_spam_is_balanced_counted_and_tested_alike_for_all_seeds(
    tmp_path: Path,
) -> None:
    rows = [f"ham,see you at {number},,," for number in range(30)]
    rows += [f'spam,"WIN £{number}, now",,,' for number in range(12)]
    rows += ["ham,SEE you  at 3!,,,", "eggs,what,,,", "ham,,,,"]
    rows += ["spam,call 99, or 98,,"]  # cut into columns at its comma
    folder = written_spam(tmp_path, rows)
    data = sms_spam_data(0, folder, num_test=10)
    check_task(data)
    for part, each in ((data.test, 5), (data.train, 8)):
        counted = Counter(one.answer for one in part)
        assert counted == {"spam": each, "not spam": each}
    assert data.dropped == {
        NOT_A_LABEL: 1,
        NOT_WRITABLE: 1,
        REPEATED: 1,
        UNBALANCED: 30 - 13,
    }
    texts = {one.question for one in (*data.train, *data.test)}
    assert {"WIN £7, now", "call 99, or 98"} <= texts
    other = sms_spam_data(1, folder, num_test=10)
    assert other.test == data.test
    assert set(other.train) != set(data.train)
    assert sms_spam_data(0, folder, num_test=10).hash == data.hash != other.hash
    fewer = sms_spam_data(0, folder, num_train=4, num_test=10)
    assert fewer.train == data.train[:4]
    assert fewer.dropped[NOT_ASKED_FOR] == 12
    named = sms_spam_data(0, folder, num_test=10, format_name="sms-spam-classes")
    assert named.format_name == "sms-spam-classes"
    assert named.test == data.test


def test_without_tests_all_messages_are_there_to_train_on(tmp_path: Path) -> None:
    rows = [f"ham,see you at {number},,," for number in range(30)]
    folder = written_spam(tmp_path, [*rows, "spam,WIN now,,,", "ham,SEE you at 3,,,"])
    for name in ("sms-spam", "sms-spam-classes"):
        data = load_task_data(name, seed=0, data_dir=folder, num_test=None)
        counted = Counter(one.answer for one in data.train)
        assert counted == {"spam": 1, "not spam": 30}
        assert (data.test, data.format_name) == ((), name)
        assert data.dropped == {REPEATED: 1}
    with pytest.raises(ConfigError, match="`num-test`"):
        load_task_data("sms-spam", seed=0, data_dir=folder)


def test_without_tests_no_file_of_tests_is_read(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    row = {"question": "How many?", "answer": "It is 3.\n#### 3"}
    (tmp_path / "gsm8k" / "train.jsonl").write_text(json.dumps(row) + "\n")
    data = load_task_data("gsm8k", seed=0, data_dir=str(tmp_path), num_test=None)
    assert (len(data.train), data.test) == (1, ())
    with pytest.raises(ConfigError):
        load_task_data("gsm8k", seed=0, data_dir=str(tmp_path))


def test_spam_that_cannot_be_had_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="v1 and v2, found FileNotFoundError"):
        sms_spam_data(0, str(tmp_path))
    folder = written_spam(tmp_path, ["ham,a,,,", f"spam,{SECRET},,,"])
    with pytest.raises(ConfigError, match="`num-test`") as caught:
        sms_spam_data(0, folder, num_test=2)
    assert SECRET not in str(caught.value)
    path = tmp_path / "sms_spam" / "spam.csv"
    path.write_text(f"label,text\nham,{SECRET}\n")
    with pytest.raises(ConfigError, match="other columns") as caught:
        spam_rows(path)
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("FEDCOT_DATA", raising=False)
    with pytest.raises(ConfigError, match="`data-dir`"):
        sms_spam_data(0)
    monkeypatch.setenv("FEDCOT_DATA", str(tmp_path))
    assert data_folder("") == tmp_path


def test_the_real_messages(data_folder: Path) -> None:
    data = load_task_data("sms-spam", seed=0, data_dir=str(data_folder))
    check_task(data)
    counted = Counter(one.answer for one in data.test)
    assert counted == {"spam": 250, "not spam": 250}
    counted = Counter(one.answer for one in data.train)
    assert counted["spam"] == counted["not spam"] > 300
    rows = len(data.train) + len(data.test) + sum(data.dropped.values())
    assert rows == 5572
    other = load_task_data("sms-spam-classes", seed=7, data_dir=str(data_folder))
    assert other.test == data.test


# GSM8K


def test_steps_have_no_marks_and_answers_are_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    row = {
        "question": "Ann has 48  cats.\nHow many legs?",
        "answer": "She has 48*4=<<48*4=192>>192 legs. \n\nDone.\n#### 1,920",
    }
    unread = {"question": SECRET, "answer": "no mark"}
    again = {"question": "ann HAS 48 cats: how many legs", "answer": "x\n#### 3"}
    for split, rows in {
        "train": [row, unread, {**row, "question": "Another?"}, again],
        "test": [{**row, "question": "A test?"}, again],
    }.items():
        lines = "\n".join(map(json.dumps, rows))
        (folder / f"{split}.jsonl").write_text(lines)
    data = gsm8k_data(0, str(tmp_path))
    check_task(data)
    assert data.train == (
        Demonstration("Another?", "1920", "She has 48*4=192 legs.\nDone."),
    )
    # The two that differ in case and punctuation only: one holds it in the test set.
    assert {one.question for one in data.test} == {"A test?", again["question"]}
    assert data.dropped == {"no answer": 1, REPEATED: 1, IN_TEST: 1}
    with pytest.raises(ConfigError, match=r"`num-train`.* found 2 of 1"):
        gsm8k_data(0, str(tmp_path), num_train=2)


def test_the_real_problems(data_folder: Path) -> None:
    data = load_task_data(
        "gsm8k", seed=3, data_dir=str(data_folder), num_train=100, num_test=50
    )
    check_task(data)
    assert (len(data.train), len(data.test)) == (100, 50)
    assert data.dropped == {NOT_ASKED_FOR: 7473 - 100 + 1319 - 50}
    assert not any(
        "<<" in one.reasoning or "####" in one.reasoning for one in data.train
    )
    assert all(one.answer.lstrip("-").isdecimal() for one in data.test)
    other = load_task_data("gsm8k", seed=4, data_dir=str(data_folder), num_test=50)
    assert other.test == data.test
    assert len(other.train) == 7473


# From the hub, or saved in the data folder


def saved(folder: Path, name: str, **splits: dict[str, list]) -> str:
    tables = {key: datasets.Dataset.from_dict(rows) for key, rows in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(str(folder / name))
    return str(folder)


def test_boolq_has_a_passage_and_a_question(tmp_path: Path) -> None:
    folder = saved(
        tmp_path,
        "google/boolq",
        train={
            "passage": ["A cat\n is black.", "", "Dogs bark."],
            "question": ["is it black", "is it", "do cats bark"],
            "answer": [True, True, False],
        },
        validation={"passage": ["It rains."], "question": ["is it"], "answer": [True]},
    )
    data = boolq_data(0, folder)
    check_task(data)
    assert set(data.train) == {
        Demonstration("A cat is black.\nis it black", "yes"),
        Demonstration("Dogs bark.\ndo cats bark", "no"),
    }
    assert data.test == (Demonstration("It rains.\nis it", "yes"),)
    assert data.labels == ("yes", "no")
    assert data.dropped == {NOT_WRITABLE: 1}


def test_lambada_asks_for_the_last_word(tmp_path: Path) -> None:
    folder = saved(
        tmp_path,
        "cimec/lambada",
        train={"text": ["a whole novel"]},
        validation={"text": ["he went  home", "word", "an -> arrow"]},
        test={"text": ["she saw the sea"]},
    )
    data = lambada_data(0, folder)
    check_task(data)
    assert data.train == (Demonstration("he went ____", "home"),)
    assert data.test == (Demonstration("she saw the ____", "sea"),)
    assert data.dropped == {ONE_WORD: 1, NOT_WRITABLE: 1}
    shown = format_named("lambada").write(data.test[0])
    assert shown == "Fill in blank:\nshe saw the ____ -> sea"


def test_what_the_hub_has_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    for name, source in (("boolq", "google/boolq"), ("lambada", "cimec/lambada")):
        with pytest.raises(ConfigError, match=f"{source}.*ConnectionError"):
            load_task_data(name, seed=0, data_dir=str(tmp_path))


# Generated


@settings(max_examples=20)
@given(st.integers(0, 2**40))
def test_insertions_stand_behind_every_letter(seed: int) -> None:
    data = random_insertion_data(seed, num_train=5, num_test=4)
    check_task(data)
    assert (len(data.train), len(data.test)) == (5, 4)
    for one in (*data.train, *data.test):
        assert one.question[::2] == one.answer
        assert set(one.question[1::2]) <= set(INSERTED)
        assert len(one.question) == 2 * len(one.answer)


def test_random_insertion_repeats_from_its_seed_and_its_words() -> None:
    words = ["Word", "word", "four", "five", "zero", "at", "don't", "naïve"]
    data = random_insertion_data(0, words=words)
    assert {one.answer for one in data.train} | {one.answer for one in data.test} == {
        "word",
        "four",
        "five",
        "zero",
    }
    assert data.dropped == {NOT_A_WORD: 3}
    assert (len(data.train), len(data.test)) == (2, 2)
    assert random_insertion_data(0, words=words).hash == data.hash
    assert random_insertion_data(1, words=words).hash != data.hash
    inserted = Counter(
        mark
        for seed in range(40)
        for one in random_insertion_data(seed).test
        for mark in one.question[1::2]
    )
    # 32 signs alike: each within six deviations of its share.
    total, share = sum(inserted.values()), 1 / len(INSERTED)
    assert set(inserted) == set(INSERTED)
    slack = 6 * (total * share * (1 - share)) ** 0.5
    assert all(abs(count - total * share) < slack for count in inserted.values())
    with pytest.raises(ConfigError, match=r"number of words \(4\), found 3 and 2"):
        random_insertion_data(0, num_train=3, num_test=2, words=words)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_rules_are_held_out_and_answer_their_questions(kind: str) -> None:
    data = hidden_rule_data(kind, 5, num_train=60, num_test=30)
    check_task(data)
    assert (len(data.train), len(data.test)) == (60, 30)
    rule = draw_rule("held-out", kind, numpy_generator(5, "hidden-rule", kind))
    assert rule.split == "held-out"
    assert data.hint == rule.hint
    assert data.labels == rule.labels
    for one in (*data.train, *data.test):
        rationale = rule.rationale(one.question)
        assert rationale is not None
        assert (one.reasoning, one.answer) == (rationale.text, rationale.answer)
    assert hidden_rule_data(kind, 5, num_train=60, num_test=30).hash == data.hash
    assert load_task_data(kind, seed=6).hash != load_task_data(kind, seed=7).hash


def test_a_rule_has_only_so_many_questions() -> None:
    with pytest.raises(ConfigError, match="`conversion`"):
        hidden_rule_data("conversion", 0, num_train=100_000, num_test=1)
    with pytest.raises(ConfigError, match="at least 1"):
        hidden_rule_data("conversion", 0, num_train=0)
    with pytest.raises(ConfigError, match="`kind`"):
        hidden_rule_data("other", 0)


# What all have in common


def test_names_and_numbers_are_checked() -> None:
    assert {"sms-spam", "gsm8k", "boolq", "lambada", *KINDS} <= set(task_names())
    with pytest.raises(ConfigError, match="`task` must be one of sms-spam"):
        load_task_data("other", seed=0)
    with pytest.raises(ConfigError, match="`num-train` and `num-test`"):
        load_task_data("gsm8k", seed=0, num_train=-1)


def test_questions_are_the_same_whatever_their_case_and_signs() -> None:
    keys = [
        content_key(Demonstration(text, "x")) for text in ("A  cat!", "a, CAT", ":)")
    ]
    assert keys[0] == keys[1] == "a cat"
    assert keys[2] == ":)"
    assert public_order(Demonstration("A  cat!", "x")) == public_order(
        Demonstration("a cat", "y")
    )
    assert one_line(" a\n b\t c ") == "a b c"


def test_the_hash_is_that_of_all_texts_in_order() -> None:
    one, two = Demonstration("a", "b", "c"), Demonstration("a", "bc")
    hashes = [
        TaskData((one, two), (), "x").hash,
        TaskData((two, one), (), "x").hash,
        TaskData((one,), (two,), "x").hash,
        TaskData((one, two), (), "y").hash,
        TaskData((one, two), (), "x", labels=("b",)).hash,
        TaskData((Demonstration("ab", "", "c"), two), (), "x").hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert TaskData((one, two), (), "x", {"why": 3}).hash == hashes[0]


def test_assembling_counts_what_it_leaves_out() -> None:
    counts: Counter[str] = Counter()
    bad = Demonstration("two\nlines", "spam")
    other = Demonstration("fine", "ham")
    assert writable([bad, other, *examples(2)], "sms-spam", counts) == list(examples(2))
    assert distinct([*examples(2), *examples(3)], counts) == list(examples(3))
    assert counts == {NOT_WRITABLE: 2, REPEATED: 2}
    data = assembled(
        "sms-spam",
        [*examples(6), bad],
        [*examples(2, start=4), *examples(4, start=20)],
        seed=0,
        num_train=3,
        num_test=5,
        dropped=Counter({"before": 1}),
    )
    check_task(data)
    assert set(data.train) < set(examples(4))
    assert data.dropped == {"before": 1, NOT_WRITABLE: 1, IN_TEST: 2, NOT_ASKED_FOR: 2}
    with pytest.raises(ConfigError, match="`num-test`"):
        assembled(
            "sms-spam",
            examples(2),
            [],
            seed=0,
            num_train=0,
            num_test=0,
            dropped=Counter(),
        )
