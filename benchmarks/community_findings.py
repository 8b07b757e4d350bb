"""One sentence for each factor of `community_runs.py`, made from its numbers by a rule.

A sentence is written whatever comes out: that nothing was shown is a finding too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from community_plan import BASE, PADDED, Factor, Plan, Value

if TYPE_CHECKING:
    from community_measures import Reading

RULE: Final = (
    "A difference of accuracies counts as shown where the 95 % t-interval of its "
    "paired values over seeds leaves out 0; otherwise nothing is shown. The intervals "
    "are not corrected for the number of comparisons. Of an ordered factor the last "
    "value is compared with the first, and an inner value with both where its mean is "
    "above both; of any other factor every value is compared with the first, but "
    "behaviour under a filter with that filter alone. A win of a community is shown "
    "where both one-sided exact McNemar tests over the questions of all seeds, "
    "Bonferroni-corrected, have p < 0.05."
)
SIGNIFICANT: Final = 0.05
ALL, HOLD_OUT, GAIN = "all", "hold-out", "gain over alone"
AND: Final = " and "
HIGHER, LOWER, NOT_SHOWN = "higher", "lower", "not shown"

Estimate = Callable[[Any], Any]


def findings(
    plan: Plan,
    readings: "Mapping[str, Sequence[Reading]]",
    games: Mapping[str, Any],
    leverage: Mapping[str, Any],
    estimate: Estimate,
) -> list[dict[str, Any]]:
    """Return a finding for each factor, the coalitions' first."""
    low = games["low_utility"]
    found = [
        _winners(games),
        _baselines(readings[BASE], estimate),
        _stability(games),
    ]
    for factor in plan.factors:
        if factor.name == "coalitions":
            continue
        if factor.name == "leverage":
            found.append(_leverage(leverage))
            continue
        found.append(_factor(factor, readings, low, estimate))
    found.append(_padding(plan.factor("granularity"), readings, estimate))
    return found


def _factor(
    factor: Factor,
    readings: "Mapping[str, Sequence[Reading]]",
    low: Sequence[str],
    estimate: Estimate,
) -> dict[str, Any]:
    """Return the comparisons of one factor in every view, and a sentence on them."""
    comparisons = []
    for view in _views(factor, low):
        series = [_series(factor, place, readings, view) for place in factor.places]
        if any(value is None for one in series for value in one):
            continue
        values = [value for value, _ in factor.places]
        pairs = [(0, n) for n in range(1, len(series))]
        if factor.pairs:
            pairs = [(values.index(a), values.index(b)) for a, b in factor.pairs]
        elif factor.is_ordered:
            pairs = [(0, len(series) - 1), *_peak(series)]
        comparisons += [
            {
                "view": view,
                "from": values[first],
                "to": values[second],
                **compared(series[first], series[second], estimate),
            }
            for first, second in pairs
        ]
    main = [one for one in comparisons if one["view"] == comparisons[0]["view"]]
    rest = [one for one in comparisons if one not in main and _is_whole(one, factor)]
    text = "; ".join(
        [
            *(_sentence(one, is_ordered=factor.is_ordered) for one in main),
            *(f"{_view(one['view'])} {_verdict(one)}" for one in rest),
        ]
    )
    return {
        "factor": factor.name,
        "verdict": {_pair(one): one["verdict"] for one in main},
        "text": f"{factor.axis[0].upper()}{factor.axis[1:]}: {text}.",
        "comparisons": comparisons,
    }


def _is_whole(one: Mapping[str, Any], factor: Factor) -> bool:
    """Whether a comparison is of the last value with the first."""
    ends = (factor.places[0][0], factor.places[-1][0])
    return factor.is_ordered and (one["from"], one["to"]) == ends


def compared(
    before: Sequence[float], after: Sequence[float], estimate: Estimate
) -> dict[str, Any]:
    """Return means, their paired difference, and whether it is shown."""
    difference = estimate([b - a for a, b in zip(before, after, strict=True)])
    return {
        "first": sum(before) / len(before),
        "second": sum(after) / len(after),
        "difference": difference,
        "verdict": verdict(difference),
    }


