"""Take a large JSON file apart, one conversation at a time.

Brackets and strings are followed byte by byte and nothing is decoded before one item is
whole, so an item can be refused for its size before it takes memory, and one that is no
JSON does not take the rest of the file with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from fedcot.data.portability import import_report as reasons

Read = Callable[[int], bytes]  # at most so many bytes, none at the end

CHUNK: Final = 2**18
_BLANK: Final = b" \t\r\n,"
_KEY_ROOM: Final = 64  # what is kept before a bracket, to see the key that it is under
# All up to the next bracket, or to a string that does not end in the buffer.
_SKIP: Final = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_IN_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_KEY: Final = re.compile(
    rb'"((?:[^"\\]|\\.)*)"\s*:|"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL
)


class Problem(StrEnum):
    """Why there is no item where one should be; reasons of the report."""

    MALFORMED = reasons.MALFORMED
    TOO_LONG = reasons.TOO_LONG
    EARLY_END = reasons.EARLY_END


class _Splitter:
    """Follows the brackets of a JSON text that comes in pieces."""

    def __init__(self, limit: int, container: str) -> None:
        self._limit = limit
        self._key = container and re.compile(
            rb'(?<!\\)"' + re.escape(container.encode()) + rb'"\s*:\s*\Z'
        )
        self._buffer = bytearray()
        self._at = 0  # up to here the buffer was looked at
        self._gap = 0  # where the text after the last item begins
        self._is_gap_dirty = False
        self._in_string = False
        self._depth = 0
        self._container_depth = -1  # of the array with the items, once it is open
        self._start = -1  # of the item in the buffer
        self._item_depth = -1  # brackets around the item; -1 between items
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | Problem]:
        """Yield the items that end in the next piece of the text."""
        self._buffer += data
        while True:
            sign = self._next_bracket()
            if not sign:
                break
            yield from self._open(sign) if sign in b"[{" else self._close()
            self._at += 1
        self._trim()

    def finish(self) -> Iterator[Problem]:
        """Yield what is wrong with the end of the text."""
        if self._depth or self._in_string:
            yield Problem.EARLY_END
        elif self._is_junk(len(self._buffer)):
            yield Problem.MALFORMED

    def _next_bracket(self) -> bytes:
        """Go on to the next bracket and return it; nothing where there is none yet."""
        buffer = self._buffer
        while True:
            if self._in_string:
                found = _IN_STRING.match(buffer, self._at)
                self._at = found.end() if found else self._at
                if buffer[self._at : self._at + 1] != b'"':
                    return b""  # more is needed, also behind a backslash at the end
                self._at += 1
                self._in_string = False
            found = _SKIP.match(buffer, self._at)
            self._at = found.end() if found else self._at
            sign = bytes(buffer[self._at : self._at + 1])
            if sign != b'"':
                return sign
            self._at += 1
            self._in_string = True

    def _open(self, sign: bytes) -> Iterator[Problem]:
        if self._item_depth < 0:
            if self._is_item(sign):
                if self._is_junk(self._at):
                    yield Problem.MALFORMED
                self._start, self._item_depth = self._at, self._depth
            elif self._is_container(sign):
                self._container_depth = self._depth
                self._gap = self._at + 1
        self._depth += 1

    def _close(self) -> Iterator[bytes | Problem]:
        if not self._depth:
            self._is_gap_dirty = True  # closed but never opened
            return
        self._depth -= 1
        if self._item_depth == self._depth:
            if self._is_too_long or self._at + 1 - self._start > self._limit:
                yield Problem.TOO_LONG
            else:
                yield bytes(self._buffer[self._start : self._at + 1])
            self._item_depth, self._is_too_long = -1, False
            self._gap, self._is_gap_dirty = self._at + 1, False
        elif self._item_depth < 0 and self._depth == self._container_depth:
            if self._is_junk(self._at):
                yield Problem.MALFORMED
            self._container_depth = -1
            self._gap, self._is_gap_dirty = self._at + 1, False

    def _is_item(self, sign: bytes) -> bool:
        if self._container_depth >= 0:
            return self._depth == self._container_depth + 1
        return not self._key and not self._depth and sign == b"{"

    def _is_container(self, sign: bytes) -> bool:
        if not self._key:
            return not self._depth and sign == b"["
        before = self._buffer[max(0, self._at - _KEY_ROOM) : self._at]
        is_named = self._depth == 1 and self._key.search(before)
        return sign == b"[" and bool(is_named)

    def _is_junk(self, end: int) -> bool:
        """Say whether there is text between items that is no item."""
        if self._key and self._container_depth < 0:
            return False
        rest = self._buffer[self._gap : end]
        return self._is_gap_dirty or bool(rest.strip(_BLANK))

    def _trim(self) -> None:
        """Forget what was looked at and is not needed."""
        if self._item_depth >= 0:
            if len(self._buffer) - self._start > self._limit:
                self._is_too_long = True
            cut = self._at if self._is_too_long else self._start
        else:
            cut = max(0, self._at - _KEY_ROOM)
            if cut > self._gap:
                self._is_gap_dirty = self._is_junk(cut)
        del self._buffer[:cut]
        self._at -= cut
        self._start = max(0, self._start - cut)
        self._gap = max(0, self._gap - cut)


def json_items(
    read: Read, *, limit: int, container: str = ""
) -> Iterator[bytes | Problem]:
    """Yield the items of a JSON text as they stand in it.

    Parameters
    ----------
    read : callable
        Returns the next bytes, without a mark of their order.
    limit : int
        Bytes that an item may have.
    container : str
        Empty: an object is an item, and so is what an array holds. Else the key of the
        array in the outermost object whose elements are the items.

    Yields
    ------
    bytes or Problem
        An object or an array, not checked inside; or what is in its place.
    """
    splitter = _Splitter(limit, container)
    data = read(CHUNK)
    while data:
        yield from splitter.feed(data)
        data = read(CHUNK)
    yield from splitter.finish()


def lines(read: Read, *, limit: int) -> Iterator[bytes | Problem]:
    """Yield the lines that hold something, without their ends.

    Parameters
    ----------
    read : callable
        Returns the next bytes, without a mark of their order.
    limit : int
        Bytes that a line may have.
    """
    buffer = bytearray()
    is_too_long = False
    data = read(CHUNK)
    while data:
        pieces = data.split(b"\n")
        for piece in pieces[:-1]:
            buffer += piece
            if is_too_long or len(buffer) > limit:
                yield Problem.TOO_LONG
            elif buffer.strip():
                yield bytes(buffer).rstrip(b"\r")
            buffer.clear()
            is_too_long = False
        buffer += pieces[-1]
        if len(buffer) > limit:
            is_too_long = True
            buffer.clear()
        data = read(CHUNK)
    if is_too_long or len(buffer) > limit:
        yield Problem.TOO_LONG
    elif buffer.strip():
        yield bytes(buffer).rstrip(b"\r")


def leading_keys(head: bytes) -> set[str]:
    """Return the keys of the first object in the beginning of a JSON text.

    Parameters
    ----------
    head : bytes
        May end anywhere; the object is the text itself or the first in an array.
    """
    keys: set[str] = set()
    depth = 0
    inside = -1
    for found in _KEY.finditer(head):
        sign = found.group()
        if sign in (b"{", b"["):
            depth += 1
            if sign == b"{" and inside < 0:
                inside = depth
        elif sign in (b"}", b"]"):
            if depth == inside:
                break
            depth -= 1
        elif found.group(1) is not None and depth == inside:
            keys.add(found.group(1).decode("utf-8", "replace"))
    return keys
