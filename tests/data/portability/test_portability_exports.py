"""What is exported comes back as it was, and its manifest tells the truth."""

import hashlib
import json
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot import __version__
from fedcot.data.portability import (
    DATA_CLASSES,
    EXPORT_FORMATS,
    LEGAL_NOTE,
    export_traces,
    import_traces,
    read_traces,
    write_traces,
)
from fedcot.data.portability.reading import repaired
from fedcot.data.portability.thinking import join_thinking, split_thinking, take_apart
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError

_TAGS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<Thinking >",
        "&lt;/think>",
        "&amp;lt;think",
        "\n",
        "<",
        "&",
    ]
)
_UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
_TEXTS = _UNICODE | st.lists(_TAGS | _UNICODE).map("".join)


@st.composite
def a_trace(draw, texts=_TEXTS):
    reasoning = draw(texts)
    classes = list(TraceClass)[:2] if reasoning else list(TraceClass)[2:]
    return Trace(
        question=draw(texts),
        reasoning=reasoning,
        answer=draw(texts),
        provider=draw(st.sampled_from(["", "chatgpt", "Mine!", "unknown"])),
        model=draw(texts),
        created=draw(st.sampled_from(["", "2026-01-31T12:00:00Z"])),
        subject=draw(st.text(string.ascii_letters)),
        trace_class=draw(st.sampled_from(classes)),
        scope=draw(st.sampled_from(Scope)),
    )


TRACE = Trace(
    question="2+2?",
    reasoning="two </think> and <think> two",
    answer="4\u2028\x85\x00 <think>",
    provider="claude",
    model="opus",
    created="2026-01-31T12:00:00Z",
    subject="ann",
    trace_class=TraceClass.SUMMARY,
    scope=Scope.COALITION,
)
PLAIN = Trace(question="q", answer="a", trace_class=TraceClass.RECAP_ONLY)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@given(traces=st.lists(a_trace(), min_size=1, max_size=3))
@settings(max_examples=60)
def test_an_import_of_an_export_is_what_was_exported(tmp_path_factory, format, traces):
    folder = tmp_path_factory.mktemp("x") / "out"
    export_traces(traces, folder, format=format)
    found, report = import_traces(folder, scope=None)
    assert list(found) == traces
    assert report.skipped == {}
    assert report.files == {format: len(traces) if format == "pam" else 1}


@given(st.lists(a_trace(), max_size=3))
@settings(max_examples=60)
def test_a_file_of_traces_is_read_as_it_was_written(tmp_path_factory, traces):
    path = tmp_path_factory.mktemp("x") / "traces.jsonl"
    assert write_traces(path, traces) == len(traces)
    assert list(read_traces(path)) == traces
    assert path.read_bytes().count(b"\n") == len(path.read_text().splitlines())


