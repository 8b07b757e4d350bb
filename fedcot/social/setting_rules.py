"""The rules between the settings of `mode=social`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcot.errors import ConfigError
from fedcot.rules import key_of, shown
from fedcot.settings import SOCIAL, WORLD, WORLD_PARTITIONERS
from fedcot.social.settings import (
    EXAMPLES,
    INSTRUCTION,
    LABELLED,
    PRIVATE_VOTING,
    RULES,
    WORLD_TASK,
    SocialSettings,
)
from fedcot.teacher_source import checked_base_url, is_endpoint

if TYPE_CHECKING:
    from fedcot.config import RunConfig


def check_social(config: RunConfig) -> None:
    """Check the settings of social learning against each other.

    Raises
    ------
    ConfigError
        One line: the parameter, the rule, the value found and the remedy.
    """
    if config.mode != SOCIAL:
        _check_unused(config)
        return
    if config.num_server_rounds != 1:
        raise ConfigError(
            "`num-server-rounds` must be 1 in `mode=social`, whose conversation is "
            f"fixed in advance and takes place once, found {config.num_server_rounds}; "
            "pass `-c num-server-rounds=1`, and several seeds for several runs."
        )
    if config.fraction_train != 1:
        raise ConfigError(
            "`fraction-train` must be 1 in `mode=social`, where every teacher client "
            f"gets every message, found {config.fraction_train}; pass "
            "`-c fraction-train=1.0`."
        )
    if config.dataset != WORLD:
        raise ConfigError(
            "`dataset` must be `world` in `mode=social`, where `task` says what "
            f"teacher clients hold, found {shown(config.dataset)}; pass for example "
            "`-c task=gsm8k`."
        )
    _check_split(config)
    _check_models(config)
    _check_choice(config)
    _check_noise(config)
    if config.distil_examples and (
        config.task != WORLD_TASK or EXAMPLES not in config.teaching_names
    ):
        raise ConfigError(
            "`distil-examples` must be false but for examples of `task=world`, which "
            f"the trained student knows how to read, found true with "
            f"task={config.task} and teaching={config.teaching}; pass "
            "`-c distil-examples=false`."
        )


def _check_unused(config: RunConfig) -> None:
    """Refuse what only teacher clients would heed, so that nobody relies on it."""
    from dataclasses import fields

    for item in fields(SocialSettings):
        value = getattr(config, item.name)
        if value != item.default:
            raise ConfigError(
                f"`{key_of(item)}` must be left at its default outside `mode=social`, "
                f"found {shown(value)}; pass `-c mode=social`."
            )


def _check_split(config: RunConfig) -> None:
    from fedcot.social.split import SPLITS

    allowed = WORLD_PARTITIONERS if config.task == WORLD_TASK else SPLITS
    if config.partitioner not in allowed:
        raise ConfigError(
            f"`partitioner` must be one of {', '.join(allowed)} with "
            f"`task={config.task}`, found {config.partitioner}; pass "
            "`-c partitioner=iid`."
        )
    if config.hold_out < 1:
        raise ConfigError(
            "`hold-out` must be at least 1 in `mode=social`: the student is tested on "
            f"questions that nobody holds, found {config.hold_out}; pass for example "
            "`-c hold-out=200`."
        )


def _check_models(config: RunConfig) -> None:
    sources = {
        "client-model": config.client_models,
        "prompted-student": (config.prompted_student,),
    }
    for key, names in sources.items():
        for name in filter(is_endpoint, names):
            checked_base_url(name)
            if not config.raw_to_endpoint:
                raise ConfigError(
                    f"`{key}` must be a model in this process unless an endpoint may "
                    "see private examples, found a URL; pass "
                    "`-c raw-to-endpoint=true` if it may."
                )


def _check_noise(config: RunConfig) -> None:
    """Refuse DP-SGD, which nothing here is trained with."""
    for key, value in (
        ("noise-multiplier", config.noise_multiplier),
        ("server-noise-multiplier", config.server_noise_multiplier),
    ):
        if value > 0:
            raise ConfigError(
                f"`{key}` must be 0 in `mode=social`, where texts leave and no "
                f"gradients, found {value}; pass `-c {key}=0.0`."
            )


def _check_choice(config: RunConfig) -> None:
    if config.balanced_choice and config.task not in LABELLED:
        raise ConfigError(
            "`balanced-choice` must be false for a task without a closed set of "
            f"labels, found true with {config.task}; pass `-c balanced-choice=false`."
        )
    most, needs = config.counts[-1], config.aggregator_names
    if EXAMPLES in config.teaching_names and not most:
        raise ConfigError(
            "`example-counts` must hold a number above 0 where examples are taught, "
            f"found {shown(config.example_counts)}; pass for example "
            "`-c example-counts=0,8`, or `-c teaching=instruction`."
        )
    is_private = PRIVATE_VOTING in needs
    if is_private != (config.vote_epsilon > 0):
        rule = "be > 0 with" if is_private else "be 0 without"
        raise ConfigError(
            f"`vote-epsilon` must {rule} `private-voting` among the aggregators, found "
            f"{config.vote_epsilon}; no epsilon is assumed: pass for example "
            "`-c aggregators=random,private-voting -c vote-epsilon=1.0`."
        )
    if config.samples_per_prompt < config.examples_kept:
        raise ConfigError(
            "`samples-per-prompt` must be at least `examples-kept` "
            f"({config.examples_kept}), found {config.samples_per_prompt}; raise it."
        )
    if (
        config.example_temperature == 0
        and max(
            config.samples_per_prompt if needs else 1,
            config.instruction_tries if INSTRUCTION in config.teaching_names else 1,
        )
        > 1
    ):
        raise ConfigError(
            "`example-temperature` must be > 0 where a model writes more than once "
            "from one prompt, found 0.0; raise it, or pass `-c samples-per-prompt=1 "
            "-c instruction-tries=1`."
        )
    if INSTRUCTION in config.teaching_names:
        _check_instructions(config)
    elif config.instruction_merging != "single":
        raise ConfigError(
            "`instruction-merging` must be `single` where no instruction is taught, "
            f"found {config.instruction_merging}; add instruction to `teaching`."
        )


def _check_instructions(config: RunConfig) -> None:
    if not config.gate_run:
        raise ConfigError(
            "`gate-run` must be > 0 where instructions are taught: a long text that "
            "embeds a private one is far from it as a whole, found 0; pass for example "
            "`-c gate-run=12`, or `-c teaching=examples`."
        )
    if config.instruction_merging == "model" and config.task in (WORLD_TASK, *RULES):
        raise ConfigError(
            "`instruction-merging` must not be `model` for tasks of the built-in "
            f"world, whose models follow no English, found it with {config.task}; pass "
            "`-c instruction-merging=concat`."
        )
