"""The paper's tasks, and tasks with a hidden rule, as examples and a test set.

Paper: https://arxiv.org/abs/2312.11441, section 4 and table 5. Every loader counts what
it leaves out: a row that cannot be read, a question that was there before, a training
question that is in the test set. Which questions are tested does not hang on a seed, so
that runs can be compared; for generated tasks the seed decides everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from fedcot.data.sources import Row, read_rows
from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import Demonstration
from fedcot.social.formats import BLANK, SPAM_LABELS
from fedcot.social.generated_tasks import hidden_rule_data, random_insertion_data
from fedcot.social.task_rows import (
    IN_TEST,
    NOT_ASKED_FOR,
    NOT_WRITABLE,
    REPEATED,
    TaskData,
    assembled,
    content_key,
    data_folder,
    distinct,
    mapped_rows,
    one_line,
    public_order,
    spam_rows,
    writable,
)
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.templates import compile_template
from fedcot.world.hidden_rules import KINDS

__all__ = [
    "IN_TEST",
    "NOT_ASKED_FOR",
    "NOT_WRITABLE",
    "REPEATED",
    "TaskData",
    "boolq_data",
    "content_key",
    "gsm8k_data",
    "hidden_rule_data",
    "lambada_data",
    "load_task_data",
    "random_insertion_data",
    "sms_spam_data",
    "task_names",
]

UNBALANCED: Final = "more of its label than of the other"
NOT_A_LABEL: Final = "the label is neither ham nor spam"
ONE_WORD: Final = "fewer than two words"
RANDOM_INSERTION: Final = "random-insertion"

SPAM_FILE: Final = "sms_spam/spam.csv"
SPAM_TESTS: Final = 500
# LAMBADA trains on whole novels; passages are in the other two splits.
LAMBADA: Final = "cimec/lambada"


def task_names() -> tuple[str, ...]:
    """Return the names that `load_task_data` knows."""
    return (*_LOADERS, RANDOM_INSERTION, *KINDS)


def load_task_data(
    name: str,
    *,
    seed: int,
    data_dir: str = "",
    num_train: int = 0,
    num_test: int | None = 0,
) -> TaskData:
    """Return a task by its name.

    Parameters
    ----------
    name : str
        One of `task_names`.
    seed : int
        Orders the training examples, and draws those of generated tasks.
    data_dir : str
        Folder of the files; where it is empty, `$FEDCOT_DATA`.
    num_train, num_test : int
        At most so many; 0: all that a data set has, or the number that a generated
        task has by default. A data set without a number of tests is read for its
        training examples alone: nothing is kept back, and no file of tests is needed.

    Raises
    ------
    ConfigError
        There is no such task, its files or its dataset cannot be had, or there are
        fewer questions than asked for.
    """
    counts = {"num_train": num_train, "num_test": num_test or 0}
    if min(counts.values()) < 0:
        raise ConfigError(
            f"`num-train` and `num-test` must be at least 0, found {num_train} and "
            f"{num_test or 0}; 0 takes all."
        )
    for kind in KINDS:
        if name == kind:
            given = {key: value for key, value in counts.items() if value}
            return hidden_rule_data(kind, seed, **given)
    if name == RANDOM_INSERTION:
        return random_insertion_data(seed, num_train=num_train, num_test=num_test or 0)
    if name not in _LOADERS:
        raise ConfigError(
            f"`task` must be one of {', '.join(task_names())}, found {name!r}; choose "
            "one of them."
        )
    return _LOADERS[name](seed, data_dir, num_train, num_test)


def sms_spam_data(
    seed: int,
    data_dir: str = "",
    num_train: int = 0,
    num_test: int | None = SPAM_TESTS,
    *,
    format_name: str = "sms-spam",
) -> TaskData:
    """Return the SMS Spam Collection, as many messages of either label.

    A message that the file has cut into columns at its commas is put together again.

    Parameters
    ----------
    seed, data_dir, num_train
        See `load_task_data`; the seed also draws which of the more frequent label stay.
    num_test : int
        Half of them of each label, the same ones for every seed; 0: `SPAM_TESTS`.
        Without a number all messages are there to train on, balanced or not.
    format_name : str
        ``sms-spam`` or ``sms-spam-classes``.

    Raises
    ------
    ConfigError
        The file is not there or has other columns, or holds too few messages.
    """
    dropped: Counter[str] = Counter()
    found: list[Demonstration] = []
    for label, *parts in spam_rows(data_folder(data_dir) / SPAM_FILE):
        answer = {"ham": SPAM_LABELS[1], "spam": SPAM_LABELS[0]}.get(label)
        if answer is None:
            dropped[NOT_A_LABEL] += 1
            continue
        text = ",".join(part for part in parts if part)
        found.append(Demonstration(one_line(text), answer))
    found = distinct(writable(found, format_name, dropped), dropped)
    if num_test is None:
        test: list[Demonstration] = []
        kept = found
    else:
        kept, test = _balanced(found, seed, num_test or SPAM_TESTS, dropped)
    return assembled(
        format_name,
        kept,
        test,
        seed=seed,
        num_train=num_train,
        num_test=None if num_test is None else 0,
        dropped=dropped,
    )


def _balanced(
    found: list[Demonstration], seed: int, num_test: int, dropped: Counter[str]
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return as many messages of either label, to train on and to test with."""
    # In an order that hangs on the texts alone: the first ones are tested.
    found.sort(key=public_order)
    by_label = [[one for one in found if one.answer == label] for label in SPAM_LABELS]
    half = num_test // 2
    fewest = min(map(len, by_label))
    if fewest <= half:
        raise ConfigError(
            f"`num-test` must leave messages of both labels to train on, found "
            f"{2 * half} with {fewest} messages of one label; lower it."
        )
    test = [one for rows in by_label for one in rows[:half]]
    kept: list[Demonstration] = []
    for label, rows in zip(SPAM_LABELS, by_label, strict=True):
        order = numpy_generator(seed, "sms-spam", label).permutation(len(rows) - half)
        kept += [rows[half + int(place)] for place in order[: fewest - half]]
        dropped[UNBALANCED] += len(rows) - fewest
    return kept, test


