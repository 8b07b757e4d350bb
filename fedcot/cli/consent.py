"""`fedcot traces`: what a member holds, whom it may reach, and what was withdrawn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcot.cli.commands import app
from fedcot.cli.scopes import AS_GIVEN, SCOPES, scope_of, scope_or_given
from fedcot.cli.show import JsonFlag, show
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.community.consent import Tombstone, TraceStore

_TEACHING = (
    "\b\nThe scope of a trace says whom it may reach:\n"
    "  own        nobody: only you, on this machine\n"
    "  community  the student of your community by itself\n"
    "  coalition  also students of coalitions that your community is in\n"
    "  public     the same in a run; an export says that anybody may have it\n"
    "FOLDER is the folder that holds your traces. A KEY is a trace's key or its first\n"
    "8 or more digits; `fedcot traces list FOLDER --keys` shows them."
)

traces = typer.Typer(
    help="Your reasoning traces: what you hold, whom it may reach, what you withdrew.",
    epilog=_TEACHING,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(traces, name="traces")

_SHORTEST = 8

Folder = Annotated[Path, typer.Argument(help="The folder that holds your traces.")]
Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY...", help="Keys, or their first 8 or more digits."),
]


@traces.command(epilog=_TEACHING, short_help="Add the traces of a file.")
def add(
    folder: Folder,
    file: Annotated[
        Path, typer.Argument(metavar="TRACES.jsonl", help="Traces, one a line.")
    ],
    community: Annotated[
        str, typer.Option(help="Your community; fixed when the folder is made.")
    ],
    scope: Annotated[
        str,
        typer.Option(
            help=f"Whom new traces may reach: {SCOPES}; or {AS_GIVEN}: what the "
            "file says."
        ),
    ] = Scope.OWN.value,
    as_json: JsonFlag = False,
) -> None:
    """Add traces of a file to your folder; they may reach nobody unless you say so.

    A trace that you have keeps its scope, and one that you withdrew is not added
    again, whatever the file says.
    """
    chosen = scope_or_given(scope)
    if not file.is_file():
        raise ConfigError(
            f"`TRACES.jsonl` must be a file, found none at {file}; make one of an "
            "export of your conversations."
        )
    from fedcot.community.consent import TraceStore
    from fedcot.data.portability import read_traces

    found: list[Trace] = list(read_traces(file))
    if chosen is not None:
        found = [dataclasses.replace(trace, scope=chosen) for trace in found]
    with TraceStore(folder, community=community) as store:
        added = store.add(found)
        held = len(store.active())
    content = {
        **dataclasses.asdict(added),
        "scope": scope,
        "held": held,
        "community": community,
    }
    line = (
        f"{added.added} added with scope {scope}, {added.known} known already, "
        f"{added.withdrawn} withdrawn earlier and left out; {held} held"
    )
    show(content, [line], as_json)


@traces.command("list", short_help="Count your traces by scope and class.")
def list_traces(
    folder: Folder,
    keys: Annotated[bool, typer.Option("--keys", help="Each trace's key.")] = False,
    show_text: Annotated[
        bool,
        typer.Option("--show-text", help="Also question, reasoning and answer."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Count your traces by scope and class; no text is shown unless you ask for it."""
    from fedcot.community.consent_tables import count_traces

    with _opened(folder) as store:
        held, stones = store.active(), store.tombstones()
    counts = count_traces(held, withdrawn=len(stones))
    content: dict[str, Any] = {
        "community": store.community,
        **dataclasses.asdict(counts),
    }
    headline = (
        f"community {store.community}: {counts.active} traces, "
        f"{counts.withdrawn} withdrawn"
    )
    lines = [headline, *_table(counts.scopes)]
    if keys or show_text:
        content["traces"] = [_described(trace, show_text) for trace in held]
        digits = _digits([trace.key for trace in held])
        for trace in held:
            lines += _trace_lines(trace, digits, show_text)
    show(content, lines, as_json)