def verdict(difference: Mapping[str, Any]) -> str:
    """Return whether an interval lies above 0, below it, or shows nothing."""
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return NOT_SHOWN
    return HIGHER if low > 0 else LOWER


def _views(factor: Factor, low: Sequence[str]) -> list[str]:
    """Return the views of a factor, the one that counts first."""
    if not factor.communities:
        return [ALL, *low, HOLD_OUT, GAIN]
    # The hold-out of other communities has other domains.
    return [AND.join(factor.communities), *(x for x in low if x in factor.communities)]


def _series(
    factor: Factor,
    place: tuple[Value, str],
    readings: "Mapping[str, Sequence[Reading]]",
    view: str,
) -> list[Any]:
    """Return the accuracy of the student of all communities by seed."""
    value, point = place
    arm = factor.arms.get(value, "pooled")
    if view == GAIN:
        pairs = [(one.accuracy(arm), one.accuracy("alone")) for one in readings[point]]
        return [None if None in pair else pair[0] - pair[1] for pair in pairs]
    if view == HOLD_OUT:
        return [one.held_out(arm) for one in readings[point]]
    names = () if view == ALL else tuple(view.split(AND))
    return [one.accuracy(arm, names) for one in readings[point]]


def _peak(series: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return both ends with the best inner value, if its mean is above both."""
    sums = [sum(one) for one in series]
    best = max(range(len(sums)), key=sums.__getitem__)
    last = len(sums) - 1
    return [(0, best), (last, best)] if 0 < best < last else []


def _sentence(one: Mapping[str, Any], *, is_ordered: bool) -> str:
    first, second = _value(one["from"]), _value(one["to"])
    if is_ordered:
        amounts = (
            f"from {first} to {second} {_view(one['view'])} "
            f"{one['first']:.3f} to {one['second']:.3f}"
        )
    else:
        amounts = f"{second} {one['second']:.3f} against {first} {one['first']:.3f}"
    return f"{amounts}, {_verdict(one)}"


def _view(view: str) -> str:
    named = {
        ALL: "on all own tests",
        HOLD_OUT: "on the hold-out",
        GAIN: "in the gain over alone",
    }
    return named.get(view, f"on the tests of {view}")


def _verdict(one: Mapping[str, Any]) -> str:
    words = {HIGHER: "higher", LOWER: "lower", NOT_SHOWN: "no difference shown"}
    return f"{words[one['verdict']]} ({shown(one['difference'])})"


def _pair(one: Mapping[str, Any]) -> str:
    return f"{_value(one['from'])} to {_value(one['to'])}"


def shown(found: Mapping[str, Any]) -> str:
    """Return a difference with its interval as text."""
    if found["low"] is None:
        return f"{found['mean']:+.3f}, one seed"
    return f"{found['mean']:+.3f}, {found['low']:+.3f} to {found['high']:+.3f}"


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, int | float) else value


def _winners(games: Mapping[str, Any]) -> dict[str, Any]:
    """Say whether a badly served community wins by pooling."""
    wins = games["winners"]
    passed = [one for one in wins if one["p_both_corrected"] < SIGNIFICANT]
    low = ", ".join(games["low_utility"]) or "no community"
    start = f"The provider serves {low} badly. "
    best = min(wins, key=lambda one: one["p_both"], default=None)
    if best is None:
        text = "No coalition serves such a community better than provider and alone."
    else:
        text = (
            f"{len(passed)} of {best['comparisons']} coalitions serve such a community "
            f"better than the provider and better than alone. The clearest: "
            f"{best['community']} in {best['coalition']} with {best['accuracy']:.3f}, "
            f"alone {best['alone']:.3f}, provider {best['provider']:.3f}, answers only "
            f"{best['label_only']:.3f}, before {best['before']:.3f} (n = {best['n']}, "
            f"corrected p = {best['p_both_corrected']:.2g})."
        )
    return {
        "factor": "coalitions",
        "verdict": "shown" if passed else NOT_SHOWN,
        "text": start + text,
    }


def _baselines(runs: "Sequence[Reading]", estimate: Estimate) -> dict[str, Any]:
    """Compare the student of all communities with everything it must be better than."""
    comparisons = []
    ours: list[Any] = [one.accuracy("pooled") for one in runs]
    for arm in ("provider", "alone", "label-only", "random-label", "before"):
        theirs: list[Any] = [one.accuracy(arm) for one in runs]
        comparisons.append(
            {
                "view": ALL,
                "from": arm,
                "to": "pooled",
                **compared(theirs, ours, estimate),
            }
        )
    return {
        "factor": "baselines",
        "verdict": {one["from"]: one["verdict"] for one in comparisons},
        "text": "The student of all communities against its baselines: "
        + "; ".join(_sentence(one, is_ordered=False) for one in comparisons)
        + ".",
        "comparisons": comparisons,
    }


def _stability(games: Mapping[str, Any]) -> dict[str, Any]:
    """Say who would leave, what is stable, and who adds how much."""
    incentives = games["incentives"]
    leaving = incentives["leavers_of_all"]
    stable = incentives["core_stable"]
    game = games["games"]["before"]
    values = ", ".join(
        f"{name} {one['mean']:.3f}" for name, one in game["shapley"].items()
    )
    divisions = "; ".join(" | ".join(one) for one in stable[:3]) or "none"
    core = "empty" if game["core_is_empty"] else "not empty"
    return {
        "factor": "incentives",
        "verdict": "stable" if not leaving else "not stable",
        "text": (
            f"From the coalition of all, {', '.join(leaving) or 'nobody'} would leave "
            "for the provider or for a student alone, by mean accuracies; divisions "
            f"that no coalition blocks: {divisions}. Shapley values over the student "
            f"before distillation: {values}; the core is {core}."
        ),
    }


def _leverage(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Say how far the smallest share tested brings the small company, in both views."""
    parts = []
    for view, row in rows.items():
        first = row["points"][0]
        cdc = first["cdc"]
        spread = (
            "" if cdc["low"] is None else f" ({cdc['low']:.2f} to {cdc['high']:.2f})"
        )
        moved = first["cdc_with_strike"]
        bonus = first["transfer_bonus"]
        strike = ""
        if moved is not None:
            strike = (
                f", {moved['mean']:.2f} with strike (transfer bonus "
                f"{bonus['mean']:+.2f})"
            )
        parts.append(
            f"{first['fraction']:.0%} of the traces bring the small company "
            f"{cdc['mean']:.2f}{spread} of the way on the {view}{strike}"
        )
    return {
        "factor": "leverage",
        "verdict": "described",
        "text": "; ".join(parts) + ".",
    }


def _padding(
    factor: Factor,
    readings: "Mapping[str, Sequence[Reading]]",
    estimate: Estimate,
) -> dict[str, Any]:
    """Say whether length alone explains what levels change."""
    places = dict(factor.places)
    series = {
        value: _series(factor, (value, point), readings, ALL)
        for value, point in places.items()
    }
    finest = max(value for value in places if isinstance(value, int | float))
    comparisons = [
        {
            "view": ALL,
            "from": first,
            "to": second,
            **compared(series[first], series[second], estimate),
        }
        for first, second in ((1, PADDED), (PADDED, finest), (1, finest))
    ]
    length, content, _ = comparisons
    if content["verdict"] == HIGHER:
        meaning = "the finest level is better than filler of its length"
    elif length["verdict"] == HIGHER:
        meaning = "length alone helps"
    else:
        meaning = "neither length alone nor content beyond length is shown to help"
    return {
        "factor": "granularity-padding",
        "verdict": {_pair(one): one["verdict"] for one in comparisons},
        "text": f"Padding control, {meaning}: "
        + "; ".join(_sentence(one, is_ordered=False) for one in comparisons)
        + ".",
        "comparisons": comparisons,
    }