def gsm8k_data(
    seed: int, data_dir: str = "", num_train: int = 0, num_test: int | None = 0
) -> TaskData:
    """Return GSM8K: steps without the marks of its calculator, the answer as a number.

    Files, columns and answers are those of the mapping `gsm8k-recorded`.

    Raises
    ------
    ConfigError
        The files are not there, or cannot be read.
    """
    mapping = load_mapping("gsm8k-recorded")
    folder = data_folder(data_dir)
    dropped: Counter[str] = Counter()
    steps = compile_template(mapping.columns["rationale"], "the steps of gsm8k")

    def reasoning(row: Row) -> str:
        lines = steps.render({"answer": row["answer"]}).splitlines()
        return "\n".join(line.strip() for line in lines if line.strip())

    parts = {
        split: mapped_rows(mapping, folder, split, dropped, reasoning)
        for split in _splits(num_test)
    }
    return assembled(
        "gsm8k",
        parts["train"],
        parts.get("test", []),
        seed=seed,
        num_train=num_train,
        num_test=num_test,
        dropped=dropped,
    )


def boolq_data(
    seed: int, data_dir: str = "", num_train: int = 0, num_test: int | None = 0
) -> TaskData:
    """Return BoolQ: a passage and a question in two lines; tested on `validation`.

    Raises
    ------
    ConfigError
        The dataset `google/boolq` is neither in the data folder nor in the cache, and
        cannot be downloaded.
    """
    mapping = load_mapping("boolq")
    folder = data_folder(data_dir, is_needed=False)
    dropped: Counter[str] = Counter()
    parts = {
        split: mapped_rows(mapping, folder, split, dropped, lambda row: "")
        for split in _splits(num_test)
    }
    return assembled(
        "boolq",
        parts["train"],
        parts.get("test", []),
        seed=seed,
        num_train=num_train,
        num_test=num_test,
        dropped=dropped,
    )


def lambada_data(
    seed: int, data_dir: str = "", num_train: int = 0, num_test: int | None = 0
) -> TaskData:
    """Return LAMBADA: a passage whose last word is the answer.

    Trained on its passages for development, tested on those for the test.

    Raises
    ------
    ConfigError
        The dataset `cimec/lambada` is neither in the data folder nor in the cache, and
        cannot be downloaded.
    """
    base = load_mapping("boolq")
    source = replace(base.source, hub=LAMBADA, train_split="validation")
    mapping = replace(base, name="lambada", source=replace(source, test_split="test"))
    folder = data_folder(data_dir, is_needed=False)
    dropped: Counter[str] = Counter()
    parts: dict[str, list[Demonstration]] = {}
    for split in _splits(num_test):
        parts[split] = []
        for row in read_rows(mapping, folder, split):
            words = str(row.get("text") or "").split()
            if len(words) < 2:
                dropped[ONE_WORD] += 1
                continue
            asked = f"{' '.join(words[:-1])} {BLANK}"
            parts[split].append(Demonstration(asked, words[-1]))
    return assembled(
        "lambada",
        parts["train"],
        parts.get("test", []),
        seed=seed,
        num_train=num_train,
        num_test=num_test,
        dropped=dropped,
    )


def _splits(num_test: int | None) -> tuple[str, ...]:
    """Return which parts of a data set are read."""
    return ("train",) if num_test is None else ("train", "test")


_Loader = Callable[[int, str, int, int | None], TaskData]


def _spam_with_classes(
    seed: int, data_dir: str, train: int, test: int | None
) -> TaskData:
    name = "sms-spam-classes"
    return sms_spam_data(seed, data_dir, train, test, format_name=name)


_LOADERS: Final[Mapping[str, _Loader]] = MappingProxyType(
    {
        "sms-spam": sms_spam_data,
        "sms-spam-classes": _spam_with_classes,
        "gsm8k": gsm8k_data,
        "lambada": lambada_data,
        "boolq": boolq_data,
    }
)