@traces.command(epilog=_TEACHING, short_help="Let traces reach more or fewer.")
def scope(
    folder: Folder,
    scope: Annotated[str, typer.Argument(help=f"One of {SCOPES}.")],
    keys: Keys = None,
    every: Annotated[bool, typer.Option("--all", help="All your traces.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let traces reach more or fewer students from now on.

    What was sent before is not called back; `fedcot traces withdraw` says which models
    it reached.
    """
    chosen = scope_of(scope, "scope")
    if every == bool(keys):
        raise ConfigError(
            "`KEY...` or --all must be given, one of the two, found "
            f"{'both' if every else 'neither'}; `fedcot traces list --keys` shows keys."
        )
    with _opened(folder) as store:
        named = [one.key for one in store.active()] if every else store.find(keys or [])
        changed = store.set_scope(named, chosen)
    count = len(set(named))
    content = {"scope": scope, "traces": count, "changed": changed}
    line = f"{count} traces have scope {scope}, {changed} of them had another one"
    show(content, [line], as_json)


@traces.command(epilog=_TEACHING, short_help="Delete traces for good.")
def withdraw(
    folder: Folder,
    keys: Keys = None,
    reason: Annotated[
        str, typer.Option(help="Kept with the tombstone, on this machine.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Delete traces for good and name the models that each one had reached.

    A withdrawn trace is never offered nor added again. A model that was trained on it
    keeps what it learned until whoever runs it trains it again without the trace.
    """
    if not keys:
        raise ConfigError(
            "`KEY...` must be given, found none; `fedcot traces list --keys` shows "
            "them."
        )
    with _opened(folder) as store:
        stones = store.withdraw(store.find(keys), reason=reason)
    _show_tombstones(stones, as_json)


@traces.command(short_help="List what you withdrew and what it had reached.")
def tombstones(folder: Folder, as_json: JsonFlag = False) -> None:
    """List the traces that you withdrew, and the models that they had reached."""
    with _opened(folder) as store:
        stones = store.tombstones()
    _show_tombstones(stones, as_json)


def _opened(folder: Path) -> TraceStore:
    from fedcot.community.consent import TraceStore

    return TraceStore.existing(folder)


def _table(scopes: dict[str, dict[str, int]]) -> list[str]:
    classes = list(next(iter(scopes.values())))
    head = "".join(f"{name:>12}" for name in classes)
    return [
        f"{'scope':<10}{head}",
        *(
            f"{name:<10}" + "".join(f"{count:>12}" for count in row.values())
            for name, row in scopes.items()
        ),
    ]


def _described(trace: Trace, show_text: bool) -> dict[str, str]:
    texts = ("question", "reasoning", "answer") if show_text else ()
    return {
        "key": trace.key,
        "trace_class": trace.trace_class.value,
        "scope": trace.scope.value,
        **{name: getattr(trace, name) for name in texts},
    }


def _trace_lines(trace: Trace, digits: int, show_text: bool) -> list[str]:
    described = _described(trace, show_text)
    key = described.pop("key")[:digits]
    kind, scope = described.pop("trace_class"), described.pop("scope")
    texts = [f"  {name}: {_quoted(text)}" for name, text in described.items() if text]
    return [f"{key}  {kind:<10}  {scope}", *texts]


def _digits(keys: Sequence[str]) -> int:
    """Return how many digits tell all keys apart, at least 8."""
    digits = _SHORTEST
    while len({key[:digits] for key in keys}) < len(set(keys)):
        digits += 1
    return digits


def _quoted(text: str) -> str:
    """Return a text on one line, without signs that would steer the terminal."""
    line = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def _show_tombstones(stones: Sequence[Tombstone], as_json: bool) -> None:
    content = {
        "tombstones": [
            {**dataclasses.asdict(stone), "models": stone.models} for stone in stones
        ]
    }
    digits = _digits([stone.key for stone in stones])
    lines = []
    for stone in stones:
        why = f", reason: {_quoted(stone.reason)}" if stone.reason else ""
        lines.append(f"{stone.key[:digits]}  withdrawn {stone.time}{why}")
        lines += [
            f"  had reached {_quoted(one.model)} of {one.audience}, for "
            f"{_quoted(one.purpose)}, {one.time}"
            for one in stone.reached
        ] or ["  had reached no model"]
    show(content, lines or ["nothing was withdrawn"], as_json)
