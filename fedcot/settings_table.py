"""The settings of a run as a table: for `fedcot run --help` and for the README."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from fedcot.config import RunConfig
from fedcot.rules import default_of, key_of, type_of


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in words; `default` is "required" where the library has none."""

    key: str
    default: str
    allowed: str
    help: str


def settings_rows() -> list[Row]:
    """Return every setting in the order of `RunConfig`."""
    rows = []
    for item in fields(RunConfig):
        default = default_of(item)
        rows.append(
            Row(
                key=key_of(item),
                default="required" if default is None else json.dumps(default),
                allowed=item.metadata["rule"].text or type_of(item).__name__,
                help=item.metadata["help"],
            )
        )
    return rows


def markdown_table() -> str:
    """Return the settings as a table for the README."""
    lines = ["| key | default | allowed | what it does |", "|---|---|---|---|"]
    for row in settings_rows():
        default = row.default if row.default == "required" else f"`{row.default}`"
        lines.append(f"| `{row.key}` | {default} | {row.allowed} | {row.help} |")
    return "\n".join(lines)


def plain_table() -> str:
    """Return the settings as aligned lines for a terminal."""
    rows = settings_rows()
    width = max(len(row.key) for row in rows)
    return "\n".join(
        f"  {row.key:<{width}}  {row.help} [{row.allowed}; {_stated(row.default)}]"
        for row in rows
    )


def _stated(default: str) -> str:
    return default if default == "required" else f"default {default}"
