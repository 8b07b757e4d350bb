r"""Data whose questions come with a rationale at several levels, one file a level.

The layout is that of https://github.com/EIT-NLP/Distilling-CoT-Reasoning: JSON lists of
``{"instruction": question, "output": "<reasoning> The answer is <number>"}``. The model
that wrote them had seen the gold answers, and not every text ends in one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from fedcot.community.granularity import ANSWER_ONLY
from fedcot.community.level_statistics import LevelStatistics, level_statistics
from fedcot.community.step_text import TEXT_FILLER, Measure, pad_all
from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.evaluation.extraction import read_answer, same_answer, split_answer

LEVEL_FILES: Final = tuple(f"SVAMP_ChatGPT_level{k}_ranked.json" for k in range(1, 7))
HUMAN_FILE: Final = "svamp_human_annotation.json"
ANSWER_FILE: Final = "SVAMP_only_ans.json"
KIND: Final = "numeric"
_LEVELS: Final = len(LEVEL_FILES)

MISSING: Final = "the question is not in every file"
TWICE: Final = "the question stands twice in a file"
NO_GOLD: Final = "the gold answer cannot be read"
UNREADABLE: Final = "no reasoning with an answer can be read at every level"
CHANGED: Final = "the answer at some level is not the gold one"

# Some texts have no blank between their last step and the answer phrase.
_GLUED: Final = re.compile(r"(?<=\S)(?=The answer is\b)")

_MAPPING: Final = """\
name = "{name}"
description = "SVAMP with ChatGPT rationales of one level, joined over all levels."
origin = "https://github.com/EIT-NLP/Distilling-CoT-Reasoning"
licence = "Apache-2.0"

[source]
train = "{name}.json"
test-share = 0.3

[fields]
question = "question"
answer = "answer"
{completion}
[answer]
kind = "numeric"

[slots]
question = 48
"""


@dataclass(frozen=True, slots=True)
class LevelledRecord:
    """One question with its reasoning at each level; the answer is the same in all.

    Attributes
    ----------
    question, gold : str
    levels : tuple of Rationale
        Coarse to fine.
    human : Rationale
        What a person wrote.
    """

    question: str
    gold: str
    levels: tuple[Rationale, ...]
    human: Rationale


@dataclass(frozen=True, slots=True)
class LevelledData:
    """Questions at all levels.

    Attributes
    ----------
    records : tuple of LevelledRecord
        In the order of the coarsest file.
    joined : int
        Questions that stand in every file.
    dropped : dict of str to int
        Distinct questions that are not among the records, for which reason.
    written : LevelStatistics
        Of the joined questions, on the texts as they were written, in words.
    kept : LevelStatistics
        Of the records, on the reasoning without the answer, in words.
    """

    records: tuple[LevelledRecord, ...]
    joined: int
    dropped: Mapping[str, int]
    written: LevelStatistics
    kept: LevelStatistics


def read_levels(folder: Path) -> LevelledData:
    """Return the levelled SVAMP questions of a folder, joined on the question.

    Joined are questions that stand, letter by letter, in each of the six level files,
    in the human one and in that of the answers. Kept of these is a question whose every
    level, read strictly, has reasoning and the gold answer.

    Parameters
    ----------
    folder : Path
        Holds `LEVEL_FILES`, `HUMAN_FILE` and `ANSWER_FILE`.

    Raises
    ------
    ConfigError
        A file is missing or is something else, or no question is left.
    """
    names = (*LEVEL_FILES, HUMAN_FILE, ANSWER_FILE)
    everywhere = [_table(folder / name) for name in names]
    asked = list(dict.fromkeys(question for table in everywhere for question in table))
    twice = {q for table in everywhere for q in table if table[q] is None}
    joined = [q for q in asked if q not in twice and all(q in t for t in everywhere)]
    lost = len(asked) - len(joined) - len(twice)
    dropped = Counter({MISSING: lost, TWICE: len(twice)})
    records: list[LevelledRecord] = []
    for question in joined:
        *texts, gold = (table[question] or "" for table in everywhere)
        record = _record(question, gold, texts)
        if isinstance(record, str):
            dropped[record] += 1
        else:
            records.append(record)
    if not records:
        raise ConfigError(
            "`folder` must hold questions with one answer at all levels, found none "
            f"among {len(joined)} that stand in every file; use the files that belong "
            "together."
        )
    return LevelledData(
        records=tuple(records),
        joined=len(joined),
        dropped=dict(+dropped),
        written=level_statistics(
            [[table[q] or "" for q in joined] for table in everywhere[:_LEVELS]]
        ),
        kept=level_statistics(
            [[record.levels[k].text for record in records] for k in range(_LEVELS)]
        ),
    )


def _table(path: Path) -> dict[str, str | None]:
    """Return output by question; None for a question that stands there twice."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _refuse(path, type(error).__name__, error)
    if not isinstance(rows, list):
        _refuse(path, "no list")
    table: dict[str, str | None] = {}
    for row in rows:
        question = row.get("instruction") if isinstance(row, dict) else None
        output = row.get("output") if isinstance(row, dict) else None
        if not isinstance(question, str) or not isinstance(output, str):
            _refuse(path, "other rows")
        table[question] = None if question in table else output
    return table


