"""Who would leave a coalition, and which divisions into coalitions hold.

Each community looks at its own utility only and nothing is handed on: a hedonic game.
Sources: J. H. Drèze, J. Greenberg, Hedonic coalitions: optimality and stability,
Econometrica 48 (1980); A. Bogomolnaia, M. O. Jackson, The stability of hedonic
coalition structures, Games and Economic Behavior 38 (2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

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

# Whom a division must hold against: a group that leaves together, or one that moves.
Stability = Literal["core", "nash"]
STABILITIES: Final[tuple[Stability, ...]] = ("core", "nash")


def leavers(table: UtilityTable, coalition: Coalition) -> tuple[str, ...]:
    """Return the members that a coalition serves worse than what they have without it.

    Those with ``U[c, S] < max(alone, provider)``: the coalition is not individually
    rational for them (our definition of the outside option).

    Parameters
    ----------
    table : UtilityTable
    coalition : tuple of str
        One that was run.

    Raises
    ------
    ConfigError
        A utility, the provider or a student alone was not measured.
    """
    return tuple(
        name
        for name in coalition
        if table.utility(name, coalition) < table.outside_option(name)
    )


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


def stable_partitions(
    players: Sequence[str], preferences: Preferences, kind: Stability
) -> tuple[Partition, ...]:
    """Return the partitions that hold; there may be none.

    Parameters
    ----------
    players : sequence of str
        At most 8.
    preferences : mapping of (player, coalition) to float
        Of every player for itself alone, and of the coalitions that can form.
    kind : {"core", "nash"}
        ``core``: no coalition that can form is better for all its members. ``nash``: no
        single player is better off alone or in another coalition of the partition, if
        the two together can form; those that it joins or leaves are not asked.

    Raises
    ------
    ConfigError
        There are more than 8 players, a player has no preference for itself alone, or a
        preference is not finite.
    """
    check_number_divided(players)
    game = _Hedonic(players, preferences)
    breaks = game.is_blocked if kind == "core" else game.is_left
    return tuple(
        partition
        for partition in set_partitions(players)
        if game.can_form.issuperset(partition) and not breaks(partition)
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
        coalitions = [
            one
            for one in all_coalitions(players)
            if all((member, one) in preferences for member in one)
        ]
        self.can_form = frozenset(coalitions)
        # Whoever is no member does not object.
        self._values = np.array(
            [
                [preferences[p, one] if p in one else math.inf for p in players]
                for one in coalitions
            ]
        )

    def is_blocked(self, partition: Partition) -> bool:
        """Whether all members of some coalition prefer it to where they are."""
        block = _blocks(partition)
        now = np.array([self.preferences[p, block[p]] for p in self.players])
        return bool(np.all(self._values > now, axis=1).any())

    def is_left(self, partition: Partition) -> bool:
        """Whether some player is better off alone or in another of the coalitions."""
        for player, own in _blocks(partition).items():
            joined = [
                coalition_of((*other, player), self.players)
                for other in partition
                if other != own
            ]
            now = self.preferences[player, own]
            if any(
                target in self.can_form and self.preferences[player, target] > now
                for target in ((player,), *joined)
            ):
                return True
        return False


def _blocks(partition: Partition) -> dict[str, Coalition]:
    """Return the coalition that each player is in."""
    return {name: block for block in partition for name in block}
