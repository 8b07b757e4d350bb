"""No order of charges, crashes, retries and other processes under-counts or redraws.

A history is a list of steps on two open ledgers. Each step may die before or after any
statement that it sends to the database, and the other ledger may do the same step while
this one draws. After every step the file is compared with what it was and with rules
that are written here a second time.
"""

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcot.errors import LedgerError
from fedcot.privacy import charging
from fedcot.privacy import ledger as ledger_module
from fedcot.privacy.ledger import Ledger, Release
from fedcot.privacy.nats import nats
from fedcot.privacy.sampler import RandomSource, SystemRandomSource
from tests.privacy.books import Book, check_book, check_growth, read_book
from tests.privacy.worker import (
    CHANNELS,
    CONTENTS,
    LIMIT,
    SLOTS,
    MortalConnection,
    nano_cost,
    prompt,
)

RECORDS = 3
LIMIT_NANO = int(LIMIT * 10**9)
TRAININGS = {"short": (0.25, 1e-6), "long": (0.7, 0.0)}
# More moments than a step has: charging, storing and training send 14 statements.
MOMENTS = 32


Made = TypeVar("Made")


class Crash(Exception):
    """The process dies."""


def die() -> None:
    raise Crash


@dataclass(frozen=True)
class Step:
    """What one process does: `moment` is when it dies, None never.

    With `training` it charges that training, else it releases prompts.
    """

    records: tuple[int, ...] = (0,)
    channel: int = 0
    slot: int = 0
    training: str | None = None
    process: int = 0
    moment: int | None = None
    overtaken: bool = False


STEPS = st.lists(
    st.builds(
        Step,
        records=st.lists(
            st.integers(0, RECORDS - 1), min_size=1, max_size=3, unique=True
        ).map(tuple),
        channel=st.integers(0, len(CHANNELS) - 1),
        slot=st.integers(0, 1),
        training=st.sampled_from([None, None, None, *TRAININGS]),
        process=st.integers(0, 1),
        moment=st.none() | st.integers(0, MOMENTS),
        overtaken=st.booleans(),
    ),
    max_size=16,
)


class Overtaken:
    """A channel that lets another process act while it draws, and counts its rows."""

    def __init__(self, channel: object, act: Callable[[], None]) -> None:
        self.channel = channel
        self.act = act
        self.rows = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.channel, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        self.act()
        self.rows += len(ids)
        return self.channel.sample(ids, source)  # type: ignore[attr-defined]


class History:
    """Two processes on one folder, and all that ever left them."""

    def __init__(self, folder: Path, make: type[Ledger]) -> None:
        self.folder = folder
        self.make = make
        self.ledgers = [make(folder, record_epsilon=LIMIT) for _ in range(2)]
        self.keys = self.ledgers[0].record_keys(CONTENTS[:RECORDS])
        self.sent: dict[tuple[str, str, str], set[tuple[int, ...]]] = defaultdict(set)
        self.book = Book()

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()

    def play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step.training is None:
                self.release(step)
            else:
                self.train(step)
            self.check()

    def release(self, step: Step) -> None:
        before = self.book
        channel = CHANNELS[step.channel]
        prompts = [(self.keys[record], prompt(record)) for record in step.records]
        slot = SLOTS[step.slot]
        places = [(key, channel.hash, slot) for key, _ in prompts]
        cost = nano_cost(channel)
        expected = {
            place: cost
            for place in places
            if place not in before.charges
            and before.spent()[place[0]] + cost <= LIMIT_NANO
        }
        # A charge that nothing was drawn for serves, and so does what is stored.
        granted = [p for p in places if p in expected or p in before.charges]
        source = SystemRandomSource()

        def note(made: Sequence[Release]) -> None:
            assert [r.record_key for r in made] == [key for key, *_ in granted]
            for release in made:
                self.sent[release.record_key, channel.hash, slot].add(release.ids)
                assert release.prompt_epsilon == nats(cost)

        def overtake() -> None:
            if step.overtaken:
                other = self.ledgers[1 - step.process]
                note(other.release(prompts, channel, source=source, slot=slot))

        watched = Overtaken(channel, overtake)
        made = self.attempt(
            step,
            lambda ledger: ledger.release(
                prompts,
                watched,  # type: ignore[arg-type]
                source=source,
                slot=slot,
            ),
        )
        after = read_book(self.folder)
        new = dict(after.charges.items() - before.charges.items())
        stored = after.releases.keys() - before.releases.keys()
        assert watched.rows in {0, sum(p not in before.releases for p in granted)}
        if made is None:
            assert new in ({}, expected)
            assert stored in (set(), set(granted) - before.releases.keys())
            return
        note(made)
        assert new == expected
        assert stored == set(granted) - before.releases.keys()
        if not step.overtaken:
            fresh = [release.fresh for release in made]
            assert fresh == [place in stored for place in granted]

    def train(self, step: Step) -> None:
        before = self.book
        run = "a run"
        what = str(step.training)
        epsilon, delta = TRAININGS[what]
        price = (round(epsilon * 10**9), round(delta * 10**15))
        places = [(self.keys[record], run, what) for record in step.records]
        expected = {
            place: price
            for place in places
            if place not in before.trainings
            and before.spent()[place[0]] + price[0] <= LIMIT_NANO
        }
        allowed = self.attempt(
            step,
            lambda ledger: ledger.charge_training(
                [key for key, *_ in places],
                run=run,
                epsilon=epsilon,
                delta=delta,
                description=what,
            ),
        )
        after = read_book(self.folder)
        new = dict(after.trainings.items() - before.trainings.items())
        if allowed is None:
            assert new in ({}, expected)
            return
        assert new == expected
        assert allowed == [p[0] for p in places if p in after.trainings]

    def attempt(self, step: Step, work: Callable[[Ledger], Made]) -> Made | None:
        """Let a process work; start it again if it dies, and return None then."""
        ledger = self.ledgers[step.process]
        if step.moment is None:
            return work(ledger)
        real = ledger._connection
        ledger._connection = MortalConnection(real, step.moment, die)  # type: ignore
        try:
            return work(ledger)
        except Crash:
            # What a death does to the lock; the real ones are in test_ledger_kills.
            if real.in_transaction:
                real.execute("ROLLBACK")
            real.close()
            self.ledgers[step.process] = self.make(self.folder, record_epsilon=LIMIT)
            return None
        finally:
            ledger._connection = real

    def check(self) -> None:
        """Nothing is lost, all that left was paid for, and every process sees it."""
        after = read_book(self.folder)
        check_growth(self.book, after)
        check_book(after, LIMIT_NANO)
        for place, outputs in self.sent.items():
            assert outputs == {after.releases[place]}
        for ledger in self.ledgers:
            for key in self.keys:
                assert ledger.spent(key) == nats(after.spent()[key])
        self.book = after


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that costs no wait for a disk: no death here is one of the machine."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def play(folder: Path, steps: Iterable[Step], make: type[Ledger] = Ledger) -> None:
    with closing(History(folder, make)) as history:
        history.play(steps)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(STEPS)
