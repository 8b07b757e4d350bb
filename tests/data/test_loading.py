"""Rows become records, each one counted; hostile text, formats, splits, recordings."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from fedcot.data.conversion import Converter, SkipError
from fedcot.data.loading import (
    LabelCounts,
    LoadedData,
    is_held_out,
    load_dataset,
    question_key,
)
from fedcot.data.schema import Record
from fedcot.data.sources import data_folder as folder_of
from fedcot.data.sources import read_rows, would_download
from fedcot.errors import ConfigError
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import load_mapping
from tests.tasks.writing import (
    CHOICES,
    SUMS,
    config_for,
    sums,
    write_lines,
    write_mapping,
)


def loaded_from(
    folder: Path,
    rows: list[dict[str, Any]],
    text: str = SUMS,
    tests: list[dict[str, Any]] | None = None,
    **more: Any,
) -> LoadedData:
    write_lines(folder / "train.jsonl", rows)
    write_lines(folder / "test.jsonl", tests or sums(900, 2))
    return load_dataset(config_for(write_mapping(folder, text), folder, **more))


def refusal(folder: Path, *given: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded_from(folder, *given, **more)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_records_stand_in_the_order_of_the_rows(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, sums(0, 5))
    assert [record.answer for record in loaded.train] == ["0", "2", "4", "6", "8"]
    assert loaded.train[1] == Record(
        question="What is 1 plus 1?",
        answer="2",
        domain="sums",
        fields=("What is 1 plus 1?",),
    )
    assert loaded.rows == {"train": 5, "test": 2}
    assert loaded.labels == {}
    assert load_dataset(config_for(str(tmp_path / "mapping.toml"), tmp_path)) is loaded


LONG = "x" * 100_000
HOSTILE = {
    "emoji": ("How many \U0001f469‍\U0001f469‍\U0001f467?", False),
    "right to left": ("كم عدد التفاح؟ ‮abc‬", False),
    "line ends": ("one\r\ntwo\rthree\u2028four", False),
    "nul": ("a\0b", True),
    "half a pair": ("a\ud800b", True),
    "halves in the wrong order": ("\udc00\ud800", True),
    "template": ("{{ 7 * 7 }}{% include 'x' %}", False),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_kept_or_cleaned_and_counted(tmp_path: Path, name: str) -> None:
    text, is_cleaned = HOSTILE[name]
    loaded = loaded_from(tmp_path, [{"q": text, "a": "1"}, *sums(0, 1)])
    question = loaded.train[0].question
    assert loaded.cleaned == {"train": int(is_cleaned), "test": 0}
    assert len(loaded.train) == 2
    question.encode("utf-8")
    expected = text.replace("\0", "").replace("\ud800", "\ufffd")
    assert question == expected.replace("\udc00", "\ufffd")


def test_a_pair_of_escapes_is_one_sign(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"q": "\\ud83e\\udd8a?", "a": 1}\n')
    write_lines(tmp_path / "test.jsonl", sums(0, 1))
    path = write_mapping(tmp_path, SUMS)
    (record,) = load_dataset(config_for(path, tmp_path)).train
    assert record.question == "\U0001f98a?"


def test_every_row_that_is_left_out_has_a_reason(tmp_path: Path) -> None:
    rows = [
        *sums(0, 3),
        {"q": LONG, "a": "1"},
        {"q": "  \n", "a": "1"},
        {"q": None, "a": "1"},
        {"a": "1"},
        {"q": "Why?", "a": ""},
        {"q": "Why?"},
        {"q": "Why?", "a": "because"},
        {"q": "Why?", "a": ["1"]},
        {"q": ["Why?"], "a": "1"},
        {"q": " what IS 900\tplus 900? ", "a": "1800"},
        {"q": "\0", "a": "1"},
    ]
    loaded = loaded_from(tmp_path, rows)
    assert loaded.skipped == {
        "train": {
            "a part is no text": 1,
            "no answer": 2,
            "no question": 4,
            "question is also in the test split": 1,
            "question longer than 8000 characters": 1,
            "the answer cannot be read": 2,
        },
        "test": {},
    }
    assert len(loaded.train) == 3
    assert loaded.cleaned["train"] == 1


def test_the_limit_of_characters_is_the_mapping_s(tmp_path: Path) -> None:
    rows = [{"q": "x" * 40, "a": "1"}, {"q": "y" * 41, "a": "1"}]
    loaded = loaded_from(tmp_path, rows, "max-characters = 40\n" + SUMS)
    assert [record.question[0] for record in loaded.train] == ["x"]
    long = loaded_from(tmp_path, [{"q": LONG, "a": 1}], f"max-characters={10**6}{SUMS}")
    assert len(long.train[0].question) == 100_000


PICKS = [
    {"q": "Two?", "c": ["one", "two"], "a": "two"},
    {"q": "Both?", "c": ["one", "one", "two", "two"], "a": "two"},
    {"q": "Holes?", "c": ["one", None, "two", ""], "a": "C"},
]


def test_choices_as_a_list(tmp_path: Path) -> None:
    rows = [
        *PICKS,
        {"q": "Many?", "c": list("abcde"), "a": "a"},
        {"q": "None?", "c": [], "a": "a"},
        {"q": "None?", "c": "one", "a": "a"},
        {"q": "None?", "c": ["", None], "a": "a"},
        {"q": "Other?", "c": ["one", "two"], "a": "three"},
        {"q": "Beyond?", "c": ["one", "two"], "a": "c"},
    ]
    loaded = loaded_from(tmp_path, rows, CHOICES, tests=PICKS[:1])
    # The first question stands in the test split too.
    assert [record.answer for record in loaded.train] == ["c", "c"]
    assert loaded.train[1].choices == ("one", "", "two")
    assert loaded.train[1].parts == ("Holes?", "one", "", "two", "")
    assert loaded.train[1].question == "Holes?\nAnswer Choices:\n(a) one\n(c) two"
    assert loaded.skipped["train"] == {
        "more choices than slots": 1,
        "no choices": 3,
        "question is also in the test split": 1,
        "the answer is none of the choices": 2,
    }


def test_choices_as_columns_and_as_objects(tmp_path: Path) -> None:
    columns = CHOICES.replace('"c"', '["w", "x", "y", "z"]')
    rows = [{"q": "Which?", "w": "one", "x": "two", "y": None, "a": "1", "z": None}]
    tests = [{**rows[0], "q": "Other?"}]
    (record,) = loaded_from(tmp_path, rows, columns, tests=tests).train
    assert (record.answer, record.choices) == ("b", ("one", "two"))
    objects = CHOICES.replace('"q"', '"q.stem"').replace(
        'choices = "c"', 'choices = "q.choices.text"\nlabels = "q.choices.label"'
    )
    choices = [{"label": "7", "text": "one"}, {"label": "8", "text": "two"}]
    rows = [{"q": {"stem": "Which?", "choices": choices}, "a": "8"}]
    tests = [{"q": {"stem": "Other?", "choices": choices}, "a": "7"}]
    (tmp_path / "nested").mkdir()
    (record,) = loaded_from(tmp_path / "nested", rows, objects, tests=tests).train
    assert (record.answer, record.choices) == ("b", ("one", "two"))


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    # The names may be the first row of a file that has none.
    private = [{"SECRET": "SECRET words", "a": "1"}]
    message = refusal(tmp_path, private)
    assert "`sums`" in message
    assert "no `q` among its 2 columns" in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ('"q"', '"{{ Body }} {{ q }}"', "Body"),
        ('"a"', '"a.b"', "a.b"),
        ('"a"', '"a"\ndomain = "topic"', "topic"),
        ('"a"', '"a"\nnatural-id = "user.id"', "user.id"),
        ('"a"', '"a"\nrationale = "why"', "why"),
        ('"a"', '"a"\ncompletion = "text"', "text"),
    ],
)
def test_every_mapped_column_is_looked_for(
    tmp_path: Path, old: str, new: str, column: str
) -> None:
    message = refusal(tmp_path, sums(0, 2), SUMS.replace(old, new))
    assert f"no `{column}` among its 2 columns" in message


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    assert "the train split of `sums`" in refusal(tmp_path, [])
    message = refusal(tmp_path, [{"q": "Why SECRET?", "a": ""}])
    assert "1 no answer" in message
    assert "SECRET" not in message
    message = refusal(tmp_path, sums(0, 3), tests=[{"q": "", "a": "1"}])
    assert "the test split of `sums`" in message


def test_the_domain_and_the_natural_id(tmp_path: Path) -> None:
    text = SUMS.replace('"a"\n', '"a"\ndomain = "t"\nnatural-id = "who.id"\n', 1)
    rows = [{**row, "t": "add", "who": {"id": 7}} for row in sums(0, 2)]
    rows.append({**sums(5, 1)[0], "t": None})
    tests = [{**row, "t": "add", "who": {"id": 7}} for row in sums(9, 1)]
    loaded = loaded_from(tmp_path, rows, text, tests=tests)
    assert [record.domain for record in loaded.train] == ["add", "add", "sums"]
    assert loaded.natural_ids == ("7", "7", "")


def write_as(kind: str, folder: Path, split: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"{split}.{kind.partition(' ')[0]}"
    if kind == "json list":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif kind in ("json", "jsonl"):
        write_lines(path, rows)
    elif kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["q", "a"])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "csv latin":
        lines = [f'"{row["q"]}";{row["a"]}\n' for row in rows]
        path.write_bytes(("q;a\n" + "".join(lines)).encode("latin-1"))
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path = folder / split
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path.name


KINDS = ["json list", "json", "jsonl", "csv", "csv latin", "parquet", "saved"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    rows = sums(0, 4)
    rows[1]["q"] = "Café, one\r\nor two?"
    rows[2]["q"] = "  [1, 2]"
    text = SUMS
    for split, found in (("train", rows), ("test", sums(50, 2))):
        name = write_as(kind, tmp_path, split, found)
        text = text.replace(f"{split}.jsonl", name)
    if kind == "csv latin":
        text = text.replace("[fields]", 'encoding="latin-1"\ndelimiter=";"\n[fields]')
    loaded = load_dataset(config_for(write_mapping(tmp_path, text), tmp_path))
    assert [record.question for record in loaded.train] == [
        "What is 0 plus 0?", "Café, one\r\nor two?", "[1, 2]", "What is 3 plus 3?"
    ]  # fmt: skip
    assert [record.answer for record in loaded.train] == ["0", "2", "4", "6"]
    assert len(loaded.test) == 2


def test_a_csv_file_may_hold_a_long_field_and_a_nul(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(f"q,a\n{'x' * 200_000},1\na\0b,2\nc,3,4\n")
    write_lines(tmp_path / "test.jsonl", sums(0, 1))
    # The library's own default.
    csv.field_size_limit(131_072)
    path = write_mapping(tmp_path, SUMS.replace("train.jsonl", "train.csv"))
    loaded = load_dataset(config_for(path, tmp_path))
    assert [record.question for record in loaded.train] == ["ab", "c"]
    assert loaded.skipped["train"] == {"question longer than 8000 characters": 1}
    assert csv.field_size_limit() == 131_072


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(11):
        write_lines(tmp_path / f"part_{number}.jsonl", sums(number, 1))
    write_lines(tmp_path / "test.jsonl", sums(90, 1))
    text = SUMS.replace("train.jsonl", "part_*.jsonl")
    loaded = load_dataset(config_for(write_mapping(tmp_path, text), tmp_path))
    found = [int(record.answer) // 2 for record in loaded.train]
    assert found == list(range(11))
    one = SUMS.replace("train.jsonl", "part_1.jsonl")
    mapping = load_mapping(write_mapping(tmp_path, one))
    assert read_rows(mapping, tmp_path, "train") == sums(1, 1)


def test_the_first_rows_only(tmp_path: Path) -> None:
    text = SUMS.replace("[fields]", "max-rows = 3\n[fields]")
    loaded = loaded_from(tmp_path, sums(0, 9), text)
    assert loaded.rows == {"train": 3, "test": 2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", ["'train.jsonl'", "encoding", "latin-1"]),
        (b'{"q": "SECRET", "a": 1}\n{"q": SECRET}\n', ["line 2"]),
        (b'[{"q": "SECRET"}, {]', ["line 1"]),
        (b'"SECRET"\n', ["JSON objects"]),
        (b'["SECRET"]', ["JSON objects"]),
        (b"[" * 100_000, ["line 1"]),
        (None, ["no 'train.jsonl'", "data-dir"]),
    ],
)
def test_a_file_that_is_broken_is_named(
    tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    if content is not None:
        (tmp_path / "train.jsonl").write_bytes(content)
    path = write_mapping(tmp_path, SUMS)
    with pytest.raises(ConfigError) as raised:
        load_dataset(config_for(path, tmp_path))
    for word in words:
        assert word in str(raised.value)
    assert "SECRET" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["train.parquet", "train.txt", "train.csv", "folder"])
def test_other_files_that_are_broken_are_named(tmp_path: Path, name: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b'"' + b"\x81")
    path = write_mapping(tmp_path, SUMS.replace("train.jsonl", name))
    with pytest.raises(ConfigError, match=f"the file '{name}' must"):
        load_dataset(config_for(path, tmp_path))


def test_the_first_rows_of_a_saved_folder_only(tmp_path: Path) -> None:
    for split, rows in (("train", sums(0, 9)), ("test", sums(50, 2))):
        datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / f"{split}.jsonl"))
    text = SUMS.replace("[fields]", "max-rows = 3\n[fields]")
    mapping = load_mapping(write_mapping(tmp_path, text))
    assert read_rows(mapping, tmp_path, "train") == sums(0, 3)
    assert read_rows(mapping, tmp_path, "test") == sums(50, 2)


def test_the_splits_of_a_saved_folder(tmp_path: Path) -> None:
    splits = {"learn": sums(0, 3), "check": sums(50, 2)}
    found = {key: datasets.Dataset.from_list(rows) for key, rows in splits.items()}
    datasets.DatasetDict(found).save_to_disk(str(tmp_path / "both"))
    named = 'train = "both"\ntrain-split = "learn"\ntest-split = "check"'
    text = SUMS.replace('train = "train.jsonl"\ntest = "test.jsonl"', named)
    loaded = load_dataset(config_for(write_mapping(tmp_path, text), tmp_path))
    assert loaded.rows == {"train": 3, "test": 2}
    wrong = write_mapping(tmp_path, text.replace('"check"', '"dev"'), "wrong.toml")
    with pytest.raises(ConfigError, match="the split `dev`, found 'learn', 'check'"):
        load_dataset(config_for(wrong, tmp_path))


def test_a_dataset_of_the_hub_that_is_not_here_is_told(tmp_path: Path) -> None:
    # The tests are offline; the folder stands in as soon as it is there.
    mapping = load_mapping("gsm8k")
    assert would_download(mapping, tmp_path)
    with pytest.raises(ConfigError, match=r"openai/gsm8k.*save_to_disk") as raised:
        load_dataset(config_for("gsm8k", tmp_path))
    assert "\n" not in str(raised.value)
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    assert not would_download(mapping, tmp_path)
    assert not would_download(load_mapping("gsm8k-recorded"), tmp_path)


def test_a_clone_of_the_hub_s_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    clone = tmp_path / "ChilleD" / "SVAMP" / "data"
    row = {"Body": "B", "Question": "Q?", "Answer": "3", "Type": "t"}
    for split in ("train", "test"):
        rows = [{**row, "Question": f"{split}?"}]
        clone.mkdir(parents=True, exist_ok=True)
        parquet.write_table(
            pa.Table.from_pylist(rows), clone / f"{split}-00000-of-00001.parquet"
        )
    loaded = load_dataset(config_for("svamp", tmp_path))
    assert [record.question for record in loaded.train] == ["B\ntrain?"]


def test_the_folder_is_the_setting_then_the_variable_then_the_mapping_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = load_mapping(write_mapping(tmp_path, SUMS))
    monkeypatch.setenv("FEDCOT_DATA", "/variable")
    assert folder_of(mapping, "/setting") == Path("/setting")
    assert folder_of(mapping, "") == Path("/variable")
    monkeypatch.delenv("FEDCOT_DATA")
    assert folder_of(mapping, "") == tmp_path


RECORDED = SUMS + '[recorded]\ntrain = "said_*.json"\ncut = ["\\n\\n", "Q:"]\n'


def write_said(folder: Path, texts: list[str], name: str = "said_0.json") -> None:
    (folder / name).write_text(json.dumps(texts), encoding="utf-8")


def test_a_recording_is_cut_counted_and_kept(tmp_path: Path) -> None:
    rows = [*sums(0, 4), {"q": "", "a": "1"}, {"q": "Why?", "a": ""}]
    write_said(tmp_path, ["Nothing. The answer is 0.\n\nThe answer is 9."])
    write_said(tmp_path, ["One. The answer is 2. Q: The answer is 3."], "said_2.json")
    rest = ["The answer is 5.", "No idea.", "The answer is 1.", "The answer is 7."]
    write_said(tmp_path, rest, "said_10.json")
    loaded = loaded_from(tmp_path, rows, RECORDED)
    assert [record.completion for record in loaded.train] == [
        "Nothing. The answer is 0.", "One. The answer is 2.", "The answer is 5.",
        "No idea.",
    ]  # fmt: skip
    # Rows that are left out count as rows, and as not right.
    assert loaded.labels == {"train": LabelCounts(right=2, rows=6, unparsed=1)}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_recording_of_another_length_is_refused(tmp_path: Path, count: int) -> None:
    write_said(tmp_path, ["The answer is 1."] * count)
    if count:
        message = refusal(tmp_path, sums(0, 2), RECORDED)
        assert f"each of the 2 rows, found {count}" in message
    else:
        assert "each of the 2 rows" in refusal(tmp_path, sums(0, 2), RECORDED)


def test_a_recording_that_is_no_list_of_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "said_0.json").write_text('[{"text": "SECRET"}]')
    message = refusal(tmp_path, sums(0, 1), RECORDED)
    assert "one JSON list of texts" in message
    assert "SECRET" not in message


def test_either_of_two_equal_choices_is_right(tmp_path: Path) -> None:
    said = ["So. So the answer is (c).", "So. So the answer is (d).", "(a)"]
    rows = [{**PICKS[1], "q": f"{n}?"} for n in range(3)]
    write_said(tmp_path, said)
    text = CHOICES + '[recorded]\ntrain = "said_*.json"\n'
    loaded = loaded_from(tmp_path, rows, text, tests=PICKS[:1])
    assert loaded.labels == {"train": LabelCounts(right=2, rows=3, unparsed=1)}


def test_steps_get_the_answer_and_completions_have_their_own(tmp_path: Path) -> None:
    rows = [{**row, "w": "Add them."} for row in sums(1, 1)]
    tests = [{**row, "w": None} for row in sums(90, 1)]
    steps = SUMS.replace('"a"', '"a"\nrationale = "w"')
    loaded = loaded_from(tmp_path, rows, steps, tests=tests)
    assert loaded.train[0].completion == "Add them. The answer is 2."
    assert loaded.test[0].completion == ""
    assert loaded.labels == {"train": LabelCounts(1, 1, 0)}
    rows = [{**row, "w": "Add. The answer is 3.\nQ: The"} for row in sums(1, 1)]
    own = SUMS.replace('"a"', '"a"\ncompletion = "w"')
    (tmp_path / "own").mkdir()
    loaded = loaded_from(tmp_path / "own", rows, own, tests=tests)
    assert loaded.train[0].completion == "Add. The answer is 3."
    assert loaded.labels == {"train": LabelCounts(0, 1, 0)}


def test_a_template_that_does_not_fit_a_row_leaves_it_out(tmp_path: Path) -> None:
    text = SUMS.replace('"q"', "\"{{ q | join(' ') }}\"")
    rows = [{"q": ["one", "two"], "a": 1}, {"q": 3, "a": 1}, {"q": None, "a": 1}]
    tests = [{"q": ["other"], "a": 1}]
    loaded = loaded_from(tmp_path, rows, text, tests=tests)
    assert loaded.train[0].question == "one two"
    assert loaded.skipped["train"] == {"a template does not fit the row": 2}


def questions(records: tuple[Record, ...]) -> set[str]:
    return {record.question for record in records}


def test_the_public_share_does_not_depend_on_seed_order_or_other_rows(
    tmp_path: Path,
) -> None:
    rows = sums(0, 400)
    first = loaded_from(tmp_path, rows, public_share=0.25, seed=1)
    assert not questions(first.train) & questions(first.public)
    assert len(first.train) + len(first.public) == first.rows["train"] == 400
    assert 60 < len(first.public) < 140
    other = tmp_path / "other"
    other.mkdir()
    again = loaded_from(other, rows[300::-1], public_share=0.25, seed=2)
    assert questions(again.public) < questions(first.public)
    more = loaded_from(other, rows[300::-1], public_share=0.5)
    assert questions(again.public) < questions(more.public)
    assert loaded_from(tmp_path, rows).public == ()


def test_a_test_share_is_held_out_by_the_question(tmp_path: Path) -> None:
    text = SUMS.replace('test = "test.jsonl"', "test-share = 0.25")
    rows = [*sums(0, 400), *sums(0, 400)]
    loaded = loaded_from(tmp_path, rows, text, public_share=0.25)
    assert len(loaded.test) + len(loaded.train) + len(loaded.public) == 800
    parts = [questions(x) for x in (loaded.train, loaded.test, loaded.public)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 400
    assert 60 < len(parts[1]) < 140
    assert loaded.rows["test"] == len(loaded.test)
    # One choice says nothing about the other: a quarter of what is left.
    assert 0.15 < len(parts[2]) / (400 - len(parts[1])) < 0.35


@given(st.text(max_size=20), st.floats(0, 1))
def test_who_is_held_out_grows_with_the_share(question: str, share: float) -> None:
    record = Record(question, "", "")
    assert not is_held_out(record, "test", 0.0)
    assert is_held_out(record, "test", 1.0)
    if is_held_out(record, "test", share / 2):
        assert is_held_out(record, "test", share)
    same = Record(f"  {question.upper().lower()}\n", "", "")
    if question.upper().lower().casefold() == question.casefold():
        assert question_key(same.question) == question_key(question)


@pytest.fixture(name="pick", scope="module")
def pick_task(tmp_path_factory: pytest.TempPathFactory) -> MappedTask:
    folder = tmp_path_factory.mktemp("pick")
    return MappedTask(load_mapping(write_mapping(folder, CHOICES)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=5,
)


@given(
    rows=st.lists(st.fixed_dictionaries({"q": JSON, "c": JSON, "a": JSON}), max_size=5)
)
@example(rows=[{"q": "Which?", "c": [None, "two"], "a": 0}])
def test_whatever_a_row_holds_it_is_a_record_or_is_left_out(
    pick: MappedTask, rows: list[Any]
) -> None:
    converter = Converter(pick)
    for row in rows:
        try:
            record = converter.record(row)
        except SkipError:
            continue
        assert record.answer in pick.candidates(record)
        assert pick.question(record.parts) == record.question
        assert record.question.encode("utf-8")


def test_ten_thousand_rows_load_in_seconds(data_folder: Path) -> None:
    started = time.process_time()
    # No other test asks for this share, so nothing is there yet.
    config = config_for("commonsense-qa-recorded", data_folder, public_share=0.11)
    assert load_dataset(config).rows["train"] == 9741
    assert time.process_time() - started < 3
