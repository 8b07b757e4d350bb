"""What a run of communities measured, as the table that the library computes on.

Accuracies come from `summary.json`; which questions were answered rightly comes from
`metrics.jsonl`, for paired tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from fedcot.community.coalitions import JOIN, Coalition, label
from fedcot.community.consent_rules import permits
from fedcot.community.messages import BEFORE, PROVIDER
from fedcot.community.settings import SHARINGS
from fedcot.community.utility import UtilityTable
from fedcot.data.traces import Scope
from fedcot.errors import ConfigError
from fedcot.report.reader import Run, number, read_run
from fedcot.runs import CONFIG, SUMMARY
from fedcot.settings import COMMUNITY

LABEL_ONLY: Final = "label-only"
RANDOM_LABEL: Final = "random-label"
GRAND: Final = "grand"
HOLD_OUT: Final = "hold-out"

View = Mapping[str, Any]
# Community and student, then partition, to right and wrong answers.
_Answers = Mapping[tuple[str, str], Mapping[int, str]]


def is_community(summary: Mapping[str, Any]) -> bool:
    """Return whether a summary is of a run of communities that came to its end."""
    return summary.get("mode") == COMMUNITY and bool(summary.get("community"))


def read_community_run(path: Path) -> Run:
    """Read a run of communities that has come to its end, be it an early one.

    Raises
    ------
    ConfigError
        There is no run, it has no results, or it is one of another mode.
    """
    if (path / CONFIG).is_file() and not (path / SUMMARY).is_file():
        raise ConfigError(
            f"`RUN_DIR` must hold a run that has ended, found no {SUMMARY} in "
            f"`{path}`; wait for it, or go on with it by `fedcot resume {path}`."
        )
    run = read_run(path)
    community_part(run)
    return run


def unfinished(run: Run) -> str:
    """Return why a run ended early and how to go on; empty if it was completed."""
    status = run.summary.get("status")
    if status == "completed":
        return ""
    remedy = f"go on with it by `fedcot resume {run.path}`."
    if status == "budget-exhausted":
        remedy = "raise `record-epsilon` or ask for less."
    reason = run.summary.get("reason")
    why = f"{status}: {reason}" if reason else f"{status}"
    return f"the run ended early ({why}); {remedy}"


def community_part(run: Run) -> Mapping[str, Any]:
    """Return what the summary of a run says of communities.

    Raises
    ------
    ConfigError
        It is a run of another mode.
    """
    if not is_community(run.summary):
        raise ConfigError(
            "`RUN_DIR` must hold a run of communities, found mode "
            f"{run.summary.get('mode', 'unknown')} in `{run.path}`; run one with "
            "`-c mode=community`."
        )
    part: Mapping[str, Any] = run.summary["community"]
    return part


def communities_of(run: Run) -> tuple[str, ...]:
    """Return the communities of a run in their order."""
    return tuple(community_part(run)["communities"])


def coalitions_of(run: Run) -> tuple[Coalition, ...]:
    """Return the coalitions of a run, the smallest first."""
    return tuple(tuple(one.split(JOIN)) for one in community_part(run)["coalitions"])


def short(coalition: Coalition, communities: Sequence[str]) -> str:
    """Return a coalition for a column of a table: that of all is `grand`."""
    if len(coalition) > 1 and len(coalition) == len(communities):
        return GRAND
    return label(coalition)


def is_scored(view: View) -> bool:
    """Return whether a student has a score, be it on the hold-out alone.

    Deployed members keep theirs; what the server measures is the hold-out.
    """
    return bool(view.get("own") or view.get("hold_out"))


def arms_of(run: Run) -> tuple[str, ...]:
    """Return the ways of sharing that gave a student with a score, in their order."""
    students = community_part(run)["students"]
    found = {
        name.partition(".")[0] for name, view in students.items() if is_scored(view)
    }
    return tuple(arm for arm in SHARINGS if arm in found)


def chosen_arm(run: Run, arm: str = "") -> str:
    """Return the way of sharing to look at: the one named, or the first of the run.

    Raises
    ------
    ConfigError
        The run has no scored student of it, or of any.
    """
    known = arms_of(run)
    if not known:
        why = unfinished(run) or _why_no_student(run)
        raise ConfigError(
            f"`{run.path}` must hold a student with a score, found none; {why}"
        )
    if arm and arm not in known:
        raise ConfigError(
            f"`--arm` must be one of {', '.join(known)}, the ways of sharing with a "
            f"scored student in this run, found {arm!r}; name one of these."
        )
    return arm or known[0]


def _why_no_student(run: Run) -> str:
    """Say why a completed run scored no student, and the remedy."""
    traces = community_part(run)["traces"].values()
    scope = run.config.get("run_config", {}).get("trace-scope")
    # The owner of a deployed node says it trace by trace.
    simulated = any(found.get("asked", 0) for found in traces)
    if simulated and scope in set(Scope):
        pairs = product(communities_of(run), coalitions_of(run))
        if not any(permits(Scope(scope), name, one) for name, one in pairs):
            return (
                f"with `trace-scope={scope}` no trace may reach any of its coalitions, "
                "so nothing was sent; run it again with `-c trace-scope=coalition`."
            )
    return (
        "nothing was offered, or no member answered: see "
        f"`fedcot community {run.path} --section sharing`."
    )


def student_view(run: Run, arm: str, coalition: Coalition) -> View:
    """Return a student's scores: `own` by community, and `hold_out`; empty if none."""
    students: Mapping[str, View] = community_part(run)["students"]
    return students.get(f"{arm}.{label(coalition)}", {})


