"""`fedcot privacy plan`: what a configuration costs, before anything is drawn."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import ConfigFile, JsonFlag, show
from fedcot.config import load_config
from fedcot.rules import Scalar


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
    show(content, [*planned.lines(), *budget.arm_lines(arms)], as_json)
