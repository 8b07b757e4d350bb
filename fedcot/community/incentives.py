"""Who would leave a coalition, and which divisions into coalitions hold.

Each community looks at its own utility only and nothing is handed on: a hedonic game.
Sources: J. H. Drèze, J. Greenberg, Hedonic coalitions: optimality and stability,
Econometrica 48 (1980); A. Bogomolnaia, M. O. Jackson, The stability of hedonic
coalition structures, Games and Economic Behavior 38 (2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedcot.community.coalitions import (
    Coalition,
    Partition,
    all_coalitions,
    coalition_of,
    label,
    set_partitions,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

# What a player thinks of a coalition that holds it. A coalition can form if each of its
# members has a preference for it.
Preferences = Mapping[tuple[str, Coalition], float]

MOST_DIVIDED: Final = 8  # 4,140 partitions


@dataclass(frozen=True, slots=True)
class Move:
    """A player that is better off elsewhere.

    Attributes
    ----------
    player : str
    target : tuple of str
        The coalition that it then is in; itself alone, if it leaves for good.
    gain : float
        In the unit of the preferences, > 0.
    """

    player: str
    target: Coalition
    gain: float


def leavers(
    table: UtilityTable, coalition: Coalition, *, tolerance: float = 0.0
) -> tuple[str, ...]:
    """Return the members that a coalition serves worse than what they have without it.

    Those with ``U[c, S] < max(alone, provider) - tolerance``: the coalition is not
    individually rational for them (our definition of the outside option).

    Parameters
    ----------
    table : UtilityTable
    coalition : tuple of str
        One that was run.
    tolerance : float
        Difference of accuracies that nobody leaves for, >= 0.

    Raises
    ------
    ConfigError
        A utility, the provider or a student alone was not measured.
    """
    return tuple(
        name
        for name in coalition
        if table.utility(name, coalition) < table.outside_option(name) - tolerance
    )


def is_individually_rational_for_all(
    table: UtilityTable, coalition: Coalition, *, tolerance: float = 0.0
) -> bool:
    """Return whether no member would leave; see `leavers`."""
    return not leavers(table, coalition, tolerance=tolerance)


def preferences_of(table: UtilityTable) -> dict[tuple[str, Coalition], float]:
    """Return what each community thinks of each coalition that was run and holds it.

    Returns
    -------
    dict of (community, coalition) to float
        The accuracy of the coalition's student on the community's own test; for a
        community by itself its outside option, the better of provider and student
        alone, since nobody is made to use a student that is worse.

    Raises
    ------
    ConfigError
        The provider or a student alone was not measured.
    """
    return {
        **{
            (name, one): table.student[name, one]
            for one in table.coalitions
            for name in one
            if (name, one) in table.student
        },
        # Stands over what the student alone has.
        **{(name, (name,)): table.outside_option(name) for name in table.communities},
    }


def blocking_coalition(
    players: Sequence[str],
    preferences: Preferences,
    partition: Partition,
    *,
    tolerance: float = 0.0,
) -> Coalition | None:
    """Return the first coalition all of whose members prefer it to where they are.

    Parameters
    ----------
    players : sequence of str
    preferences : mapping of (player, coalition) to float
        Of every player for itself alone, and of the coalitions that can form.
    partition : tuple of Coalition
        Of the players, into coalitions that can form.
    tolerance : float
        What each must gain more than, >= 0.

    Returns
    -------
    tuple of str or None
        The smallest first, then in the order of the players; None if nobody blocks.

    Raises
    ------
    ConfigError
        A player has no preference for itself alone, a preference is not finite, or the
        partition is none of the players into coalitions that can form.
    """
    return _Hedonic(players, preferences).blocking(partition, tolerance)


def improving_move(
    players: Sequence[str],
    preferences: Preferences,
    partition: Partition,
    *,
    tolerance: float = 0.0,
) -> Move | None:
    """Return the first move of a single player that makes it better off.

    A player may join another coalition of the partition, if the two together can form,
    or be alone; those that it joins or leaves are not asked.

    Parameters
    ----------
    players, preferences, partition, tolerance
        See `blocking_coalition`.

    Returns
    -------
    Move or None
        None if nobody gains by moving.

    Raises
    ------
    ConfigError
        See `blocking_coalition`.
    """
    return _Hedonic(players, preferences).move(partition, tolerance)


def core_stable_partitions(
    players: Sequence[str], preferences: Preferences, *, tolerance: float = 0.0
) -> tuple[Partition, ...]:
    """Return the partitions that no coalition blocks; there may be none.

    Parameters
    ----------
    players : sequence of str
        At most 8.
    preferences, tolerance
        See `blocking_coalition`.

    Raises
    ------
    ConfigError
        See `blocking_coalition`; or there are more than 8 players.
    """
    game = _Hedonic(players, preferences)
    return tuple(
        partition
        for partition in game.partitions()
        if game.blocking(partition, tolerance) is None
    )


def nash_stable_partitions(
    players: Sequence[str], preferences: Preferences, *, tolerance: float = 0.0
) -> tuple[Partition, ...]:
    """Return the partitions where no single player gains by moving; maybe none.

    Parameters
    ----------
    players : sequence of str
        At most 8.
    preferences, tolerance
        See `blocking_coalition`.

    Raises
    ------
    ConfigError
        See `blocking_coalition`; or there are more than 8 players.
    """
    game = _Hedonic(players, preferences)
    return tuple(
        partition
        for partition in game.partitions()
        if game.move(partition, tolerance) is None
    )


def check_number_divided(players: Sequence[str]) -> None:
    """Refuse to go through the partitions of too many players.

    Raises
    ------
    ConfigError
        There are more than 8.
    """
    if len(players) > MOST_DIVIDED:
        raise ConfigError(
            f"`communities` must be at most {MOST_DIVIDED} to go through every way to "
            f"divide them, found {len(players)}; leave some out."
        )


class _Hedonic:
    """Preferences as an array, one row for each coalition that can form."""

    def __init__(self, players: Sequence[str], preferences: Preferences) -> None:
        for player in players:
            if (player, (player,)) not in preferences:
                raise ConfigError(
                    "`preferences` must say what each player has alone, found nothing "
                    f"for {player}; add it."
                )
        for (player, coalition), value in preferences.items():
            if not math.isfinite(value):
                raise ConfigError(
                    f"`preferences` must be finite, found {value} of {player} for "
                    f"{label(coalition)}; leave out coalitions that cannot form."
                )
        self.players = tuple(players)
        self.preferences = preferences
        self.coalitions = tuple(
            one
            for one in all_coalitions(players)
            if all((member, one) in preferences for member in one)
        )
        self._can_form = frozenset(self.coalitions)
        # Whoever is no member does not object.
        self._values = np.array(
            [
                [preferences[p, one] if p in one else math.inf for p in players]
                for one in self.coalitions
            ]
        )

    def partitions(self) -> tuple[Partition, ...]:
        check_number_divided(self.players)
        return tuple(
            partition
            for partition in set_partitions(self.players)
            if self._can_form.issuperset(partition)
        )

    def blocking(self, partition: Partition, tolerance: float) -> Coalition | None:
        block = self._blocks(partition)
        now = np.array([self.preferences[p, block[p]] for p in self.players])
        better = np.all(self._values > now + tolerance, axis=1)
        return self.coalitions[int(np.argmax(better))] if better.any() else None

    def move(self, partition: Partition, tolerance: float) -> Move | None:
        block = self._blocks(partition)
        for player in self.players:
            now = self.preferences[player, block[player]]
            joined = [
                coalition_of((*other, player), self.players)
                for other in partition
                if other != block[player]
            ]
            for target in ((player,), *joined):
                if target not in self._can_form:
                    continue
                gain = self.preferences[player, target] - now
                if gain > tolerance:
                    return Move(player, target, gain)
        return None

    def _blocks(self, partition: Partition) -> dict[str, Coalition]:
        members = [name for block in partition for name in block]
        if sorted(members) != sorted(self.players) or not self._can_form.issuperset(
            partition
        ):
            raise ConfigError(
                "`partition` must hold every player once, in coalitions that can form, "
                f"found {', '.join(map(label, partition)) or 'none'}; the players are "
                f"{', '.join(self.players)}."
            )
        return {name: block for block in partition for name in block}
