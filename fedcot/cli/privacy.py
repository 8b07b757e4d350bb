"""`fedcot privacy verify` and `fedcot privacy ledger`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import JsonFlag, show
from fedcot.config import load_config
from fedcot.errors import ConfigError


@privacy.command()
def verify(
    mechanism: Annotated[str, typer.Option(help="exponential, rank or none.")],
    token_epsilon: Annotated[float, typer.Option(help="Nats per token.")],
    as_json: JsonFlag = False,
) -> None:
    """Enumerate a mechanism's integer weights and compare with what was asked."""
    settings = load_config(
        None, {"mechanism": mechanism, "token-epsilon": token_epsilon}
    )
    from fedcot.budget import world_channel
    from fedcot.privacy.accounting import NEIGHBORING_RELATION
    from fedcot.privacy.channels import TokenChannel, exact_epsilon
    from fedcot.report.reader import nats

    started = time.monotonic()
    channel = world_channel(settings)
    if not isinstance(channel, TokenChannel):
        raise ConfigError(
            f"`--mechanism` must treat tokens alike, found {channel.name}; pass rank."
        )
    exact = exact_epsilon(channel)
    content = {
        "mechanism": channel.name,
        "vocabulary": channel.size,
        "requested_token_epsilon": settings.token_epsilon,
        "token_epsilon": exact,
        "unit": "nats, one token",
        "neighboring_relation": NEIGHBORING_RELATION,
        "adjacency": channel.adjacency,
        "holds": exact <= settings.token_epsilon,
        "channel": channel.hash,
        "seconds": round(time.monotonic() - started, 3),
    }
    line = (
        f"{channel.name} over {channel.size} words: token epsilon {nats(exact)} nats "
        f"for one token by enumeration of {channel.size}^2 integer weights, asked for "
        f"{settings.token_epsilon!r}"
    )
    neighbours = f"neighbours {NEIGHBORING_RELATION}: {channel.adjacency}"
    verdict = "holds" if content["holds"] else "does NOT hold"
    show(content, [line, neighbours, verdict], as_json)
    raise typer.Exit(0 if content["holds"] else 3)


@privacy.command()
def ledger(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR_OR_LEDGER")],
    as_json: JsonFlag = False,
) -> None:
    """Say what the ledgers of a run, or of one node, have charged."""
    from fedcot.report.ledgers import read_ledgers
    from fedcot.report.reader import nats

    uses = read_ledgers(path)
    lines = [
        f"{use.path}: {use.records} records charged, {use.releases} releases stored, "
        f"at most {nats(use.max_epsilon)} nats for one record over all rounds"
        + (f"; {use.seeded} charges are seeded: no guarantee" if use.seeded else "")
        + (f"; {use.exposed} records also went out raw: inf" if use.exposed else "")
        for use in uses
    ]
    show({"ledgers": [dataclasses.asdict(use) for use in uses]}, lines, as_json)
