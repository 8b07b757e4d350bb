"""The command that makes a model folder of somebody else's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fedcot.cli.commands import app
from fedcot.cli.show import JsonFlag, show


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A llama2.c checkpoint, or its folder.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder to make.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="SentencePiece .model.  [default: the one beside SOURCE]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a Hugging Face folder of a llama2.c checkpoint."""
    from fedcot.models.llama2c import convert as make

    header = make(source, output, tokenizer)
    content = {"model": str(output), **dataclasses.asdict(header)}
    line = (
        f"{header.layers} layers of width {header.dim}, {header.vocabulary} tokens: "
        f"{output}"
    )
    show(content, [line], as_json)