def _refuse(path: Path, found: str, why: Exception | None = None) -> NoReturn:
    raise ConfigError(
        f"`folder` must hold {path.name!r}, a JSON list of objects with the texts "
        f"`instruction` and `output`, found {found}; get the files of "
        "EIT-NLP/Distilling-CoT-Reasoning."
    ) from why


def _record(question: str, gold: str, texts: Sequence[str]) -> LevelledRecord | str:
    """Return the record of a question, or the reason why there is none."""
    answer = read_answer(KIND, gold)
    if answer is None:
        return NO_GOLD
    read = [split_answer(KIND, _GLUED.sub(" ", text)) for text in texts]
    found = [one for one in read if one is not None]
    if len(found) < len(read):
        return UNREADABLE
    if not all(same_answer(KIND, one.answer, answer) for one in found):
        return CHANGED
    *levels, human = (Rationale(one.text, answer) for one in found)
    return LevelledRecord(question, answer, tuple(levels), human)


def _fitting(
    records: Sequence[LevelledRecord], longest: int, measure: Measure | None
) -> list[LevelledRecord]:
    """Return the records whose reasoning is short enough at every level."""
    if not longest or measure is None:
        return list(records)
    found = [
        record
        for record in records
        if max(measure(one.text) for one in record.levels) <= longest
    ]
    if not found:
        raise ConfigError(
            "`longest` must leave a question whose reasoning fits at every level, "
            f"found none with {longest}; raise it."
        )
    return found


def write_level_mapping(
    folder: Path,
    level: int,
    out: Path,
    *,
    padded_to: int = 0,
    longest: int = 0,
    measure: Measure | None = None,
) -> Path:
    """Write the questions of `read_levels` with one level's reasoning, and a mapping.

    ``fedcot run -c dataset=<the mapping> -c data-dir=<out> -c teacher=recorded`` then
    trains on that level. Every level has the same questions in the same order, and the
    same ones are held out for the test, as a hash of the question decides: 0.3 of them,
    as in SVAMP (700 to train, 300 to test).

    Parameters
    ----------
    folder : Path
        As for `read_levels`.
    level : int
        0 (answers only: no recorded completion) to 6.
    out : Path
        Where the data (JSON) and the mapping (TOML) are written.
    padded_to : int
        Finer level up to whose mean length each text gets filler; 0: none.
    longest : int
        Questions whose reasoning is longer than this at any level are left out at all
        of them, so that a student's context cuts no level more than another; 0: none.
    measure : callable, optional
        Length of a text, in tokens of the student; needed with `padded_to`, `longest`.

    Returns
    -------
    Path
        The mapping.

    Raises
    ------
    ConfigError
        As `read_levels`, or there is no such level.
    """
    if not ANSWER_ONLY <= level <= _LEVELS:
        raise ConfigError(
            f"`level` must be 0 (answers only) to {_LEVELS}, found {level}; pass one "
            "of these."
        )
    if padded_to and not 0 < level < padded_to <= _LEVELS:
        raise ConfigError(
            f"`padded_to` must be a finer level than `level`, up to {_LEVELS}, found "
            f"{padded_to} with level {level}; pad level 1 to 6, for example."
        )
    if measure is None and (padded_to or longest):
        raise ConfigError(
            "`measure` must be given with `padded_to` and `longest`, found none; pass "
            "the length of a text in tokens of the student."
        )
    records = _fitting(read_levels(folder).records, longest, measure)
    name = f"svamp-level-{level}" + (f"-padded-{padded_to}" if padded_to else "")
    rows = [{"question": one.question, "answer": one.gold} for one in records]
    if level:
        texts = [one.levels[level - 1].text for one in records]
        if padded_to and measure is not None:
            lengths = [measure(one.levels[padded_to - 1].text) for one in records]
            texts = pad_all(texts, lengths, TEXT_FILLER, measure)
        for row, text in zip(rows, texts, strict=True):
            row["completion"] = f"{text} The answer is {row['answer']}."
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    mapping = out / f"{name}.toml"
    completion = 'completion = "completion"\n' if level else ""
    text = _MAPPING.format(name=name, completion=completion)
    mapping.write_text(text, encoding="utf-8")
    return mapping
