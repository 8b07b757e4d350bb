"""`fedcot data`: the datasets that can be named, and what is read from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcot.cli.commands import app
from fedcot.cli.show import ConfigFile, JsonFlag, Overrides, show
from fedcot.config import load_config, parse_overrides
from fedcot.rules import Scalar

if TYPE_CHECKING:
    from fedcot.tasks.mapping import Mapping

data = typer.Typer(
    help="Datasets: which there are, and what is read from one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")


@data.command("list")
def list_mappings(as_json: JsonFlag = False) -> None:
    """List the mappings that are shipped."""
    from fedcot.tasks.mapping import load_mapping, shipped_mappings

    found = [_described(load_mapping(name)) for name in shipped_mappings()]
    width = max((len(row["name"]) for row in found), default=0)
    lines = []
    for row in found:
        lines.append(f"{row['name']:<{width}}  {row['description']}")
        details = f"answers {row['answers']}; from {row['source']}; {row['licence']}"
        lines.append(f"{'':<{width}}  {details}")
    show({"mappings": found}, lines, as_json)


@data.command("show")
def show_mapping(
    name: Annotated[str, typer.Argument(help="A shipped mapping or a mapping file.")],
    config: ConfigFile = None,
    override: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is read from a dataset, what is left out and what a teacher would see.

    The prompt shown is that of a public demonstration.
    """
    from fedcot.dry_run import examine_data
    from fedcot.dry_run_lines import data_lines
    from fedcot.tasks.mapping import load_mapping

    mapping = load_mapping(name)
    # Without a file, nothing but the data matters: no arm that needs a vocabulary.
    arms: dict[str, Scalar] = {} if config else {"arms": "zero-shot"}
    stated = {**arms, **parse_overrides(override or []), "dataset": name}
    found = examine_data(load_config(config, stated))
    columns = _columns(mapping)
    content = {**_described(mapping), "columns": columns, **found}
    lines = [
        f"{key}: {content[key]}"
        for key in ("name", "description", "answers", "source", "licence")
    ]
    lines += [f"{part}: read from {column}" for part, column in columns.items()]
    lines += data_lines(found)
    show(content, [*lines, *(f"PROBLEM {text}" for text in found["problems"])], as_json)
    raise typer.Exit(2 if found["problems"] else 0)


def _described(mapping: Mapping) -> dict[str, Any]:
    """Return what a mapping is, for a person who chooses one."""
    source = mapping.source
    place = f"Hugging Face {source.hub}" if source.hub else source.train
    return {
        "name": mapping.name,
        "description": mapping.description,
        "answers": mapping.kind,
        "source": place,
        "origin": mapping.origin,
        "licence": mapping.licence,
    }


def _columns(mapping: Mapping) -> dict[str, str]:
    """Return what is read from which column or template."""
    found = {name: column for name, column, _ in mapping.parts}
    if mapping.choices is not None:
        found["choices"] = ", ".join(mapping.choices.columns)
    return {**found, **mapping.columns}
