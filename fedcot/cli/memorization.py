"""`fedcot audit memorization`: what a run gives away of its clients' texts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcot.cli.commands import app
from fedcot.cli.show import JsonFlag, console, show

if TYPE_CHECKING:
    from rich.table import Table

audits = typer.Typer(
    help="Audits: what a finished run gives away.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(audits, name="audit")

_EPILOG = (
    "\b\n"
    "Rank 0 of N: the secret that was inserted is likelier than all N-1 others.\n"
    "Where nothing leaks, ranks are uniform: T canaries give T/N with rank 0.\n"
    "Intervals are exact, at 95 %; p is one-sided and of one row alone.\n"
    "The mean rank hides the tail, so it comes second.\n"
    "\n"
    "\b\n"
    "In modes fedcot and community a run must have inserted canaries\n"
    "(-c canaries=20). In mode social the conversation is replayed for each."
)


@audits.callback()
def group() -> None:
    """Audits: what a finished run gives away."""


@audits.command(epilog=_EPILOG, short_help="Rank inserted secrets; find copies.")
def memorization(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")
    ],
    size: Annotated[
        int, typer.Option(min=2, help="Canary and references together: N.")
    ] = 1000,
    trials: Annotated[int, typer.Option(min=1, help="Canaries at most: T.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Measure what students keep of secrets that were put into training data.

    The result also goes to RUN_DIR/audit/memorization.json. An audit that was stopped
    goes on where it was.
    """
    from fedcot.evaluation import run_audit

    with _progress(quiet=as_json) as on_progress:
        result = run_audit.audit_run(
            run_dir, size=size, trials=trials, on_progress=on_progress
        )
    if not as_json:
        for table in filter(None, (_ranks(result), _members(result))):
            console.print(table)
    place = run_dir / run_audit.FOLDER / run_audit.RESULT
    lines = [*_copies(result), str(result["found"]), f"Result: {place}"]
    show(result, lines, as_json)


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what moves a bar on a terminal; elsewhere nothing is shown."""
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("audit", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _ranks(result: Mapping[str, Any]) -> Table | None:
    """Return a row for everything that was ranked; None if nothing was."""
    from rich.table import Table

    from fedcot.evaluation.run_audit import reports_of

    rows = list(reports_of(result))
    if not rows:
        return None
    table = Table(
        title=f"Ranks of canaries among N = {result['size']}",
        title_style="bold",
        caption="exposure: bits at the median, 90 % and the highest; drawn: rank 0 "
        "among those that a model was shown",
        caption_justify="left",
    )
    for heading in ("student", "prompt"):
        table.add_column(heading, no_wrap=True)
    for heading in ("T", "rank 0 [95 %]", "by chance", "p", "mean rank", "exposure"):
        table.add_column(heading, justify="right")
    table.add_column("drawn", justify="right")
    for student, prompt, report in rows:
        table.add_row(student, prompt, *_cells(report))
    return table


def _cells(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["exposure"]
    zero, mean = found["rank_zero"], found["mean_rank"]
    yield str(found["trials"])
    yield f"{zero['hits']} [{zero['low']:.3f}, {zero['high']:.3f}]"
    yield f"{found['rank_zero_expected']:g}"
    yield f"{found['rank_zero_p_value']:.2g}"
    yield f"{mean['mean']:.0f} of {mean['expected']:g}"
    bits = found["exposure_quantiles"]
    yield " ".join(f"{bits[share]:.1f}" for share in ("0.5", "0.9", "1"))
    drawn = found["drawn_rank_zero"]
    yield "-" if drawn is None else f"{drawn['hits']} of {drawn['n']}"


def _members(result: Mapping[str, Any]) -> Table | None:
    """Return a row for each member and student; None where none could be audited."""
    from rich.table import Table

    found = result.get("members") or {}
    if not found:
        return None
    table = Table(
        title="Members' own texts against held-out ones",
        title_style="bold",
        caption="AUC 0.5: not told apart; copies: share written word for word",
        caption_justify="left",
    )
    for heading in ("student", "member"):
        table.add_column(heading, no_wrap=True)
    for heading in ("AUC loss", "AUC Min-K%++", "TPR at 1 %", "copies", "of others"):
        table.add_column(heading, justify="right")
    for student, members in found.items():
        for name, one in members.get("members", members).items():
            rate = one["loss"]["tpr_at_one_percent"]
            table.add_row(
                student,
                name,
                _auc(one["loss"]),
                _auc(one["min_k_plus_plus"]),
                "-" if rate is None else f"{rate['rate']:.2f}",
                f"{one['regurgitated']['exact']['rate']:.2f}",
                f"{one['controls_regurgitated']['exact']['rate']:.2f}",
            )
    return table


def _auc(one: Mapping[str, Any]) -> str:
    return f"{one['auc']:.2f} (p {one['p_value']:.2g})"


def _copies(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was copied of private texts into what clients shared."""
    shared = result.get("shared") or {}
    if not shared.get("texts"):
        return
    exact = shared["exact"]
    yield (
        f"Shared texts: {shared['texts']}; word for word private: {exact['hits']} "
        f"({exact['rate']:.2%}, up to {exact['high']:.2%}); mean distance to the "
        f"nearest private text {shared['mean_distance']:.2f} (0: copied, 1: nothing in "
        "common)"
    )
