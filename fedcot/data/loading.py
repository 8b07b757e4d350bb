"""A dataset other than the built-in world: its rows become records, each one counted.

Questions that are equal up to case and white space count as one: which side of a split
they fall on is decided by a hash of the question alone, so neither the order of the
rows nor a seed can move a question from one side to the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from fedcot.config import RunConfig
from fedcot.data.conversion import Converter, SkipError
from fedcot.data.schema import Record
from fedcot.data.sources import Row, data_folder, read_recorded, read_rows
from fedcot.errors import ConfigError
from fedcot.plain_text import cut
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import Mapping as MappingFile
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.templates import letter

IN_TEST: Final = "question is also in the test split"
_SPLITS: Final = ("train", "test")


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How good the answers in a recording are, over all its rows.

    Attributes
    ----------
    right : int
        Rows whose recorded answer, read strictly, is the gold one; for a multiple
        choice with equal choices, any of them.
    rows : int
    unparsed : int
        Rows from which no answer can be read.
    """

    right: int
    rows: int
    unparsed: int


@dataclass(frozen=True, eq=False)
class LoadedData:
    """The records of a dataset, and what became of its rows.

    Attributes
    ----------
    train, test, public : tuple of Record
        In the order of the rows; no question is in two of them.
    natural_ids : tuple of str
        Whose record it is, for each of `train`; empty text where nobody says.
    rows : dict of str to int
        Rows of ``train`` (which holds the public ones) and ``test``.
    skipped : dict of str to dict of str to int
        For each split, how many rows were left out for which reason.
    cleaned : dict of str to int
        For each split, the rows whose text had to be changed.
    labels : dict of str to LabelCounts
        For each split with recorded completions.
    """

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    public: tuple[Record, ...]
    natural_ids: tuple[str, ...]
    rows: Mapping[str, int]
    skipped: Mapping[str, Mapping[str, int]]
    cleaned: Mapping[str, int]
    labels: Mapping[str, LabelCounts]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one row."""

    record: Record | None
    reason: str
    natural_id: str
    is_cleaned: bool
    written: str | None  # as recorded, None where nothing is


def load_dataset(config: RunConfig) -> LoadedData:
    """Return the records of the dataset that a configuration names.

    Read once per process.

    Raises
    ------
    ConfigError
        There is no such mapping, its files cannot be read, a column that it names is
        not there, or a split is empty.
    """
    return load_rows(config.dataset, config.data_dir, config.public_share)


def load_rows(dataset: str, data_dir: str, public_share: float) -> LoadedData:
    """Return the records of a dataset; see `load_dataset`.

    Parameters
    ----------
    dataset, data_dir, public_share : str, str, float
        As the settings of these names.

    Raises
    ------
    ConfigError
        As `load_dataset`.
    """
    mapping = load_mapping(dataset)
    folder = data_folder(mapping, data_dir)
    return _load(_Hashed(mapping.hash, mapping), str(folder), public_share)


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A mapping as a key of a cache: by its content."""

    hash: str
    mapping: MappingFile = field(compare=False)


@lru_cache(maxsize=8)
def _load(hashed: _Hashed, folder: str, public_share: float) -> LoadedData:
    mapping = hashed.mapping
    task = MappedTask(mapping)
    outcomes = {"train": _outcomes(task, Path(folder), "train"), "test": []}
    if mapping.source.test_share:
        held = [
            is_held_out(outcome.record, "test", mapping.source.test_share)
            for outcome in outcomes["train"]
        ]
        pairs = list(zip(outcomes["train"], held, strict=True))
        outcomes["test"] = [outcome for outcome, is_test in pairs if is_test]
        outcomes["train"] = [outcome for outcome, is_test in pairs if not is_test]
    else:
        outcomes["test"] = _outcomes(task, Path(folder), "test")
    skipped: dict[str, Counter[str]] = {
        split: Counter(outcome.reason for outcome in found if outcome.reason)
        for split, found in outcomes.items()
    }
    test = [outcome.record for outcome in outcomes["test"] if outcome.record]
    tested = {question_key(record.identity) for record in test}
    train: list[Record] = []
    public: list[Record] = []
    natural_ids: list[str] = []
    for outcome in outcomes["train"]:
        record = outcome.record
        if record is None:
            continue
        if question_key(record.identity) in tested:
            skipped["train"][IN_TEST] += 1
        elif is_held_out(record, "public", public_share):
            public.append(record)
        else:
            train.append(record)
            natural_ids.append(outcome.natural_id)
    _check_splits(mapping.name, {"train": train, "test": test}, outcomes, skipped)
    return LoadedData(
        train=tuple(train),
        test=tuple(test),
        public=tuple(public),
        natural_ids=tuple(natural_ids),
        rows={split: len(found) for split, found in outcomes.items()},
        skipped={split: dict(sorted(why.items())) for split, why in skipped.items()},
        cleaned={
            split: sum(outcome.is_cleaned for outcome in found)
            for split, found in outcomes.items()
        },
        labels=_labels(task, outcomes),
    )


