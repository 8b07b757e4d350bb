"""The sections on incentives and on formats: who would leave, who adds, who learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedcot.community.coalitions import Coalition, Partition, label
from fedcot.community.compatibility import FormatCompatibility, compatibility_of
from fedcot.community.games import Reference, game_of
from fedcot.community.incentives import (
    STABILITIES,
    Stability,
    leavers,
    preferences_of,
    stable_partitions,
)
from fedcot.community.solutions import (
    banzhaf_values,
    least_core,
    leave_one_out,
    shapley_values,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError
from fedcot.report.community import own_test_table, short
from fedcot.report.community_view import (
    MISSING,
    Section,
    Sheet,
    partition_text,
    plain_number,
    signed,
)
from fedcot.report.reader import Run

# Less than half of what the tested community's own traces teach.
INCOMPATIBLE_BELOW: Final = 0.5
_MOST_SHOWN: Final = 6  # stable divisions on one line; JSON has all
_HOLDS_IF: Final[Mapping[Stability, str]] = {
    "core": "no coalition is better off for all its members",
    "nash": "nobody is better off by moving alone",
}


def incentives_section(
    run: Run, arm: str = "", *, reference: Reference = "before"
) -> Section:
    """Return who would leave, what each adds, and which divisions hold.

    Parameters
    ----------
    run, arm
        See `fedcot.report.community.utility_table`.
    reference : {"before", "provider", "alone", "none"}
        What the worth of a coalition is counted from, see
        `fedcot.community.games.game_of`.

    Raises
    ------
    ConfigError
        There is no student of this way of sharing, or `reference` is unknown.
    """
    table = own_test_table(run, arm)
    lines: list[str] = []
    content: dict[str, Any] = {}
    sheets = [
        *_rationality(table, content, lines),
        *_game(table, reference, content, lines),
    ]
    _stable(table, content, lines)
    return Section(
        name="incentives",
        title="Incentives",
        sheets=tuple(sheets),
        lines=tuple(lines),
        content=content,
    )


def _rationality(
    table: UtilityTable, content: dict[str, Any], lines: list[str]
) -> list[Sheet]:
    """Return which coalitions are individually rational for all their members."""
    joint = [one for one in table.coalitions if len(one) > 1]
    if not joint:
        lines.append(
            "Who would leave: no coalition of several was run; run with for example "
            "`-c coalitions=alone,grand`."
        )
        return []
    try:
        leaving = {one: leavers(table, one) for one in joint}
    except ConfigError as error:
        lines.append(f"Who would leave: {error}")
        return []

    def shown(name: str, one: Coalition) -> str:
        less = table.utility(name, one) - table.outside_option(name)
        return f"{name} ({signed(less)})"

    content["individually_rational"] = {
        label(one): {"holds": not names, "leavers": list(names)}
        for one, names in leaving.items()
    }
    return [
        Sheet(
            title="Who would leave: worse off than alone or with the provider",
            headings=("coalition", "individually rational", "would leave"),
            rows=tuple(
                (
                    short(one, table.communities),
                    "no" if names else "yes",
                    ", ".join(shown(name, one) for name in names) or MISSING,
                )
                for one, names in leaving.items()
            ),
            words=(0, 1, 2),
            note="In brackets: accuracy in the coalition less the better of provider "
            "and student alone. Differences may be chance; see the standard errors.",
        )
    ]


def _game(
    table: UtilityTable,
    reference: Reference,
    content: dict[str, Any],
    lines: list[str],
) -> list[Sheet]:
    """Return leave-one-out, Shapley, Banzhaf and least-core shares of the worth."""
    run, needed = len(table.coalitions), 2 ** len(table.communities) - 1
    if run < needed:
        lines.append(
            "Shapley values, leave-one-out and the least core need all coalitions "
            f"(found {run} of {needed}): run with `-c coalitions=all`."
        )
        return []
    try:
        game = game_of(table, reference)
    except ConfigError as error:
        lines.append(f"Shapley values, leave-one-out and the least core: {error}")
        return []
    core = least_core(game)
    values = {
        "leave_one_out": leave_one_out(game),
        "shapley": shapley_values(game),
        "banzhaf": banzhaf_values(game),
        "least_core": dict(core.allocation),
    }
    total = game.worth(game.grand)
    content["game"] = {
        "reference": reference,
        "worth": {label(one): game.worth(one) for one in table.coalitions},
        **values,
        "least_core_epsilon": core.epsilon,
        "core_is_empty": core.core_is_empty,
    }
    lines.append(
        f"Least core: epsilon {plain_number(core.epsilon)}, the core is "
        + ("empty" if core.core_is_empty else "not empty")
    )
    return [
        Sheet(
            title=f"Who adds how much to the {plain_number(total)} that all are worth",
            headings=(
                "community",
                "alone",
                "leave-one-out",
                "Shapley",
                "Banzhaf",
                "least core",
            ),
            rows=tuple(
                (
                    name,
                    plain_number(game.worth((name,))),
                    *(plain_number(value[name]) for value in values.values()),
                )
                for name in table.communities
            ),
            note="Worth of a coalition: sum over its members of accuracy less "
            f"{reference} (our definition). Shapley and least core sum to the worth "
            "of all; of least-core shares there may be others.",
        )
    ]


def _stable(table: UtilityTable, content: dict[str, Any], lines: list[str]) -> None:
    """Say which divisions into coalitions hold, among the coalitions that were run."""
    try:
        preferences = preferences_of(table)
        found = {
            kind: stable_partitions(table.communities, preferences, kind)
            for kind in STABILITIES
        }
    except ConfigError as error:
        lines.append(f"Stable divisions: {error}")
        return
    content["stable_divisions"] = {
        kind: [[label(one) for one in partition] for partition in partitions]
        for kind, partitions in found.items()
    }
    for kind, partitions in found.items():
        lines.append(
            f"{kind.capitalize()}-stable divisions ({_HOLDS_IF[kind]}): "
            f"{_listed(partitions, table)}"
        )
    lines.append(
        f"Divisions are those into the {len(table.coalitions)} coalitions that were "
        "run, and communities by themselves."
    )


def _listed(partitions: tuple[Partition, ...], table: UtilityTable) -> str:
    if not partitions:
        return "none"
    shown = [partition_text(one, table.communities) for one in partitions[:_MOST_SHOWN]]
    left = len(partitions) - len(shown)
    return "; ".join(shown) + (f"; and {left} more" if left else "")


def compatibility_section(run: Run, arm: str = "") -> Section:
    """Return how far one community's traces teach the questions of another.

    Raises
    ------
    ConfigError
        A community has no student alone that was tested on every community.
    """
    found = compatibility_of(own_test_table(run, arm))
    pairs = found.incompatible_pairs(INCOMPATIBLE_BELOW)
    weak = ", ".join(f"{train} to {test}" for train, test in pairs)
    lines = (
        (
            f"Mean transfer: {plain_number(found.mean_transfer, 2)} (0: a format "
            "teaches nothing of another; 1: formats do not matter)"
        ),
        (
            f"Off the diagonal, {plain_number(found.diagonal_dominance, 2)} of the "
            "cells are not above the diagonal of their column"
        ),
        f"Relative accuracy below {INCOMPATIBLE_BELOW:g}: {weak or 'no pair'}",
    )
    return Section(
        name="compatibility",
        title="Format compatibility",
        sheets=(
            _matrix(found, "Accuracy of students alone (row: whose traces taught)"),
            _matrix(
                found,
                "Relative to the student that the tested community taught itself",
                relative=True,
            ),
        ),
        lines=lines,
        content={
            "communities": list(found.communities),
            "trained_on_tested_on": found.raw,
            "relative": found.relative,
            "mean_transfer": found.mean_transfer,
            "diagonal_dominance": found.diagonal_dominance,
            "incompatible_pairs": [list(pair) for pair in pairs],
        },
    )


def _matrix(found: FormatCompatibility, title: str, *, relative: bool = False) -> Sheet:
    cells = found.relative if relative else found.raw
    return Sheet(
        title=title,
        headings=("trained on", *found.communities),
        rows=tuple(
            (name, *(plain_number(value, 2) for value in row))
            for name, row in zip(found.communities, cells, strict=True)
        ),
    )
