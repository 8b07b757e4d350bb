"""`fedcot import` and `fedcot export traces`: what a provider handed out, and on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcot.cli.commands import app
from fedcot.cli.export import export
from fedcot.cli.scopes import AS_GIVEN, SCOPES, scope_or_given
from fedcot.cli.show import JsonFlag, console, show
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.data.portability import ImportReport


@app.command("import")
def import_command(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file, a folder or a ZIP archive.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="TRACES.jsonl", help="The file to write.")
    ],
    format: Annotated[
        str,
        typer.Option(
            help="chatgpt, claude, gemini, grok, copilot, sharegpt, messages, alpaca, "
            "openr1, pam, or auto: told from the content."
        ),
    ] = "auto",
    subject: Annotated[
        str, typer.Option(help="A pseudonym for the person whose traces these are.")
    ] = "",
    scope: Annotated[
        str,
        typer.Option(
            help=f"Whom they may reach: {SCOPES}; or {AS_GIVEN}: what an "
            "export of fedcot says."
        ),
    ] = Scope.OWN.value,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Read no more traces than these.")
    ] = None,
    only_correct: Annotated[
        bool,
        typer.Option(
            "--only-correct", help="Of OpenR1, what a verifier marked as correct."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take reasoning traces out of a provider's export of your conversations.

    Each exchange becomes one trace; the reasoning is kept apart from the answer. The
    file is for your eyes: only you can read it, and the traces may reach nobody unless
    you say so.
    """
    from fedcot.data.portability import import_traces, write_traces

    chosen = scope_or_given(scope)
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(
            f"`--output` must be a file in a folder that exists, found {output}; pass "
            "for example `--output traces.jsonl`."
        )
    if output.exists() and path.exists() and output.samefile(path):
        raise ConfigError(
            f"`--output` must not be the file that is read, found {output} twice; "
            "choose another name."
        )
    with _progress(quiet=as_json) as on_bytes:
        traces, report = import_traces(
            path,
            format=format,
            subject=subject,
            scope=chosen,
            only_correct=only_correct,
            on_bytes=on_bytes,
        )
        write_traces(output, islice(traces, limit))
    content = {**report.as_dict(), "output": str(output)}
    show(content, [*_lines(report), f"Traces: {output}"], as_json)


@export.command("traces")
def export_command(
    traces: Annotated[
        Path,
        typer.Argument(
            metavar="TRACES.jsonl|FOLDER",
            help="A file of `fedcot import`, or the folder of your traces.",
        ),
    ],
    format: Annotated[str, typer.Option(help="messages, sharegpt or pam.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Write traces in a format that others read, with a manifest of hashes.

    Name a file of `fedcot import`, or the folder that holds your traces: of that, all
    that you did not withdraw is written. The texts are written in full, whatever the
    scope of a trace; what you do with the new folder is up to you.
    """
    from fedcot.data.portability import MANIFEST, export_traces

    manifest = export_traces(_held_in(traces), output, format=format)
    lines = [
        f"{manifest['traces']:,} traces in {len(manifest['files']):,} files: {output}",
        *_table("class", manifest["trace_classes"]),
        f"Manifest: {output / MANIFEST}",
        manifest["legal_note"],
    ]
    show({**manifest, "output": str(output)}, lines, as_json)


def _held_in(place: Path) -> Iterable[Trace]:
    """Return the traces of a file, or those of a store that were not withdrawn."""
    if not place.is_dir():
        from fedcot.data.portability import read_traces

        return read_traces(place)
    from fedcot.community.consent import TraceStore

    with TraceStore.existing(place) as store:
        return store.active()


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show how many bytes were read, where somebody watches."""
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("import", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(report: ImportReport) -> list[str]:
    files = ", ".join(f"{count} {name}" for name, count in sorted(report.files.items()))
    headline = (
        f"{report.traces:,} traces of {report.conversations:,} conversations, events "
        f"or rows; files: {files}"
    )
    lines = [headline]
    if report.first:
        lines.append(f"from {report.first} to {report.last}")
    models = {
        " ".join(part for part in name if part) or "not said": count
        for name, count in sorted(report.models.items())
    }
    for title, counts in (
        ("class", report.trace_classes),
        ("model", models),
        ("left out", report.skipped),
        ("note", report.notes),
        ("file not read", report.files_left),
    ):
        lines += _table(title, counts)
    return [*lines, *(f"Warning: {text}" for text in report.warnings)]


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    # A model's name comes from the export and must not steer the terminal.
    names = {_plain(name): count for name, count in sorted(counts.items())}
    width = max(len(title), *(len(name) + 2 for name in names))
    return [
        f"{title:<{width}}  count",
        *(f"  {name:<{width - 2}}  {count:>5,}" for name, count in names.items()),
    ]


def _plain(name: str) -> str:
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
