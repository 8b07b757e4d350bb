"""Large, broken and hostile files."""

import io
import json
import os
import stat
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.data.portability import Limits, import_traces, json_stream
from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.json_stream import Problem, json_items, leading_keys, lines
from fedcot.data.portability.reading import loads
from fedcot.errors import ConfigError
from tests.data.portability import portability_exports as made

ROWS = b'[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]'


def reader(data, chunk):
    stream = io.BytesIO(data)
    return lambda size: stream.read(min(size, chunk))


def items(data, limit=10**6, container="", chunk=10**6):
    return list(json_items(reader(data, chunk), limit=limit, container=container))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)
_CONTAINERS = st.lists(_JSON, max_size=3) | st.dictionaries(
    st.text(), _JSON, max_size=3
)


@given(
    st.lists(_CONTAINERS, max_size=5),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_items_are_those_of_the_json_module_however_the_bytes_come(
    values, chunk, is_ascii, indent
):
    data = json.dumps(values, ensure_ascii=is_ascii, indent=indent)
    data = data.encode("utf-8", "surrogatepass" if is_ascii else "replace")
    expected = json.loads(data)
    assert [loads(item) for item in items(data, chunk=chunk)] == expected


@given(_CONTAINERS, st.lists(_CONTAINERS, max_size=4), _JSON, st.integers(1, 9))
def test_items_in_an_object_are_those_under_its_key(before, values, after, chunk):
    inner = {"conversations": [{"x": 1}]}
    whole = {"a": before, "b": inner, "conversations": values, "c": after}
    data = json.dumps(whole).encode()
    found = items(data, container="conversations", chunk=chunk)
    assert [loads(item) for item in found] == json.loads(data)["conversations"]


def test_a_key_that_only_ends_like_the_container_is_another_key():
    data = json.dumps({'x"conversations': [{"a": 1}], "y": [{}]}).encode()
    assert items(data, container="conversations") == []


def test_items_stand_alone_and_in_a_row():
    assert items(b' {"a": [1]} \n{"b": 2}') == [b'{"a": [1]}', b'{"b": 2}']


def test_scalars_and_junk_between_items_are_counted():
    assert items(b'[{"a": 1}, 5, null, {"b": 2}]') == [
        b'{"a": 1}',
        Problem.MALFORMED,
        b'{"b": 2}',
    ]
    for chunk in (1, 100):
        found = items(b'[{"a": 1}] ' + b"x" * 200, chunk=chunk)
        assert found == [b'{"a": 1}', Problem.MALFORMED]
    assert items(b"]]") == [Problem.MALFORMED]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_an_item_beyond_the_limit_is_left_out_and_the_next_one_is_read(chunk):
    data = json.dumps([{"a": 1}, {"b": "x" * 500 + "]}"}, {"c": 3}]).encode()
    found = items(data, limit=100, chunk=chunk)
    assert found == [b'{"a": 1}', Problem.TOO_LONG, b'{"c": 3}']


def test_a_long_item_is_never_held():
    splitter = json_stream._Splitter(1000, "")
    for piece in (b'[{"a": "', *[b"x" * 1000] * 50):
        assert list(splitter.feed(piece)) == []
        assert len(splitter._buffer) <= 2100


def test_lines_have_a_limit_too():
    data = b"a\r\n\n" + b"x" * 50 + b"\nb\n" + b"y" * 50
    for chunk in (1, 3, 1000):
        read = reader(data, chunk)
        found = list(lines(read, limit=10))
        assert found == [b"a", Problem.TOO_LONG, b"b", Problem.TOO_LONG]


def test_a_mark_of_the_order_of_bytes_is_passed_over(tmp_path):
    for file, content in made.exports().values():
        (tmp_path / file).write_bytes(content)
        plain = list(import_traces(tmp_path / file)[0])
        (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + content)
        assert list(import_traces(tmp_path / file)[0]) == plain


def test_leading_keys_are_those_of_the_first_object():
    assert leading_keys(b'[{"a": {"b": 1}, "c": ["d"], "e": "f:') == {"a", "c", "e"}
    assert leading_keys(b'{"a": 1} {"b": 2}') == {"a"}


@pytest.mark.parametrize("name", sorted(made.exports()))
def test_an_export_that_ends_anywhere_gives_what_came_before(tmp_path, name):
    file, content = made.exports()[name]
    path = tmp_path / file
    path.write_bytes(content)
    whole = list(import_traces(path, format=name)[0])
    # Every byte of a small one.
    step = 1 if name == "alpaca" else max(1, len(content) // 60)
    for end in range(0, len(content), step):
        path.write_bytes(content[:end])
        try:
            traces, report = import_traces(path, format=name)
            found = list(traces)
        except ConfigError:
            continue
        if name not in ("copilot", "messages"):
            # Pieces are whole conversations, so what is read is a part of the whole.
            assert found == whole[: len(found)]
            is_whole = len(found) == len(whole)
            assert is_whole or report.skipped[reasons.EARLY_END] == 1 or end < 3
            assert bool(report.warnings) == (reasons.EARLY_END in report.skipped)


def test_conversations_before_and_after_a_broken_one_are_read(tmp_path):
    path = tmp_path / "x.json"
    broken = ROWS.replace(b"}, {", b'}, {"instruction" "x", "output": nil}, {')
    path.write_bytes(broken)
    traces, report = import_traces(path)
    assert [trace.answer for trace in traces] == ["b", "d"]
    assert report.skipped == {reasons.MALFORMED: 1}
    path.write_bytes(ROWS[:-10])
    traces, report = import_traces(path)
    assert [trace.answer for trace in traces] == ["b"]
    assert report.skipped == {reasons.EARLY_END: 1}
    assert "ends early" in report.warnings[0]


def archive(tmp_path, members, **options):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def test_an_archive_is_read_without_being_unpacked(tmp_path):
    members = [(f"data/{file}", content) for file, content in made.exports().values()]
    path = archive(tmp_path, [*members, ("chat.html", "<html>"), ("e/", "")])
    told = []
    traces, report = import_traces(path, on_bytes=lambda *at: told.append(at))
    found = list(traces)
    single = []
    for file, content in sorted(made.exports().values()):
        (tmp_path / file).write_bytes(content)
        single += import_traces(tmp_path / file)[0]
        (tmp_path / file).unlink()
    assert found == single
    assert report.files_left == {reasons.NOT_AN_EXPORT: 1}
    assert [file.name for file in tmp_path.iterdir()] == ["export.zip"]
    total = sum(len(content) for _, content in members)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_names_that_lead_elsewhere_links_and_archives_are_not_read(tmp_path):
    link = zipfile.ZipInfo("link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    inner = archive(tmp_path, [("a.json", ROWS)]).read_bytes()
    path = archive(
        tmp_path,
        [
            ("../out.json", ROWS),
            ("a/../../out.json", ROWS),
            ("/root.json", ROWS),
            ("C:\\out.json", ROWS),
            ("c:out.json", ROWS),
            ("new\nline.json", ROWS),
            (link, "/etc/passwd"),
            ("inner.zip", inner),
            ("inner.tgz", inner),
            ("disguised.json", inner),
        ],
    )
    traces, report = import_traces(path)
    with pytest.raises(ConfigError, match="found none at"):
        list(traces)
    assert report.files_left == {
        reasons.UNSAFE_NAME: 6,
        reasons.LINK: 1,
        reasons.NESTED: 2,
        reasons.NOT_AN_EXPORT: 1,
    }


def test_a_bomb_is_refused_before_it_is_opened(tmp_path):
    path = archive(tmp_path, [("a.json", b" " * 10**6)])
    with pytest.raises(ConfigError, match="at most 250 times"):
        import_traces(path)
    path = archive(tmp_path, [(f"{n}.json", ROWS) for n in range(5)])
    for limits, match in (
        (Limits(files=4), "at most 4 files"),
        (Limits(file_bytes=10), "at most 10 bytes"),
        (Limits(total_bytes=4 * len(ROWS)), "in all"),
        (Limits(directory_bytes=100), "list of names"),
    ):
        with pytest.raises(ConfigError, match=match):
            import_traces(path, limits=limits)
    (tmp_path / "export.zip").unlink()
    for number in range(5):
        (tmp_path / f"{number}.json").write_bytes(ROWS)
    with pytest.raises(ConfigError, match="at most 4 files"):
        import_traces(tmp_path, limits=Limits(files=4))


def test_a_size_that_lies_reads_no_more_than_it_says(tmp_path):
    rows = json.dumps([{"instruction": f"{n}", "output": "b"} for n in range(9999)])
    path = archive(tmp_path, [("a.json", rows)])
    content = path.read_bytes()
    size = struct.pack("<L", len(rows))
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<L", 200_000)))
    traces, report = import_traces(path)
    assert 0 < len(list(traces)) < 9999
    assert report.skipped[reasons.EARLY_END] == 1


def test_a_damaged_archive_gives_what_came_before(tmp_path):
    rows = [{"instruction": os.urandom(60).hex(), "output": "b"} for _ in range(3000)]
    path = archive(tmp_path, [("a.json", json.dumps(rows))])
    content = bytearray(path.read_bytes())
    middle = len(content) * 3 // 4
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    traces, report = import_traces(path)
    found = list(traces)
    assert 0 < len(found) < 3000
    assert [trace.question for trace in found[:9]] == [
        row["instruction"] for row in rows[:9]
    ]
    assert report.skipped[reasons.EARLY_END] == 1


@pytest.mark.parametrize("kept", [0, 4, 30, 0.5, -60, -1])
@pytest.mark.parametrize("is_in_a_folder", [False, True])
def test_an_archive_that_was_cut_is_said_to_be_cut(tmp_path, kept, is_in_a_folder):
    path = archive(tmp_path, [("a.json", ROWS * 50)], compresslevel=0)
    content = path.read_bytes()
    end = int(kept * len(content)) if isinstance(kept, float) else kept
    path.write_bytes(content[:end])
    if is_in_a_folder:
        (tmp_path / "b.json").write_bytes(ROWS)
    with pytest.raises(ConfigError, match="cut or damaged; download it again"):
        import_traces(tmp_path if is_in_a_folder else path)


def test_an_archive_of_which_nothing_can_be_read_is_said_to_be_damaged(tmp_path):
    path = archive(tmp_path, [("a.json", ROWS)])
    content = bytearray(path.read_bytes())
    content[:4] = b"XXXX"
    path.write_bytes(content)
    traces, _ = import_traces(path)
    with pytest.raises(ConfigError, match="cut or damaged; download it again"):
        list(traces)


def test_a_document_that_is_no_archive_of_an_export_is_passed_over(tmp_path):
    """Word files are ZIP archives; a cut one beside an export is no reason to stop."""
    (tmp_path / "letter.docx").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "b.json").write_bytes(ROWS)
    traces, report = import_traces(tmp_path)
    assert len(list(traces)) == 2
    assert report.files_left == {reasons.NOT_AN_EXPORT: 1}


def test_encrypted_and_oddly_compressed_members_are_counted(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.json", ROWS, compress_type=zipfile.ZIP_LZMA)
        file.writestr("b.json", ROWS)
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    traces, report = import_traces(path)
    with pytest.raises(ConfigError):
        list(traces)
    assert report.files_left == {reasons.ENCRYPTED: 1, reasons.COMPRESSION: 1}


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_bytes(ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.json").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.json")
    traces, report = import_traces(folder)
    with pytest.raises(ConfigError):
        list(traces)
    assert report.files_left[reasons.LINK] >= 2


def test_archives_in_a_folder_are_opened(tmp_path):
    archive(tmp_path, [("a.json", ROWS)])
    traces, _ = import_traces(tmp_path)
    assert [trace.answer for trace in traces] == ["b", "d"]
