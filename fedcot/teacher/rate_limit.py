"""When the next request may go out, and how long to wait after one that failed."""

from __future__ import annotations

import email.utils
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

FIRST_PAUSE: Final = 0.5  # seconds
# Eight retries last two minutes: a server that is started again has loaded by then.
LONGEST_PAUSE: Final = 60.0
# A server that asks for more is out of quota, not busy.
LONGEST_WAIT: Final = 300.0


class RateLimit:
    """Spaces requests evenly over all threads, and holds them all back when told to.

    Parameters
    ----------
    requests_per_minute : float
        0: no limit.
    clock : callable
        Returns seconds that only grow.
    """

    def __init__(
        self,
        requests_per_minute: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gap = 60.0 / requests_per_minute if requests_per_minute > 0 else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._free = -math.inf

    def reserve(self) -> float:
        """Take the next free moment and return in how many seconds it is, >= 0."""
        with self._lock:
            now = self._clock()
            moment = max(now, self._free)
            self._free = moment + self._gap
            return moment - now

    def hold(self, seconds: float) -> None:
        """Let no further moment begin before so many seconds from now."""
        with self._lock:
            self._free = max(self._free, self._clock() + seconds)


def growing_pause(failures: int) -> float:
    """Return the seconds to wait after so many failures of one request, at least 1.

    Doubled each time up to `LONGEST_PAUSE`, and up to a quarter shorter at random, so
    that requests which failed together do not come back together.
    """
    doublings = min(failures - 1, 30)
    longest = min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)
    return longest * random.uniform(0.75, 1.0)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait; 0 where it asks for nothing.

    `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3);
    `retry-after-ms` is what some hosted endpoints add.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) / unit
        except ValueError:
            seconds = _until(value)
        if seconds > 0:
            return seconds
    return 0.0


def _until(date: str) -> float:
    """Return the seconds until a date; not a number where it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return math.nan
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()
