"""`fedcot privacy verify`, `ledger` and `vocabulary`."""

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
from fedcot.rules import Scalar
from fedcot.settings import MECHANISMS

_MECHANISMS = f"{', '.join(MECHANISMS[:-1])} or {MECHANISMS[-1]}."


@privacy.command()
def verify(
    mechanism: Annotated[str, typer.Option(help=_MECHANISMS)],
    token_epsilon: Annotated[
        float | None, typer.Option(help="Nats per token; all but selection need it.")
    ] = None,
    prompt_epsilon: Annotated[
        float | None, typer.Option(help="Nats of a whole prompt; selection needs it.")
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="A vocabulary file.  [default: the built-in world's]"),
    ] = None,
    public_text: Annotated[
        Path | None,
        typer.Option(
            help="Public texts, one a line, for adaptive and selection on that file."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Enumerate a mechanism's integer weights and compare with what was asked.

    Exits with 3 when what is found is infinite or more than what was asked for.
    """
    if (prompt_epsilon if mechanism == "selection" else token_epsilon) is None:
        needed = "prompt" if mechanism == "selection" else "token"
        raise ConfigError(
            f"`--{needed}-epsilon` must be given for {mechanism}, found nothing; pass "
            f"for example `--{needed}-epsilon 8`."
        )
    given: dict[str, Scalar | None] = {
        "mechanism": mechanism,
        "token-epsilon": token_epsilon,
        "prompt-epsilon": prompt_epsilon,
    }
    if vocabulary is not None:
        given["vocabulary"] = str(vocabulary)
    if public_text is not None:
        given["bank"] = str(public_text)
    stated: dict[str, Scalar] = {
        key: value for key, value in given.items() if value is not None
    }
    settings = load_config(None, stated)
    from fedcot.mechanism import configured_channel
    from fedcot.privacy.accounting import NEIGHBORING_RELATION
    from fedcot.privacy.verification import verify_channel
    from fedcot.report.reader import nats

    started = time.monotonic()
    channel = configured_channel(settings)
    found = verify_channel(channel)
    content = {
        **dataclasses.asdict(found),
        "neighboring_relation": NEIGHBORING_RELATION,
        "vocabulary": channel.size,
        "slots": channel.slots,
        "channel": channel.hash,
        "seconds": round(time.monotonic() - started, 3),
    }
    how = (
        f"by enumeration of {found.enumerated}"
        if found.enumerated
        else "as it states; `fedcot privacy audit` enumerates it on a small vocabulary"
    )
    headline = (
        f"{found.mechanism} over {channel.size} words: {nats(found.exact_epsilon)} "
        f"({found.unit}) {how}, asked for {found.requested_epsilon!r}"
    )
    lines = [
        headline,
        f"one whole prompt of {channel.slots} slots: {nats(found.prompt_epsilon)} nats",
        f"guarantee: {found.guarantee}",
        f"neighbours {NEIGHBORING_RELATION}: {found.adjacency}",
        *([found.scope] if found.scope else []),
        "holds" if found.holds else "does NOT hold",
    ]
    show(content, lines, as_json)
    raise typer.Exit(0 if found.holds else 3)


@privacy.command()
def ledger(
    path: Annotated[
        Path, typer.Argument(metavar="RUN_DIR_OR_LEDGER", help="A run or its file.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Say what the ledgers of a run, or of one node, have charged."""
    from fedcot.report.ledgers import read_ledgers
    from fedcot.report.reader import nats

    uses = read_ledgers(path)
    lines = [
        f"{use.path}: {use.records} records charged, {use.releases} releases stored, "
        f"at most {nats(use.max_epsilon)} nats for one record over all rounds"
        + (
            f" with {use.trainings} private trainings at delta {use.max_delta:g}"
            if use.trainings
            else ""
        )
        + (f"; {use.seeded} charges are seeded: no guarantee" if use.seeded else "")
        + (f"; {use.exposed} records also went out raw: inf" if use.exposed else "")
        for use in uses
    ]
    show({"ledgers": [dataclasses.asdict(use) for use in uses]}, lines, as_json)
