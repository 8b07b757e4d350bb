"""Take a value out of JSON that may hold anything, and make its text and time plain."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fedcot.data.traces import Trace

_LONE: Final = re.compile("[\ud800-\udfff]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 253402300799.0  # the last second of the year 9999
# Microsoft writes M/D/YYYY H:MM:SS +HH:MM.
_AMERICAN: Final = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d\d):(\d\d)(?: ([+-]\d\d:\d\d))?"
)


def mapping_of(value: Any) -> dict[str, Any]:
    """Return a JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a JSON array, an empty one for anything else."""
    return value if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return a JSON string, an empty one for anything else."""
    return value if isinstance(value, str) else ""


def name_of(value: Any) -> str:
    """Return a JSON string as a name: one line of at most 200 characters."""
    return " ".join(text_of(value).split())[:200]


def repaired(text: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair.

    No UTF-8 file and no tokenizer takes a half, so none gets past an import.
    """
    return _LONE.sub("\ufffd", text) if _LONE.search(text) else text


def repaired_trace(trace: Trace) -> Trace:
    """Return a trace with all its texts `repaired`: itself where none needs it."""
    values = {field.name: getattr(trace, field.name) for field in fields(trace)}
    changed: dict[str, Any] = {
        name: repaired(value)
        for name, value in values.items()
        if type(value) is str and repaired(value) != value
    }
    return replace(trace, **changed) if changed else trace


def loads(raw: bytes | str) -> Any:
    """Return the value of a JSON text; of a key that stands twice, the last value.

    NaN and infinities are read as floats, as some writers put them there.

    Raises
    ------
    ValueError
        It is no JSON, no UTF-8, too deep, or has a number of thousands of digits. The
        error has none of the text.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # Outside of the handler, so that no cause with the text in it goes along.
    raise ValueError("no JSON")


def time_of(value: Any) -> str:
    """Return a time as ISO 8601 in UTC; empty where there is none that can be read.

    Parameters
    ----------
    value : any
        Seconds since 1970, of which 0 and less count as none; ISO 8601, UTC unless it
        says otherwise; ``M/D/YYYY H:MM:SS +HH:MM``; or MongoDB's ``{"$date": ...}``
        with milliseconds or ISO 8601.

    Returns
    -------
    str
        ``2026-01-31T12:00:00Z``, with microseconds where there are any.
    """
    if isinstance(value, dict):
        return _mongo(value.get("$date"))
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return _epoch(value)
    return _written(value.strip()) if isinstance(value, str) else ""


def order_of(created: str) -> str:
    """Return what puts the times of `time_of` in order, also parts of a second."""
    return created.removesuffix("Z")


def _mongo(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("$numberLong")
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
            value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A number of a hundred digits cannot be divided as a float.
        return _epoch(value / 1000) if abs(value) < 10**15 else ""
    return time_of(value) if isinstance(value, str) else ""


def _epoch(seconds: float) -> str:
    if not 0 < seconds <= _LATEST or math.isnan(seconds):
        return ""
    return _iso(_EPOCH + timedelta(seconds=seconds))


def _written(text: str) -> str:
    if len(text) > 40:
        return ""
    american = _AMERICAN.fullmatch(text)
    if american:
        month, day, year, hour, minute, second, zone = american.groups()
        text = f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}:{minute}:{second}{zone or ''}"
    try:
        found = datetime.fromisoformat(text)
        return _iso(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return ""


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
