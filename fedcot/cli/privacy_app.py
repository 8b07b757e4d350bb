"""The group `fedcot privacy`; the modules beside this one add its commands."""

import typer

privacy = typer.Typer(
    help="Budgets: what a configuration costs, and what was spent.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
