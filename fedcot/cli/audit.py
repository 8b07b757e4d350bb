"""`fedcot privacy audit`: try to break what a mechanism claims."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import JsonFlag, show
from fedcot.config import load_config
from fedcot.rules import Scalar


@privacy.command()
def audit(
    mechanism: Annotated[str, typer.Option(help="As the setting `mechanism`.")],
    token_epsilon: Annotated[float, typer.Option(help="Nats per token.")],
    prompt_epsilon: Annotated[
        float | None, typer.Option(help="Nats per prompt, where the mechanism asks.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1000, help="Draws under each of two inputs.")
    ] = 200_000,
    as_json: JsonFlag = False,
) -> None:
    """Enumerate, draw from and attack a mechanism; exit code 3 if a claim is broken."""
    stated: dict[str, Scalar] = {"mechanism": mechanism, "token-epsilon": token_epsilon}
    if prompt_epsilon is not None:
        stated["prompt-epsilon"] = prompt_epsilon
    settings = load_config(None, stated)
    from fedcot.mechanism_audit import audit_mechanism
    from fedcot.privacy.sampler import SystemRandomSource

    with tempfile.TemporaryDirectory() as folder:
        found = audit_mechanism(
            settings, Path(folder), draws=draws, source=SystemRandomSource()
        )
    content = {**dataclasses.asdict(found), "violated": found.is_violated}
    show(content, found.lines(), as_json)
    raise typer.Exit(3 if found.is_violated else 0)
