"""The commands that hand on what a run has made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcot.cli.commands import app
from fedcot.cli.show import JsonFlag, show
from fedcot.errors import ConfigError

export = typer.Typer(
    help="Hand on what a run has made.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export, name="export")


@export.callback()
def _group() -> None:
    """Keep the name of a command even while there is one only."""


@export.command()
def merged(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")
    ],
    arm: Annotated[str, typer.Option(help="Whose adapter.")],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    partition: Annotated[
        int | None, typer.Option(min=0, help="The client's own adapter.")
    ] = None,
    use_global: Annotated[
        bool, typer.Option("--global", help="The mean of the clients' adapters.")
    ] = False,
    coalition: Annotated[
        str, typer.Option(help="The student of a coalition, as library+harbor.")
    ] = "",
    base: Annotated[
        str | None,
        typer.Option(help="Where the base lies.  [default: the run's student]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add an adapter into its base: a model that plain transformers loads.

    A student that was tuned in full is such a model already, and is copied.
    """
    given = [partition is not None, use_global, bool(coalition)]
    if sum(given) != 1:
        raise ConfigError(
            "one of `--partition`, `--global` and `--coalition` must be given, found "
            f"{sum(given)}; pass for example `--partition 0`."
        )
    from fedcot.models.merging import copy_model, merge_adapter
    from fedcot.report.model_card import model_card, read_made
    from fedcot.runs import adapter_folder
    from fedcot.student.files import config_of, is_model

    config, summary = read_made(run_dir)
    if coalition:
        _check_coalition(coalition, summary)
    folder = adapter_folder(run_dir, arm, partition, coalition=coalition)
    stated = config_of(folder)
    card = model_card(
        config,
        summary,
        arm=arm,
        partition=partition,
        coalition=coalition,
        adapter=json.loads(stated.read_text()) if stated else {},
        merged=True,
    )
    lines = [f"Model: {output}"]
    if is_model(folder):
        if base is not None:
            raise ConfigError(
                "`--base` must be left out for a student that was tuned in full, "
                f"because nothing is added to a base, found '{base}'; leave it out."
            )
        copy_model(folder, output, card=card)
        unties = False
        lines.append("It was tuned in full, so this is a copy of what the run wrote.")
    else:
        unties = merge_adapter(
            base or str(config.get("run_config", {}).get("student", "builtin")),
            folder,
            output,
            base_hash=config.get("artefacts", {}).get("student"),
            card=card,
        )
    if unties:
        lines.append("Its output layer has a matrix of its own.")
    show({"model": str(output), "untied": unties}, lines, as_json)


def _check_coalition(name: str, summary: Mapping[str, Any]) -> None:
    known = (summary.get("community") or {}).get("coalitions") or []
    if name not in known:
        raise ConfigError(
            f"`--coalition` must be one of the run, found {name!r}; it has "
            f"{', '.join(known) or 'none, because it is no run of communities'}."
        )
