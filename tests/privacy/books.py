"""What a ledger's file holds, read past the ledger's code, and what must hold of it."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fedcot.privacy.database import DATABASE_NAME

Prompt = tuple[str, str, str]  # record key, artefact, slot


@dataclass
class Book:
    """Charges in nano-nats, outputs, and the cost of trainings by their names."""

    charges: dict[Prompt, int] = field(default_factory=dict)
    releases: dict[Prompt, tuple[int, ...]] = field(default_factory=dict)
    trainings: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)

    def spent(self) -> Counter[str]:
        """Nano-nats of each record."""
        sums: Counter[str] = Counter()
        for (key, *_), cost in self.charges.items():
            sums[key] += cost
        for (key, *_), (cost, _) in self.trainings.items():
            sums[key] += cost
        return sums


def read_book(folder: Path) -> Book:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        charges = database.execute(
            "SELECT record_key, artefact, slot, nano_nats FROM charges"
        )
        releases = database.execute(
            "SELECT record_key, artefact, slot, ids FROM releases"
        )
        trainings = database.execute(
            "SELECT record_key, run, description, nano_nats, femto_delta FROM trainings"
        )
        return Book(
            {(key, what, slot): cost for key, what, slot, cost in charges},
            {
                (k, what, slot): tuple(json.loads(ids))
                for k, what, slot, ids in releases
            },
            {(k, run, what): (cost, delta) for k, run, what, cost, delta in trainings},
        )


def check_book(book: Book, limit: int) -> None:
    """Every output was paid for and no record passed its limit."""
    assert book.releases.keys() <= book.charges.keys()
    assert all(spent <= limit for spent in book.spent().values())


def check_growth(before: Book, after: Book) -> None:
    """Nothing was lost and nothing changed."""
    assert before.charges.items() <= after.charges.items()
    assert before.releases.items() <= after.releases.items()
    assert before.trainings.items() <= after.trainings.items()
