"""The table of what larger models need, for the README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcot.memory_needs import gigabytes


def hardware_markdown(path: Path) -> str:
    """Return memory and time of configurations for real hardware.

    Parameters
    ----------
    path : Path
        The JSON file that `make results-hardware` writes.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rates = (result["gpu_rate"], result["measured_rate"])
    heads = (
        "configuration",
        "student",
        "GPU memory of a client",
        "of the teacher",
        "all clients at once and the teacher",
        "operations",
        f"at {rates[0] / 1e12:.0f} TFLOP/s (assumed)",
        f"at {rates[1] / 1e9:.1f} GFLOP/s (measured, one CPU thread)",
    )
    lines = [
        f"| {' | '.join(heads)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *(_line(row, rates) for row in result["rows"]),
        "",
        f"From `{path.parent.name}/{path.name}`, written by `make results-hardware`.",
    ]
    return "\n".join(lines)


def _line(row: Mapping[str, Any], rates: tuple[float, float]) -> str:
    teacher = row["teacher_bytes"]
    cells = (
        f"`conf/{row['config']}.toml`",
        f"{row['student']} ({row['parameters'] / 1e6:.0f} million)",
        gigabytes(row["client_bytes"]),
        gigabytes(teacher) if teacher else "endpoint",
        gigabytes(row["clients"] * row["client_bytes"] + teacher),
        f"{row['operations']:.1e}",
        *(_duration(row["operations"] / rate) for rate in rates),
    )
    return f"| {' | '.join(cells)} |"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
