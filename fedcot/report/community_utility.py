"""The sections on utility: the matrix, and gains with their winners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedcot.community.coalitions import Coalition, label
from fedcot.community.utility import BASELINES, UtilityTable
from fedcot.report.community import (
    GRAND,
    HOLD_OUT,
    LABEL_ONLY,
    RANDOM_LABEL,
    chosen_arm,
    coalitions_of,
    communities_of,
    community_part,
    is_scored,
    own_test_table,
    short,
    student_view,
)
from fedcot.report.community_view import (
    Section,
    Sheet,
    accuracy_cell,
    p_cell,
    signed,
)
from fedcot.report.reader import Run, number


def threshold_of(run: Run) -> float:
    """Return the accuracy of the provider below which a community is badly served."""
    found = number(community_part(run).get("low_utility"))
    return 0.0 if found is None else found


def badly_served(run: Run) -> tuple[str, ...]:
    """Return the communities that the provider serves below the threshold."""
    own, threshold = community_part(run)["provider"]["own"], threshold_of(run)
    return tuple(
        name
        for name in communities_of(run)
        if (mean := number(own.get(name, {}).get("mean"))) is not None
        and mean < threshold
    )


def utility_section(run: Run, arm: str = "") -> Section:
    """Return the accuracy of every student on every own test and on the hold-out.

    Raises
    ------
    ConfigError
        There is no student of this way of sharing.
    """
    arm = chosen_arm(run, arm)
    communities, coalitions = communities_of(run), coalitions_of(run)
    part, low = community_part(run), badly_served(run)
    without = [one for one in coalitions if not is_scored(student_view(run, arm, one))]
    rows = [
        _row("provider", part["provider"], communities, marks=dict.fromkeys(low, "!")),
        _row("before", part["before"], communities),
    ]
    for one in coalitions:
        if one not in without:
            marks = dict.fromkeys(one, "*")
            view = student_view(run, arm, one)
            rows.append(_row(short(one, communities), view, communities, marks=marks))
    headings = (*communities, HOLD_OUT)
    sheets = [
        Sheet(
            title=f"Accuracy, {arm}: on each own test, and on the hold-out",
            headings=("student of", *headings),
            rows=tuple(rows),
            note="Mean ± standard error over questions. Columns: whose test; hold-out: "
            "questions that nobody holds. * a member of the coalition, ! badly served. "
            "before: the student before distillation.",
        ),
        *_controls(run, coalitions, communities),
    ]
    return Section(
        name="utility",
        title="Utility",
        sheets=tuple(sheets),
        lines=tuple(_utility_lines(run, without, arm)),
        content={
            "arm": arm,
            "low_utility": {"threshold": threshold_of(run), "communities": list(low)},
            "without_student": [label(one) for one in without],
            **{name: part[name] for name in ("provider", "before")},
            "students": _views(run, arm, coalitions),
            "label_only": _views(run, LABEL_ONLY, coalitions),
            "random_label": _views(run, RANDOM_LABEL, coalitions),
        },
    )


def _row(
    name: str,
    view: Mapping[str, Any],
    communities: tuple[str, ...],
    marks: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    own = view.get("own") or {}
    cells = [
        accuracy_cell(own.get(one), mark=(marks or {}).get(one, "") or " ")
        for one in communities
    ]
    return (name, *cells, accuracy_cell(view.get("hold_out")))


def _controls(
    run: Run, coalitions: tuple[Coalition, ...], communities: tuple[str, ...]
) -> list[Sheet]:
    rows = [
        _row(short(one, communities) + shown, view, communities)
        for arm, shown in ((LABEL_ONLY, ""), (RANDOM_LABEL, ", shuffled"))
        for one in coalitions
        if is_scored(view := student_view(run, arm, one))
    ]
    if not rows:
        return []
    return [
        Sheet(
            title=f"Controls on the same traces: {LABEL_ONLY}, and shuffled targets",
            headings=("student of", *communities, HOLD_OUT),
            rows=tuple(rows),
            note=f"{LABEL_ONLY}: never saw reasoning. shuffled: learnt with targets of "
            "other questions, and should learn nothing of use.",
        )
    ]


def _utility_lines(run: Run, without: list[Coalition], arm: str) -> list[str]:
    communities, low = communities_of(run), badly_served(run)
    names = ", ".join(low) or "no community"
    own = community_part(run)["provider"]["own"]
    if unknown := [name for name in communities if name not in own]:
        names = f"{', '.join((*low, 'not known for ' + ', '.join(unknown)))}"
    lines = [f"Badly served (provider below {threshold_of(run):g}): {names}"]
    if len(communities) > 1 and communities in coalitions_of(run):
        lines.insert(0, f"{GRAND}: {label(communities)}")
    if without:
        missing = ", ".join(short(one, communities) for one in without)
        lines.append(f"No scored student, {arm}: {missing}")
    return lines


def _views(
    run: Run, arm: str, coalitions: tuple[Coalition, ...]
) -> dict[str, Mapping[str, Any]]:
    found = {label(one): student_view(run, arm, one) for one in coalitions}
    return {name: view for name, view in found.items() if view}


def gains_section(run: Run, arm: str = "") -> Section:
    """Return how much more accurate students are than their baselines, and who wins.

    Raises
    ------
    ConfigError
        One of provider, before, label-only and alone was not measured for a member of
        a coalition, so that no gain may be stated.
    """
    table = own_test_table(run, arm)
    threshold = threshold_of(run)
    cells = [
        (one, _gains(table, name, one)) for one in table.coalitions for name in one
    ]
    content = [found for _, found in cells]
    tests = sum(p is not None for found in content for p in found["p"].values())
    wins = table.winners(threshold)
    sheets = [
        Sheet(
            title=f"Gains of members: accuracy of the student less that {of_what}",
            headings=("coalition", "member", "student", first, "p", second, "p"),
            rows=tuple(
                _gain_row(found, short(one, table.communities), (first, second))
                for one, found in cells
            ),
            words=(0, 1),
            note="p: one-sided exact paired test that the student is right more often "
            f"(McNemar), not corrected for the {tests} tests of all gains shown.",
        )
        for of_what, first, second in (
            ("of provider, and alone", "provider", "alone"),
            ("before, and from answers alone", "before", "label-only"),
        )
    ]
    if wins:
        sheets.append(
            Sheet(
                title="Who wins where: badly served, in a coalition better off",
                headings=("community", "coalition", "alone", "p", "provider", "p"),
                rows=tuple(
                    (
                        win.community,
                        short(win.coalition, table.communities),
                        signed(win.over_alone),
                        p_cell(win.p_over_alone),
                        signed(win.over_provider),
                        p_cell(win.p_over_provider),
                    )
                    for win in wins
                ),
                words=(0, 1),
                note="Gains over the student alone and over the provider, both above "
                "0. The p-values are not corrected for the number of cells looked at.",
            )
        )
    return Section(
        name="gains",
        title="Gains",
        sheets=tuple(sheets),
        lines=tuple(_win_lines(table, threshold, bool(wins))),
        content={
            "gains": content,
            "p_values": "one-sided, exact, paired, not corrected",
            "winners": [
                {**asdict(win), "coalition": label(win.coalition)} for win in wins
            ],
        },
    )


def _gains(table: UtilityTable, name: str, one: Coalition) -> dict[str, Any]:
    """Return the gains of a member over all baselines; refused if one is missing."""
    is_alone = one == (name,)
    compared = [over for over in BASELINES if not (is_alone and over == "alone")]
    return {
        "community": name,
        "coalition": label(one),
        "student": table.utility(name, one),
        "gain": {over: table.gain(name, one, over) for over in compared},
        "p": {over: table.p_value(name, one, over) for over in compared},
    }


def _gain_row(
    found: Mapping[str, Any], coalition: str, baselines: tuple[str, ...]
) -> tuple[str, ...]:
    cells = [coalition, found["community"], f"{found['student']:.2f}"]
    for over in baselines:
        cells += [signed(found["gain"].get(over)), p_cell(found["p"].get(over))]
    return tuple(cells)


def _win_lines(table: UtilityTable, threshold: float, has_wins: bool) -> list[str]:
    if not table.low_utility(threshold):
        return [f"No community is badly served (provider below {threshold:g})."]
    if has_wins:
        return []
    nobody = "No badly served community does better in a coalition than alone and "
    return [nobody + "with the provider."]
