"""What coalitions are worth: a cooperative game with transferable utility.

A game gives every coalition S of its players a worth v(S), with v of nobody 0. Whether
communities can hand utility to each other is the reader's question; what is computed
here is only an account of who adds how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from fedcot.community.coalitions import (
    MOST_COMMUNITIES,
    Coalition,
    all_coalitions,
    label,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

Reference = Literal["none", "before", "provider", "alone"]
REFERENCES: Final[tuple[Reference, ...]] = ("none", "before", "provider", "alone")


@dataclass(frozen=True, kw_only=True)
class Game:
    """Players and the worth of each coalition of them.

    Attributes
    ----------
    players : tuple of str
        1 to 10, each once.
    value : mapping of Coalition to float
        Of every coalition of at least one, its members in the order of the players;
        finite. The empty one may stand there with 0.

    Raises
    ------
    ConfigError
        The number of players, a coalition that is missing or unknown, or a worth that
        is not finite or, of nobody, not 0.
    """

    players: tuple[str, ...]
    value: Mapping[Coalition, float]

    def __post_init__(self) -> None:
        """Copy the worths, so that they cannot change, and check them."""
        object.__setattr__(self, "value", MappingProxyType(dict(self.value)))
        players = self.players
        if not 1 <= len(players) <= MOST_COMMUNITIES or len(set(players)) < len(
            players
        ):
            raise ConfigError(
                f"`players` must be 1 to {MOST_COMMUNITIES}, each once, found "
                f"{', '.join(players) or 'none'}; leave some out."
            )
        needed = all_coalitions(players)
        missing = [one for one in needed if one not in self.value]
        if missing:
            raise ConfigError(
                f"`value` must be known for every coalition, found {len(missing)} "
                f"missing, the first {label(missing[0])}; run them all with "
                "`-c coalitions=all`."
            )
        known = {(), *needed}
        for coalition, worth in self.value.items():
            if coalition not in known or not math.isfinite(worth):
                raise ConfigError(
                    "`value` must be finite for coalitions of the players in their "
                    f"order, found {worth} for {label(coalition) or 'nobody'}; the "
                    f"players are {', '.join(players)}."
                )
        if self.value.get((), 0.0) != 0:
            raise ConfigError(
                f"`value` of nobody must be 0, found {self.value[()]}; subtract it "
                "from every coalition."
            )

    @property
    def grand(self) -> Coalition:
        """The coalition of all players."""
        return self.players

    def worth(self, coalition: Coalition) -> float:
        """Return v of a coalition; 0 of the empty one.

        Raises
        ------
        KeyError
            The members are no players, or not in their order.
        """
        return float(self.value[coalition]) if coalition else 0.0


def game_of(table: UtilityTable, reference: Reference = "before") -> Game:
    """Return the game that the coalitions of communities play (our definition).

    ``v(S) = sum over c in S of (U[c, S] - r_c)``: U[c, S] is the accuracy of the
    coalition's student on the test of its member c, and r_c the reference.

    Parameters
    ----------
    table : UtilityTable
        With every coalition of its communities.
    reference : {"before", "provider", "alone", "none"}
        ``none``: 0, the plain sum of accuracies, which grows with every member however
        little it brings. ``before``: the student before distillation; what the traces
        added. ``provider``: what leaving the provider is worth. ``alone``: what
        working together is worth; v of a single community is 0.

    Raises
    ------
    ConfigError
        A coalition was not run, `reference` is unknown or, except for ``none``, a
        baseline was not measured (see `UtilityTable.gain`).
    """
    if reference not in REFERENCES:
        raise ConfigError(
            f"`reference` must be one of {', '.join(REFERENCES)}, found "
            f"{reference!r}; pass for example `before`."
        )
    return Game(
        players=table.communities,
        value={
            one: math.fsum(
                table.utility(name, one)
                if reference == "none"
                else table.gain(name, one, reference)
                for name in one
            )
            for one in table.complete
        },
    )
