"""`fedcot import` and `fedcot export traces`."""

import dataclasses
import hashlib
import json
import zipfile

import pytest

from fedcot.cli import main
from fedcot.data.portability import LEGAL_NOTE, read_traces
from fedcot.data.traces import Scope
from tests.data.portability import portability_exports as made


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([made.CLAUDE]))
    return path


def test_import_writes_traces_and_shows_what_it_found(capsys, tmp_path, chats):
    output = tmp_path / "traces.jsonl"
    code, out, err = run(
        capsys, "import", chats, "--output", output, "--subject", "ann"
    )
    assert (code, err) == (0, "")
    traces = list(read_traces(output))
    assert [(t.subject, t.scope, t.answer) for t in traces] == [
        ("ann", "own", "4"),
        ("ann", "own", "6"),
    ]
    words = " ".join(out.split())
    assert "2 traces of 1 conversations" in words
    assert "class count full 1 summary 1" in words
    assert "left out count no answer 1" in words
    assert "2+2?" not in out


def test_import_as_json_has_the_report(capsys, tmp_path, chats):
    output = tmp_path / "traces.jsonl"
    code, out, _ = run(
        capsys, "import", chats, "--output", output, "--limit", 1, "--json",
        "--scope", "community",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert found["trace_classes"] == {"full": 1}
    assert found["models"] == [{"provider": "claude", "model": "", "traces": 1}]
    assert [trace.scope for trace in read_traces(output)] == ["community"]


@pytest.mark.parametrize("format", ["messages", "sharegpt", "pam"])
def test_import_takes_what_export_wrote(capsys, tmp_path, chats, format):
    first, again = tmp_path / "first.jsonl", tmp_path / "again.jsonl"
    run(capsys, "import", chats, "--output", first, "--scope", "public")
    folder = tmp_path / "out"
    code, out, err = run(
        capsys, "export", "traces", first, "--format", format, "--output", folder
    )
    assert (code, err) == (0, "")
    assert LEGAL_NOTE in out
    code, out, err = run(
        capsys, "import", folder, "--output", again, "--scope", "as-given"
    )
    assert (code, err) == (0, "")
    assert again.read_bytes() == first.read_bytes()
    # Whoever does not say so takes over nobody's scope.
    run(capsys, "import", folder, "--output", again)
    assert {trace.scope.value for trace in read_traces(again)} == {"own"}


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "gpt"],
        ["--scope", "everybody"],
        ["--limit", "0"],
        ["--output", "."],
        ["--output", "/none/x.jsonl"],
        ["--output", "CHATS"],
        ["PATH", "/none"],
        ["PATH", "SECRET"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, tmp_path, chats, options):
    secret = tmp_path / "secret.json"
    secret.write_text("my secret")
    names = {"CHATS": chats, "SECRET": secret}
    name, value = options[0], names.get(options[1], options[1])
    path = value if name == "PATH" else chats
    arguments = ["import", path, "--output", tmp_path / "traces.jsonl"]
    arguments += [] if name == "PATH" else [name, value]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "my secret" not in err
    assert not (tmp_path / "traces.jsonl").exists()
    assert json.loads(chats.read_text())


def test_a_bad_export_is_one_line_and_exit_2(capsys, tmp_path):
    traces = tmp_path / "traces.jsonl"
    traces.write_text('{"messages": "my secret"}\n')
    for arguments in (
        [traces, "--format", "pam", "--output", tmp_path / "out"],
        [tmp_path / "none", "--format", "pam", "--output", tmp_path / "out"],
        [traces, "--format", "alpaca", "--output", tmp_path / "out"],
        [traces, "--format", "pam", "--output", tmp_path],
    ):
        code, out, err = run(capsys, "export", "traces", *arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert "my secret" not in err
        assert not (tmp_path / "out").exists()


def test_a_cut_archive_is_one_line_and_nothing_is_written(capsys, tmp_path, chats):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(chats, chats.name)
    output, cut = tmp_path / "traces.jsonl", tmp_path / "export.zip"
    cut.write_bytes(whole.read_bytes()[:-40])
    code, out, err = run(capsys, "import", cut, "--output", output)
    assert (code, out) == (2, "")
    assert err == (
        f"fedcot: `PATH` must be a ZIP archive that is whole, found {cut} cut or "
        "damaged; download it again.\n"
    )
    assert not output.exists()


def test_a_store_is_exported_without_what_was_withdrawn(capsys, tmp_path, chats):
    first, store = tmp_path / "first.jsonl", tmp_path / "mine"
    run(capsys, "import", chats, "--output", first)
    run(capsys, "traces", "add", store, first, "--community", "library")
    run(capsys, "traces", "scope", store, "public", "--all")
    kept, gone = read_traces(first)
    run(capsys, "traces", "withdraw", store, gone.key)
    folder, again = tmp_path / "out", tmp_path / "again.jsonl"
    code, out, err = run(
        capsys, "export", "traces", store, "--format", "pam", "--output", folder,
        "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["traces"], found["scopes"]) == (1, {"public": 1})
    for described in found["files"]:
        content = (folder / described["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == described["sha256"]
    run(capsys, "import", folder, "--output", again, "--scope", "as-given")
    assert list(read_traces(again)) == [dataclasses.replace(kept, scope=Scope.PUBLIC)]
    # The store is as it was.
    code, out, _ = run(capsys, "traces", "list", store, "--json")
    assert (json.loads(out)["active"], json.loads(out)["withdrawn"]) == (1, 1)


def test_the_help_says_that_a_store_can_be_exported(capsys):
    code, out, _ = run(capsys, "export", "traces", "--help")
    assert code == 0
    assert "the folder that holds your traces" in " ".join(out.split())


def test_a_folder_without_a_store_is_not_exported(capsys, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    code, out, err = run(
        capsys, "export", "traces", folder, "--format", "pam", "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "fedcot traces add" in err
    assert not list(folder.iterdir())
    assert not (tmp_path / "out").exists()


def test_names_from_an_export_do_not_steer_the_terminal(capsys, tmp_path):
    row = {"instruction": "q", "output": "a", "model": "x\x1b[31m\u202e"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps([row]))
    _, out, _ = run(capsys, "import", path, "--output", tmp_path / "t.jsonl")
    assert "\x1b" not in out
    assert "\u202e" not in out
