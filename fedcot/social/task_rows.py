"""Rows of public data sets become examples of a task, or are counted.

A row may be unreadable, unfit for its format, or ask what another one asks already.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fedcot.data.conversion import Converter, SkipError
from fedcot.data.sources import Row, read_rows
from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain
from fedcot.plain_text import normalize
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import format_named
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import Mapping as MappingFile

REPEATED: Final = "question was there before"
IN_TEST: Final = "question is also in the test set"
NOT_WRITABLE: Final = "does not fit the format"
NOT_ASKED_FOR: Final = "more than were asked for"


@dataclass(frozen=True, slots=True)
class TaskData:
    """Examples for teacher clients, and a test set for the student.

    No two of them have the same question, whatever the case, spacing and punctuation.

    Attributes
    ----------
    train, test : tuple of Demonstration
    format_name : str
        See `fedcot.social.formats.format_named`.
    dropped : mapping of str to int
        How many rows were left out, by reason.
    labels : tuple of str
        Every possible answer; empty where the set is not closed.
    hint : str
        The rule in words, where a task has one that no question says.
    """

    train: tuple[Demonstration, ...] = field(repr=False)
    test: tuple[Demonstration, ...] = field(repr=False)
    format_name: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    hint: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 over all texts in their order, and the name of the format."""
        rows = [
            [[one.question, one.answer, one.reasoning] for one in part]
            for part in (self.train, self.test)
        ]
        content = json.dumps([self.format_name, self.labels, rows], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()


def content_key(demonstration: Demonstration) -> str:
    """Return what makes two demonstrations the same: the words of the question.

    Case, spacing and punctuation do not count, but for texts without a word.
    """
    return normalize(demonstration.question) or plain(demonstration.question)


def assembled(
    format_name: str,
    train: Sequence[Demonstration],
    test: Sequence[Demonstration],
    *,
    seed: int,
    num_train: int,
    num_test: int | None,
    dropped: Counter[str],
) -> TaskData:
    """Return a task of what fits its format, every question once.

    Parameters
    ----------
    format_name : str
    train, test : sequence of Demonstration
    seed : int
        Orders the training examples; the test set does not hang on it.
    num_train, num_test : int
        At most so many, 0: all. Without a number of tests there need not be one.
    dropped : Counter
        What was left out so far; counts what is left out here as well.

    Raises
    ------
    ConfigError
        There are fewer than asked for, or none.
    """
    tested = distinct(writable(test, format_name, dropped), dropped)
    keys = {content_key(one) for one in tested}
    found = distinct(writable(train, format_name, dropped), dropped)
    kept = [one for one in found if content_key(one) not in keys]
    dropped[IN_TEST] += len(found) - len(kept)
    for name, rows, wanted in (
        ("num-train", kept, num_train),
        ("num-test", tested, num_test),
    ):
        if wanted is None:
            continue
        if len(rows) < max(1, wanted):
            raise ConfigError(
                f"`{name}` must be at most what `{format_name}` has, found "
                f"{wanted or 'all'} of {len(rows)}; lower it, or add data."
            )
        dropped[NOT_ASKED_FOR] += len(rows) - (wanted or len(rows))
    tested.sort(key=public_order)
    order = numpy_generator(seed, "task-data", format_name).permutation(len(kept))
    shuffled = [kept[int(place)] for place in order]
    return TaskData(
        train=tuple(shuffled[: num_train or None]),
        test=tuple(tested[: num_test or None]),
        format_name=format_name,
        dropped=MappingProxyType(
            {why: count for why, count in dropped.items() if count}
        ),
        labels=format_named(format_name).labels,
    )


def distinct(
    demonstrations: Sequence[Demonstration], dropped: Counter[str]
) -> list[Demonstration]:
    """Return the first demonstration of each question, and count the others."""
    found: dict[str, Demonstration] = {}
    for one in demonstrations:
        found.setdefault(content_key(one), one)
    dropped[REPEATED] += len(demonstrations) - len(found)
    return list(found.values())


def writable(
    demonstrations: Sequence[Demonstration], format_name: str, dropped: Counter[str]
) -> list[Demonstration]:
    """Return the demonstrations that a format can hold, and count the others."""
    form = format_named(format_name)
    found = []
    for one in demonstrations:
        try:
            form.write(one)
        except ConfigError:
            dropped[NOT_WRITABLE] += 1
        else:
            found.append(one)
    return found


def public_order(demonstration: Demonstration) -> bytes:
    """Return a key that sorts by a hash of the question: no seed moves it."""
    return hashlib.sha256(content_key(demonstration).encode()).digest()


def one_line(text: str) -> str:
    """Return a text with single spaces and no line breaks."""
    return " ".join(text.split())


def data_folder(data_dir: str, *, is_needed: bool = True) -> Path:
    """Return the folder of public data.

    Parameters
    ----------
    data_dir : str
        Where it is empty, `$FEDCOT_DATA`.
    is_needed : bool
        Whether there has to be one; a dataset of the hub may come from its cache.

    Raises
    ------
    ConfigError
        It is needed, and neither is given.
    """
    named = data_dir or os.environ.get("FEDCOT_DATA", "")
    if not named and is_needed:
        raise ConfigError(
            "`data-dir` must name the folder of public data, found neither that nor "
            "$FEDCOT_DATA; pass `-c data-dir=FOLDER`."
        )
    return Path(named).expanduser()


def mapped_rows(
    mapping: MappingFile,
    folder: Path,
    split: str,
    dropped: Counter[str],
    reasoning: Callable[[Row], str],
) -> list[Demonstration]:
    """Return the rows of a mapping as demonstrations, each part of a question a line.

    Parameters
    ----------
    mapping, folder, split
        See `fedcot.data.sources.read_rows`.
    dropped : Counter
        Counts the rows that cannot be read.
    reasoning : callable
        Returns the steps of a row, or an empty text.

    Raises
    ------
    ConfigError
        The rows cannot be had, or have no such columns.
    """
    converter = Converter(MappedTask(mapping))
    rows = read_rows(mapping, folder, split)
    converter.check_columns(rows)
    found = []
    for row in rows:
        try:
            record = converter.record(row)
        except SkipError as error:
            dropped[str(error)] += 1
            continue
        question = "\n".join(one_line(part) for part in record.parts)
        found.append(Demonstration(question, record.answer, reasoning(row)))
    return found


def spam_rows(path: Path) -> list[list[str]]:
    """Return label and texts of each message of the SMS Spam Collection.

    Raises
    ------
    ConfigError
        There is no such file, or it is no CSV with the columns ``v1`` and ``v2``.
    """
    try:
        # Nothing is no latin-1; as bytes first, for the line ends inside of a field.
        text = path.read_bytes().decode("latin-1")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise _no_spam(path, type(error).__name__) from error
    if not rows or rows[0][:2] != ["v1", "v2"]:
        raise _no_spam(path, "other columns")
    return [row for row in rows[1:] if row]


def _no_spam(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"`data-dir` must hold `sms_spam/{path.name}` with columns v1 and v2, found "
        f"{found}; pass `-c data-dir=FOLDER` or set $FEDCOT_DATA."
    )
