"""How long an earlier run with the same settings took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedcot.config import RunConfig
from fedcot.launch import sent_run_config

# Settings that say where a run goes, not what it does.
_NAMES: Final = ("name", "run-dir", "seed", "data-dir", "vocabulary")


def earlier_seconds(config: RunConfig) -> tuple[float, Path] | None:
    """Return what the newest completed run with the same settings took, and where."""
    from fedcot.runs import CONFIG, SUMMARY, default_root

    wanted = _what(sent_run_config(config, Path()))
    found = default_root().glob(f"*/{CONFIG}")
    for path in sorted(found, key=lambda path: -path.stat().st_mtime):
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))["run_config"]
            summary = json.loads(
                (path.parent / SUMMARY).read_text(encoding="utf-8"),
            )
            seconds = sum(map(float, summary["timing"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # Not a run, or one that did not get that far.
        if summary.get("status") == "completed" and _what(settings) == wanted:
            return seconds, path.parent
    return None


def _what(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide how long a run takes."""
    return {key: value for key, value in settings.items() if key not in _NAMES}
