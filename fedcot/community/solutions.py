"""Who adds how much to a game, and what the members could agree on.

Sources: L. S. Shapley, A value for n-person games, Contributions to the Theory of Games
II (1953); J. F. Banzhaf, Weighted voting doesn't work, Rutgers Law Review 19 (1965);
the least core: M. Maschler, B. Peleg, L. S. Shapley, Geometric properties of the
kernel, nucleolus, and related solution concepts, Mathematics of Operations Research 4
(1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linprog

from fedcot.community.coalitions import Coalition, all_coalitions
from fedcot.community.games import Game
from fedcot.errors import FedcotError

# Of the largest worth; the solver keeps its constraints to about 1e-7.
TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class LeastCore:
    """The least dissatisfaction that dividing the worth of all can reach.

    Attributes
    ----------
    epsilon : float
        The least e so that some division of v(N) gives every coalition S of some but
        not all players at least v(S) - e; 0 for a single player. Below 0, every
        coalition can be given more than it is worth.
    allocation : mapping of str to float
        A division that reaches it, summing to v(N). There may be others, and this one
        may treat alike players differently: it shows that one exists, not what is fair.
    core_is_empty : bool
        Whether epsilon is above 0 beyond the tolerance of the solver.
    """

    epsilon: float
    allocation: Mapping[str, float]
    core_is_empty: bool


def shapley_values(game: Game) -> dict[str, float]:
    """Return what each player adds, averaged over all orders of joining (Shapley 1953).

    Exact: ``phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) -
    v(S))``.

    Returns
    -------
    dict of str to float
        Sums to v(N), in the unit of v.
    """
    count = len(game.players)
    return {
        player: math.fsum(
            _join(game, coalition, player) / (count * math.comb(count - 1, size))
            for size, coalition in _others(game, player)
        )
        for player in game.players
    }


def banzhaf_values(game: Game) -> dict[str, float]:
    """Return what each player adds, averaged over all sets of others (Banzhaf 1965).

    Returns
    -------
    dict of str to float
        In the unit of v; the sum need not be v(N).
    """
    sets = 2 ** (len(game.players) - 1)
    return {
        player: math.fsum(
            _join(game, coalition, player) / sets
            for _, coalition in _others(game, player)
        )
        for player in game.players
    }


def leave_one_out(game: Game) -> dict[str, float]:
    """Return what all lose without each player: ``v(N) - v(N without i)``."""
    return {
        player: game.worth(game.grand)
        - game.worth(tuple(one for one in game.players if one != player))
        for player in game.players
    }


def least_core(game: Game) -> LeastCore:
    """Return the least core by linear programming (Maschler et al. 1979).

    Raises
    ------
    FedcotError
        The solver failed.
    """
    count = len(game.players)
    total = game.worth(game.grand)
    if count == 1:
        return LeastCore(0.0, {game.players[0]: total}, core_is_empty=False)
    # Solved in units of the largest worth, so that the solver's tolerance fits.
    scale = _scale(game)
    proper = [one for one in all_coalitions(game.players) if len(one) < count]
    # Variables: a share of each player, then epsilon. -x(S) - epsilon <= -v(S).
    rows = np.array(
        [[-float(one in coalition) for one in game.players] for coalition in proper]
    )
    solved = linprog(
        c=[*[0.0] * count, 1.0],
        A_ub=np.hstack([rows, -np.ones((len(proper), 1))]),
        b_ub=[-game.worth(coalition) / scale for coalition in proper],
        A_eq=[[*[1.0] * count, 0.0]],
        b_eq=[total / scale],
        bounds=(None, None),
        method="highs",
    )
    if not solved.success:
        raise FedcotError(f"the least core was not found: {solved.message}")
    # Adding 0 makes the solver's -0.0 a 0.
    shares = [float(share) * scale + 0.0 for share in solved.x[:count]]
    epsilon = float(solved.x[count]) + 0.0
    return LeastCore(
        epsilon * scale,
        dict(zip(game.players, shares, strict=True)),
        core_is_empty=epsilon > TOLERANCE,
    )


def _others(game: Game, player: str) -> tuple[tuple[int, Coalition], ...]:
    """Return every set of other players, the empty one too, with its size."""
    rest = [one for one in game.players if one != player]
    return ((0, ()), *((len(one), one) for one in all_coalitions(rest)))


def _join(game: Game, coalition: Coalition, player: str) -> float:
    """Return what a player adds to a coalition that it joins."""
    joined = {*coalition, player}
    ordered = tuple(one for one in game.players if one in joined)
    return game.worth(ordered) - game.worth(coalition)


def _scale(game: Game) -> float:
    return max((abs(worth) for worth in game.value.values()), default=0.0) or 1.0
