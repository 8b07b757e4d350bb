"""`fedcot community`: who gains from which coalition, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcot.cli.commands import app
from fedcot.cli.show import JsonFlag, console, show
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.report.community_view import Section, Sheet

_TEACHING = (
    "\b\nSections:\n"
    "  utility        accuracy of every coalition's student on every community's test\n"
    "  gains          over provider, alone, before and label-only; who wins where\n"
    "  objectives     best coalition and division: sum, mean, smallest, Nash\n"
    "  incentives     who would leave; Shapley, least core, stable divisions\n"
    "  compatibility  what one community's traces teach of another's questions\n"
    "  sharing        traces, consent, bytes and epsilon of each way of sharing\n"
    "  audit          what students give away of each community's traces\n"
    "\b\nExample: two communities, each alone and both together, in minutes:\n"
    "  fedcot run --config conf/community-small.toml --run-dir runs/two\n"
    "  fedcot community runs/two\n"
    "  fedcot community runs/two --section gains\n"
    "Shapley values, leave-one-out and the least core need every coalition:\n"
    "-c coalitions=all.\n"
    "docs/communities.md defines every number."
)


@app.command(epilog=_TEACHING, short_help="Show who gains from which coalition.")
def community(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")
    ],
    arm: Annotated[
        str,
        typer.Option(
            help="Way of sharing whose students are looked at.  [default: the first of "
            "the run]"
        ),
    ] = "",
    section: Annotated[
        str, typer.Option(help="One section by itself.  [default: all]")
    ] = "",
    reference: Annotated[
        str,
        typer.Option(
            help="What a coalition's worth is counted from: before, provider, alone or "
            "none."
        ),
    ] = "before",
    as_json: JsonFlag = False,
) -> None:
    """Show the matrices of a run of communities, and what follows from them.

    A section that cannot be computed says why; asked for by itself, it ends with exit
    code 2.
    """
    from fedcot.community.games import REFERENCES
    from fedcot.report import community_sections
    from fedcot.report.community import (
        arms_of,
        chosen_arm,
        read_community_run,
        unfinished,
    )

    if reference not in REFERENCES:
        raise ConfigError(
            f"`--reference` must be one of {', '.join(REFERENCES)}, found "
            f"{reference!r}; pass for example `--reference before`."
        )
    run = read_community_run(run_dir)
    if arm:
        chosen_arm(run, arm)
    found: tuple[Section, ...]
    if section:
        found = (
            community_sections.section(run, section, arm=arm, reference=reference),
        )
    else:
        found = community_sections.all_sections(run, arm=arm, reference=reference)
    if as_json:
        known = arms_of(run)
        content = {
            "run_dir": str(run.path),
            "unfinished": unfinished(run),
            "arm": arm or (known[0] if known else ""),
            "sections": {
                one.name: {"problem": one.problem, **one.content} for one in found
            },
        }
        show(content, [], as_json=True)
        return
    for one in found:
        print_section(one)
    if hint := unfinished(run):
        console.print(f"Not all of it is here: {hint}", markup=False, soft_wrap=True)


def print_sheet(sheet: Sheet) -> None:
    """Print a table between its title and its note."""
    from fedcot.report.community_view import rich_table

    console.print(sheet.title, style="bold", markup=False)
    console.print(rich_table(sheet))
    if sheet.note:
        console.print(sheet.note, style="dim", markup=False)
        console.print()


def print_section(section: Section) -> None:
    """Print a section: its title, its tables and its lines."""
    console.print(f"── {section.title} ──", style="bold", markup=False)
    if section.problem:
        console.print(section.problem, markup=False, soft_wrap=True)
    for sheet in section.sheets:
        print_sheet(sheet)
    for line in section.lines:
        console.print(line, markup=False, soft_wrap=True)
    console.print()
