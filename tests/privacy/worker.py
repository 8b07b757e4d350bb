"""Client processes for the ledger's tests: they say what they sent; some are killed.

`release` arguments: folder, first record, number of records, records per call.
`kills` arguments: folder, seed, number of kills. One process imports everything once
and forks a client for every kill, before any ledger is open in it.
"""

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from fedcot.privacy import ledger as ledger_module
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.secret import keys_of
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.books import Book, check_book, check_growth, read_book
from tests.privacy.old_ledger import SECRET, make_old_ledger

VOCABULARY = Vocabulary.of([f"w{chr(97 + index)}" for index in range(26)], 6)
# Nearly uniform: two draws of one prompt agree with probability 28**-6.
CHANNEL = RankChannel(VOCABULARY, 0.1)
CHANNELS = [CHANNEL, RankChannel(VOCABULARY, 0.05), RankChannel(VOCABULARY, 0.2)]
COST = 0.6
LIMIT = 1.5  # a prompt costs 0.6, 0.3 or 1.2: no record can have all
SLOTS = ["prompt", "second turn"]
CONTENTS = [f"record {index}" for index in range(400)]
RECORDS = 60
PAIRS_PER_FOLDER = 4


def prompt(index: int) -> np.ndarray:
    return np.full(VOCABULARY.length, index % len(VOCABULARY.words), dtype=np.int64)


def nano_cost(channel: RankChannel) -> int:
    exact = Fraction(channel.token_epsilon) * VOCABULARY.length * 10**9
    return -(-exact.numerator // exact.denominator)


class MortalConnection:
    """A database connection whose process dies before or after one of its statements.

    Moment 0 is before the first statement, 1 after it, 2 before the second.
    """

    def __init__(
        self, connection: sqlite3.Connection, moment: int, die: Callable[[], None]
    ) -> None:
        self.connection = connection
        self.moments_left = moment
        self.die = die

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return self._live(self.connection.execute, *arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        return self._live(self.connection.executemany, *arguments)

    @property
    def in_transaction(self) -> bool:
        # Whoever is dead does not roll back.
        return self.moments_left >= 0 and self.connection.in_transaction

    def close(self) -> None:
        self.connection.close()

    def _live(self, work: Callable[..., sqlite3.Cursor], *given: Any) -> sqlite3.Cursor:
        self._pass_a_moment()
        made = work(*given)
        self._pass_a_moment()
        return made

    def _pass_a_moment(self) -> None:
        self.moments_left -= 1
        if self.moments_left < 0:
            self.die()


def send(row: dict[str, object]) -> None:
    """Written at once, so that it has left the process when it is killed."""
    os.write(1, (json.dumps(row) + "\n").encode())


def release_in_order(folder: Path, first: int, total: int, step: int) -> None:
    with Ledger(folder, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(CONTENTS)
        for start in range(first, first + total, step):
            batch = [(keys[i], prompt(i)) for i in range(start, start + step)]
            made = ledger.release(batch, CHANNEL, source=SystemRandomSource())
            send({release.record_key: release.ids for release in made})


def live(folder: Path, generator: np.random.Generator) -> None:
    """Release and train at random until the process is killed, or done."""
    name = folder.name
    with Ledger(folder, record_epsilon=LIMIT) as ledger:
        keys = ledger.record_keys(CONTENTS[:RECORDS])
        for _ in range(200):
            chosen = generator.permutation(RECORDS)[
                : generator.integers(1, 12)
            ].tolist()
            if generator.random() < 0.2:
                run, epsilon = f"run {generator.integers(3)}", 0.25
                allowed = ledger.charge_training(
                    [keys[i] for i in chosen],
                    run=run,
                    epsilon=epsilon,
                    delta=1e-6,
                    description="dp-sgd",
                )
                send({"folder": name, "run": run, "trained": allowed})
                continue
            channel = CHANNELS[generator.integers(3)]
            slot = SLOTS[generator.integers(2)]
            made = ledger.release(
                [(keys[i], prompt(i)) for i in chosen],
                channel,
                source=SystemRandomSource(),
                slot=slot,
            )
            outputs = {release.record_key: release.ids for release in made}
            send({"folder": name, "place": [channel.hash, slot], "outputs": outputs})


def born(folder: Path, *, seed: list[int], moment: int | None) -> int:
    """Fork a client that dies at a moment of its own, or at none."""
    child = os.fork()
    if child:
        return child
    if moment is not None:
        open_database = ledger_module.open_database

        def end() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        ledger_module.open_database = lambda place: MortalConnection(  # type: ignore
            open_database(place), moment, end
        )
    try:
        live(folder, np.random.default_rng(seed))
    except BaseException as error:
        # Whatever happens, a fork must not go on as its parent.
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def killing(folder: Path, seed: int, kills: int) -> None:
    """Kill clients, two at a time on one ledger, and look into it after each pair.

    One of the two dies at a statement, the other at a time.
    """
    generator = np.random.default_rng(seed)
    books: dict[Path, Book] = {}
    done = 0
    for pair in count():
        if done >= kills:
            break
        place = folder / f"node-{pair // PAIRS_PER_FOLDER}"
        if place not in books:
            books[place] = old_book(place) if generator.random() < 0.5 else Book()
            moment = int(generator.integers(0, 60))
        else:
            moment = int(generator.integers(0, 200))
        children = [
            born(place, seed=[seed, pair, child], moment=(None, moment)[child])
            for child in range(2)
        ]
        time.sleep(float(generator.uniform(0, 0.05)))
        os.kill(children[0], signal.SIGKILL)
        ends = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
        assert set(ends) <= {0, -signal.SIGKILL}, ends
        done += ends.count(-signal.SIGKILL)
        Ledger(place, record_epsilon=LIMIT).close()
        book = read_book(place)
        check_book(book, int(LIMIT * 10**9))
        check_growth(books[place], book)
        books[place] = book
    send({"killed": done})


def old_book(folder: Path) -> Book:
    """Make the ledger of an earlier version and return what it has to become."""
    keys = keys_of(SECRET, CONTENTS[:RECORDS])
    outputs = dict.fromkeys(keys[:20], (5, 4, 3, 2, 1, 0))
    cost = nano_cost(CHANNEL)
    make_old_ledger(folder, CHANNEL.hash, dict.fromkeys(keys[:30], cost), outputs)
    places = {key: (key, CHANNEL.hash, SLOTS[0]) for key in keys[:30]}
    return Book(
        {places[key]: cost for key in keys[:30]},
        {places[key]: ids for key, ids in outputs.items()},
    )


if __name__ == "__main__":
    mode, place, *numbers = sys.argv[1:]
    work = {"release": release_in_order, "kills": killing}[mode]
    work(Path(place), *map(int, numbers))
