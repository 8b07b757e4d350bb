"""The command line. Only this package prints.

Exit codes: 0 done; 2 wrong usage or configuration; 3 the run failed; 4 the privacy
budget was exhausted before the work was done. Errors are one line on stderr. Heavy
libraries are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import typer

# Each module adds its commands to the group when it is imported.
from fedcot.cli import (  # noqa: F401
    audit,
    community,
    consent,
    convert,
    data,
    export,
    inspect,
    memorization,
    plan,
    privacy,
    traces,
    vocabulary,
)
from fedcot.cli.commands import app
from fedcot.cli.show import complain
from fedcot.errors import FedcotError

_INTERRUPTED = 130  # what typer makes of Ctrl-C


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
        return complain(error.format_message(), 2)
    except FedcotError as error:
        return complain(str(error), error.exit_code)
    except OSError as error:
        return complain(str(error), 3)
    except click.Abort:
        return complain("stopped", 3)
    if code == _INTERRUPTED:
        return complain("stopped", 3)
    return code if isinstance(code, int) else 0
