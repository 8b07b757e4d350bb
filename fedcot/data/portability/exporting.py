"""Write traces in formats that others read, with a manifest of hashes.

What is written depends on the traces alone, so that the same traces give the same
bytes. The files are private: only their owner may read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from fedcot import __version__
from fedcot.data.portability import messages, pam, sharegpt
from fedcot.data.portability.json_stream import Problem, lines
from fedcot.data.portability.legal import DATA_CLASSES, LEGAL_NOTE
from fedcot.data.portability.reading import loads, repaired, repaired_trace
from fedcot.data.traces import Trace
from fedcot.errors import ConfigError
from fedcot.runs import part_of

MANIFEST: Final = "manifest.json"
FORMAT_VERSION: Final = 1
EXPORT_FORMATS: Final = ("messages", "sharegpt", "pam")
_MANIFEST_NAME: Final = "fedcot-trace-export"
_LINE_BYTES: Final = 64 * 2**20
_PRIVATE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
# Ends of lines to some readers, though not to JSON.
_LINE_ENDS: Final = re.compile("[\x85\u2028\u2029]")

_ROWS: Final[dict[str, Callable[[Trace], dict[str, Any]]]] = {
    "messages": messages.row_of,
    "sharegpt": sharegpt.row_of,
}


def write_traces(path: Path | str, traces: Iterable[Trace]) -> int:
    """Replace a file by traces, one a line, and return how many there are.

    The file appears whole or not at all and can be read by its owner only. It has the
    form of `read_traces`. Half of a surrogate pair becomes U+FFFD.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    path = Path(path)
    part = part_of(path)
    try:
        try:
            with _private_file(part) as file:
                count = 0
                for trace in traces:
                    file.write(_line(messages.row_of(trace)))
                    count += 1
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return count


def read_traces(path: Path | str) -> Iterator[Trace]:
    """Yield the traces of a file that `write_traces` wrote, as they were.

    Raises
    ------
    ConfigError
        The file cannot be read, or a line is no trace; the error names the line.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            number = 0
            for number, line in enumerate(lines(file.read, limit=_LINE_BYTES), 1):
                yield _trace(line, number)
    except OSError as error:
        raise ConfigError(
            f"`TRACES.jsonl` must be a file that can be read, found "
            f"{error.strerror or 'an error'} at {path}; correct the path."
        ) from error


def _trace(line: bytes | Problem, number: int) -> Trace:
    why = "too long"
    if not isinstance(line, Problem):
        try:
            return repaired_trace(messages.trace_of(loads(line)))
        except ValueError as error:
            why = str(error)
    raise ConfigError(
        "`TRACES.jsonl` must hold one trace a line as `fedcot import` writes it, found "
        f"line {number} otherwise ({why}); import the file first."
    )


def export_traces(
    traces: Iterable[Trace], folder: Path | str, *, format: str
) -> dict[str, Any]:
    """Write an export with its manifest into a new folder and return the manifest.

    Parameters
    ----------
    traces : iterable of Trace
        Read once; not held in memory.
    folder : Path or str
        Does not exist, or is empty. It appears whole or not at all.
    format : str
        ``messages`` or ``sharegpt``: one file with a trace a line. ``pam``: a file for
        each trace, as Portable AI Memory has it.

    Raises
    ------
    ConfigError
        The format is not known, or the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    if format not in EXPORT_FORMATS:
        raise ConfigError(
            f"`--format` must be one of {', '.join(EXPORT_FORMATS)}, found {format!r}; "
            f"pass for example `--format {EXPORT_FORMATS[0]}`."
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"`--output` must be a new or an empty folder, found {folder} in use; "
                "choose another one."
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(folder)
        part.mkdir(mode=_PRIVATE_FOLDER)
        try:
            manifest = _write(traces, part, format)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return manifest


def _write(traces: Iterable[Trace], folder: Path, format: str) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("trace_classes", "providers", "scopes")
    }

    def counted() -> Iterator[Trace]:
        for trace in traces:
            counts["trace_classes"][trace.trace_class.value] += 1
            counts["providers"][repaired(trace.provider)] += 1
            counts["scopes"][trace.scope.value] += 1
            yield trace

    if format == "pam":
        files = _write_conversations(counted(), folder)
    else:
        files = [_write_rows(counted(), folder / f"{format}.jsonl", _ROWS[format])]
    manifest = {
        "manifest": _MANIFEST_NAME,
        "format": format,
        "format_version": FORMAT_VERSION,
        "fedcot_version": __version__,
        "traces": counts["scopes"].total(),
        **{name: dict(sorted(count.items())) for name, count in counts.items()},
        "files": files,
        "data_classes": DATA_CLASSES,
        "legal_note": LEGAL_NOTE,
    }
    with _private_file(folder / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def _write_rows(
    traces: Iterable[Trace], path: Path, row_of: Callable[[Trace], dict[str, Any]]
) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = rows = 0
    with _private_file(path) as file:
        for trace in traces:
            line = _line(row_of(trace))
            file.write(line)
            digest.update(line)
            size, rows = size + len(line), rows + 1
    return _described(path.name, digest.hexdigest(), size, rows)


def _write_conversations(traces: Iterable[Trace], folder: Path) -> list[dict[str, Any]]:
    inner = folder / "conversations"
    inner.mkdir(mode=_PRIVATE_FOLDER)
    files = []
    for place, trace in enumerate(traces):
        # Names of one length stand in the order of the traces.
        path = inner / f"{place:09d}.json"
        line = _line(pam.conversation_of(trace, place))
        with _private_file(path) as file:
            file.write(line)
        name = f"{inner.name}/{path.name}"
        digest = hashlib.sha256(line).hexdigest()
        files.append(_described(name, digest, len(line), 1))
    return files


def _described(name: str, digest: str, size: int, rows: int) -> dict[str, Any]:
    return {"name": name, "sha256": digest, "bytes": size, "rows": rows}


def _line(row: dict[str, Any]) -> bytes:
    text = repaired(json.dumps(row, ensure_ascii=False, allow_nan=False))
    text = _LINE_ENDS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    return text.encode() + b"\n"


@contextmanager
def _private_file(path: Path) -> Iterator[BinaryIO]:
    """Make a file that only its owner can read, and have it on the disk in the end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"`--output` must be a place that can be written to, found "
        f"{error.strerror or 'an error'} at {path}; choose another one."
    )
