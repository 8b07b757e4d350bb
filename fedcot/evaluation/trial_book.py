"""The ranks of an audit, trial by trial, so that one that was stopped goes on.

A line holds numbers and names of students, never a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcot.runs import append_line, part_of, portable


def plan_digest(decisive: Mapping[str, Any]) -> str:
    """Return 16 hex digits over everything that decides an audit's numbers."""
    text = json.dumps(portable(dict(decisive)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrialBook:
    """Lines of one audit in a file that several audits may share.

    Parameters
    ----------
    path : Path
        A file of JSON lines; its folder is made where it is missing.
    plan : str
        See `plan_digest`; lines of another plan are left alone and not read.
    """

    def __init__(self, path: Path, plan: str) -> None:
        self._path = path
        self._plan = plan
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = _whole_lines(path)
        found = [row for row in map(_read, whole) if row is not None]
        self._rows = {
            (str(row["student"]), int(row["trial"])): row
            for row in found
            if row.get("plan") == plan
        }

    def row(self, student: str, trial: int) -> dict[str, Any] | None:
        """Return what is known of a student's trial; None if it is still to be made."""
        return self._rows.get((student, trial))

    def add(self, student: str, trial: int, **numbers: Any) -> dict[str, Any]:
        """Keep the numbers of a trial, and return them as they are read back."""
        row = portable(
            {"plan": self._plan, "student": student, "trial": trial, **numbers}
        )
        append_line(self._path, row)
        self._rows[student, trial] = row
        return dict(row)


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file, without the one that a crash cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    kept, mark, torn = text.rpartition("\n")
    if torn:
        part = part_of(path)
        part.write_text(kept + mark, encoding="utf-8")
        part.replace(path)
    return kept.splitlines()


def _read(line: str) -> dict[str, Any] | None:
    """Return a line that this module wrote; None for any other."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and {"student", "trial"} <= row.keys()
    return row if is_row else None
