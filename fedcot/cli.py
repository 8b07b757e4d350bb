"""The command line. Only this module prints.

Exit codes: 0 done; 2 wrong usage or configuration; 3 the run failed; 4 the privacy
budget was exhausted before the work was done. Errors are one line on stderr. Heavy
libraries are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from rich.console import Console

from fedcot import __version__
from fedcot.config import load_config
from fedcot.errors import ConfigError, FedcotError
from fedcot.rules import Scalar
from fedcot.settings_table import plain_table

if TYPE_CHECKING:
    from fedcot.launch import Outcome

app = typer.Typer(
    help="Federated chain-of-thought distillation with an honest privacy account.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
privacy = typer.Typer(
    help="Budgets: what a configuration costs, and what was spent.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(privacy, name="privacy")
console = Console(highlight=False)

_INTERRUPTED = 130  # what typer makes of Ctrl-C
_RUN_EPILOG = "\b\nSettings for -c and --config:\n" + plain_table()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-c", metavar="KEY=VALUE", help="One setting; may be repeated."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of settings.")
]

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
    as_json: JsonFlag = False,
) -> None:
    """Distil through `flwr run` on simulated clients and show the result."""
    settings = load_config(config, override or [])
    from fedcot.launch import launch

    with _progress(quiet=as_json) as on_progress:
        outcome = launch(
            settings,
            num_supernodes=num_supernodes,
            run_dir=run_dir,
            on_progress=on_progress,
        )
    if outcome.has_results:
        from fedcot.report.html import write_report

        write_report([outcome.run_dir])
    _show_outcome(outcome, as_json=as_json)
    if outcome.exit_code:
        _complain(outcome.reason)
    raise typer.Exit(outcome.exit_code)


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
    _show(result, [*comparison_lines(result), f"Result: {output}"], as_json)


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...")],
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
    _show({"report": str(page), "figures": figures}, [f"Report: {page}"], as_json)


@privacy.command()
def plan(
    mechanism: Annotated[
        str | None, typer.Option(help="exponential, rank or none.")
    ] = None,
    token_epsilon: Annotated[float | None, typer.Option(help="Nats per token.")] = None,
    slots: Annotated[
        int | None, typer.Option(help="Tokens of a prompt.  [default: the world's]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    record_epsilon: Annotated[
        float | None, typer.Option(help="Limit per record, in nats.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="In (0, 1).")] = None,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a configuration will cost, before anything is drawn."""
    given = {
        "mechanism": mechanism,
        "token-epsilon": token_epsilon,
        "num-server-rounds": rounds,
        "record-epsilon": record_epsilon,
        "delta": delta,
    }
    stated: dict[str, Scalar] = {
        key: value for key, value in given.items() if value is not None
    }
    settings = load_config(config, stated)
    from fedcot import budget

    planned = budget.plan_run(settings, budget.world_channel(settings, slots=slots))
    arms = budget.plan_arms(settings, planned)
    content = {
        **dataclasses.asdict(planned),
        "within_limit": planned.is_within_limit,
        "per_arm": {arm: dataclasses.asdict(costs) for arm, costs in arms.items()},
        "worst_arm": budget.worst_arm(
            {arm: costs.record_epsilon for arm, costs in arms.items()}
        ),
    }
    _show(content, [*planned.lines(), *budget.arm_lines(arms)], as_json)


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
    from fedcot.privacy.accounting import ADJACENCY, NEIGHBORING_RELATION
    from fedcot.privacy.channels import exact_epsilon
    from fedcot.report.reader import nats

    started = time.monotonic()
    channel = world_channel(settings)
    exact = exact_epsilon(channel)
    content = {
        "mechanism": channel.name,
        "vocabulary": channel.size,
        "requested_token_epsilon": settings.token_epsilon,
        "token_epsilon": exact,
        "unit": "nats, one token",
        "neighboring_relation": NEIGHBORING_RELATION,
        "adjacency": ADJACENCY,
        "holds": exact <= settings.token_epsilon,
        "channel": channel.hash,
        "seconds": round(time.monotonic() - started, 3),
    }
    line = (
        f"{channel.name} over {channel.size} words: token epsilon {nats(exact)} nats "
        f"for one token by enumeration of {channel.size}^2 integer weights, asked for "
        f"{settings.token_epsilon!r}"
    )
    neighbours = f"neighbours {NEIGHBORING_RELATION}: {ADJACENCY}"
    verdict = "holds" if content["holds"] else "does NOT hold"
    _show(content, [line, neighbours, verdict], as_json)
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
    _show({"ledgers": [dataclasses.asdict(use) for use in uses]}, lines, as_json)


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="Folder for the three models.")],
    seed: Annotated[int, typer.Option(help="Weights and data.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Rebuild the built-in models from a seed, with their training record."""
    if output.exists() and not output.is_dir():
        raise ConfigError(
            f"`--output` must be a folder, found the file `{output}`; "
            "pass for example `--output weights`."
        )
    from fedcot.models.pretraining import pretrain as build

    record = build(output, seed=seed, report=None if as_json else _say_training)
    _show(record, [f"Models: {output}", json.dumps(record["scores"])], as_json)


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
    _show({"checks": [dataclasses.asdict(check) for check in checks]}, lines, as_json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 3)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="Print it.")] = False,
) -> None:
    """Print the version when that was asked for."""
    if version:
        console.print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(_code_of(arguments))


def _code_of(arguments: Sequence[str] | None) -> int:
    """Run a command; turn every expected error into one line and its exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(
            None if arguments is None else list(arguments),
            prog_name="fedcot",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _complain(error.format_message(), 2)
    except FedcotError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        return _complain(str(error), 3)
    except click.Abort:
        return _complain("stopped", 3)
    if code == _INTERRUPTED:
        return _complain("stopped", 3)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int = 3) -> int:
    """Print one line on stderr."""
    click.echo(f"fedcot: {' '.join(message.split())}", err=True)
    return code


def _show(content: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print a result as JSON or as lines for a person."""
    if as_json:
        from fedcot.runs import portable

        click.echo(json.dumps(portable(dict(content)), indent=2, default=str))
        return
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


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
        _show(content, [], as_json=True)
        return
    lines: list[str] = []
    if outcome.has_results:
        from fedcot.report import terminal

        console.print(terminal.accuracy_table(outcome.summary))
        lines += terminal.privacy_lines(outcome.summary)
        lines += terminal.cost_lines(outcome.summary)
        lines.append(f"Report: {outcome.run_dir / 'report.html'}")
    lines.append(f"Wall time: {outcome.seconds:.0f} s")
    lines.append(f"Run directory: {outcome.run_dir}")
    _show({}, lines, as_json=False)


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
        yield lambda row: _show({}, [text] if (text := view.plain(row)) else [], False)
        return
    with Live(get_renderable=view.table, console=console, refresh_per_second=2):
        yield view.add


def _say_training(model: str, step: int, steps: int, loss: float) -> None:
    console.print(f"{model}: step {step} of {steps}, loss {loss:.4f} nats")


if __name__ == "__main__":
    main()
