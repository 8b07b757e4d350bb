"""`fedcot traces` as an owner uses it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedcot.cli import main
from fedcot.community import consent
from fedcot.community.coalitions import label
from fedcot.community.consent import TraceStore
from fedcot.data.traces import Scope, Trace, TraceClass

SECRET_TEXT = "seven-green-lanterns"


def trace(number: int, scope: Scope = Scope.OWN) -> Trace:
    return Trace(
        question=f"{SECRET_TEXT} {number}\n\x1b[2J\ud800",
        reasoning=f"{SECRET_TEXT} steps",
        answer=str(number),
        trace_class=TraceClass.FULL,
        scope=scope,
    )


TRACES = [trace(1), trace(2), trace(3, Scope.PUBLIC)]
KEYS = [one.key for one in TRACES]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of traces, and a reader that finds three in any file."""
    reader = ModuleType("fedcot.data.portability")
    reader.read_traces = lambda path: iter(TRACES)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fedcot.data.portability", reader)
    monkeypatch.setattr("fedcot.data.portability", reader, raising=False)
    path = tmp_path / "traces.jsonl"
    path.write_text("three traces")
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["traces", *map(str, arguments)])
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run


@pytest.fixture
def folder(tmp_path: Path, file: Path, call) -> Path:
    code, _, _ = call("add", tmp_path / "mine", file, "--community", "library")
    assert code == 0
    return tmp_path / "mine"


def granted(folder: Path, audience: tuple[str, ...] = ("library",)) -> set[str]:
    with TraceStore(folder, community="library") as store:
        made = store.grant([audience], model=lambda a: f"m.{label(a)}", purpose="run 1")
    return {one.key for one in made}


def test_added_traces_reach_nobody_whatever_their_file_says(folder: Path) -> None:
    assert granted(folder) == set()


@pytest.mark.parametrize(
    ("scope", "reach"),
    [("own", 0), ("community", 3), ("coalition", 3), ("public", 3), ("as-given", 1)],
)
def test_the_owner_can_say_the_scope_when_adding(
    tmp_path: Path, file: Path, call, scope: str, reach: int
) -> None:
    place = ("add", tmp_path / "a", file, "--community", "library", "--scope", scope)
    code, out, _ = call(*place, "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "added": 3,
            "known": 0,
            "withdrawn": 0,
            "scope": scope,
            "held": 3,
            "community": "library",
        },
    )
    assert len(granted(tmp_path / "a")) == reach
    code, out, _ = call(*place)
    assert code == 0
    assert out == (
        f"0 added with scope {scope}, 3 known already, 0 withdrawn earlier and left "
        "out; 3 held\n"
    )


def test_listing_shows_counts_and_no_text_unless_asked(folder: Path, call) -> None:
    code, out, _ = call("list", folder)
    assert code == 0
    assert out.startswith("community library: 3 traces, 0 withdrawn\n")
    assert out.splitlines()[2].split() == ["own", "3", "0", "0", "0"]
    assert not any(key[:8] in out for key in KEYS)

    _, out, _ = call("list", folder, "--keys")
    rows = [line.split() for line in out.splitlines()[-3:]]
    assert rows == [[key[:8], "full", "own"] for key in sorted(KEYS)]
    assert SECRET_TEXT not in out

    _, out, _ = call("list", folder, "--keys", "--json")
    content = json.loads(out)
    assert content["scopes"]["own"]["full"] == content["active"] == 3
    assert content["traces"] == [
        {"key": key, "trace_class": "full", "scope": "own"} for key in sorted(KEYS)
    ]
    assert SECRET_TEXT not in out

    _, out, _ = call("list", folder, "--show-text")
    assert f'  question: "{SECRET_TEXT} 1\\n\\u001b[2J\\ud800"\n' in out
    assert "\x1b" not in out
    _, out, _ = call("list", folder, "--show-text", "--json")
    assert sorted(one["question"] for one in json.loads(out)["traces"]) == sorted(
        one.question for one in TRACES
    )


