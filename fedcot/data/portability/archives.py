"""Open the files of an export: one file, a folder, or an archive.

Nothing is extracted. A name in an archive is only ever looked at, and what it stands
for is read as a stream, so a path that leads elsewhere leads nowhere.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, cast

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.json_stream import Read
from fedcot.data.portability.limits import Limits
from fedcot.errors import ConfigError

SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson", ".csv"})
_ARCHIVES: Final = frozenset(
    {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}
)
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED_FLAG: Final = 1
_UNSAFE: Final = re.compile(r"[\\\x00-\x1f\x7f]|^[A-Za-z]:")
_PIECE: Final = 2**16
_FIRST: Final = b"PK\x03\x04"
_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x06"
_END_ROOM: Final = 2**16 + 512  # the end record, the longest comment, and what is near
_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


class BrokenFileError(Exception):
    """The rest of a file cannot be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that may hold conversations.

    Attributes
    ----------
    name : str
        Without folders.
    size : int
        Bytes, uncompressed.
    opened : callable
        Returns a context with a function that reads the next bytes. That function
        raises `BrokenFileError`.
    """

    name: str
    size: int
    opened: Callable[[], AbstractContextManager[Read]]


def sources_of(path: Path, limits: Limits, report: ImportReport) -> list[Source]:
    """Return the files of an export in the order of their names.

    Parameters
    ----------
    path : Path
        A file, a folder or a ZIP archive. Archives that lie in a folder are opened,
        those in an archive are not.
    limits : Limits
    report : ImportReport
        Counts the files that are left out.

    Raises
    ------
    ConfigError
        There is no such path, it cannot be read, it breaks a limit, or an archive is
        cut or damaged.
    """
    try:
        if path.is_dir():
            found = [
                source
                for file in _files_in(path, limits, report)
                for source in _file_sources(file, limits, report)
            ]
        elif path.is_file():
            found = _file_sources(path, limits, report, is_chosen=True)
        else:
            raise ConfigError(
                f"`PATH` must be a file, a folder or a ZIP archive, found none at "
                f"{path}; correct the path."
            )
    except OSError as error:
        raise ConfigError(
            f"`PATH` must be readable, found {error.strerror or 'an error'} at {path}; "
            "correct its rights."
        ) from error
    _check_sizes([source.size for source in found], limits)
    return found


def _check_sizes(sizes: list[int], limits: Limits) -> None:
    total, largest = sum(sizes), max(sizes, default=0)
    if largest > limits.file_bytes or total > limits.total_bytes:
        raise ConfigError(
            f"`PATH` must hold files of at most {limits.file_bytes:,} bytes and "
            f"{limits.total_bytes:,} in all, found {largest:,} and {total:,}; import "
            "its files one by one."
        )


def _files_in(folder: Path, limits: Limits, report: ImportReport) -> list[Path]:
    files: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(here) / name
            if file.is_symlink() or not file.is_file():
                report.files_left[reasons.LINK] += 1
                continue
            files.append(file)
            if len(files) > limits.files:
                _refuse_count(limits)
    return files


def _refuse_count(limits: Limits) -> None:
    raise ConfigError(
        f"`PATH` must hold at most {limits.files:,} files, found more; import a part."
    )


def _file_sources(
    file: Path, limits: Limits, report: ImportReport, *, is_chosen: bool = False
) -> list[Source]:
    if zipfile.is_zipfile(file):
        return _members(file, limits, report)
    if (is_chosen or file.suffix.lower() == ".zip") and _is_begun_archive(file):
        raise _broken(file)
    if not is_chosen and file.suffix.lower() not in SUFFIXES:
        report.files_left[reasons.NOT_AN_EXPORT] += 1
        return []

    @contextmanager
    def opened() -> Iterator[Read]:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(file.open("rb"))
            except OSError as error:
                raise BrokenFileError from error
            yield _reader(stream.read1)

    return [Source(file.name, file.stat().st_size, opened)]


def _members(file: Path, limits: Limits, report: ImportReport) -> list[Source]:
    _check_directory(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except _UNREADABLE as error:
        raise _broken(file) from error
    if len(members) > limits.files:
        _refuse_count(limits)
    found = []
    for member in sorted(members, key=lambda member: member.filename):
        if member.is_dir():
            continue
        reason = _why_not(member)
        if reason:
            report.files_left[reason] += 1
            continue
        if member.file_size > limits.ratio * max(1, member.compress_size):
            raise ConfigError(
                "`PATH` must be an archive whose files are compressed at most "
                f"{limits.ratio} times, found one that would fill "
                f"{member.file_size:,} bytes from {member.compress_size:,}; it looks "
                "made to fill the disk."
            )
        name = PurePosixPath(member.filename).name
        found.append(Source(name, member.file_size, _opener(file, member)))
    return found


def _is_begun_archive(file: Path) -> bool:
    """Say whether a file that has no end of a ZIP archive begins as one."""
    with file.open("rb") as stream:
        head = stream.read(len(_FIRST))
    # Where a download broke off at once, only the name is left to tell.
    return head == _FIRST or (not head and file.suffix.lower() == ".zip")


def _broken(file: Path) -> ConfigError:
    return ConfigError(
        f"`PATH` must be a ZIP archive that is whole, found {file} cut or damaged; "
        "download it again."
    )


def _why_not(member: zipfile.ZipInfo) -> str:
    """Return why a file in an archive is not read; nothing if it is."""
    path = PurePosixPath(member.filename)
    suffix = path.suffix.lower()
    # The zipfile module cuts a name at a NUL; the name that was written counts.
    names = (member.filename, member.orig_filename)
    if any(_UNSAFE.search(name) for name in names):
        return reasons.UNSAFE_NAME
    if path.is_absolute() or ".." in path.parts:
        return reasons.UNSAFE_NAME
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return reasons.LINK
    if suffix in _ARCHIVES:
        return reasons.NESTED
    if suffix not in SUFFIXES:
        return reasons.NOT_AN_EXPORT
    if member.flag_bits & _ENCRYPTED_FLAG:
        return reasons.ENCRYPTED
    return "" if member.compress_type in _METHODS else reasons.COMPRESSION


def _opener(
    file: Path, member: zipfile.ZipInfo
) -> Callable[[], AbstractContextManager[Read]]:
    @contextmanager
    def opened() -> Iterator[Read]:
        # The archive is opened for each file, so that none stays open; its list of
        # names is small against what it lists.
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(zipfile.ZipFile(file))
                stream = cast(
                    zipfile.ZipExtFile, stack.enter_context(archive.open(member))
                )
            except _UNREADABLE as error:
                raise BrokenFileError from error
            yield _reader(stream.read1)

    return opened


def _reader(read_piece: Read) -> Read:
    is_broken = False

    def read(size: int) -> bytes:
        nonlocal is_broken
        # An archive that broke once may go on as if it had ended.
        if is_broken:
            raise BrokenFileError
        try:
            # What one call has read is lost when it fails, so it reads little.
            return read_piece(min(size, _PIECE))
        except _UNREADABLE as error:
            is_broken = True
            raise BrokenFileError from error

    return read


def _check_directory(file: Path, limits: Limits) -> None:
    """Refuse a list of names so long that reading it would take the memory.

    The zipfile module reads the list as a whole, as long as the end of the file says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _END_ROOM))
        end = stream.read(_END_ROOM)
    lengths = [0]
    for sign, place, form in ((_END, 12, "<L"), (_END_64, 40, "<Q")):
        at = end.find(sign)
        while at >= 0:
            field = end[at + place : at + place + struct.calcsize(form)]
            if len(field) == struct.calcsize(form):
                lengths += struct.unpack(form, field)
            at = end.find(sign, at + 1)
    # More than the file has cannot be read; a small record so points to another one.
    if max(length for length in lengths if length <= size) > limits.directory_bytes:
        raise ConfigError(
            "`PATH` must be an archive with a list of names of at most "
            f"{limits.directory_bytes:,} bytes, found a longer one; unpack it first."
        )