@given(a_trace(st.text(st.characters() | st.sampled_from("\ud800\udc00"))))
@settings(max_examples=60)
def test_halves_of_surrogate_pairs_are_replaced_on_the_way_out(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("x") / "traces.jsonl"
    write_traces(path, [trace])
    (found,) = read_traces(path)
    assert found.question == repaired(trace.question)
    assert found.reasoning == repaired(trace.reasoning)
    assert found.answer == repaired(trace.answer)


def test_repairing_touches_halves_only():
    assert repaired("a\ud800b\udc00\U0001f600") == "a\ufffdb\ufffd\U0001f600"


def test_halves_in_a_file_are_replaced_when_it_is_read(tmp_path):
    path = tmp_path / "traces.jsonl"
    write_traces(path, [TRACE])
    path.write_bytes(path.read_bytes().replace(b"2+2?", b"\\ud800"))
    assert next(read_traces(path)).question == "\ufffd"


@given(st.lists(_TAGS | _UNICODE).map("".join), st.lists(_TAGS).map("".join))
def test_joined_thinking_comes_apart_and_no_reader_is_misled(reasoning, answer):
    text = join_thinking(reasoning, answer)
    assert take_apart(text) == (reasoning, answer)
    told = split_thinking(text)
    assert not told.is_open
    written = join_thinking("", answer)
    assert told.answer == written.strip()


def test_what_was_not_joined_does_not_come_apart():
    for text in ("<think>\na", "<think>\n\n</think>\n\na", "a</think>", "a <think> b"):
        with pytest.raises(ValueError, match=r"reasoning|tag"):
            take_apart(text)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_manifest_tells_what_is_there(tmp_path, format):
    folder = tmp_path / "deep" / "out"
    manifest = export_traces([TRACE, PLAIN, PLAIN], folder, format=format)
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert manifest["traces"] == 3
    assert manifest["trace_classes"] == {"recap-only": 2, "summary": 1}
    assert manifest["providers"] == {"": 2, "claude": 1}
    assert manifest["scopes"] == {"coalition": 1, "own": 2}
    assert (manifest["format"], manifest["format_version"]) == (format, 1)
    assert manifest["fedcot_version"] == __version__
    assert manifest["legal_note"] == LEGAL_NOTE
    assert manifest["data_classes"] == DATA_CLASSES
    for file in manifest["files"]:
        content = (folder / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
        assert file["rows"] == content.count(b"\n")
    found = {path for path in folder.rglob("*") if path.is_file()}
    named = {folder / file["name"] for file in manifest["files"]}
    assert found == named | {folder / "manifest.json"}
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_same_traces_give_the_same_bytes(tmp_path, format):
    contents = []
    for name in ("one", "two"):
        export_traces(iter([TRACE, PLAIN, PLAIN]), tmp_path / name, format=format)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append(
            [(str(f.relative_to(tmp_path / name)), f.read_bytes()) for f in files]
        )
    assert contents[0] == contents[1]


def test_messages_have_the_reasoning_where_servers_write_it(tmp_path):
    export_traces([TRACE], tmp_path / "out", format="messages")
    row = json.loads((tmp_path / "out" / "messages.jsonl").read_text())
    user, reply = row["messages"]
    assert user == {"role": "user", "content": TRACE.question}
    assert reply["reasoning_content"] == TRACE.reasoning
    assert reply["content"] == TRACE.answer


# The parts of the schema that a conversation of ours can break, in our words.
_ID = {"type": "string", "minLength": 1}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
_PAM_MESSAGE = {
    "type": "object",
    "required": ["id", "role", "created_at"],
    "additionalProperties": False,
    "properties": {
        "id": _ID,
        "role": {"enum": ["user", "assistant", "system", "tool"]},
        "content": {
            "type": "object",
            "required": ["type"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["text", "multipart"]},
                "text": {"type": ["string", "null"]},
            },
        },
        "created_at": _TIME,
        "parent_id": {"type": ["string", "null"]},
        "children_ids": {"type": "array", "items": _ID},
        "model": {"type": ["string", "null"]},
        "is_thought": {"type": "boolean"},
        "raw_metadata": {"type": "object"},
    },
}
_PAM = {
    "type": "object",
    "required": ["schema", "schema_version", "id", "provider", "temporal", "messages"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": "portable-ai-memory-conversation"},
        "schema_version": {"const": "1.0"},
        "id": _ID,
        "provider": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string", "pattern": "^[a-z0-9_-]{2,32}$"}},
        },
        "temporal": {
            "type": "object",
            "required": ["created_at"],
            "additionalProperties": False,
            "properties": {"created_at": _TIME},
        },
        "messages": {"type": "array", "items": _PAM_MESSAGE},
        "model": {"type": ["string", "null"]},
        "raw_metadata": {"type": "object"},
    },
}


