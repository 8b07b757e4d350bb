"""The tables of a mapping file: which keys they have, and what the values may be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fedcot.errors import ConfigError
from fedcot.evaluation.extraction import EXTRACTORS
from fedcot.rules import SLUG, shown
from fedcot.tasks.templates import MAX_CHOICES, compile_template, is_template

COLUMNS: Final = ("answer", "domain", "natural-id", "rationale", "completion")
_NOT_PARTS: Final = (*COLUMNS, "choices", "labels")
_NAMES: Final = {
    "instruction": (),
    "user": ("question",),
    "predict": ("question",),
    "explain": ("question",),
    "adapt": ("question", "perturbed", "rationale"),
    "completion": ("rationale", "answer"),
    "prediction": ("answer",),
}
_STATED: Final = {
    "multiple-choice": "So the answer is ({{ answer }}).",
    "numeric": "The answer is {{ answer }}.",
    "equation": "The answer is {{ answer }}.",
}
MAX_SLOTS: Final = 4096


@dataclass(frozen=True)
class Source:
    """Where rows are; see `fedcot.tasks.mapping`. Empty text and 0: not given."""

    train: str
    test: str
    hub: str
    config: str
    revision: str
    train_split: str
    test_split: str
    test_share: float
    max_rows: int
    encoding: str
    delimiter: str


@dataclass(frozen=True)
class Choices:
    """Columns of the choices and of their names, their number, slots of each."""

    columns: tuple[str, ...]
    labels: str
    count: int
    slots: int

    @property
    def is_list(self) -> bool:
        """Whether one column holds all choices as a list."""
        return len(self.columns) == 1


@dataclass(frozen=True)
class Recorded:
    """Files with what a teacher wrote, and where a text ends."""

    train: str
    test: str
    cut: tuple[str, ...]


@dataclass(frozen=True)
class Demonstration:
    """A public worked example."""

    parts: dict[str, str]
    choices: tuple[str, ...]
    rationale: str
    answer: str


class Table:
    """One table of a mapping file; reading it names the file and the key in errors.

    Raises
    ------
    ConfigError
        There is a key that no table of this kind has.
    """

    def __init__(
        self,
        content: dict[str, Any],
        where: str,
        name: str,
        allowed: Sequence[str] | None,
    ) -> None:
        self.content = content
        self.where = where
        self.name = name
        for key in content:
            if allowed is not None and key not in allowed:
                self.unknown(key, allowed)

    def place(self, key: str) -> str:
        """Return how an error names a key."""
        inside = f"[{self.name}] " if self.name else ""
        return f"{self.where}: {inside}`{key}`"

    def unknown(self, key: str, allowed: Sequence[str]) -> NoReturn:
        """Refuse a key that is not known; name the nearest one."""
        remedy = nearest(key, allowed)
        raise ConfigError(
            f"{self.place(key)} must be one of {', '.join(allowed)}; "
            f"{remedy or 'take it out.'}"
        )

    def refuse(self, key: str, rule: str, value: object) -> NoReturn:
        """Refuse a value."""
        found = "nothing" if value is None else shown(value)
        raise ConfigError(f"{self.place(key)} must {rule}, found {found}; correct it.")

    def table(self, key: str, allowed: Sequence[str] | None) -> Table:
        """Return a table inside this one; empty where it is not given."""
        content = self.content.get(key, {})
        if not isinstance(content, dict):
            self.refuse(key, "be a table", content)
        inside = f"{self.name}.{key}" if self.name else key
        return Table(content, self.where, inside, allowed)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; a default of None means that it has to be given."""
        value = self.content.get(key, default)
        if not isinstance(value, str):
            self.refuse(key, "be text", value)
        return value

    def texts(
        self, key: str, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Return a list of texts, none of them empty."""
        value = self.content.get(key, default)
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) and item for item in value
        ):
            self.refuse(key, "be a list of texts that are not empty", value)
        return tuple(value)

    def whole(self, key: str, default: int | None, low: int, high: int = 2**31) -> int:
        """Return a whole number in a range."""
        value = self.content.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"be a whole number from {low} to {high}", value)
        return value


def nearest(key: str, known: Sequence[str]) -> str:
    """Return the question for the nearest known name; empty if none is near."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean `{near[0]}`?" if near else ""


def name(table: Table) -> str:
    """Return the name of the mapping."""
    value = table.text("name")
    if not SLUG.holds(value):
        table.refuse("name", f"be {SLUG.text}", value)
    return value


def source(outer: Table) -> Source:
    """Return where the rows are."""
    files = ("train", "test", "encoding", "delimiter")
    hub = ("hub", "config", "revision")
    both = ("train-split", "test-split", "test-share", "max-rows")
    table = outer.table("source", (*files, *hub, *both))
    if not table.text("train", "") and not table.text("hub", ""):
        table.refuse("train", "be a path, or `hub` an id such as owner/name", None)
    for key in hub if "train" in table.content else files:
        if key in table.content:
            table.refuse(key, "be left out with the other kind of source", key)
    identity = table.text("hub", "")
    if identity and (identity.count("/") != 1 or ".." in identity):
        table.refuse("hub", "be an id such as owner/name", identity)
    share = table.content.get("test-share", 0.0)
    if type(share) is not float or not 0 <= share < 1:
        table.refuse("test-share", "be a number from 0.0 to less than 1.0", share)
    has_test = (
        bool(table.text("test", ""))
        or bool(identity)
        or "test-split" in (table.content)
    )
    if share and (table.text("test", "") or "test-split" in table.content):
        table.refuse("test-share", "be left out where there is a test split", share)
    if not share and not has_test:
        table.refuse("test", "be given, or `test-share` be above 0.0", None)
    delimiter = table.text("delimiter", ",")
    if len(delimiter) != 1:
        table.refuse("delimiter", "be one character", delimiter)
    return Source(
        train=table.text("train", ""),
        test=table.text("test", ""),
        hub=identity,
        config=table.text("config", ""),
        revision=table.text("revision", ""),
        train_split=table.text("train-split", "train"),
        test_split="" if share else table.text("test-split", "test"),
        test_share=share,
        max_rows=table.whole("max-rows", 0, 0),
        encoding=table.text("encoding", "utf-8-sig"),
        delimiter=delimiter,
    )


def answer(table: Table) -> tuple[str, tuple[str, ...], int]:
    """Return the kind of answer, its labels and the number of the first of them."""
    kind = table.text("kind")
    if kind not in EXTRACTORS:
        table.refuse("kind", f"be one of {', '.join(EXTRACTORS)}", kind)
    labels = table.texts("labels", ())
    if (kind == "label") != bool(labels):
        table.refuse("labels", "be given for `label`, and only there", list(labels))
    if len({label.casefold() for label in labels}) != len(labels):
        table.refuse("labels", "be distinct", list(labels))
    return kind, labels, table.whole("first", 0, 0, 1)


def parts(
    fields: Table, slots: Table, kind: str
) -> tuple[tuple[tuple[str, str, int], ...], Choices | None, tuple[str, ...]]:
    """Return the text parts, the choices, and the order of all parts."""
    known = (*fields.content, *_NOT_PARTS)
    for key in fields.content:
        if key not in _NOT_PARTS and key not in slots.content:
            remedy = nearest(key, _NOT_PARTS) or f"add for example `{key} = 24`."
            raise ConfigError(
                f"{fields.place(key)} must be a part of the question with its number "
                f"in [slots], or one of {', '.join(_NOT_PARTS)}; {remedy}"
            )
    found: list[tuple[str, str, int]] = []
    choices = None
    for key in slots.content:
        if key not in fields.content or key in COLUMNS or key == "labels":
            slots.unknown(key, [x for x in known if x not in (*COLUMNS, "labels")])
        if key == "choices":
            choices = _choices(fields, slots.table(key, ("count", "slots")))
            continue
        if not key.isidentifier() or key in ("perturbed", "self"):
            slots.refuse(key, "be a name of letters and digits", key)
        column = _column(fields, key)
        found.append((key, column, slots.whole(key, None, 1, MAX_SLOTS)))
    if (kind == "multiple-choice") != ("choices" in fields.content):
        fields.refuse("choices", "be given for `multiple-choice`, and only there", kind)
    if "choices" in fields.content and choices is None:
        slots.refuse("choices", "be given, as { count = 5, slots = 3 }", None)
    if "labels" in fields.content and choices is None:
        fields.refuse("labels", "be left out without `choices`", "labels")
    if not found:
        slots.refuse("question", "have its number of slots", None)
    return tuple(found), choices, tuple(slots.content)


def _choices(fields: Table, slots: Table) -> Choices:
    value = fields.content["choices"]
    columns = (value,) if isinstance(value, str) else fields.texts("choices")
    if not columns or any(is_template(column) for column in columns):
        fields.refuse("choices", "be a column, or a list of columns", value)
    count = slots.whole("count", None, 1, MAX_CHOICES)
    if len(columns) > 1 and len(columns) != count:
        slots.refuse("count", f"be {len(columns)}, as in [fields]", count)
    return Choices(
        columns=columns,
        labels=fields.text("labels", ""),
        count=count,
        slots=slots.whole("slots", None, 1, MAX_SLOTS),
    )


def columns(
    fields: Table, names: Sequence[str], *, has_recording: bool
) -> dict[str, str]:
    """Return column or template of everything that is no part of the question."""
    if "answer" not in fields.content:
        near = nearest("answer", [*fields.content])
        raise ConfigError(
            f"{fields.place('answer')} must be given, found none; {near or 'add it.'}"
        )
    written = [key for key in ("rationale", "completion") if key in fields.content]
    if len(written) + has_recording > 1:
        fields.refuse(written[0], "be the only source of rationales", written[0])
    return {key: _column(fields, key) for key in COLUMNS if key in fields.content}


def _column(fields: Table, key: str) -> str:
    text = fields.text(key)
    if not text.strip():
        fields.refuse(key, "be a column or a template", text)
    if is_template(text):
        compile_template(text, fields.place(key))
    return text


def recorded(outer: Table) -> Recorded | None:
    """Return the files with what a teacher wrote."""
    if "recorded" not in outer.content:
        return None
    table = outer.table("recorded", ("train", "test", "cut"))
    if "max-rows" in outer.content.get("source", {}):
        table.refuse("train", "have a source without `max-rows`", "max-rows")
    return Recorded(
        train=table.text("train"),
        test=table.text("test", ""),
        cut=table.texts("cut", ()),
    )


def templates(outer: Table, order: Sequence[str], kind: str) -> dict[str, str]:
    """Return every template, checked, with the defaults of the kind of answer."""
    table = outer.table("templates", ("question", *_NAMES))
    stated = _STATED.get(kind, "So the answer is {{ answer }}.")
    is_choice = kind == "multiple-choice"
    defaults = {
        "question": _default_question(order),
        "instruction": "",
        "user": "Q: {{ question }}\nA:",
        "predict": "Answer the question.\n{{ question }}\nAnswer:",
        "explain": "Explain, then answer the question.\n{{ question }}\nExplanation:",
        "adapt": (
            "Question: {{ perturbed }}\nExplanation: {{ rationale }}\n"
            "Carry this over to the next question.\n{{ question }}\nExplanation:"
        ),
        "completion": "{{ rationale }} " + stated,
        "prediction": "({{ answer }})" if is_choice else "{{ answer }}",
    }
    found = {}
    for key, default in defaults.items():
        found[key] = table.text(key, default)
        allowed = order if key == "question" else _NAMES[key]
        compile_template(found[key], table.place(key), allowed)
    return found


def _default_question(order: Sequence[str]) -> str:
    """Return a template of all parts, one a line; parts that are empty are left out."""
    shown = {"choices": ("choices | join", "Answer Choices:\n{{ choices | lettered }}")}
    pairs = [shown.get(part, (part, "{{ " + part + " }}")) for part in order]
    return "".join("{% if " + a + " %}" + b + "\n{% endif %}" for a, b in pairs)


def demonstrations(
    outer: Table, names: Sequence[str], choices: Choices | None
) -> tuple[Demonstration, ...]:
    """Return the worked examples."""
    rows = outer.content.get("demonstrations", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        outer.refuse("demonstrations", "be tables, [[demonstrations]]", "other")
    keys = (*names, *(("choices",) if choices else ()), "rationale", "answer")
    found = []
    for row in rows:
        table = Table(row, outer.where, "[demonstrations]", keys)
        texts = table.texts("choices") if choices else ()
        if choices and not 1 <= len(texts) <= choices.count:
            table.refuse("choices", f"be 1 to {choices.count} texts", len(texts))
        found.append(
            Demonstration(
                parts={key: table.text(key) for key in names},
                choices=texts,
                rationale=table.text("rationale"),
                answer=table.text("answer"),
            )
        )
    return tuple(found)
