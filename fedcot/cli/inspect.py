"""`fedcot inspect`: every text that teacher clients wanted to send, and what became."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from fedcot.cli.commands import app
from fedcot.cli.show import JsonFlag, complain, console, show
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from fedcot.report.social_messages import Inspected, Message, PrivateTexts

_TEACHING = (
    "\b\nWhat became of a text:\n"
    "  sent        it left the teacher client; only then its words are kept\n"
    "  verbatim    kept back: it is a private text\n"
    "  normalised  kept back: the same but for case and spacing\n"
    "  near        kept back: too near to a private text\n"
    "  run         kept back: repeats too many words of a private text in a row\n"
    "  not chosen  passed the gate, but wrong, said before, or others were likelier\n"
    "distance: to the nearest private text; 0: a copy, 1: no character in common.\n"
    "words: the longest run of words that also stands in a private text."
)
_WARNING = (
    "private texts follow, for the eyes of their owner alone: do not pass this on"
)


@app.command(epilog=_TEACHING, short_help="Show what teacher clients wanted to send.")
def inspect(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR|FOLDER",
            help="A run directory of mode social, or the state folder of a node.",
        ),
    ],
    kind: Annotated[
        str, typer.Option(help="candidate, instruction or vote.  [default: all]")
    ] = "",
    kept_back: Annotated[
        bool, typer.Option("--kept-back", help="Only what was not sent.")
    ] = False,
    private: Annotated[
        bool,
        typer.Option(
            "--private",
            help="Also the nearest private text, re-read from the data of a simulated "
            "run. For the eyes of its owner.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show every text that teacher clients wanted to send, and what became of it.

    The numbers at the end are of all messages, whatever is shown. If a text was sent
    that copies a private one, or that the gate refused, the exit code is 3.
    """
    from fedcot.report import social_messages
    from fedcot.social.inspection import KINDS

    if kind and kind not in KINDS:
        raise ConfigError(
            f"`--kind` must be one of {', '.join(KINDS)}, found {kind!r}; name one of "
            "these, or leave it out."
        )
    messages = social_messages.read_messages(place)
    numbers = social_messages.inspected(messages)
    nearest = social_messages.private_texts(place, messages) if private else None
    shown = [
        one
        for one in messages
        if kind in ("", one.logged.kind) and not (kept_back and one.logged.left)
    ]
    if nearest is not None and nearest.texts:
        click.echo(f"fedcot: {_WARNING}", err=True)
    if as_json:
        content = {
            "place": str(place),
            "messages": list(social_messages.as_json(shown, nearest)),
            "summary": dataclasses.asdict(numbers),
            "copies_by_data": nearest.copies if nearest else None,
            "problems": list(nearest.problems) if nearest else [],
        }
        show(content, [], as_json=True)
    else:
        _show_messages(shown, nearest)
        show({}, list(_lines(numbers, nearest)), as_json=False)
    _end(numbers, nearest)


def _end(numbers: Inspected, nearest: PrivateTexts | None) -> None:
    """Exit with 3 if something left that had to stay."""
    copies = max(numbers.copies, nearest.copies if nearest else 0)
    wrong = max(numbers.against_the_gate, copies)
    if not wrong:
        return
    raise typer.Exit(
        complain(
            f"{wrong} texts were sent against the gate, {copies} of them copies of "
            "private texts"
        )
    )


def _show_messages(messages: Sequence[Message], nearest: PrivateTexts | None) -> None:
    """Print a table on a terminal, and a line for each message elsewhere."""
    if not messages:
        return
    if console.is_terminal:
        console.print(_table(messages, nearest))
        return
    for one in messages:
        line = "  ".join(_cells(one, nearest, with_run=bool(one.run)))
        show({}, [line], as_json=False)


def _table(messages: Sequence[Message], nearest: PrivateTexts | None) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    with_run = any(one.run for one in messages)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ["run"] if with_run else []
    headings += ["partition", "kind", "fate", "distance", "words", "text"]
    headings += ["nearest private text"] if nearest is not None else []
    for heading in headings:
        if heading in ("partition", "distance", "words"):
            table.add_column(heading, justify="right", no_wrap=True)
        else:
            table.add_column(heading, overflow="fold")
    for one in messages:
        # No cell is markup.
        cells = [Text(cell) for cell in _cells(one, nearest, with_run=with_run)]
        table.add_row(*cells, style="red" if one.is_against_the_gate else None)
    return table


def _cells(
    message: Message, nearest: PrivateTexts | None, *, with_run: bool
) -> list[str]:
    from fedcot.report.reader import decimal
    from fedcot.report.social import shown_count, visible

    logged, verdict = message.logged, message.logged.verdict
    cells = [visible(message.run)] if with_run else []
    cells += [
        "-" if message.partition is None else str(message.partition),
        visible(logged.kind),
        visible(message.fate),
        decimal(verdict.distance if verdict else None, 2),
        shown_count(verdict.longest_run if verdict else None),
        _quoted(logged.text),
    ]
    if nearest is not None:
        cells.append(_quoted(nearest.nearest_to(message)))
    return cells


def _quoted(text: str | None) -> str:
    """Return a text on one line in quotes, or `-` where there is none."""
    from fedcot.report.social import visible

    return "-" if text is None else visible(json.dumps(text, ensure_ascii=False))


def _lines(numbers: Inspected, nearest: PrivateTexts | None) -> Iterator[str]:
    from fedcot.report.reader import decimal
    from fedcot.report.social import visible

    kept = ", ".join(f"{count} {name}" for name, count in numbers.kept_back.items())
    copies = max(numbers.copies, nearest.copies if nearest else 0)
    yield visible(
        f"{numbers.sent} sent, {sum(numbers.kept_back.values())} kept back"
        + (f" ({kept})" if kept else "")
        + "; smallest distance of a sent text "
        f"{decimal(numbers.smallest_distance, 2)}; sent copies of private texts: "
        f"{copies}"
    )
    if nearest is not None:
        yield from (visible(f"Not shown: {one}") for one in nearest.problems)