def utility_table(run: Run, arm: str = "") -> UtilityTable:
    """Return the accuracies of a run's students and of their baselines.

    Parameters
    ----------
    run : Run
        Of communities.
    arm : str
        Way of sharing whose students are looked at; empty: the first of the run.

    Returns
    -------
    UtilityTable
        Of the coalitions with a scored student of this way. A question counts in a
        paired test only if all students of its community were asked it.

    Raises
    ------
    ConfigError
        It is no run of communities, or has no such student.
    """
    arm = chosen_arm(run, arm)
    part, communities = community_part(run), communities_of(run)
    coalitions = tuple(
        one for one in coalitions_of(run) if is_scored(student_view(run, arm, one))
    )
    student = _cells(run, arm, coalitions)
    label_only = _cells(run, LABEL_ONLY, coalitions)
    provider, before = part["provider"]["own"], part["before"]["own"]
    hold_out = {
        one: view
        for one in coalitions
        if (view := student_view(run, arm, one).get("hold_out"))
    }
    correct = _correct(run, communities)

    def by_cell(name: str) -> dict[tuple[str, Coalition], str]:
        return {
            (community, one): text
            for one in coalitions
            for community in communities
            if (text := correct.get((community, f"{name}.{label(one)}")))
        }

    def by_community(name: str) -> dict[str, str]:
        found = {one: correct.get((one, name), "") for one in communities}
        return {one: text for one, text in found.items() if text}

    return UtilityTable(
        communities=communities,
        coalitions=coalitions,
        student=_means(student),
        student_correct=by_cell(arm),
        label_only=_means(label_only),
        label_only_correct=by_cell(LABEL_ONLY),
        provider=_means(provider),
        provider_correct=by_community(PROVIDER),
        before=_means(before),
        before_correct=by_community(BEFORE),
        hold_out=_means(hold_out),
    )


def own_test_table(run: Run, arm: str = "") -> UtilityTable:
    """Return `utility_table` where members told their scores.

    Raises
    ------
    ConfigError
        As there; or no student has a score on any community's own test.
    """
    table = utility_table(run, arm)
    if not table.student:
        raise ConfigError(
            "`RUN_DIR` must hold scores on the communities' own tests, found none in "
            f"`{run.path}`; deployed members keep theirs, look at the hold-out with "
            "`--section utility`."
        )
    return table


def _cells(
    run: Run, arm: str, coalitions: Sequence[Coalition]
) -> dict[tuple[str, Coalition], View]:
    return {
        (community, one): score
        for one in coalitions
        for community, score in student_view(run, arm, one).get("own", {}).items()
    }


def _means(scores: Mapping[Any, View]) -> dict[Any, float]:
    """Return the means of scores, where they are known."""
    found = {key: number(score.get("mean")) for key, score in scores.items()}
    return {key: value for key, value in found.items() if value is not None}


def _correct(run: Run, communities: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return right and wrong answers by community and student, members in order.

    A student that fewer members scored than another cannot be paired with it, and is
    left out.
    """
    answers = _answers(run)
    found = {}
    for community in communities:
        own = {
            student: held
            for (name, student), held in answers.items()
            if name == community
        }
        widest = max((set(held) for held in own.values()), key=len, default=set())
        for student, held in own.items():
            if held.keys() == widest:
                text = "".join(held[partition] for partition in sorted(held))
                found[community, student] = text
    return found


def _answers(run: Run) -> _Answers:
    answers: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for row in run.metrics:
        if row.get("phase") == "evaluate" and row.get("correct"):
            key = (str(row.get("community")), str(row.get("student")))
            answers[key][int(row["partition"])] = str(row["correct"])
    return answers
