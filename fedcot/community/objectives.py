"""Which coalition, and which division into coalitions, serves a social objective best.

The source compares objectives of which only the utilitarian one is known to us; which
others it has, and how it counts those outside, is not, so the rest is our definition.
Nash: J. F. Nash, The bargaining problem, Econometrica 18 (1950), as a sum of logarithms
over more than two parties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fedcot.community.coalitions import Coalition, Partition, set_partitions
from fedcot.community.incentives import check_number_divided
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

Objective = Literal["utilitarian", "mean", "egalitarian", "nash"]
OBJECTIVES: Final[tuple[Objective, ...]] = (
    "utilitarian",
    "mean",
    "egalitarian",
    "nash",
)

# Whose utility counts: of the members of a coalition, or of every community.
Scope = Literal["members", "all"]

# Sums of the same accuracies in another order differ by less.
TIE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class BestCoalition:
    """The best of the coalitions that were run, and what it reaches."""

    coalition: Coalition
    welfare: float


@dataclass(frozen=True, slots=True)
class BestPartition:
    """The best division of all communities, and out of how many that could form."""

    partition: Partition
    welfare: float
    considered: int


def utilitarian(
    utilities: Mapping[str, float], sizes: Mapping[str, float] | None = None
) -> float:
    """Return the sum of utilities, each times the size of its community if given."""
    weights = _weights(utilities, sizes)
    return math.fsum(weights[name] * value for name, value in utilities.items())


def mean_utility(
    utilities: Mapping[str, float], sizes: Mapping[str, float] | None = None
) -> float:
    """Return the mean of utilities, weighted by the sizes of communities if given.

    Unlike the sum it does not grow with every member.
    """
    weights = _weights(utilities, sizes)
    return utilitarian(utilities, sizes) / math.fsum(weights.values())


def egalitarian(utilities: Mapping[str, float]) -> float:
    """Return the smallest utility.

    Raises
    ------
    ConfigError
        There are no utilities.
    """
    _weights(utilities, None)
    return min(utilities.values())


def nash(gains: Mapping[str, float]) -> float:
    """Return the sum of the logarithms of gains, in nats.

    Parameters
    ----------
    gains : mapping of str to float
        Over the disagreement point: here the student before distillation.

    Returns
    -------
    float
        Minus infinity if one gain is not above 0: such an outcome is excluded.
    """
    _weights(gains, None)
    if min(gains.values()) <= 0:
        return -math.inf
    return math.fsum(math.log(gain) for gain in gains.values())


def coalition_welfare(
    table: UtilityTable,
    coalition: Coalition,
    objective: Objective,
    *,
    scope: Scope = "members",
    sizes: Mapping[str, float] | None = None,
) -> float:
    """Return what a coalition is worth under an objective.

    Parameters
    ----------
    table : UtilityTable
    coalition : tuple of str
        One that was run.
    objective : {"utilitarian", "mean", "egalitarian", "nash"}
    scope : {"members", "all"}
        ``members``: only they count. ``all``: everybody counts; who is outside keeps
        its outside option, the better of the provider and its student alone.
    sizes : mapping of str to float, optional
        Weights > 0 of the communities for ``utilitarian`` and ``mean``, for example
        members; the others do not use them.

    Returns
    -------
    float
        In accuracies, or nats for ``nash``; minus infinity where Nash excludes it.

    Raises
    ------
    ConfigError
        An objective or scope is unknown, something needed was not measured, or, under
        ``nash``, a gain may not be stated (see `UtilityTable.gain`).
    """
    if scope not in ("members", "all"):
        raise ConfigError(
            f"`scope` must be members or all, found {scope!r}; pass for example "
            "`members`."
        )
    inside = dict.fromkeys(coalition, coalition)
    utilities = {name: table.utility(name, coalition) for name in coalition}
    if scope == "all":
        for name in table.communities:
            if name not in inside:
                inside[name] = (name,)
                utilities[name] = table.outside_option(name)
    return _welfare(table, inside, utilities, objective, sizes)


def best_coalition(
    table: UtilityTable,
    objective: Objective,
    *,
    scope: Scope = "members",
    sizes: Mapping[str, float] | None = None,
) -> BestCoalition | None:
    """Return the coalition that was run and serves an objective best.

    Parameters
    ----------
    table, objective, scope, sizes
        See `coalition_welfare`.

    Returns
    -------
    BestCoalition or None
        Of those that are equally good the smaller, then the earlier in the table; None
        if Nash excludes all of them.

    Raises
    ------
    ConfigError
        See `coalition_welfare`.
    """
    best: BestCoalition | None = None
    for one in sorted(table.coalitions, key=len):
        welfare = coalition_welfare(
            table,
            one,
            objective,
            scope=scope,
            sizes=sizes,
        )
        if welfare > (best.welfare + TIE if best else -math.inf):
            best = BestCoalition(one, welfare)
    return best


def best_partition(
    table: UtilityTable,
    objective: Objective,
    *,
    sizes: Mapping[str, float] | None = None,
) -> BestPartition | None:
    """Return the division of all communities that serves an objective best.

    A community by itself has its outside option. Only coalitions that were run and
    tested on all their members can form; with all of them run, every partition is
    looked at.

    Parameters
    ----------
    table : UtilityTable
        Of at most 8 communities.
    objective, sizes
        See `coalition_welfare`.

    Returns
    -------
    BestPartition or None
        Of those that are equally good the one with the smaller coalitions, the largest
        compared first; None if Nash excludes all of them.

    Raises
    ------
    ConfigError
        See `coalition_welfare`; or there are more than 8 communities.
    """
    check_number_divided(table.communities)
    alone = {name: table.outside_option(name) for name in table.communities}
    can_form = {*table.complete, *((name,) for name in table.communities)}
    candidates = [
        one for one in set_partitions(table.communities) if can_form.issuperset(one)
    ]
    best: BestPartition | None = None
    for partition in sorted(
        candidates, key=lambda one: sorted(map(len, one), reverse=True)
    ):
        inside = {name: block for block in partition for name in block}
        utilities = {
            name: table.utility(name, block) if len(block) > 1 else alone[name]
            for name, block in inside.items()
        }
        welfare = _welfare(table, inside, utilities, objective, sizes)
        if welfare > (best.welfare + TIE if best else -math.inf):
            best = BestPartition(partition, welfare, len(candidates))
    return best


def _welfare(
    table: UtilityTable,
    inside: Mapping[str, Coalition],
    utilities: Mapping[str, float],
    objective: Objective,
    sizes: Mapping[str, float] | None,
) -> float:
    if objective == "utilitarian":
        return utilitarian(utilities, sizes)
    if objective == "mean":
        return mean_utility(utilities, sizes)
    if objective == "egalitarian":
        return egalitarian(utilities)
    if objective != "nash":
        raise ConfigError(
            f"`objective` must be one of {', '.join(OBJECTIVES)}, found "
            f"{objective!r}; pass for example `utilitarian`."
        )
    for name, coalition in inside.items():
        table.check_baselines(name, coalition)
    return nash(
        {
            name: value - table.baseline(name, inside[name], "before")
            for name, value in utilities.items()
        }
    )


def _weights(
    utilities: Mapping[str, float], sizes: Mapping[str, float] | None
) -> Mapping[str, float]:
    if not utilities:
        raise ConfigError(
            "`utilities` must be of at least one community, found none; name some."
        )
    if sizes is None:
        return dict.fromkeys(utilities, 1.0)
    for name in utilities:
        if not 0 < sizes.get(name, 0) < math.inf:
            raise ConfigError(
                f"`sizes` must be > 0 and finite for every community, found "
                f"{sizes.get(name)} for {name}; give the number of its members."
            )
    return {name: sizes[name] for name in utilities}
