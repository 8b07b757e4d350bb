"""`fedcot privacy plan`: what a configuration costs, before anything is drawn."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from fedcot.cli.privacy_app import privacy
from fedcot.cli.show import ConfigFile, JsonFlag, Overrides, show
from fedcot.config import load_config, parse_overrides
from fedcot.errors import ConfigError
from fedcot.rules import Scalar

if TYPE_CHECKING:
    from fedcot.targets import Answer


@privacy.command()
def plan(
    mechanism: Annotated[
        str | None, typer.Option(help="As the setting `mechanism`.")
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
    prompt_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Find the largest token epsilon that charges a prompt at most this."
        ),
    ] = None,
    record_epsilon_at_delta: Annotated[
        float | None,
        typer.Option(
            help="Find the largest token epsilon whose prompt gives away at most this "
            "at delta."
        ),
    ] = None,
    trained_record_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Find the least noise-multiplier with which a record's prompt and "
            "DP-SGD give away at most this at delta."
        ),
    ] = None,
    override: Overrides = None,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a configuration will cost, or find the settings that a budget allows."""
    given = {
        "mechanism": mechanism,
        "token-epsilon": token_epsilon,
        "num-server-rounds": rounds,
        "record-epsilon": record_epsilon,
        "delta": delta,
    }
    stated: dict[str, Scalar] = {
        **parse_overrides(override or []),
        **{key: value for key, value in given.items() if value is not None},
    }
    targets = {
        "prompt-epsilon": prompt_epsilon,
        "record-epsilon-at-delta": record_epsilon_at_delta,
        "trained-record-epsilon": trained_record_epsilon,
    }
    wanted = {key: value for key, value in targets.items() if value is not None}
    _check_targets(wanted, stated)
    settings = load_config(config, stated)
    from fedcot import budget
    from fedcot.community.settings import perturbs
    from fedcot.targets import solved

    answer: Answer | None = None
    for key, value in wanted.items():
        settings, answer = solved(settings, key, value, slots=slots)
    planned = budget.plan_run(settings, budget.world_channel(settings, slots=slots))
    arms = budget.plan_arms(settings, planned)
    content = {
        **dataclasses.asdict(planned),
        "within_limit": planned.is_within_limit,
        "prompts_allowed": planned.prompts_allowed,
        "per_arm": {arm: dataclasses.asdict(costs) for arm, costs in arms.items()},
        "worst_arm": budget.worst_of(arms),
    }
    if answer is not None:
        content["answer"] = dataclasses.asdict(answer)
    lines = [] if answer is None else [answer.line()]
    # Of a mechanism that a run does not use nothing is said, unless it was asked for.
    if perturbs(settings) or answer is not None:
        lines += planned.lines()
    show(content, [*lines, *budget.arm_lines(arms)], as_json)


def _check_targets(wanted: dict[str, float], stated: dict[str, Scalar]) -> None:
    """Refuse questions that contradict each other or what is given."""
    if len(wanted) > 1:
        first, second = list(wanted)[:2]
        raise ConfigError(
            f"`--{second}` must be asked alone, found `--{first}` too; ask twice."
        )
    asks_noise = "trained-record-epsilon" in wanted
    sought = "noise-multiplier" if asks_noise else "token-epsilon"
    if wanted and sought in stated:
        raise ConfigError(
            f"`{sought}` must not be given where it is asked for by "
            f"`--{next(iter(wanted))}`, found {stated[sought]}; leave one out."
        )