def test_a_listing_opens_the_store_once_and_reads_it_once(
    folder: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(name: str):
        real = getattr(consent, name)

        def count(*given):
            calls.append(name)
            return real(*given)

        return count

    for name in ("open_database", "read_traces"):
        monkeypatch.setattr(consent, name, counted(name))
    assert call("list", folder, "--show-text")[0] == 0
    assert calls == ["open_database", "read_traces"]


def test_scopes_change_by_prefix_or_for_all(folder: Path, call) -> None:
    code, out, _ = call("scope", folder, "community", KEYS[0][:8], KEYS[1][:20].upper())
    assert (code, out) == (
        0,
        "2 traces have scope community, 2 of them had another one\n",
    )
    assert granted(folder) == set(KEYS[:2])
    assert granted(folder, ("library", "post")) == set()
    _, out, _ = call("scope", folder, "coalition", "--all", "--json")
    assert json.loads(out) == {"scope": "coalition", "traces": 3, "changed": 3}
    assert granted(folder, ("library", "post")) == set(KEYS)
    _, out, _ = call("scope", folder, "coalition", KEYS[0][:8], KEYS[0], "--json")
    assert json.loads(out) == {"scope": "coalition", "traces": 1, "changed": 0}


def test_withdrawing_names_what_was_reached_and_stays(
    folder: Path, file: Path, call
) -> None:
    call("scope", folder, "public", KEYS[0])
    granted(folder)
    granted(folder, ("post",))
    code, out, _ = call(
        "withdraw", folder, KEYS[0][:8], KEYS[1], "--reason", "\x1bmine"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"{KEYS[0][:8]}  withdrawn 20")
    assert lines[0].endswith('reason: "\\u001bmine"')
    assert lines[1].startswith('  had reached "m.library" of library, for "run 1", 20')
    assert lines[2].startswith('  had reached "m.post" of post, for "run 1", 20')
    assert lines[3].startswith(f"{KEYS[1][:8]}  withdrawn 20")
    assert lines[4] == "  had reached no model"

    _, out, _ = call("tombstones", folder, "--json")
    stones = {one["key"]: one for one in json.loads(out)["tombstones"]}
    assert set(stones) == set(KEYS[:2])
    assert stones[KEYS[0]]["models"] == ["m.library", "m.post"]
    assert stones[KEYS[0]]["reached"][0]["purpose"] == "run 1"
    _, again, _ = call("withdraw", folder, KEYS[0], "--reason", "other", "--json")
    assert json.loads(again)["tombstones"] == [stones[KEYS[0]]]

    _, out, _ = call("add", folder, file, "--community", "library", "--json")
    assert {"added": 0, "known": 1, "withdrawn": 2, "held": 1}.items() <= json.loads(
        out
    ).items()
    assert granted(folder) == set()


def test_an_owner_who_withdrew_nothing_is_told_so(folder: Path, call) -> None:
    code, out, _ = call("tombstones", folder)
    assert (code, out) == (0, "nothing was withdrawn\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["add", "F", "none.jsonl", "--community", "library"], "`TRACES.jsonl`"),
        (["add", "F", "J", "--community", "post"], "`community`"),
        (["add", "N", "J", "--community", "My Library"], "`community`"),
        (["add", "N", "J", "--community", "library", "--scope", "all"], "as-given"),
        (["add", "N", "J"], "--community"),
        (["list", "N"], "`folder`"),
        (["tombstones", "N"], "`folder`"),
        (["scope", "N", "own", "--all"], "`folder`"),
        (["scope", "F", "all", "--all"], "`scope`"),
        (["scope", "F", "own"], "neither"),
        (["scope", "F", "own", KEYS[0], "--all"], "both"),
        (["scope", "F", "own", KEYS[0][:7]], "8 hex digits"),
        (["scope", "F", "own", "00000000"], "found 0"),
        (["withdraw", "F"], "`KEY...`"),
        (["withdraw", "F", SECRET_TEXT], "8 hex digits"),
        (["withdraw", "F", KEYS[0], "--reason", "\udcff"], "`reason`"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    folder: Path, file: Path, call, arguments: list[str], named: str
) -> None:
    before = (folder / "traces.sqlite").read_bytes()
    places = {"F": folder, "J": file, "N": folder.parent / "none"}
    code, out, err = call(*(places.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert named in err
    assert SECRET_TEXT not in err
    assert (folder / "traces.sqlite").read_bytes() == before
    assert not (folder.parent / "none").exists()


def test_a_damaged_store_is_one_line_and_exit_3(folder: Path, call) -> None:
    (folder / "traces.sqlite").write_bytes(b"not a database" * 100)
    code, out, err = call("list", folder)
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["add", "list", "scope", "withdraw", "tombstones"])
def test_help_says_what_a_command_does(call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "--json" in out
    if command in ("add", "scope"):
        assert "coalition  also students of coalitions" in out
