"""Who gains in which coalition: utility, worth, stability and leverage over seeds.

Formulas are those of `fedcot.community`; here they are given the runs of
`community_runs.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from community_plan import Factor

from fedcot.community.coalitions import all_coalitions, label
from fedcot.community.games import game_of
from fedcot.community.incentives import (
    STABILITIES,
    leavers,
    preferences_of,
    stable_partitions,
)
from fedcot.community.leverage import LeverageCurve, both_views
from fedcot.community.messages import BEFORE, PROVIDER
from fedcot.community.objectives import OBJECTIVES, best_coalition, best_partition
from fedcot.community.solutions import (
    banzhaf_values,
    least_core,
    leave_one_out,
    shapley_values,
)
from fedcot.community.utility import UtilityTable, Win

if TYPE_CHECKING:
    from community_measures import Reading

REFERENCES: Final = ("before", "provider", "alone")
LEVERAGES: Final = ("cdc", "cdc_with_strike", "strike", "transfer_bonus")
THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)

Estimate = Callable[[Any], Any]


def games(
    readings: "Sequence[Reading]", low_utility: float, estimate: Estimate
) -> dict[str, Any]:
    """Return utility matrix, winners, values of communities, stability and objectives.

    Parameters
    ----------
    readings : sequence of Reading
        One for each seed, with all coalitions.
    low_utility : float
        Provider accuracy below which a community counts as badly served.
    """
    table = utility_table(readings)
    per_seed = [utility_table([one]) for one in readings]
    names, grand = table.communities, table.coalitions[-1]
    rows = {
        name: {
            "provider": estimate([one.provider[name] for one in per_seed]),
            "before": estimate([one.before[name] for one in per_seed]),
            "coalitions": {
                label(one): {
                    **estimate([t.student[name, one] for t in per_seed]),
                    "n": len(table.student_correct[name, one]),
                    "label_only": table.label_only[name, one],
                }
                for one in table.coalitions
            },
        }
        for name in names
    }
    hold_out = {
        label(one): estimate([t.hold_out[one] for t in per_seed])
        for one in table.coalitions
    }
    preferences = preferences_of(table)
    return {
        "utility": {"own_test": rows, "hold_out": hold_out},
        "low_utility": list(table.low_utility(low_utility)),
        "winners": [
            win_row(table, win, low_utility) for win in table.winners(low_utility)
        ],
        "games": {one: game_row(table, per_seed, one, estimate) for one in REFERENCES},
        "incentives": {
            "leavers": {
                label(one): list(leavers(table, one)) for one in table.coalitions
            },
            "leavers_of_all": list(leavers(table, grand)),
            **{
                f"{kind}_stable": [
                    list(map(label, one))
                    for one in stable_partitions(names, preferences, kind)
                ]
                for kind in STABILITIES
            },
        },
        "objectives": {one: objective_row(table, one) for one in OBJECTIVES},
    }


def utility_table(readings: "Sequence[Reading]") -> UtilityTable:
    """Return the table of runs with all coalitions, their questions put together."""
    names = readings[0].communities
    coalitions = all_coalitions(names)

    def joined(student: str, name: str) -> str:
        return "".join(one.own[student][name] for one in readings)

    cells = [(name, one) for one in coalitions for name in names]
    student = {(n, one): joined(f"pooled.{label(one)}", n) for n, one in cells}
    answers = {(n, one): joined(f"label-only.{label(one)}", n) for n, one in cells}
    provider = {name: joined(PROVIDER, name) for name in names}
    before = {name: joined(BEFORE, name) for name in names}
    hold_out = {
        one: "".join(reading.hold_out[f"pooled.{label(one)}"] for reading in readings)
        for one in coalitions
    }
    return UtilityTable(
        communities=names,
        coalitions=coalitions,
        student=_shares(student),
        provider=_shares(provider),
        before=_shares(before),
        label_only=_shares(answers),
        hold_out=_shares(hold_out),
        student_correct=student,
        provider_correct=provider,
        before_correct=before,
        label_only_correct=answers,
    )


def win_row(table: UtilityTable, win: Win, low_utility: float) -> dict[str, Any]:
    """Return one win with its p-values.

    Both differences must hold, so the larger p-value counts; it is multiplied by the
    number of coalitions of two or more that badly served communities could have won in
    (Bonferroni).
    """
    looked_at = sum(
        name in one
        for name in table.low_utility(low_utility)
        for one in table.coalitions
        if len(one) > 1
    )
    both = max(win.p_over_alone or 0.0, win.p_over_provider or 0.0)
    cell = (win.community, win.coalition)
    return {
        **asdict(win),
        "coalition": label(win.coalition),
        "accuracy": table.student[cell],
        "alone": table.student[win.community, (win.community,)],
        "provider": table.provider[win.community],
        "before": table.before[win.community],
        "label_only": table.label_only[cell],
        "n": len(table.student_correct[cell]),
        "comparisons": looked_at,
        "p_both": both,
        "p_both_corrected": min(1.0, both * looked_at),
    }


def game_row(
    table: UtilityTable,
    per_seed: Sequence[UtilityTable],
    reference: Any,
    estimate: Estimate,
) -> dict[str, Any]:
    """Return the values of communities where worth is counted from a reference."""
    game = game_of(table, reference)
    shapley = [shapley_values(game_of(one, reference)) for one in per_seed]
    core = least_core(game)
    return {
        "worth": {label(one): game.worth(one) for one in table.coalitions},
        "shapley": {
            name: estimate([one[name] for one in shapley]) for name in game.players
        },
        "banzhaf": banzhaf_values(game),
        "leave_one_out": leave_one_out(game),
        "least_core_epsilon": core.epsilon,
        "core_is_empty": core.core_is_empty,
    }


def objective_row(table: UtilityTable, objective: Any) -> dict[str, Any]:
    """Return which coalition and which division an objective would choose."""
    found: dict[str, Any] = {}
    for scope in ("members", "all"):
        best = best_coalition(table, objective, scope=scope)
        found[f"best_coalition_{scope}"] = best and {
            "coalition": label(best.coalition),
            "welfare": best.welfare,
        }
    division = best_partition(table, objective)
    found["best_partition"] = division and {
        "partition": list(map(label, division.partition)),
        "welfare": division.welfare,
        "considered": division.considered,
    }
    return found


def leverage_rows(
    factor: Factor, readings: "Mapping[str, Sequence[Reading]]", estimate: Estimate
) -> dict[str, Any]:
    """Return data leverage power by the share of traces that move, in both views.

    The small company has a share of every member's traces, the large one the rest. The
    large one's student is the one of another random part of that size: the runs for a
    share and for its rest draw for themselves. Without any trace the student is as it
    was before.
    """
    by_share = {float(value): readings[point] for value, point in factor.places}
    seeds = range(len(next(iter(by_share.values()))))
    curves = [leverage_of({f: runs[s] for f, runs in by_share.items()}) for s in seeds]
    rows: dict[str, Any] = {}
    for place, view in enumerate(("own-test", "hold-out")):
        of_view = [pair[place] for pair in curves]
        rows[view] = {
            "worst": estimate([curve.worst for curve in of_view]),
            "best": estimate([curve.best for curve in of_view]),
            "points": [
                {
                    "fraction": fraction,
                    **{
                        key: estimate(
                            [getattr(curve.points[n], key) for curve in of_view]
                        )
                        for key in LEVERAGES
                    },
                }
                for n, fraction in enumerate(of_view[0].fractions)
            ],
            "achieves_at": [curve.achieves_at(THRESHOLDS) for curve in of_view],
        }
    return rows


def leverage_of(runs: "Mapping[float, Reading]") -> tuple[LeverageCurve, LeverageCurve]:
    """Return the curves of one seed; a share whose rest was not run is left out."""
    own = {share: run.accuracy("pooled") for share, run in runs.items()}
    held = {share: run.held_out("pooled") for share, run in runs.items()}
    own[0.0] = runs[1.0].accuracy("before")
    held[0.0] = runs[1.0].held_out("before")

    def pair(found: dict[float, Any]) -> tuple[dict[float, Any], dict[float, Any]]:
        small = {share: value for share, value in found.items() if share > 0}
        rest = {share: found[round(1 - share, 6)] for share in small}
        return small, rest

    return both_views(pair(own), pair(held))


def _share(bits: str) -> float:
    return bits.count("1") / len(bits)


def _shares(found: Mapping[Any, str]) -> dict[Any, float]:
    return {key: _share(bits) for key, bits in found.items()}
