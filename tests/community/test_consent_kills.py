"""Real processes on one store: they are killed at any statement, and they race."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcot.community import consent
from fedcot.community.coalitions import label
from fedcot.community.consent import TraceStore
from fedcot.data.traces import Scope, Trace

# Opening, adding and granting send fewer statements than this.
MOMENTS = 90
AUDIENCES = (("library",), ("library", "post"))


def trace(number: int) -> Trace:
    return Trace(question=f"private question {number}", scope=Scope.COALITION)


KEYS = [trace(number).key for number in range(40)]


def model_of(audience: tuple[str, ...]) -> str:
    return f"student.{label(audience)}"


class MortalConnection:
    """A connection whose process is killed before or after one of its statements."""

    def __init__(self, connection: Any, moment: int) -> None:
        self.connection = connection
        self.moments_left = moment

    def execute(self, *given: Any) -> Any:
        return self._live(self.connection.execute, *given)

    def executemany(self, *given: Any) -> Any:
        return self._live(self.connection.executemany, *given)

    @property
    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction)

    def close(self) -> None:
        self.connection.close()

    def _live(self, work: Callable[..., Any], *given: Any) -> Any:
        self._pass_a_moment()
        made = work(*given)
        self._pass_a_moment()
        return made

    def _pass_a_moment(self) -> None:
        self.moments_left -= 1
        if self.moments_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def born(work: Callable[[Callable[[Any], None]], None], log: Path) -> int:
    """Fork a process that works and sends lines, each written at once."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        work(lambda row: os.write(out, f"{json.dumps(row)}\n".encode()))
        code = 0
    finally:
        # Whatever happens, a fork must not go on as its parent.
        os._exit(code)


def ended(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def sent_in(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def live(folder: Path, moment: int, send: Callable[[Any], None]) -> None:
    """Add, grant and send until the process is killed."""
    open_database = consent.open_database
    consent.open_database = lambda place: MortalConnection(  # type: ignore
        open_database(place), moment
    )
    with TraceStore(folder, community="library") as store:
        store.add([trace(0), trace(1)])
        for turn in range(2):
            grants = store.grant(AUDIENCES, model=model_of, purpose=f"{moment}.{turn}")
            send([turn, {one.key: list(map(label, one.audiences)) for one in grants}])
            if turn == 0:
                send(["withdrawn", [one.key for one in store.withdraw(KEYS[:1])]])


@pytest.mark.parametrize("first", [0, 1], ids=["new-store", "old-store"])
def test_whatever_was_sent_is_listed_at_whatever_statement_the_process_dies(
    tmp_path: Path, first: int
) -> None:
    killed = sent = withdrawn = 0
    # After one statement is the same as before the next.
    for moment in range(first, MOMENTS, 2):
        folder = tmp_path / ("one" if first else str(moment))
        log = tmp_path / f"{moment}.log"
        log.touch()
        child = born(lambda send, f=folder, m=moment: live(f, m, send), log)
        killed += ended(child) == -signal.SIGKILL
        with TraceStore(folder, community="library") as store:
            held = {one.key for one in store.active()}
            buried = {stone.key for stone in store.tombstones()}
            assert not held & buried
            for what, told in sent_in(log):
                if what == "withdrawn":
                    withdrawn += 1
                    assert set(told) <= buried
                    continue
                for key, audiences in told.items():
                    sent += 1
                    purpose = f"{moment}.{what}"
                    listed = {
                        one.audience
                        for one in store.reached(key)
                        if one.purpose == purpose
                    }
                    assert set(audiences) <= listed
        if KEYS[0] in buried:
            for path in folder.iterdir():
                assert b"private question 0" not in path.read_bytes()
    # Enough died, some at the very end, and enough was sent before.
    assert MOMENTS // 4 < killed < MOMENTS // 2
    assert sent > MOMENTS // 3
    assert withdrawn > 3


def test_a_grant_is_in_the_file_before_it_is_returned(tmp_path: Path) -> None:
    """What another process reads then is all that a crash would leave."""
    with TraceStore(tmp_path, community="library") as store:
        store.add([trace(0)])
        store.grant(AUDIENCES, model=model_of, purpose="distil")
        log = tmp_path / "log"

        def look(send: Callable[[Any], None]) -> None:
            with TraceStore(tmp_path, community="library") as other:
                send([one.audience for one in other.reached(trace(0).key)])

        assert ended(born(look, log)) == 0
        assert sent_in(log) == [["library", "library+post"]]


def test_a_withdrawal_beside_grants_lists_all_or_comes_before(tmp_path: Path) -> None:
    """The order is by a clock that all processes of a machine share."""
    folder, count = tmp_path / "member", 20
    with TraceStore(folder, community="library") as store:
        store.add([trace(n) for n in range(count)])
    logs = [tmp_path / f"{name}.log" for name in ("first", "second", "withdrawing")]

    def granting(name: str, send: Callable[[Any], None]) -> None:
        with TraceStore(folder, community="library") as store:
            for turn in range(12):
                begun = time.monotonic()
                grants = store.grant(
                    AUDIENCES, model=model_of, purpose=f"{name}.{turn}"
                )
                send([begun, turn, [one.key for one in grants]])

    def withdrawing(send: Callable[[Any], None]) -> None:
        with TraceStore(folder, community="library") as store:
            for number in range(count):
                (stone,) = store.withdraw([KEYS[number]])
                reached = sorted({one.purpose for one in stone.reached})
                send([time.monotonic(), stone.key, reached])

    children = [
        born(lambda send: granting("first", send), logs[0]),
        born(lambda send: granting("second", send), logs[1]),
        born(withdrawing, logs[2]),
    ]
    assert [ended(child) for child in children] == [0, 0, 0]
    stones = {key: (done, set(reached)) for done, key, reached in sent_in(logs[2])}
    assert len(stones) == count
    for log in logs[:2]:
        for begun, turn, keys in sent_in(log):
            for key in keys:
                done, reached = stones[key]
                assert f"{log.stem}.{turn}" in reached
                assert begun < done