def question_key(question: str) -> bytes:
    """Return a hash of a question without regard to case and white space."""
    return hashlib.sha256(" ".join(question.casefold().split()).encode()).digest()


def is_held_out(record: Record | None, purpose: str, share: float) -> bool:
    """Whether a question belongs to the share that is held out for a purpose.

    Decided by the words of the question alone, however a mapping writes them; the
    choices for two purposes are independent.
    """
    if record is None or not share:
        return False
    key = purpose.encode() + question_key(record.identity)
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") < share * 2**64


def _outcomes(task: MappedTask, folder: Path, split: str) -> list[_Outcome]:
    mapping = task.mapping
    rows = read_rows(mapping, folder, split)
    texts = read_recorded(mapping, folder, split)
    if texts is not None and len(texts) != len(rows):
        raise ConfigError(
            f"[recorded] `{split}` of the mapping `{mapping.name}` must hold one text "
            f"for each of the {len(rows)} rows, found {len(texts)}; use the files that "
            "belong together."
        )
    converter = Converter(task)
    converter.check_columns(rows)
    stops = mapping.recorded.cut if mapping.recorded else ()
    found = []
    for index, row in enumerate(rows):
        written = None if texts is None else cut(texts[index], stops or mapping.stop)
        found.append(_outcome(converter, row, written))
    return found


def _outcome(converter: Converter, row: Row, written: str | None) -> _Outcome:
    record, reason, natural_id = None, "", ""
    try:
        record = converter.record(row, written or "")
        natural_id = converter.natural_id(row)
        written = written if written is not None else record.completion or None
    except SkipError as error:
        record, reason = None, str(error)
    return _Outcome(record, reason, natural_id, converter.is_cleaned, written)


def _labels(
    task: MappedTask, outcomes: Mapping[str, Sequence[_Outcome]]
) -> dict[str, LabelCounts]:
    found = {}
    for split in _SPLITS:
        rows = [outcome for outcome in outcomes[split] if outcome.written is not None]
        answers = [task.strict_answer(outcome.written or "") for outcome in rows]
        right = sum(
            _is_right(task, outcome.record, answer)
            for outcome, answer in zip(rows, answers, strict=True)
        )
        if rows:
            found[split] = LabelCounts(right, len(rows), answers.count(None))
    return found


def _is_right(task: MappedTask, record: Record | None, answer: str | None) -> bool:
    if record is None or answer is None:
        return False
    if task.is_right(answer, record.answer):
        return True
    # Some questions list a choice twice; both letters name the gold text then.
    lettered = {letter(index): text for index, text in enumerate(record.choices)}
    return answer in lettered and lettered[answer] == lettered.get(record.answer)


def _check_splits(
    name: str,
    splits: Mapping[str, Sequence[Record]],
    outcomes: Mapping[str, Sequence[_Outcome]],
    skipped: Mapping[str, Mapping[str, int]],
) -> None:
    for split, records in splits.items():
        if not records:
            why = "; ".join(f"{count} {text}" for text, count in skipped[split].items())
            raise ConfigError(
                f"`dataset`: the {split} split of `{name}` must hold a question, found "
                f"none in {len(outcomes[split])} rows ({why or 'none skipped'}); check "
                "the mapping, and that `public-share` and `test-share` leave some."
            )
