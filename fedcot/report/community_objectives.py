"""The section on social objectives: which coalition or division is best for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedcot.community.coalitions import JOIN, Coalition, label
from fedcot.community.objectives import (
    OBJECTIVES,
    Objective,
    best_coalition,
    best_partition,
    coalition_welfare,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError
from fedcot.report.community import community_part, own_test_table, short
from fedcot.report.community_view import (
    MISSING,
    Section,
    Sheet,
    partition_text,
    plain_number,
)
from fedcot.report.reader import Run

_MEANINGS: Final[Mapping[Objective, str]] = {
    "utilitarian": "sum of accuracies, at most one for each community that counts",
    "mean": "mean accuracy, 0 to 1",
    "egalitarian": "smallest accuracy, 0 to 1",
    "nash": "sum of the logarithms of gains over before, nats, 0 at most",
}

_NOTE: Final = (
    "Worth, the higher the better. "
    + "; ".join(f"{name}: {text}" for name, text in _MEANINGS.items())
    + ". by members: every community counts as often as it has members. everybody: "
    "who is outside has the better of provider and student alone. division: every "
    "community in one coalition, | between them. Nash leaves out what gives one of "
    "them no gain over before."
)


def objectives_section(run: Run, arm: str = "") -> Section:
    """Return the best coalition and the best division under each social objective.

    Raises
    ------
    ConfigError
        There is no student of this way of sharing.
    """
    table = own_test_table(run, arm)
    sizes = {
        name: float(len(members))
        for name, members in community_part(run).get("members", {}).items()
    }
    weighted = len(set(sizes.values())) > 1 and min(sizes.values()) > 0
    rows, lines, content = [], [], {}
    for objective in OBJECTIVES:
        for weights in (None, sizes) if weighted else (None,):
            if weights and objective not in ("utilitarian", "mean"):
                continue
            name = f"{objective}, by members" if weights else str(objective)
            found = _best(table, objective, weights)
            content[name] = found
            lines += [f"{name}: {text}" for text in found["problems"]]
            rows.append(_objective_row(name, found, table.communities))
    sheets = (
        Sheet(
            title="Best coalition for its members, for everybody, and best division",
            headings=(
                "objective",
                "members",
                "worth",
                "everybody",
                "worth",
                "division",
                "worth",
            ),
            rows=tuple(rows),
            words=(0, 1, 3, 5),
            note=_NOTE,
        ),
        _worths(table),
    )
    return Section(
        name="objectives",
        title="Social objectives",
        sheets=sheets,
        lines=tuple(lines),
        content=content,
    )


def _best(
    table: UtilityTable, objective: Objective, sizes: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return the best coalition for members and for all, the best division, problems.

    What cannot be computed is None, with one line that says why.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for scope in ("members", "all"):
        try:
            best = best_coalition(table, objective, scope=scope, sizes=sizes)
        except ConfigError as error:
            problems.append(str(error))
            best = None
        found[scope] = best and {
            "coalition": label(best.coalition),
            "worth": best.welfare,
        }
    try:
        divided = best_partition(table, objective, sizes=sizes)
    except ConfigError as error:
        problems.append(str(error))
        divided = None
    found["division"] = divided and {
        "coalitions": [label(one) for one in divided.partition],
        "worth": divided.welfare,
        "considered": divided.considered,
    }
    found["problems"] = list(dict.fromkeys(problems))
    return found


def _objective_row(
    name: str, found: Mapping[str, Any], communities: tuple[str, ...]
) -> tuple[str, ...]:
    # Without a problem, Nash excludes every choice.
    nothing = MISSING if found["problems"] else "none"
    cells = [name]
    for scope in ("members", "all"):
        best = found[scope]
        chosen = best and tuple(best["coalition"].split(JOIN))
        cells += [
            short(chosen, communities) if chosen else nothing,
            plain_number(best["worth"]) if best else MISSING,
        ]
    divided = found["division"]
    if not divided:
        return (*cells, nothing, MISSING)
    partition = tuple(tuple(one.split(JOIN)) for one in divided["coalitions"])
    return (
        *cells,
        partition_text(partition, communities),
        plain_number(divided["worth"]),
    )


def _worths(table: UtilityTable) -> Sheet:
    def worth(one: Coalition, objective: Objective) -> str:
        try:
            return plain_number(coalition_welfare(table, one, objective))
        except ConfigError:
            return MISSING

    return Sheet(
        title="What each coalition is worth to its members",
        headings=("coalition", *OBJECTIVES),
        rows=tuple(
            (
                short(one, table.communities),
                *(worth(one, objective) for objective in OBJECTIVES),
            )
            for one in table.coalitions
        ),
        note="The numbers are those of the objectives above. excluded: a member gains "
        "nothing over before.",
    )
