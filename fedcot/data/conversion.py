"""A row becomes a record, or there is a reason why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from fedcot.data.schema import Rationale, Record
from fedcot.data.sources import Row
from fedcot.errors import ConfigError
from fedcot.plain_text import cut
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.templates import compile_template, is_template

NO_QUESTION: Final = "no question"
NO_ANSWER: Final = "no answer"
NO_CHOICES: Final = "no choices"
TOO_MANY_CHOICES: Final = "more choices than slots"
NOT_TEXT: Final = "a part is no text"
NO_FIT: Final = "a template does not fit the row"
_NOT_AMONG: Final = {
    "multiple-choice": "the answer is none of the choices",
    "label": "the answer is none of the labels",
}
UNREADABLE: Final = "the answer cannot be read"

# What no UTF-8 file, no tokenizer and no database takes.
_LONE: Final = re.compile("[\ud800-\udfff]")
_MISSING: Final = object()


class SkipError(Exception):
    """The row is not used; the reason says nothing of what stands in it."""


class Converter:
    """Turns the rows of one mapping into records.

    Attributes
    ----------
    is_cleaned : bool
        Whether text of the last row had to be changed: NUL is taken out, half of a
        surrogate pair becomes U+FFFD. All else stays as it is.
    """

    def __init__(self, task: MappedTask) -> None:
        self._task = task
        self._mapping = task.mapping
        self.is_cleaned = False
        mapping = task.mapping
        self._parts = {name: _reader(column) for name, column, _ in mapping.parts}
        self._columns = {key: _reader(text) for key, text in mapping.columns.items()}
        self._choices: list[Callable[[Row], Any]] = []
        self._names: Callable[[Row], Any] | None = None
        if mapping.choices is not None:
            self._choices = [_reader(column) for column in mapping.choices.columns]
            if mapping.choices.labels:
                self._names = _reader(mapping.choices.labels)

    def check_columns(self, rows: Sequence[Row]) -> None:
        """Refuse rows none of which has a column that the mapping names.

        Raises
        ------
        ConfigError
            Mapping, column, and how many columns there are; not their names, which may
            be data.
        """
        mapping = self._mapping
        texts = [column for _, column, _ in mapping.parts]
        texts += [*mapping.columns.values()]
        if mapping.choices is not None:
            texts += [*mapping.choices.columns, mapping.choices.labels]
        needed = [column for text in texts if text for column in _columns_of(text)]
        for column in dict.fromkeys(needed):
            if rows and all(_value(row, column) is _MISSING for row in rows):
                # Not their names: the first line of a file without one is data.
                found = len({key for row in rows for key in row})
                raise ConfigError(
                    f"[fields] of the mapping `{mapping.name}` must name columns of "
                    f"the data, found no `{column}` among its {found} columns; correct "
                    "the mapping, or give the file a first line with names."
                )

    def record(self, row: Row, recorded: str = "") -> Record:
        """Return the record of a row.

        Parameters
        ----------
        row : dict
            Private.
        recorded : str
            What a teacher wrote for it, already cut.

        Raises
        ------
        SkipError
            The row is not used.
        """
        self.is_cleaned = False
        texts = {name: self._text(read(row)) for name, read in self._parts.items()}
        if not any(texts.values()) or not texts.get("question", "-"):
            raise SkipError(NO_QUESTION)
        choices = self._choices_of(row)
        limit = self._mapping.max_characters
        if sum(map(len, (*texts.values(), *choices))) > limit:
            raise SkipError(f"question longer than {limit} characters")
        parts = self._task.parts(texts, choices)
        gold = self._gold(row, choices)
        record = Record(
            question=self._task.question(parts),
            answer=gold,
            domain=self._optional(row, "domain") or self._mapping.name,
            fields=parts,
            choices=tuple(choices),
            completion=self._completion(row, gold, recorded),
        )
        # A place may be that of a choice without a text, which nobody can choose.
        if choices and gold not in self._task.candidates(record):
            raise SkipError(_NOT_AMONG["multiple-choice"])
        return record

    def natural_id(self, row: Row) -> str:
        """Return whose row it is; empty where the mapping does not say."""
        return self._optional(row, "natural-id")

    def written(self, row: Row) -> str:
        """Return what a column says that a model wrote, cut; empty if there is none."""
        return cut(self._optional(row, "completion"), self._mapping.stop)

    def _completion(self, row: Row, gold: str, recorded: str) -> str:
        if recorded:
            return self._text(recorded)
        steps = self._optional(row, "rationale")
        if steps:
            return self._task.completion(Rationale(steps, gold))
        return self.written(row)

    def _choices_of(self, row: Row) -> list[str]:
        mapping = self._mapping
        if mapping.choices is None:
            return []
        values = [read(row) for read in self._choices]
        found = values[0] if mapping.choices.is_list else values
        if not isinstance(found, list | tuple):
            raise SkipError(NO_CHOICES)
        choices = [self._text(value) for value in found]
        while choices and not choices[-1]:
            choices.pop()
        if not choices:
            raise SkipError(NO_CHOICES)
        if len(choices) > mapping.choices.count:
            raise SkipError(TOO_MANY_CHOICES)
        return choices

    def _gold(self, row: Row, choices: Sequence[str]) -> str:
        value = self._columns["answer"](row)
        if isinstance(value, str):
            value = self._text(value)
        if value is None or value is _MISSING or value == "":
            raise SkipError(NO_ANSWER)
        if not isinstance(value, str | int | float):
            raise SkipError(UNREADABLE)
        names = self._names(row) if self._names else ()
        named = [self._text(name) for name in names] if isinstance(names, list) else []
        gold = self._task.gold(value, choices, named)
        if gold is None:
            raise SkipError(_NOT_AMONG.get(self._mapping.kind, UNREADABLE))
        return gold

    def _optional(self, row: Row, key: str) -> str:
        return self._text(self._columns[key](row)) if key in self._columns else ""

    def _text(self, value: Any) -> str:
        """Return a value as clean text without white space around it."""
        if value is None or value is _MISSING:
            return ""
        if isinstance(value, bool | int | float):
            value = str(value)
        if not isinstance(value, str):
            raise SkipError(NOT_TEXT)
        if "\0" in value or _LONE.search(value):
            self.is_cleaned = True
            value = _LONE.sub("\ufffd", value.replace("\0", ""))
        return str(value).strip()


def _reader(text: str) -> Callable[[Row], Any]:
    """Return a function that reads a column or writes a template."""
    if not is_template(text):
        return lambda row: _value(row, text)
    compiled = compile_template(text, "a template of [fields]")

    def write(row: Row) -> str:
        try:
            return compiled.render({name: row.get(name) for name in compiled.names})
        except ConfigError as error:
            raise SkipError(NO_FIT) from error

    return write


def _columns_of(text: str) -> list[str]:
    if not is_template(text):
        return [text]
    return sorted(compile_template(text, "a template of [fields]").names)


def _value(row: Any, column: str) -> Any:
    """Return a value; of a list of objects, the list of their values."""
    if isinstance(row, dict):
        if column in row:
            return row[column]
        name, _, rest = column.partition(".")
        return _value(row[name], rest) if rest and name in row else _MISSING
    if isinstance(row, list):
        values = [_value(item, column) for item in row]
        return values if any(value is not _MISSING for value in values) else _MISSING
    return _MISSING