@given(traces=st.lists(a_trace(), min_size=1, max_size=2))
@settings(max_examples=15)
def test_a_conversation_of_pam_fits_its_schema(tmp_path_factory, traces):
    jsonschema = pytest.importorskip("jsonschema")
    folder = tmp_path_factory.mktemp("x") / "out"
    export_traces([*traces, *traces], folder, format="pam")
    ids = set()
    for path, trace in zip(
        sorted((folder / "conversations").iterdir()), traces * 2, strict=True
    ):
        conversation = json.loads(path.read_text())
        jsonschema.validate(conversation, _PAM)
        messages = conversation["messages"]
        ids |= {conversation["id"], *(message["id"] for message in messages)}
        thoughts = [m["content"]["text"] for m in messages if m["is_thought"]]
        assert thoughts == [trace.reasoning] * bool(trace.reasoning)
        for before, after in pairwise(messages):
            assert after["parent_id"] == before["id"]
            assert before["children_ids"] == [after["id"]]
    count = sum(3 + bool(trace.reasoning) for trace in traces)
    assert len(ids) == 2 * count


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield TRACE
        raise ConfigError("`TRACES.jsonl` broke")

    for format in EXPORT_FORMATS:
        with pytest.raises(ConfigError, match="broke"):
            export_traces(broken(), tmp_path / "out", format=format)
    path = tmp_path / "traces.jsonl"
    write_traces(path, [PLAIN])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="broke"):
        write_traces(path, broken())
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["traces.jsonl"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_in_use_or_an_unknown_format_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="new or an empty folder"):
            export_traces([TRACE], folder, format="pam")
    with pytest.raises(ConfigError, match="one of messages, sharegpt, pam"):
        export_traces([TRACE], tmp_path / "out", format="alpaca")
    with pytest.raises(ConfigError, match="written to"):
        export_traces([TRACE], tmp_path / "file" / "out", format="pam")
    with pytest.raises(ConfigError, match="written to"):
        write_traces(tmp_path / "none" / "x", [TRACE])
    (tmp_path / "empty").mkdir()
    export_traces([TRACE], tmp_path / "empty", format="pam")


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("fedcot"),
        lambda row: row["fedcot"].update(version=2),
        lambda row: row["fedcot"].update(version=True),
        lambda row: row["fedcot"].pop("scope"),
        lambda row: row["fedcot"].update(more=1),
        lambda row: row["fedcot"].update(scope="everybody"),
        lambda row: row["fedcot"].update(trace_class="absent"),
        lambda row: row["fedcot"].update(trace_class=["full"]),
        lambda row: row["fedcot"].update(model=3),
        lambda row: row["messages"][1].update(content=None),
        lambda row: row["messages"].append({"role": "user", "content": "x"}),
        lambda row: row["messages"].reverse(),
        lambda row: row.update(messages={}),
    ],
)
def test_a_changed_row_is_refused_without_its_text(tmp_path, change):
    path = tmp_path / "traces.jsonl"
    write_traces(path, [TRACE, TRACE])
    first, second = path.read_bytes().splitlines()
    row = json.loads(second)
    change(row)
    path.write_bytes(first + b"\n" + json.dumps(row).encode())
    with pytest.raises(ConfigError, match="line 2") as error:
        list(read_traces(path))
    assert "two" not in str(error.value)
    if "fedcot" in row:
        found, report = import_traces(path)
        assert len(list(found)) == 1
        assert report.skipped == {"malformed": 1}


@pytest.mark.parametrize("format", ["sharegpt", "pam"])
def test_a_changed_export_is_not_taken_for_ours(tmp_path, format):
    folder = tmp_path / "out"
    export_traces([TRACE], folder, format=format)
    (path,) = [p for p in folder.rglob("*.json*") if p.name != "manifest.json"]
    row = json.loads(path.read_text())
    if format == "pam":
        row["messages"][1]["is_thought"] = False
    else:
        row["conversations"][1]["value"] += "</think>"
    path.write_text(json.dumps(row))
    found, report = import_traces(folder)
    assert list(found) == []
    assert report.skipped == {"malformed": 1}


def test_no_file_and_no_traces_are_said(tmp_path):
    with pytest.raises(ConfigError, match="can be read"):
        list(read_traces(tmp_path / "none"))
    path = tmp_path / "traces.jsonl"
    path.write_text("secret\n")
    with pytest.raises(ConfigError, match=r"line 1 otherwise \(no JSON\)") as error:
        list(read_traces(path))
    assert "secret" not in str(error.value)
    assert error.value.__context__ is None
    path.write_text("")
    assert list(read_traces(path)) == []


def test_the_legal_note_argues_and_asserts_no_right():
    text = LEGAL_NOTE.lower()
    assert "not legal advice" in text
    assert "argument" in text
    assert "20(1)" in text
    assert "not created or inferred" in text
    for phrase in (
        "you have a right",
        "have the right",
        "entitled",
        "you may",
        "guarant",
    ):
        assert phrase not in text
    assert DATA_CLASSES["derived"] == ["reasoning", "answer"]
    assert DATA_CLASSES["provided"] == ["question"]
