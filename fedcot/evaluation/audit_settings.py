"""The settings of an audit run: which made-up secrets are put into training data.

Papers: The Secret Sharer (https://arxiv.org/abs/1802.08232) and Social Learning
(https://arxiv.org/abs/2312.11441, section 5). `fedcot audit memorization` ranks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot.errors import ConfigError
from fedcot.rules import Rule, at_least, one_of, setting, shown
from fedcot.settings import COMMUNITY, FEDCOT, SOCIAL, WORLD
from fedcot.social.settings import WORLD_TASK

if TYPE_CHECKING:
    from fedcot.config import RunConfig

# Those of `fedcot.evaluation.canaries`, which a test compares; reading it takes a
# second.
WORLD_PATTERNS: Final = ("world-codes", "world-names")
PATTERN_NAMES: Final = (*WORLD_PATTERNS, "codes", "names")
# Their secret is the answer of the record, which is what a label teaches.
ANSWER_PATTERNS: Final = ("world-codes", "codes", "names")
# Tasks of mode social that are written in the words of the built-in world.
WORLD_TASKS: Final = (WORLD_TASK, "conversion", "labels", "operator")
ALL: Final = "all"
ONE: Final = "one"


def _is_insertion(value: str) -> bool:
    return value in (ALL, ONE) or (
        value.isascii() and value.isdigit() and 0 < int(value) < 10**6
    )


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How many canaries an audit run has, of which kind, and who holds them."""

    canaries: int = setting(
        0,
        at_least(0),
        "made-up secrets that are put into clients' training data, for `fedcot audit "
        "memorization`; more than 0 makes it an audit run, which deployed nodes refuse",
    )
    canary_pattern: str = setting(
        "world-codes",
        one_of(*PATTERN_NAMES),
        "how the secrets are written: numbers of four digits or names, in the words of "
        "the built-in world or in plain English",
    )
    canary_insertion: str = setting(
        ALL,
        Rule("all, one or a number of clients >= 1", _is_insertion),
        "how many clients hold a canary: all, the worst case; one; or a number. Which "
        "ones is drawn with the seed for each canary",
    )
    canary_repeats: int = setting(
        1, at_least(1), "how often each holder of a canary has it"
    )


def check_canaries(config: RunConfig) -> None:
    """Check the settings of an audit run against the others.

    Raises
    ------
    ConfigError
        One line: the parameter, the rule, the value found and the remedy.
    """
    in_world = (
        config.task in WORLD_TASKS if config.mode == SOCIAL else config.dataset == WORLD
    )
    if not config.canaries:
        return
    if in_world and config.canary_pattern not in WORLD_PATTERNS:
        raise ConfigError(
            f"`canary-pattern` must be one of {', '.join(WORLD_PATTERNS)} in the "
            f"built-in world, which knows no other words, found "
            f"{config.canary_pattern}; pass `-c canary-pattern=world-codes`."
        )
    if config.mode == FEDCOT and config.canary_pattern not in ANSWER_PATTERNS:
        raise ConfigError(
            f"`canary-pattern` must be one of {', '.join(ANSWER_PATTERNS)} in "
            "`mode=fedcot`, where a client holds questions and answers and the secret "
            f"has to be the answer, found {config.canary_pattern}; pass "
            "`-c canary-pattern=world-codes`."
        )
    if config.mode == COMMUNITY:
        _check_traces(config)


def _check_traces(config: RunConfig) -> None:
    """Check that a trace reaches the training as it was inserted."""
    wanted = {
        "canary-repeats": (config.canary_repeats, 1, "a store keeps equal traces once"),
        "granularity": (config.granularity, 0, "reasoning would be rewritten"),
        "provider-reasoning": (
            config.provider_reasoning,
            "full",
            "a canary stands in the reasoning",
        ),
        "scenario": (config.scenario, "", "members would not offer what they hold"),
    }
    for key, (value, needed, why) in wanted.items():
        if value != needed:
            raise ConfigError(
                f"`{key}` must be {shown(needed) if needed != '' else 'empty'} with "
                f"canaries in `mode=community`, because {why}, found {shown(value)}; "
                f"leave it at its default, or pass `-c canaries=0`."
            )
