"""Where the rows of a mapping come from: files, saved folders and the Hugging Face hub.

Nothing here looks at what a row means. Errors name files and columns, never a value.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from fedcot.errors import ConfigError
from fedcot.tasks.mapping import Mapping

Row = dict[str, Any]

_LARGEST_FIELD: Final = 2**30  # characters of one field of a CSV file
_SUFFIXES: Final = (".json", ".jsonl", ".csv", ".parquet")


def data_folder(mapping: Mapping, data_dir: str) -> Path:
    """Return the folder that a mapping's paths are relative to.

    Parameters
    ----------
    mapping : Mapping
    data_dir : str
        The setting; where it is empty, `$FEDCOT_DATA`, and then the mapping's folder.
    """
    named = data_dir or os.environ.get("FEDCOT_DATA", "")
    return Path(named).expanduser() if named else mapping.folder


def read_rows(mapping: Mapping, folder: Path, split: str) -> list[Row]:
    """Return the rows of a split, in order.

    Parameters
    ----------
    mapping : Mapping
    folder : Path
        See `data_folder`.
    split : str
        ``train`` or ``test``.

    Raises
    ------
    ConfigError
        There are no such files, they cannot be read, or the hub cannot be reached.
    """
    source = mapping.source
    name = source.train_split if split == "train" else source.test_split
    if source.hub:
        rows = _hub_rows(mapping, folder, name)
    else:
        pattern = source.train if split == "train" else source.test or source.train
        rows = []
        for path in _files(mapping, folder, pattern):
            rows += _file_rows(mapping, path, name)
    return rows[: source.max_rows] if source.max_rows else rows


def read_recorded(mapping: Mapping, folder: Path, split: str) -> list[str] | None:
    """Return what a teacher wrote for each row; None where it is not recorded.

    Raises
    ------
    ConfigError
        There are no such files, or one of them is no list of texts.
    """
    recorded = mapping.recorded
    pattern = getattr(recorded, split) if recorded else ""
    if not pattern:
        return None
    texts: list[str] = []
    for path in _files(mapping, folder, pattern):
        found = _parsed(path, _text_of(path, "utf-8"))
        if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
            _refuse(path, "be one JSON list of texts", "other content")
        texts += found
    return texts


def _files(mapping: Mapping, folder: Path, pattern: str) -> list[Path]:
    """Return the files or folders of a pattern, in the order of their numbers."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ConfigError(
            f"The paths of the mapping `{mapping.name}` must stay inside the data "
            f"folder, found {pattern!r}; name it relative to `data-dir`."
        )
    whole = folder / pattern
    if whole.exists():
        return [whole]
    found = list(folder.glob(pattern))
    if not found:
        raise ConfigError(
            f"`data-dir` must hold the files of the mapping `{mapping.name}`, found no "
            f"{pattern!r} in {str(folder)!r}; pass `-c data-dir=FOLDER` or set "
            "$FEDCOT_DATA."
        )
    return sorted(found, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort ``part_10`` behind ``part_9``."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in pieces]


def _file_rows(mapping: Mapping, path: Path, split: str) -> list[Row]:
    if path.is_dir():
        return _saved_rows(mapping, path, split)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix not in _SUFFIXES:
        rule = f"end in {', '.join(_SUFFIXES)} or be a folder saved by datasets"
        _refuse(path, rule, repr(suffix))
    text = _text_of(path, mapping.source.encoding)
    if suffix == ".csv":
        return _csv_rows(path, text, mapping.source.delimiter)
    rows = _json_rows(path, text)
    if not all(isinstance(row, dict) for row in rows):
        _refuse(path, "hold JSON objects", "other values")
    return rows


def _text_of(path: Path, encoding: str) -> str:
    try:
        # As bytes first: line ends inside a quoted field must stay as they are.
        return path.read_bytes().decode(encoding)
    except (OSError, UnicodeDecodeError, LookupError) as error:
        found = type(error).__name__
        rule = f"be readable text in the encoding {encoding!r}"
        _refuse(path, rule, found, "set [source] `encoding`, for example `latin-1`")


def _json_rows(path: Path, text: str) -> list[Row]:
    if text.lstrip().startswith("["):
        rows: list[Row] = _parsed(path, text)
        return rows
    # Not `splitlines`, which also breaks at signs that may stand inside a JSON text.
    lines = text.split("\n")
    return [
        _parsed(path, line, number)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _parsed(path: Path, text: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f"line {line or getattr(error, 'lineno', 1)}"
        _refuse(path, "be one JSON list, or one JSON object a line", f"none in {place}")


def _csv_rows(path: Path, text: str, delimiter: str) -> list[Row]:
    with _large_fields():
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            rows = list(reader)
        except csv.Error:
            _refuse(path, "be CSV", f"none in line {reader.line_num}")
    for row in rows:
        row.pop(None, None)  # more fields than columns
    return rows


@contextmanager
def _large_fields() -> Iterator[None]:
    """Let a question be longer than the 131,072 characters that `csv` allows."""
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        _refuse(path, "be a Parquet file", type(error).__name__)
    return rows


def _saved_rows(mapping: Mapping, folder: Path, split: str) -> list[Row]:
    """Return the rows of a folder that `datasets` saved, or of a clone of a hub's."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        rule = "be a folder saved by `datasets.save_to_disk`"
        _refuse(folder, rule, type(error).__name__)
    if isinstance(saved, datasets.Dataset):
        return _listed(mapping, saved)
    if split not in saved:
        rule = f"have the split `{split}`"
        _refuse(folder, rule, ", ".join(map(repr, saved)), "name it in [source]")
    return _listed(mapping, saved[split])


def would_download(mapping: Mapping, folder: Path) -> bool:
    """Whether rows are asked of the hub, or of its cache, rather than of the folder."""
    return bool(mapping.source.hub) and not _hub_folder(mapping, folder).is_dir()


def _hub_folder(mapping: Mapping, folder: Path) -> Path:
    return folder.joinpath(*mapping.source.hub.split("/"))


def _hub_rows(mapping: Mapping, folder: Path, split: str) -> list[Row]:
    source = mapping.source
    local = _hub_folder(mapping, folder)
    inside = local / source.config if source.config else local
    for saved in (inside, local):
        if (saved / "dataset_dict.json").is_file():
            return _saved_rows(mapping, saved, split)
    import datasets

    # Offline, unknown, gated, broken: the libraries have no common class for these.
    failures = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        found = datasets.load_dataset(
            str(local) if local.is_dir() else source.hub,
            source.config or None,
            split=split,
            revision=None if local.is_dir() else source.revision or None,
        )
    except failures as why:
        raise ConfigError(
            f"`dataset` must be a dataset that can be loaded, found none for "
            f"`{source.hub}`, split `{split}` ({type(why).__name__}); check the "
            f"network, or save it with `save_to_disk` as {source.hub!r} in data-dir."
        ) from why
    return _listed(mapping, found)


def _listed(mapping: Mapping, found: Any) -> list[Row]:
    """Return the rows that are wanted; the others are never read into memory."""
    limit = mapping.source.max_rows or len(found)
    rows: list[Row] = found.select(range(min(limit, len(found)))).to_list()
    return rows


def _refuse(
    path: Path, rule: str, found: str, remedy: str = "correct the file"
) -> NoReturn:
    raise ConfigError(
        f"`data-dir`: the file {path.name!r} must {rule}, found {found}; {remedy}."
    )
