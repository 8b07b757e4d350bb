"""What every command prints with, and the options that they share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console

console = Console(highlight=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-c", metavar="KEY=VALUE", help="One setting; may be repeated."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of settings.")
]


def show(content: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print a result as JSON or as lines for a person."""
    if as_json:
        from fedcot.runs import portable

        click.echo(json.dumps(portable(dict(content)), indent=2, default=str))
        return
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def complain(message: str, code: int = 3) -> int:
    """Print one line on stderr."""
    click.echo(f"fedcot: {' '.join(message.split())}", err=True)
    return code
