"""The trial on real messages: what is public, what the model sees, what is counted."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedcot.social.client_model import Sampled
from fedcot.social.demonstrations import Demonstration, few_shot_prompt
from fedcot.social.formats import SPAM_LABELS
from fedcot.social.local_model import LocalModel
from fedcot.social.task_data import content_key, load_task_data

ROOT = Path(__file__).resolve().parents[2]
# `benchmarks` is no package; its scripts import each other by name.
sys.path.append(str(ROOT / "benchmarks"))
messages = import_module("sms_messages")
sms_model = import_module("sms_model")
sms_spam = import_module("sms_spam")

SPAM = "WIN the prize number {0} now, call {0} 555 and ask for uncle {1}"
HAM = "shall we meet at {0} near the {1} tree or later"
WORDS = ("oak", "elm", "fir", "ash", "yew", "lime", "pine", "palm", "plum", "pear")


def example(label: str, number: int) -> Demonstration:
    pattern = SPAM if label == SPAM_LABELS[0] else HAM
    text = pattern.format(number, WORDS[number % 10] + WORDS[number // 10])
    return Demonstration(text, label)


PUBLIC = [example(label, number) for label in SPAM_LABELS for number in range(40)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    (folder / "sms_spam").mkdir()
    with (folder / "sms_spam/spam.csv").open("w", encoding="latin-1") as file:
        writer = csv.writer(file)
        writer.writerow(["v1", "v2", "", "", ""])
        for number in range(60):
            writer.writerow(["spam", example("spam", number).question])
            writer.writerow(["ham", example("not spam", number).question])
            writer.writerow(["ham", f"a further message about {WORDS[number % 10]}s"])
        writer.writerow(["neither", "this has no class"])
    return str(folder)


def test_public_is_what_is_neither_private_nor_tested(data_dir: str) -> None:
    data = load_task_data(
        "sms-spam", seed=3, data_dir=data_dir, num_train=40, num_test=20
    )
    public = messages.public_messages(data_dir, [*data.train, *data.test])
    keys = [content_key(one) for one in public]
    kept_back = {content_key(one) for one in (*data.train, *data.test)}
    assert len(set(keys)) == len(keys)
    assert not kept_back & set(keys)
    # 60 of either kind and 10 further ones, less what is kept back.
    assert len(keys) + len(kept_back) == 130
    assert {one.answer for one in public} == set(SPAM_LABELS)
    # A private message is found in spite of its case and its spacing.
    loud = [replace(one, question=f" {one.question.upper()}  ") for one in public]
    assert messages.public_messages(data_dir, [*data.train, *data.test, *loud]) == []


def test_held_out_messages_are_not_trained_on() -> None:
    kept, rest = messages.held_out(PUBLIC, seed=0, each=7)
    assert sorted(map(content_key, [*kept, *rest])) == sorted(map(content_key, PUBLIC))
    assert [one.answer for one in rest] == ["spam"] * 7 + ["not spam"] * 7
    assert rest != messages.held_out(PUBLIC, seed=1, each=7)[1]


@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_sequence_is_a_prompt_of_examples(is_swapped: bool) -> None:
    tokenizer = messages.build_tokenizer(PUBLIC, 400)
    drawn = messages.Sequences(PUBLIC, tokenizer).draw(
        np.random.default_rng(0), is_swapped=is_swapped, is_varied=False
    )
    text = tokenizer.decode(drawn.ids)
    read = [messages.FORM.read(part) for part in text.strip("\n").split("\n\n")]
    assert len(read) == len(drawn.places) > 4
    assert text == few_shot_prompt(messages.FORM, read)[: -len("\n\nText:")] + "\n"
    # The tokens are those of the same text in a prompt.
    assert tokenizer(text)["input_ids"] == drawn.ids
    known = {one.question: one.answer for one in PUBLIC}
    assert {known[one.question] == one.answer for one in read} == {not is_swapped}
    assert len(drawn.ids) == len(drawn.weights) <= messages.TRAINED_TOKENS
    for place, one in zip(drawn.places, read, strict=True):
        behind = tokenizer.decode(drawn.ids[place:])
        assert behind.startswith(f" {one.answer}\n")
        assert drawn.weights[place] == messages.LABEL_WEIGHT
    heavy = [place for place, weight in enumerate(drawn.weights) if weight > 1]
    assert heavy == drawn.places


def test_varied_messages_keep_their_class_and_repeats_teach_names_only() -> None:
    tokenizer = messages.build_tokenizer(PUBLIC, 400)
    drawer = messages.Sequences(PUBLIC, tokenizer)
    rng = np.random.default_rng(1)
    new, repeated = set(), 0
    for _ in range(5):
        drawn = drawer.draw(rng, is_swapped=False)
        said: dict[str, str] = {}
        start = 0
        for place in drawn.places:
            text = tokenizer.decode(drawn.ids[start:place]).strip()
            asked = text.removeprefix("Text: ").removesuffix("\nClass:")
            answer = tokenizer.decode(drawn.ids[place:]).split("\n")[0].strip()
            is_spam = any(word in asked for word in ("WIN", "prize", "ask"))
            assert (answer == "spam") == is_spam
            # Only what stands there for the first time is learnt as a text.
            assert (drawn.weights[start] == 0.0) == (said.get(asked) == answer)
            repeated += asked in said
            said[asked] = answer
            start = place + len(tokenizer(f" {answer}\n")["input_ids"])
        new |= set(said)
    assert repeated
    assert new - {one.question for one in PUBLIC}


def small(**changes: Any) -> Any:
    sizes = {"steps": 60, "batch_size": 1, "vocabulary": 300, "hidden": 32, "layers": 1}
    return sms_model.Training(**{**sizes, **changes})


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, lines = tmp_path / "model", []

    def stop(line: str) -> None:
        lines.append(line)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sms_model.train(PUBLIC, folder, small(), report=stop)
    assert not sms_model.is_trained(folder, small(), PUBLIC)
    sms_model.train(PUBLIC, folder, small(), report=lines.append)
    assert ['"step": 50' in lines[0], '"step": 60' in lines[1]] == [True, True]
    assert len(lines) == 2
    # What it was trained on decides whether it is the model that is wanted.
    assert sms_model.is_trained(folder, small(), PUBLIC)
    assert not sms_model.is_trained(folder, small(seed=1), PUBLIC)
    assert not sms_model.is_trained(folder, small(), PUBLIC[1:])
    model = LocalModel(str(folder))
    found = sms_model.in_context_accuracy(model, PUBLIC, seed=0, counts=(0, 2), draws=1)
    assert set(found) == {0, 2}


class Scripted:
    """A client model that knows the rule, and now and then repeats its prompt."""

    name = "scripted"

    def __init__(self, *, copies: bool = False) -> None:
        self.copies = copies
        self.scored: list[tuple[str, str]] = []

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        return True

    def sample(self, prompts: Sequence[str], **given: Any) -> list[Sampled]:
        return [
            Sampled(self.written(prompt, seed), -2.0, 9)
            for prompt, seed in zip(prompts, given["seeds"], strict=True)
        ]

    def written(self, prompt: str, seed: int) -> str:
        if not prompt.endswith("Text:"):
            asked = prompt.rpartition("Text:")[2]
            return " spam" if "WIN" in asked else " not spam"
        if self.copies and seed % 2:
            return prompt.partition("Text:")[2].partition("\n\n")[0]
        return f" free gift {seed} for you\nClass: spam"

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.scored += pairs
        return [-1.0] * len(pairs)


@pytest.fixture(name="data")
def task_data(data_dir: str) -> Any:
    return load_task_data(
        "sms-spam", seed=0, data_dir=data_dir, num_train=60, num_test=20
    )


def test_the_protocol_in_process_counts_what_it_keeps_back(data: Any) -> None:
    model = Scripted(copies=True)
    found = sms_spam.in_process(model, data, 3, seed=0)
    clients = found["clients"].values()
    assert len(clients) == 3
    for one in clients:
        assert one["sampled"] == 32
        assert one["verbatim"] > 0
        rest = sum(one.get(key, 0) for key in ("verbatim", "repeated", "outranked"))
        assert one["kept"] + rest == 32
    assert found["copied"]["verbatim"] == found["copied"]["normalised"] == 0
    assert found["copied"]["texts"] == sum(one["kept"] for one in clients)
    assert found["candidates"] == {"spam": found["copied"]["texts"]}
    assert found["chosen"]["voting"] == {"spam": 8}
    assert found["accuracy"]["zero-shot"] == found["accuracy"]["voting.8"] == 1.0
    # Every client votes on all candidates, whoever sent them.
    assert len(model.scored) == 3 * found["copied"]["texts"]


def test_copies_are_found_whosever_they_are(data: Any) -> None:
    first, second = data.train[:2]
    sent = [
        first,
        replace(second, question=second.question.upper()),
        Demonstration("I saw: " + " ".join(first.question.split()[:6]), "spam"),
    ]
    found = sms_spam.copied(sent, data.train)
    assert found["texts"] == 3
    assert (found["verbatim"], found["normalised"]) == (1, 2)
    assert found["longest_run"] == len(first.question.replace(",", "").split())
    assert sms_spam.copied(sent[2:], data.train)["longest_run"] == 6


def test_a_run_gets_the_endpoint_and_may_show_it_private_messages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        sms_spam.subprocess, "run", lambda command, check: asked.extend(command)
    )
    given = SimpleNamespace(
        run_dir=tmp_path,
        clients=8,
        seed=2,
        num_records=800,
        hold_out=200,
        data_dir="",
        settings=["teaching=examples"],
    )
    sms_spam.run_protocol(given, "http://127.0.0.1:9/v1")
    for wanted in (
        "client-model=http://127.0.0.1:9/v1",
        "prompted-student=http://127.0.0.1:9/v1",
        "raw-to-endpoint=true",
        "seed=2",
        "num-records=800",
        "hold-out=200",
        "teaching=examples",
    ):
        assert asked[asked.index(wanted) - 1] == "-c"
    assert asked[asked.index("--num-supernodes") + 1] == "8"


def test_what_left_is_read_from_the_prompts_of_the_students(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    shown = [example("spam", 1), example("not spam", 2)]
    for name, own in (("random.2", shown), ("voting.1", shown[:1])):
        text = few_shot_prompt(messages.FORM, own)
        (tmp_path / f"prompts/{name}.txt").write_text(text, encoding="utf-8")
    assert set(sms_spam.shared_in_prompts(tmp_path)) == set(shown)
    assert len(sms_spam.shared_in_prompts(tmp_path)) == 2
