"""The rules between the settings of `mode=community`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fedcot.community.coalitions import (
    MOST_COMMUNITIES,
    Coalition,
    label,
    parse_coalitions,
)
from fedcot.community.scenario import parse_scenario
from fedcot.community.settings import POOLED
from fedcot.errors import ConfigError
from fedcot.rules import shown
from fedcot.settings import COMMUNITY, RECORDED, WORLD

if TYPE_CHECKING:
    from fedcot.config import RunConfig

# A name becomes part of folder names and of labels joined by "+".
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
RESERVED: Final = ("all", "alone", "grand")
LONGEST_LABEL: Final = 200  # file systems take 255 bytes, and an arm stands before it


def check_communities(config: RunConfig) -> None:
    """Check the settings of communities against each other.

    Raises
    ------
    ConfigError
        One line: the parameter, the rule, the value found and the remedy.
    """
    if config.mode != COMMUNITY:
        if config.communities:
            raise ConfigError(
                "`communities` must be empty outside `mode=community`, found "
                f"{shown(config.communities)}; pass `-c mode=community`."
            )
        if config.provider_level:
            raise ConfigError(
                "`provider-level` must be 0 outside `mode=community`, found "
                f"{config.provider_level}; pass `-c mode=community`."
            )
        return
    names = config.community_names
    _check_names(names, config)
    _check_labels(parse_coalitions(config.coalitions, names), config)
    parse_scenario(config.scenario, names)
    if config.num_partitions and config.num_partitions < len(names):
        raise ConfigError(
            "`num-partitions` must be 0 or at least the number of communities "
            f"({len(names)}), found {config.num_partitions}; pass for example "
            f"`-c num-partitions={len(names)}`."
        )
    _check_levels(config)
    _check_provider_level(config)
    if config.audit_members and POOLED not in config.sharing_names:
        raise ConfigError(
            "`audit-members` must be false where no traces are pooled, because it "
            f"compares with them, found true with sharing {shown(config.sharing)}; add "
            "pooled to `sharing`."
        )
    if config.server_noise_multiplier > 0:
        raise ConfigError(
            "`server-noise-multiplier` must be 0 in `mode=community`, where no mean is "
            f"noised, found {config.server_noise_multiplier}; use noise-multiplier."
        )


def _check_names(names: Sequence[str], config: RunConfig) -> None:
    good = bool(names) and len(set(names)) == len(names) <= MOST_COMMUNITIES
    if not good or not all(map(NAME.fullmatch, names)):
        raise ConfigError(
            f"`communities` must be 1 to {MOST_COMMUNITIES} names, each once, of a-z, "
            f"0-9 and '-', in `mode=community`, found {shown(config.communities)}; "
            "pass for example `-c communities=library,bakery`."
        )
    if reserved := [name for name in names if name in RESERVED]:
        raise ConfigError(
            f"`communities` must not be named {', '.join(RESERVED)}, which mean "
            f"coalitions, found {reserved[0]}; pass another name."
        )
    if config.dataset == WORLD:
        from fedcot.world.families import CLIENT_NAMES

        if not set(names) <= set(CLIENT_NAMES):
            raise ConfigError(
                "`communities` must be client domains of the built-in world ("
                f"{', '.join(CLIENT_NAMES)}), found {shown(config.communities)}; pass "
                "for example `-c communities=library,bakery`."
            )


def _check_labels(coalitions: Sequence[Coalition], config: RunConfig) -> None:
    longest = max(len(label(one)) for one in coalitions)
    if longest > LONGEST_LABEL:
        raise ConfigError(
            f"`communities` must have names that are at most {LONGEST_LABEL} signs "
            f"together, because a coalition's folder is named by them, found {longest} "
            f"in {shown(config.coalitions)}; shorten them."
        )


def _check_levels(config: RunConfig) -> None:
    level, padding = config.granularity, config.granularity_padding
    if padding and not 0 < level < padding:
        raise ConfigError(
            "`granularity-padding` must be a finer level than `granularity`, which "
            f"must be given, found {padding} with granularity {level}; pass for "
            "example `-c granularity=1 -c granularity-padding=4`."
        )
    if not level:
        return
    from fedcot.community.granularity import TEXT_LEVELS
    from fedcot.world.problem import GRANULARITIES

    finest = GRANULARITIES[-1] if config.dataset == WORLD else TEXT_LEVELS
    if max(level, padding) > finest:
        raise ConfigError(
            f"`granularity` must be 0 to {finest} for the dataset "
            f"{shown(config.dataset)}, found {max(level, padding)}; pass for example "
            "`-c granularity=2`."
        )


def _check_provider_level(config: RunConfig) -> None:
    """Check that the provider can be prompted for a level, which nothing undoes."""
    if not config.provider_level:
        return
    from fedcot.models.sources import BUILTIN

    reasons = {
        f"the teacher {shown(config.teacher)}, which takes no instruction": (
            config.teacher in (BUILTIN, RECORDED)
        ),
        "the built-in world, whose reasoning has another form than the example": (
            config.dataset == WORLD
        ),
        f"`granularity={config.granularity}`, which would rewrite what was asked for": (
            config.granularity > 0
        ),
    }
    for why, applies in reasons.items():
        if applies:
            raise ConfigError(
                f"`provider-level` must be 0 with {why}, found "
                f"{config.provider_level}; pass `-c provider-level=0`."
            )
