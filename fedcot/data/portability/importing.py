"""Read the traces of an export, one conversation at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from fedcot.data.portability import copilot, formats, grok, openr1
from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.archives import BrokenFileError, Source, sources_of
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.json_stream import Problem, Read, json_items, lines
from fedcot.data.portability.limits import Limits
from fedcot.data.portability.reading import loads, repaired, repaired_trace
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError

_MARK: Final = b"\xef\xbb\xbf"  # some writers begin UTF-8 with it
OnBytes = Callable[[int, int], None]  # bytes that were read, and all that there are


def import_traces(
    path: Path | str,
    *,
    format: str = formats.AUTO,
    subject: str = "",
    scope: Scope | None = Scope.OWN,
    limits: Limits | None = None,
    only_correct: bool = False,
    on_bytes: OnBytes | None = None,
) -> tuple[Iterator[Trace], ImportReport]:
    """Return the traces of an export, and a report that fills while they are read.

    Parameters
    ----------
    path : Path or str
        A file, a folder or a ZIP archive.
    format : str
        ``auto`` or one of `FORMATS`. Where it is given, files are read that do not look
        like it, unless they look like another format.
    subject : str
        Pseudonym of the person whose traces these are; empty: what an export of fedcot
        says, else none.
    scope : Scope or None
        Whom the traces may reach. None: what an export of fedcot says, else own.
    limits : Limits, optional
    only_correct : bool
        Whether to leave out generations of OpenR1 that no verifier marked as correct.
    on_bytes : callable, optional
        Told how far the reading is, in bytes.

    Returns
    -------
    traces : iterator of Trace
        In the order of the export. It raises ConfigError where the path holds no
        export that is known.
    report : ImportReport

    Raises
    ------
    ConfigError
        The path or an option cannot be used.

    Notes
    -----
    A text with half of a surrogate pair gets U+FFFD in its place. An export that ends
    early gives what came before the break, with a warning.
    """
    formats.check_format(format)
    report = ImportReport()
    chosen = limits or Limits()
    sources = sources_of(Path(path), chosen, report)
    run = _Import(
        report, chosen, format, only_correct, on_bytes, sum(s.size for s in sources)
    )
    own = repaired(subject)

    def traces() -> Iterator[Trace]:
        for source in sources:
            for trace in run.read(source):
                yield run.handed_out(trace, own, scope)
        if not report.files and report.skipped[reasons.EARLY_END]:
            raise ConfigError(
                f"`PATH` must be an export that is whole, found {path} cut or damaged; "
                "download it again."
            )
        if not report.files:
            raise ConfigError(
                f"`PATH` must hold an export in one of the formats "
                f"{', '.join(formats.FORMATS)}, found none at {path}; pass `--format` "
                "if it has one of them."
            )

    return traces(), report


class _Import:
    """One import: its report, its bounds and how far it is."""

    def __init__(
        self,
        report: ImportReport,
        limits: Limits,
        format: str,
        only_correct: bool,
        on_bytes: OnBytes | None,
        total: int,
    ) -> None:
        self._report = report
        self._limits = limits
        self._format = format
        self._only_correct = only_correct
        self._on_bytes = on_bytes
        self._total = total
        self._done = 0

    def read(self, source: Source) -> Iterator[Trace]:
        """Yield the traces of a file that are within the limits."""
        report = self._report
        done = self._done
        try:
            with source.opened() as read:
                head = _exactly(read, formats.HEAD_BYTES).removeprefix(_MARK)
                shape = self._shape(source.name, head)
                if shape.format:
                    report.files[shape.format] += 1
                    rest = self._counted(_from_head(head, read))
                    for trace in self._traces(shape, rest):
                        if self._is_short(trace):
                            yield trace
                        else:
                            report.skip(reasons.TOO_LONG)
                else:
                    read(1)  # breaks again where the head broke
                    report.files_left[reasons.NOT_AN_EXPORT] += 1
        except BrokenFileError:
            report.skip(reasons.EARLY_END)
        if reasons.EARLY_END in report.skipped:
            report.warn(
                "A file ends early or is broken; what came before the break was read."
            )
        self._tell(done + source.size - self._done)

    def handed_out(self, trace: Trace, subject: str, scope: Scope | None) -> Trace:
        """Return a trace as the caller gets it, and count it."""
        whole = repaired_trace(trace)
        self._report.note(reasons.REPAIRED, whole is not trace)
        trace = dataclasses.replace(
            whole, subject=subject or whole.subject, scope=scope or whole.scope
        )
        self._report.add(trace)
        return trace

    def _shape(self, name: str, head: bytes) -> formats.Shape:
        shape = formats.shape_of(name, head)
        if self._format in (formats.AUTO, shape.format):
            return shape
        if shape.format:
            return formats.Shape("")
        container = ""
        if self._format == formats.GROK and head.lstrip()[:1] == b"{":
            container = grok.CONTAINER
        return shape._replace(format=self._format, container=container)

    def _traces(self, shape: formats.Shape, read: Read) -> Iterator[Trace]:
        if shape.format == formats.COPILOT:
            rows = lines(read, limit=self._limits.conversation_bytes)
            yield from copilot.traces(self._texts(rows), self._report)
            return
        limit = self._limits.conversation_bytes
        if shape.is_lines:
            items = lines(read, limit=limit)
        else:
            items = json_items(read, limit=limit, container=shape.container)
        known = formats.JSON_FORMATS[shape.format]
        for item in items:
            value = self._value(item)
            if not isinstance(value, dict) or not known.is_conversation(value):
                if not isinstance(item, Problem):
                    self._report.skip(reasons.MALFORMED)
                continue
            self._report.conversations += 1
            if shape.format == formats.OPENR1:
                yield from openr1.traces(
                    value, self._report, only_correct=self._only_correct
                )
            else:
                yield from known.traces(value, self._report)

    def _value(self, item: bytes | Problem) -> Any:
        if isinstance(item, Problem):
            self._report.skip(item.value)
            return None
        try:
            return loads(item)
        except ValueError:
            return None

    def _texts(self, rows: Iterator[bytes | Problem]) -> Iterator[str]:
        for row in rows:
            if isinstance(row, Problem):
                self._report.skip(row.value)
            else:
                yield row.decode("utf-8", "replace") + "\n"

    def _is_short(self, trace: Trace) -> bool:
        texts = (trace.question, trace.reasoning, trace.answer)
        return max(map(len, texts)) <= self._limits.text_characters

    def _counted(self, read: Read) -> Read:
        def counted(size: int) -> bytes:
            data = read(size)
            self._tell(len(data))
            return data

        return counted

    def _tell(self, count: int) -> None:
        self._done += count
        if self._on_bytes:
            self._on_bytes(self._done, self._total)


def _exactly(read: Read, size: int) -> bytes:
    """Return so many bytes, fewer at the end of the file or where it breaks."""
    head = bytearray()
    while len(head) < size:
        try:
            data = read(size - len(head))
        except BrokenFileError:
            # Read again behind the head, it breaks again, and is counted there.
            break
        if not data:
            break
        head += data
    return bytes(head)


def _from_head(head: bytes, read: Read) -> Read:
    """Return a reader that gives the head again before it goes on."""
    place = 0

    def joined(size: int) -> bytes:
        nonlocal place
        data = head[place : place + size]
        place += len(data)
        return data or read(size)

    return joined
