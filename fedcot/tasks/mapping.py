r"""A mapping says what a dataset's rows mean: a small TOML file, read and checked here.

The shortest one that works, for ``questions.jsonl`` with the columns ``q`` and ``a``::

    name = "my-sums"
    [source]
    train = "questions.jsonl"       # in the data folder
    test-share = 0.1                # held out by a hash of the question
    [fields]
    question = "q"
    answer = "a"
    [answer]
    kind = "numeric"
    [slots]
    question = 24                   # public number of words that are sent

Top level
    ``name`` (small letters, digits, ``-``); ``description``, ``origin`` and ``licence``
    (text); ``stop`` (texts that end a teacher's completion, ``["\nQ:"]``);
    ``max-characters`` (longer questions are skipped, 8000); ``steps = "arithmetic"``
    (a rationale with a false equation is not valid).
``[source]``
    Either ``train`` and ``test``: a path or a glob in the data folder, whose files are
    read in the order of the numbers in their names. ``.json`` (one list, or one object
    a line), ``.jsonl``, ``.csv`` (``encoding``, ``delimiter``), ``.parquet``, or a
    folder saved by `datasets`. Or ``hub = "owner/name"`` with ``config`` and
    ``revision``: a folder of that name in the data folder is taken instead of a
    download. ``train-split`` and ``test-split`` (``train``, ``test``) name the splits
    of the hub or of a saved folder; ``max-rows`` reads the first rows only. Without a
    test split, ``test-share`` of the rows is held out.
``[fields]``
    What stands where. A value is a column, ``a.b`` for a nested one, or a jinja2
    template over the columns of a row, for example ``"{{ Body }} {{ Question }}"``
    (see `fedcot.tasks.templates` for what it may do). ``answer`` is required.
    ``choices`` is a column with a list, or a list of columns, ``labels`` the column
    with their names. ``rationale`` holds steps, behind which the row's answer is
    written; ``completion`` holds what a model wrote, answer included. ``domain`` and
    ``natural-id`` split the rows over clients. Every other key is a part of the
    question's text; most mappings have just ``question``.
``[answer]``
    ``kind``: numeric, equation, multiple-choice, yes-no, label or free-text. ``labels``
    for ``label``: an answer may be a label or its place in this list. The answer of a
    multiple choice may be the name, the text, the letter or the place of a choice;
    ``first = 1`` where places count from one.
``[recorded]``
    ``train``, ``test``: files that hold a list of texts in the order of the rows, what
    a teacher wrote for each; ``cut``: a text ends at the first of these.
``[slots]``
    The public number of words of each part, in the order in which they are sent:
    ``question = 24``, ``choices = { count = 5, slots = 3 }``.
``[templates]``
    How parts become text; there is a default for each. ``question`` sees the parts,
    ``instruction`` nothing, ``user`` (what the teacher is asked), ``predict`` and
    ``explain`` (what a student is asked) see ``question``; ``adapt`` sees ``question``,
    ``perturbed`` and ``rationale``; ``completion`` sees ``rationale`` and ``answer``;
    ``prediction`` sees ``answer``. Nothing else can be named, so that no template can
    show a teacher a raw column.
``[[demonstrations]]``
    Worked examples for the teacher: the parts, ``rationale`` and ``answer``. They are
    public because they stand in this file; never copy a client's question into one.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fedcot.errors import ConfigError
from fedcot.tasks import mapping_tables as tables
from fedcot.tasks.mapping_tables import Choices, Demonstration, Recorded, Source

SHIPPED: Final = Path(__file__).parent / "mappings"
_TOP: Final = (
    "name",
    "description",
    "origin",
    "licence",
    "stop",
    "max-characters",
    "steps",
    "source",
    "fields",
    "answer",
    "recorded",
    "slots",
    "templates",
    "demonstrations",
)


@dataclass(frozen=True)
class Mapping:
    """A mapping that was read and checked.

    Attributes
    ----------
    name, description, origin, licence : str
    source : Source
        Where the rows are.
    parts : tuple of (str, str, int)
        Name, column or template, and public slots of each text part, in order.
    choices : Choices or None
        The choices, where the kind of answer has some.
    order : tuple of str
        Names of the parts in the order in which they are sent; ``choices`` is one.
    columns : dict of str to str
        Column or template of ``answer`` and, where given, of ``domain``,
        ``natural-id``, ``rationale`` and ``completion``.
    kind : str
        Of the answer, one of `fedcot.evaluation.extraction.EXTRACTORS`.
    labels : tuple of str
        Of the kind ``label``.
    first : int
        The number of the first choice or label.
    recorded : Recorded or None
    templates : dict of str to str
    demonstrations : tuple of Demonstration
    stop : tuple of str
    checks_arithmetic : bool
    max_characters : int
        Of the whole question.
    hash : str
        SHA-256 of the content; where the file lies does not count.
    folder : Path
        Where the file lies.
    """

    name: str
    description: str
    origin: str
    licence: str
    source: Source
    parts: tuple[tuple[str, str, int], ...]
    choices: Choices | None
    order: tuple[str, ...]
    columns: dict[str, str]
    kind: str
    labels: tuple[str, ...]
    first: int
    recorded: Recorded | None
    templates: dict[str, str]
    demonstrations: tuple[Demonstration, ...]
    stop: tuple[str, ...]
    checks_arithmetic: bool
    max_characters: int
    hash: str
    folder: Path


def shipped_mappings() -> tuple[str, ...]:
    """Return the names of the mappings that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_mapping(dataset: str) -> Mapping:
    """Return the mapping that the setting `dataset` names.

    Parameters
    ----------
    dataset : str
        A shipped name, or the path of a ``.toml`` file.

    Raises
    ------
    ConfigError
        There is none, it is not TOML, or a key, value or template is refused.
    """
    if dataset in shipped_mappings():
        path = SHIPPED / f"{dataset}.toml"
    else:
        path = Path(dataset).expanduser()
    if path.suffix != ".toml" or not path.is_file():
        remedy = tables.nearest(dataset, shipped_mappings())
        raise ConfigError(
            "`dataset` must be `world`, a shipped mapping or the path of a .toml file, "
            f"found no such: {dataset!r}; {remedy or 'see `fedcot data list`.'}"
        )
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _read(path: Path, changed: int, size: int) -> Mapping:
    """Return the mapping in a file, read again only where the file has changed."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"`dataset` must be a readable TOML file, found {path.name!r} ({reason}); "
            "correct the file."
        ) from error
    return _mapping(document, path)


def _mapping(document: dict[str, Any], path: Path) -> Mapping:
    table = tables.Table(document, f"mapping {path.name!r}", "", _TOP)
    fields = table.table("fields", None)
    answer = table.table("answer", ("kind", "labels", "first"))
    slots = table.table("slots", None)
    kind, labels, first = tables.answer(answer)
    parts, choices, order = tables.parts(fields, slots, kind)
    names = tuple(name for name, _, _ in parts)
    steps = table.text("steps", "")
    if steps not in ("", "arithmetic"):
        table.refuse("steps", "be `arithmetic` or left out", steps)
    if steps and kind not in ("numeric", "equation"):
        table.refuse("steps", "be left out for answers that are no numbers", steps)
    mapping = Mapping(
        name=tables.name(table),
        description=table.text("description", ""),
        origin=table.text("origin", ""),
        licence=table.text("licence", ""),
        source=tables.source(table),
        parts=parts,
        choices=choices,
        order=order,
        columns=tables.columns(fields, names, has_recording="recorded" in document),
        kind=kind,
        labels=labels,
        first=first,
        recorded=tables.recorded(table),
        templates=tables.templates(table, order, kind),
        demonstrations=tables.demonstrations(table, names, choices),
        stop=table.texts("stop", ("\nQ:",)),
        checks_arithmetic=bool(steps),
        max_characters=table.whole("max-characters", 8000, 1),
        hash=_hash(document),
        folder=path.resolve().parent,
    )
    from fedcot.tasks.mapped import MappedTask

    MappedTask(mapping).check(f"mapping {path.name!r}")
    return mapping


def _hash(document: dict[str, Any]) -> str:
    # The order of the slots decides which ids are sent; that of other keys nothing.
    order = list(document.get("slots", {}))
    content = json.dumps([document, order], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
