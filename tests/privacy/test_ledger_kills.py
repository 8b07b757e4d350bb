"""Real processes on one ledger: they race, and they are killed at any moment."""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from fedcot.errors import LedgerError
from fedcot.privacy.database import DATABASE_NAME
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import SystemRandomSource
from tests.privacy.books import check_book, read_book
from tests.privacy.worker import (
    CHANNEL,
    CONTENTS,
    COST,
    LIMIT,
    RECORDS,
    nano_cost,
    prompt,
)

ROOT = Path(__file__).parents[2]
LIMIT_NANO = int(LIMIT * 10**9)


def start(mode: str, folder: Path, *numbers: int) -> subprocess.Popen[str]:
    arguments = [mode, str(folder), *map(str, numbers)]
    with (folder.parent / f"{folder.name}-{numbers}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.privacy.worker", *arguments],
            stdout=log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def sent_in(log: Path) -> list[dict]:
    """What was sent; a line that was cut off by a death was not sent."""
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_two_processes_that_race_send_the_same(tmp_path: Path) -> None:
    """Both also make the secret and the database at the same time."""
    folder = tmp_path / "node"
    workers = [start("release", folder, 0, 120, step) for step in (2, 3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    sent: list[dict[str, list[int]]] = [{}, {}]
    for mine, log in zip(sent, sorted(tmp_path.glob("*.log")), strict=True):
        for line in sent_in(log):
            mine |= line
    assert len(sent[0]) == 120
    assert sent[0] == sent[1]
    with Ledger(folder, record_epsilon=1.0) as ledger:
        assert ledger.totals().charges == 120
        assert ledger.totals().max_epsilon <= COST


def test_200_killed_processes_lose_no_charge_and_send_no_second_output(
    tmp_path: Path,
) -> None:
    """The worker compares the file with what it was after every pair of clients."""
    kills = 200
    folder = tmp_path / "nodes"
    folder.mkdir()
    assert start("kills", folder, 2, kills).wait(timeout=300) == 0
    *sent, end = sent_in(next(tmp_path.glob("*.log")))
    assert end["killed"] >= kills
    outputs = defaultdict(set)
    trained = set()
    for line in sent:
        if "run" in line:
            trained |= {(line["folder"], key, line["run"]) for key in line["trained"]}
            continue
        for key, ids in line["outputs"].items():
            outputs[line["folder"], (key, *line["place"])].add(tuple(ids))
    # Enough was sent, by enough nodes, for the comparison to mean something.
    assert len(outputs) > 2 * kills
    assert len(trained) > kills // 4
    books = {path.name: read_book(path) for path in folder.iterdir()}
    for (name, place), ids in outputs.items():
        assert ids == {books[name].releases[place]}
        assert place in books[name].charges
    for name, key, run in trained:
        assert books[name].trainings[key, run, "dp-sgd"] == (250_000_000, 10**9)
    assert all(
        cost in {0, nano_cost(CHANNEL)}
        for book in books.values()
        for (_, artefact, _), cost in book.charges.items()
        if artefact == CHANNEL.hash
    )


def test_a_log_that_was_cut_anywhere_keeps_charges_before_outputs(
    tmp_path: Path,
) -> None:
    """A power cut may keep only a part of what was written and not yet synced."""
    folder = tmp_path / "node"
    ledger = Ledger(folder, record_epsilon=LIMIT)
    keys = ledger.record_keys(CONTENTS[:RECORDS])
    for first in range(0, RECORDS, 6):
        batch = [(keys[i], prompt(i)) for i in range(first, first + 6)]
        ledger.release(batch, CHANNEL, source=SystemRandomSource())
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    ledger.close()
    log = whole / f"{DATABASE_NAME}-wal"
    size = log.stat().st_size
    kept = []
    for index, length in enumerate(np.linspace(0, size, 25).astype(int).tolist()):
        cut = tmp_path / f"cut-{index}"
        shutil.copytree(whole, cut)
        with (cut / log.name).open("r+b") as file:
            file.truncate(length)
        try:
            Ledger(cut, record_epsilon=LIMIT).close()
        except LedgerError:
            # The log held even the fingerprint of the secret; nothing is released.
            kept.append(-1)
            continue
        book = read_book(cut)
        check_book(book, LIMIT_NANO)
        kept.append(len(book.charges) + len(book.releases))
    assert kept == sorted(kept)
    assert kept[-1] == 2 * RECORDS
    assert len(set(kept)) > 5