def test_no_history_under_counts_or_draws_again(steps: list[Step]) -> None:
    with memory_folder() as folder:
        play(Path(folder), steps)


@pytest.mark.parametrize(
    "step",
    [
        Step(records=(0, 1)),
        Step(records=(0, 1), overtaken=True),
        Step(records=(0, 1), training="long"),
    ],
)
def test_a_death_at_every_statement_is_made_good(step: Step) -> None:
    """One folder for each moment: die there, try again, die again, try elsewhere."""
    outcomes = set()
    retry = dataclasses.replace(step, records=(1, 2, 0))
    elsewhere = dataclasses.replace(retry, process=1)
    for moment in range(MOMENTS):
        deadly = dataclasses.replace(step, moment=moment)
        with (
            memory_folder() as folder,
            closing(History(Path(folder), Ledger)) as history,
        ):
            history.play([deadly])
            outcomes.add((len(history.book.charges), len(history.book.releases)))
            history.play([retry, deadly, elsewhere])
            assert len(history.book.charges) + len(history.book.trainings) == 3
            assert len(history.book.releases) == len(history.book.charges)
    if step.training is None:
        # It died before the charge, between charge and store, and after the store.
        assert outcomes == {(0, 0), (2, 0), (2, 2)}


class ForgetfulLedger(Ledger):
    """A mutant that draws again what it has stored."""

    def release(self, *records, **rest):  # type: ignore[no-untyped-def]
        self._connection.execute("DELETE FROM releases")
        return super().release(*records, **rest)


class RefundingLedger(Ledger):
    """A mutant that takes a charge back."""

    def release(self, *records, **rest):  # type: ignore[no-untyped-def]
        made = super().release(*records, **rest)
        self._connection.execute("DELETE FROM charges")
        return made


class OneSlotLedger(Ledger):
    """A mutant that takes a later prompt of a record for its first."""

    def release(self, *records, slot, **rest):  # type: ignore[no-untyped-def]
        return super().release(*records, **rest)


AGAIN = [Step(moment=13), Step(), Step(process=1)]
ALL_CHANNELS = [Step(channel=which) for which in range(3)]


@pytest.mark.parametrize(
    ("mutant", "steps"),
    [
        (ForgetfulLedger, AGAIN),
        (RefundingLedger, AGAIN),
        (OneSlotLedger, [Step(), Step(slot=1)]),
    ],
)
def test_mutant_ledgers_fail_the_check(
    tmp_path: Path, mutant: type[Ledger], steps: list[Step]
) -> None:
    play(tmp_path / "real", steps)
    with pytest.raises((AssertionError, LedgerError)):
        play(tmp_path / "mutant", steps, mutant)


def replace_output(database, outputs, place):  # type: ignore[no-untyped-def]
    """Overwrite what a faster process has stored and sent."""
    for key, ids in outputs.items():
        database.execute(
            "INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?)",
            (key, place.artefact, place.slot, str(ids)),
        )
    return set(outputs)


def prompts_only(database, keys):  # type: ignore[no-untyped-def]
    """Sum what prompts cost and leave out training."""
    sums = dict.fromkeys(keys, 0)
    for key, cost in database.execute("SELECT record_key, nano_nats FROM charges"):
        if key in sums:
            sums[key] += cost
    return sums


@pytest.mark.parametrize(
    ("module", "name", "mutant", "steps"),
    [
        (charging, "allows", lambda spent, cost, limit: cost <= limit, ALL_CHANNELS),
        (ledger_module, "add_outputs", replace_output, [Step(overtaken=True)]),
        (
            charging,
            "charged",
            prompts_only,
            [Step(training="long"), Step(training="short"), *ALL_CHANNELS],
        ),
        (charging, "add_charges", lambda *_, **__: None, [Step()]),
    ],
)
def test_mutant_parts_fail_the_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    mutant: object,
    steps: list[Step],
) -> None:
    others = [Step(records=(1,)), *steps]
    play(tmp_path / "real", others)
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises((AssertionError, LedgerError)):
        play(tmp_path / "mutant", others)
