"""The cache: exact, shared, durable, and never mistaken about what a file is."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedcot.errors import ConfigError, TeacherError
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.cache import AnswerCache, answer_key, prompt_hash
from fedcot.teacher.teacher import Written
from tests.teacher.cache_worker import key_of, text_of

ROOT = Path(__file__).parents[2]
# Lone surrogates included: a completion may hold anything.
texts = st.text(st.characters(exclude_categories=()))
written = st.builds(
    Written,
    text=texts,
    prompt_tokens=st.integers(0, 2**62),
    completion_tokens=st.integers(0, 2**62),
    is_cut=st.booleans(),
    served_by=st.text(),
)
keys = st.binary(min_size=32, max_size=32).map(bytes.hex)
prompts = st.builds(
    TeacherPrompt,
    instruction=texts,
    demonstrations=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    user=texts,
)
scalars = st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "teacher-cache.sqlite"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnswerCache]:
    with AnswerCache(tmp_path_factory.mktemp("cache") / "shared.sqlite") as cache:
        yield cache


@pytest.fixture(scope="module")
def put_before() -> dict[str, Written]:
    return {}


def test_what_was_put_first_comes_back_also_later(path: Path) -> None:
    with AnswerCache(path) as cache:
        assert cache.get(key_of(1)) is None
        first = Written("text", 3, 4, True, "tiny")
        assert cache.put(key_of(1), first) == first
        assert cache.put(key_of(1), Written("another")) == first
        assert cache.put(key_of(2), Written("another")) == Written("another")
        assert len(cache) == 2
    with AnswerCache(path) as cache:
        assert cache.get(key_of(1)) == first
        assert len(cache) == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(one=written, key=keys)
@example(one=Written("lone \ud800, nul \0, \U0001f9ee"), key="ab" * 32)
def test_any_completion_comes_back_as_it_was(
    one: Written,
    key: str,
    shared: AnswerCache,
    put_before: dict[str, Written],
) -> None:
    first = put_before.setdefault(key, one)
    assert shared.put(key, one) == first
    assert shared.get(key) == first


@given(prompt=prompts, stop=st.lists(texts, max_size=3))
def test_a_key_changes_with_everything_that_decides_an_answer(
    prompt: TeacherPrompt, stop: list[str]
) -> None:
    described = {"model": "tiny", "seed": 1}
    key = answer_key(prompt, stop, described)
    assert len(bytes.fromhex(key)) == 32
    # Not with the order of the settings.
    assert key == answer_key(prompt, tuple(stop), {"seed": 1, "model": "tiny"})
    instruction, shown, user = prompt.instruction, prompt.demonstrations, prompt.user
    others = [
        answer_key(TeacherPrompt(instruction + "x", shown, user), stop, described),
        answer_key(TeacherPrompt(instruction, shown, user + " "), stop, described),
        answer_key(
            TeacherPrompt(instruction, (*shown, ("a", "b")), user), stop, described
        ),
        answer_key(prompt, [*stop, "x"], described),
        answer_key(prompt, stop, {"model": "tiny", "seed": 2}),
        answer_key(prompt, stop, {"model": "tiny", "seed": "1"}),
        answer_key(prompt, stop, {"model": "tiny"}),
    ]
    assert len({key, *others}) == 1 + len(others)


@given(one=prompts, other=prompts)
def test_only_equal_prompts_have_one_hash(
    one: TeacherPrompt, other: TeacherPrompt
) -> None:
    assert (prompt_hash(one) == prompt_hash(other)) == (one == other)


def test_parts_of_a_prompt_are_not_mistaken_for_each_other() -> None:
    words = ("one", "two", "three", "four")
    made = [TeacherPrompt(a, ((b, c),), d) for a, b, c, d in permutations(words)] + [
        TeacherPrompt("one", (), "two three four"),
        TeacherPrompt("", (), "one"),
    ]
    # As one text these two are the same, as a chat they are not.
    made += [TeacherPrompt("a", (), "b"), TeacherPrompt("", (), "a\n\nb")]
    assert made[-1].text == made[-2].text
    assert len({prompt_hash(prompt) for prompt in made}) == len(made)
    assert len({answer_key(prompt, [], {}) for prompt in made}) == len(made)


def test_the_file_holds_no_prompt(path: Path) -> None:
    prompt = TeacherPrompt("Instruction7531", (("Shown7531", "Said7531"),), "Asked7531")
    with AnswerCache(path) as cache:
        key = answer_key(prompt, ["Stop7531"], {"model": "Model7531"})
        cache.put(key, Written("Completion7531"))
    content = path.read_bytes()
    assert b"Completion7531" in content
    for part in (b"Instruction", b"Shown", b"Said", b"Asked", b"Stop", b"Model"):
        assert part + b"7531" not in content


# Files that are something else


def refusal_of(path: Path) -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError) as caught:
        AnswerCache(path)
    # Whatever it is, it is not ours to change.
    assert before is None or path.read_bytes() == before
    line = str(caught.value)
    assert "\n" not in line
    assert "`teacher-cache`" in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("content", [b"not a database " * 100, b"\0" * 5000, b"x"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert "not a database" in refusal_of(path)


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE answers (key, text)")
        other.commit()
    assert "another kind" in refusal_of(path)


def test_a_later_format_is_refused(path: Path) -> None:
    AnswerCache(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version=2")
    assert "format 2" in refusal_of(path)


@pytest.mark.parametrize("where", [100, 5000, 20000])
def test_a_damaged_file_is_refused(path: Path, where: int) -> None:
    with AnswerCache(path) as cache:
        for index in range(50):
            cache.put(key_of(index), Written(text_of(index)))
    content = bytearray(path.read_bytes())
    assert len(content) > where + 2000
    content[where : where + 2000] = b"\xa5" * 2000
    path.write_bytes(content)
    refusal_of(path)


def test_a_file_that_was_cut_is_refused(path: Path) -> None:
    with AnswerCache(path) as cache:
        for index in range(50):
            cache.put(key_of(index), Written(text_of(index)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    refusal_of(path)


def test_a_folder_and_a_path_below_a_file_are_refused(tmp_path: Path) -> None:
    refusal_of(tmp_path)
    (tmp_path / "file").write_text("x")
    refusal_of(tmp_path / "file" / "cache.sqlite")


def test_a_cache_that_breaks_while_it_is_used_says_so(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache.put(key_of(1), Written("text7531"))
        path.write_bytes(b"other" * 1000)
        for work in (
            lambda: cache.put(key_of(2), Written("more7531")),
            lambda: cache.get(key_of(1)),
        ):
            with pytest.raises(TeacherError) as caught:
                work()
            assert str(path) in str(caught.value)
            assert "7531" not in str(caught.value)


# Threads and processes


def test_threads_share_one_cache(path: Path) -> None:
    kept: list[dict[int, str]] = [{} for _ in range(4)]

    def work(mine: dict[int, str], who: str) -> None:
        for index in range(25):
            mine[index] = cache.put(key_of(index), Written(text_of(index, who))).text

    with AnswerCache(path) as cache:
        threads = [
            threading.Thread(target=work, args=(mine, f"t{number}-"))
            for number, mine in enumerate(kept)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(cache) == 25
        stored = {index: cache.get(key_of(index)) for index in range(25)}
    assert kept == [{index: one.text for index, one in stored.items() if one}] * 4


@pytest.mark.parametrize("turn", range(5))
def test_a_cache_that_many_make_at_once_is_made_once(path: Path, turn: int) -> None:
    together = threading.Barrier(6)
    made: list[int] = []

    def make(who: int) -> None:
        together.wait(60)
        with AnswerCache(path) as cache:
            cache.put(key_of(who), Written("text"))
        made.append(who)

    threads = [threading.Thread(target=make, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == list(range(6))
    with AnswerCache(path) as cache:
        assert len(cache) == 6


def test_who_comes_while_another_makes_the_file_waits(tmp_path: Path) -> None:
    AnswerCache(tmp_path / "made.sqlite").close()
    statements = making_statements(tmp_path / "made.sqlite")
    path = tmp_path / "cache.sqlite"
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for statement in statements:
            other.execute(statement)
        opened: list[AnswerCache] = []
        waiting = threading.Thread(target=lambda: opened.append(AnswerCache(path)))
        waiting.start()
        time.sleep(0.2)
        assert not opened
        other.execute("COMMIT")
        waiting.join(60)
    (cache,) = opened
    with cache:
        assert cache.put(key_of(1), Written("text")) == Written("text")


def making_statements(path: Path) -> list[str]:
    """Return the statements that make an empty cache."""
    with closing(sqlite3.connect(path)) as made:
        (table,) = made.execute("SELECT sql FROM sqlite_schema").fetchone()
        numbers = [
            f"PRAGMA {name}={made.execute(f'PRAGMA {name}').fetchone()[0]}"
            for name in ("application_id", "user_version")
        ]
    return [table, *numbers]


def start(path: Path, *span: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.teacher.cache_worker",
            path,
            *map(str, span),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


def said_by(worker: subprocess.Popen[str]) -> list[int]:
    """Return what a worker has put; a line that was cut off by its death was not."""
    said, _ = worker.communicate(timeout=60)
    lines = said.splitlines(keepends=True)
    return [int(line.split()[0]) for line in lines if line.endswith("\n")]


def test_processes_make_and_fill_one_cache_together(path: Path) -> None:
    # All overlap with their neighbours; all begin while there is no file.
    workers = [start(path, first, first + 40) for first in (0, 20, 40)]
    said = [said_by(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert [len(one) for one in said] == [40, 40, 40]
    with AnswerCache(path) as cache:
        assert len(cache) == 80
        for index in range(80):
            assert cache.get(key_of(index)) == Written(text_of(index), index, 1)


def test_killed_processes_lose_nothing_that_was_put(path: Path) -> None:
    said: list[int] = []
    for turn in range(8):
        worker = start(path, turn * 10**6, (turn + 1) * 10**6)
        assert worker.stdout is not None
        # Some answers, then death at some moment of a later one.
        heard = [worker.stdout.readline() for _ in range(1 + turn % 4)]
        time.sleep(0.003 * turn)
        worker.kill()
        said += [*(int(line.split()[0]) for line in heard), *said_by(worker)]
        with AnswerCache(path) as cache:
            for index in said:
                assert cache.get(key_of(index)) == Written(text_of(index), index, 1)
            # The one that it was putting may be there as well.
            assert len(said) <= len(cache) <= len(said) + turn + 1
    assert len(said) == len(set(said)) >= 20
