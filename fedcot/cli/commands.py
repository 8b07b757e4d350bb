"""The commands that run, compare, report, pretrain and examine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core

from fedcot import __version__
from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import (
    ConfigFile,
    JsonFlag,
    Overrides,
    complain,
    console,
    show,
)
from fedcot.config import RunConfig, load_config
from fedcot.errors import ConfigError
from fedcot.settings_table import plain_table

if TYPE_CHECKING:
    from fedcot.launch import Outcome

# Help is plain text here; else typer escapes `[required]` as markup.
typer.core.HAS_RICH = False

app = typer.Typer(
    help="Federated chain-of-thought distillation with an honest privacy account.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(privacy, name="privacy")

_RUN_EPILOG = "\b\nSettings for -c and --config:\n" + plain_table()

NumSupernodes = Annotated[
    int | None,
    typer.Option(help="Simulated clients.  [default: num-partitions, or 5]"),
]


@app.command(epilog=_RUN_EPILOG)
def run(
    config: ConfigFile = None,
    override: Overrides = None,
    num_supernodes: NumSupernodes = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="A new folder.  [default: runs/<time>-<name>]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check everything and show it; download, train and ask nothing.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Distil through `flwr run` on simulated clients and show the result."""
    settings = load_config(config, override or [])
    if dry_run:
        _show_dry_run(settings, num_supernodes, as_json=as_json)
    from fedcot.launch import launch

    with _progress(quiet=as_json) as on_progress:
        outcome = launch(
            settings,
            num_supernodes=num_supernodes,
            run_dir=run_dir,
            on_progress=on_progress,
        )
    _end(outcome, as_json=as_json)


@app.command()
def resume(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Go on with a simulated run that ended early, where its teacher failed say.

    Questions that were released are sent again as they were and cost nothing; what a
    client has trained is not trained again; an endpoint is asked for nothing that its
    cache holds.
    """
    from fedcot import launch

    with _progress(quiet=as_json) as on_progress:
        outcome = launch.resume(run_dir, on_progress=on_progress)
    _end(outcome, as_json=as_json)


def _end(outcome: Outcome, *, as_json: bool) -> NoReturn:
    """Write the report, show the outcome and exit with its code."""
    if outcome.has_results:
        from fedcot.report.html import write_report

        write_report([outcome.run_dir])
    _show_outcome(outcome, as_json=as_json)
    if outcome.exit_code:
        complain(outcome.reason)
    raise typer.Exit(outcome.exit_code)


def _show_dry_run(
    settings: RunConfig, num_supernodes: int | None, *, as_json: bool
) -> NoReturn:
    """Print what a run would do; exit 2 where something is wrong."""
    from fedcot import dry_run
    from fedcot.dry_run_lines import lines_of

    found = dry_run.dry_run(settings, num_supernodes=num_supernodes)
    show(found, list(lines_of(found)), as_json)
    raise typer.Exit(2 if found["problems"] else 0)


@app.command()
def compare(
    config: ConfigFile = None,
    override: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to N-1.")] = 5,
    num_supernodes: NumSupernodes = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="A run per seed goes here.  [default: runs/<name>-seeds]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The result as JSON.  [default: FOLDER/comparison.json]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the arms over seeds; a seed that is done is not run again."""
    settings = load_config(config, override or [])
    from fedcot import comparison
    from fedcot.report.results_table import comparison_lines
    from fedcot.runs import default_root

    folder = folder or default_root() / f"{settings.name}-seeds"
    output = output or folder / "comparison.json"
    with _progress(quiet=as_json) as on_progress:
        result = comparison.compare(
            settings,
            range(seeds),
            folder=folder.absolute(),
            command=shlex.join(["fedcot", *sys.argv[1:]]),
            num_supernodes=num_supernodes,
            on_progress=on_progress,
        )
    comparison.write_comparison(result, output)
    show(result, [*comparison_lines(result), f"Result: {output}"], as_json)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Run directories.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.  [default: the run directory]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write report.html and PNG figures of one run, or of several side by side."""
    from fedcot.report.html import write_report

    page = write_report(run_dirs, output)
    figures = sorted(str(path) for path in (page.parent / "figures").glob("*.png"))
    show({"report": str(page), "figures": figures}, [f"Report: {page}"], as_json)


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="Folder for the five models.")],
    seed: Annotated[int, typer.Option(help="Weights and data.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Rebuild the built-in models from a seed, with their training record.

    A finished model of the same settings in the folder is kept, so that a stopped call
    goes on where it stopped, and a copy of fedcot_weights gets only what is missing.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(
            f"`--output` must be a folder, found the file `{output}`; "
            "pass for example `--output weights`."
        )
    from fedcot.models.pretraining import pretrain as build

    record = build(output, seed=seed, report=None if as_json else _say_training)
    show(record, [f"Models: {output}", json.dumps(record["scores"])], as_json)


@app.command()
def doctor(
    config: ConfigFile = None,
    override: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is installed, what a run would use, and what is wrong."""
    settings = load_config(config, override or [])
    from fedcot.doctor import examine

    checks = examine(settings)
    lines = [
        f"{'ok   ' if check.ok else 'WRONG'} {check.name}: {check.found}"
        + ("" if check.ok else f" -> {check.remedy}")
        for check in checks
    ]
    show({"checks": [dataclasses.asdict(check) for check in checks]}, lines, as_json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 3)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="Print it.")] = False,
) -> None:
    """Print the version when that was asked for."""
    if version:
        console.print(__version__)
        raise typer.Exit


def _show_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print the table, privacy, bytes, seconds and where the run lies."""
    if as_json:
        content = {
            "exit_code": outcome.exit_code,
            "reason": outcome.reason,
            "run_dir": str(outcome.run_dir),
            "seconds": round(outcome.seconds, 1),
            "summary": outcome.summary,
        }
        show(content, [], as_json=True)
        return
    lines: list[str] = []
    if outcome.has_results:
        from fedcot.report import community, terminal

        console.print(terminal.accuracy_table(outcome.summary))
        if further := terminal.measures_table(outcome.summary):
            console.print(further)
        if community.is_community(outcome.summary):
            lines += _show_utility(outcome.run_dir)
        lines += terminal.conversation_lines(outcome.summary)
        lines += terminal.privacy_lines(outcome.summary)
        lines += terminal.cost_lines(outcome.summary)
        lines.append(f"Report: {outcome.run_dir / 'report.html'}")
    lines.append(f"Wall time: {outcome.seconds:.0f} s")
    lines.append(f"Run directory: {outcome.run_dir}")
    show({}, lines, as_json=False)


def _show_utility(run_dir: Path) -> list[str]:
    """Print who is served how well by which coalition; return the lines beside it."""
    from fedcot.cli.community import print_sheet
    from fedcot.report.community_utility import utility_section
    from fedcot.report.reader import read_run

    more = f"Communities: fedcot community {run_dir}"
    try:
        section = utility_section(read_run(run_dir))
    except ConfigError as error:
        return [str(error), more]
    print_sheet(section.sheets[0])
    return [*section.lines, more]


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what takes each progress line: a live table, plain lines or nothing."""
    from rich.live import Live

    from fedcot.report.progress import ProgressView

    view = ProgressView()
    if quiet:
        yield view.add
        return
    if not console.is_terminal:
        yield lambda row: show({}, [text] if (text := view.plain(row)) else [], False)
        return
    with Live(get_renderable=view.table, console=console, refresh_per_second=2):
        yield view.add


def _say_training(model: str, step: int, steps: int, loss: float) -> None:
    console.print(f"{model}: step {step} of {steps}, loss {loss:.4f} nats")
