"""No order of charges, crashes, retries and races under-counts or draws twice."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcot.privacy import ledger as ledger_module
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import RandomSource, SystemRandomSource
from tests.privacy.worker import CHANNEL, CONTENTS, COST, VOCABULARY, prompt

ROOT = Path(__file__).parents[2]
CHANNELS = [CHANNEL, RankChannel(VOCABULARY, 0.05), RankChannel(VOCABULARY, 0.2)]
LIMIT = 1.5  # the three cost 0.6, 0.3 and 1.2: no record can have all
RECORDS = 3


class Crash(Exception):
    """The process dies."""


class FragileChannel:
    """Dies before or after its draw when told to, and counts its draws."""

    def __init__(self, channel: RankChannel) -> None:
        self.channel = channel
        self.moment = "never"
        self.draws = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.channel, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        if self.moment == "before":
            raise Crash
        drawn = self.channel.sample(ids, source)
        self.draws += len(ids)
        if self.moment == "after":
            raise Crash
        return drawn


Step = tuple[list[int], int, str, int]
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, RECORDS - 1), min_size=1, max_size=3, unique=True),
        st.integers(0, len(CHANNELS) - 1),
        st.sampled_from(["never", "before", "after"]),
        st.integers(0, 1),
    ),
    max_size=14,
)


def play(folder: Path, steps: Sequence[Step], make: type[Ledger]) -> None:
    """Play a history through two open ledgers and check it after every step."""
    channels = [FragileChannel(channel) for channel in CHANNELS]
    ledgers = [make(folder, record_epsilon=LIMIT) for _ in range(2)]
    keys = ledgers[0].record_keys(CONTENTS[:RECORDS])
    sent: dict[tuple[int, int], set[tuple[int, ...]]] = defaultdict(set)
    tried: dict[int, set[int]] = defaultdict(set)
    try:
        for records, which, moment, process in steps:
            channels[which].moment = moment
            prompts = [(keys[record], prompt(record)) for record in records]
            draws_before = channels[which].draws
            try:
                made = ledgers[process].release(
                    prompts,
                    channels[which],  # type: ignore[arg-type]
                    source=SystemRandomSource(),
                )
            except Crash:
                ledgers[process].close()
                ledgers[process] = make(folder, record_epsilon=LIMIT)
                made = []
            known = sum(bool(sent[record, which]) for record in records)
            assert channels[which].draws - draws_before <= len(records) - known
            for record in records:
                tried[record].add(which)
            for release in made:
                sent[keys.index(release.record_key), which].add(release.ids)
            check_history(ledgers[1 - process], keys, sent, tried)
    finally:
        for ledger in ledgers:
            ledger.close()


def check_history(
    ledger: Ledger,
    keys: list[str],
    sent: dict[tuple[int, int], set[tuple[int, ...]]],
    tried: dict[int, set[int]],
) -> None:
    """One output for each prompt; charges between what was sent and what was tried."""
    costs = [VOCABULARY.length * channel.token_epsilon for channel in CHANNELS]
    assert all(len(outputs) <= 1 for outputs in sent.values())
    for record, key in enumerate(keys):
        owed = sum(costs[which] for which in range(3) if sent[record, which])
        most = sum(costs[which] for which in tried[record])
        assert owed <= ledger.spent(key) <= min(most + 1e-8, LIMIT)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(STEPS)
def test_no_history_under_counts_or_draws_again(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, Ledger)


class ForgetfulLedger(Ledger):
    """A mutant that draws again what it has stored."""

    def release(self, records, channel, *, source):  # type: ignore[no-untyped-def]
        self._connection.execute("DELETE FROM releases")
        return super().release(records, channel, source=source)


class RefundingLedger(Ledger):
    """A mutant that takes a charge back."""

    def release(self, records, channel, *, source):  # type: ignore[no-untyped-def]
        made = super().release(records, channel, source=source)
        self._connection.execute("DELETE FROM charges")
        return made


class UnlimitedLedger(Ledger):
    """A mutant that does not look at what was spent before."""

    def _allows(self, spent: int | None, cost: int | None) -> bool:
        return cost is not None and cost <= LIMIT * 10**9


RETRIES: list[Step] = [
    ([0], 0, "before", 0),
    ([0], 0, "never", 0),
    ([0], 0, "never", 1),
]
ALL_CHANNELS: list[Step] = [([0], which, "never", 0) for which in range(3)]


@pytest.mark.parametrize(
    ("mutant", "steps"),
    [
        (ForgetfulLedger, RETRIES),
        (RefundingLedger, RETRIES),
        (UnlimitedLedger, ALL_CHANNELS),
    ],
)
def test_ledger_mutants_fail_the_check(
    tmp_path: Path, mutant: type[Ledger], steps: list[Step]
) -> None:
    play(tmp_path / "real", steps, Ledger)
    with pytest.raises(AssertionError):
        play(tmp_path / "mutant", steps, mutant)


def test_a_racer_that_drew_too_returns_what_was_stored_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process charges, draws and stores between our charge and our store."""
    first = Ledger(tmp_path, record_epsilon=1.0)
    second = Ledger(tmp_path, record_epsilon=1.0)
    batch = [(key, prompt(i)) for i, key in enumerate(first.record_keys(CONTENTS[:4]))]
    others = []
    draw = ledger_module._draw

    def overtaken(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(ledger_module, "_draw", draw)
        others.extend(second.release(batch, CHANNEL, source=SystemRandomSource()))
        return draw(*arguments)

    monkeypatch.setattr(ledger_module, "_draw", overtaken)
    ours = first.release(batch, CHANNEL, source=SystemRandomSource())
    assert [made.ids for made in ours] == [made.ids for made in others]
    assert [made.fresh for made in ours] == [False] * 4
    assert [made.fresh for made in others] == [True] * 4
    assert first.totals().charges == 4
    first.close()
    second.close()


def start(folder: Path, first: int, count: int, step: int) -> subprocess.Popen[str]:
    arguments = [str(folder), str(first), str(count), str(step)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.privacy.worker", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def sent_by(output: str) -> dict[str, tuple[int, ...]]:
    """What a worker sent; a line that was cut off by its death was not sent."""
    whole = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    sent: dict[str, tuple[int, ...]] = {}
    for line in whole:
        sent |= {key: tuple(ids) for key, ids in json.loads(line).items()}
    return sent


def test_two_processes_that_race_send_the_same(tmp_path: Path) -> None:
    """Both also make the secret and the database at the same time."""
    workers = [start(tmp_path, 0, 120, 2) for _ in range(2)]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    first, second = map(sent_by, outputs)
    assert len(first) == 120
    assert first == second
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        assert ledger.totals().charges == 120
        assert ledger.totals().max_epsilon <= COST


def test_a_killed_process_leaves_charges_for_all_that_it_sent(tmp_path: Path) -> None:
    moments = np.random.default_rng(11)
    sent: dict[str, tuple[int, ...]] = {}
    counts = []
    for round_number in range(6):
        worker = start(tmp_path, 60 * round_number, 100, 1)
        assert worker.stdout is not None
        first_line = worker.stdout.readline()
        time.sleep(float(moments.uniform(0, 0.05)))
        worker.kill()
        ours = sent_by(first_line + worker.communicate()[0])
        counts.append(len(ours))
        sent |= ours
    assert min(counts) < 100, "every worker had finished before it was killed"
    with Ledger(tmp_path, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(CONTENTS)
        batch = [(key, prompt(i)) for i, key in enumerate(keys) if key in sent]
        made = ledger.release(batch, CHANNEL, source=SystemRandomSource())
        assert {release.record_key: release.ids for release in made} == sent
        assert not any(release.fresh for release in made)
        assert all(0 < ledger.spent(key) <= COST for key in sent)
        assert ledger.totals().charges >= len(sent) >= 6
