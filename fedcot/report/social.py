"""What a run of social learning measured, read with care from its summary.

A run that failed has some of the values at most, and texts such as labels come from
data: nothing is taken for granted, and `visible` takes out what would steer a terminal.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedcot.evaluation.metrics import Estimate, mean_and_stderr
from fedcot.models.sources import public_name
from fedcot.report.reader import Run, number
from fedcot.settings import SOCIAL
from fedcot.social.settings import AGGREGATORS, INSTRUCTION

ZERO_SHOT: Final = "zero-shot"
MANUAL: Final = "manual"
ORIGINAL: Final = "original"
PRIVATE_MARK: Final = "private, for comparison only"
# In the order of a table, with what a student of the kind reads.
KINDS: Final[Mapping[str, str]] = {
    ORIGINAL: f"original ({PRIVATE_MARK})",
    "random": "random",
    "voting": "voting",
    "private-voting": "private-voting",
    INSTRUCTION: INSTRUCTION,
    **{f"{INSTRUCTION}+{name}": f"{INSTRUCTION}+{name}" for name in AGGREGATORS},
    MANUAL: MANUAL,
    ZERO_SHOT: ZERO_SHOT,
}
_NAME: Final = re.compile(r"(?P<kind>.+?)(?:\.(?P<count>\d+))?", re.DOTALL)
# Settings in which repeats of one experiment differ.
_OF_A_REPEAT: Final = ("seed", "name", "run-dir", "resume", "device", "phase-timeout")


@dataclass(frozen=True, slots=True)
class Scored:
    """A student with what it was measured at.

    Attributes
    ----------
    kind : str
        One of `KINDS`, or what the summary says.
    num_examples : int
        In its prompt.
    accuracy : Estimate
        In [0, 1]; over test questions of one run, or over runs.
    """

    kind: str
    num_examples: int
    accuracy: Estimate


def is_social(summary: Mapping[str, Any]) -> bool:
    """Return whether a summary is of a run of social learning."""
    return summary.get("mode") == SOCIAL


def social_part(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a summary says of the conversation; empty where it says nothing."""
    return mapping(summary.get("social"))


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    """Return a list as it is, and anything else as an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def counted(value: object) -> int | None:
    """Return a number of things; None where there is none."""
    found = number(value)
    return None if found is None or not math.isfinite(found) else int(found)


def shown_count(value: object) -> str:
    """Return a number of things as text, `-` where there is none."""
    found = counted(value)
    return "-" if found is None else f"{found:,}"


def visible(text: object) -> str:
    """Return a text on one line without signs that would steer a terminal."""
    return "".join(
        sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text)
    )


def kind_of(name: str, view: Mapping[str, Any]) -> tuple[str, int]:
    """Return the kind of a student and the number of examples in its prompt."""
    found = _NAME.fullmatch(name)
    kind, told = (found["kind"], found["count"]) if found else (name, None)
    count = counted(view.get("num_examples"))
    return str(view.get("kind") or kind), int(told or 0) if count is None else count


def students_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what is known of each student, in the order of the summary."""
    found = mapping(social_part(summary).get("students"))
    return {str(name): mapping(view) for name, view in found.items()}


def estimate_of(score: object) -> Estimate | None:
    """Return a mean with its standard error, or None where none was measured."""
    entry = mapping(score)
    mean, stderr = number(entry.get("mean")), number(entry.get("stderr"))
    if mean is None or math.isnan(mean):
        return None
    spread = math.nan if stderr is None else stderr
    return Estimate(mean, spread, counted(entry.get("n")) or 0)


def scored_students(summaries: Sequence[Mapping[str, Any]]) -> tuple[Scored, ...]:
    """Return the students with a score, of one run or over repeats.

    Parameters
    ----------
    summaries : sequence of mapping
        One: means with their errors over its test questions. Several: for each student
        the mean over the runs that have it, with the standard error over runs.

    Returns
    -------
    tuple of Scored
        By kind in the order of `KINDS`, others behind, then by number of examples.
    """
    found: dict[tuple[str, int], list[Estimate]] = defaultdict(list)
    for summary in summaries:
        for name, view in students_of(summary).items():
            if score := estimate_of(view.get("accuracy")):
                found[kind_of(name, view)].append(score)
    order = list(KINDS)

    def place(key: tuple[str, int]) -> tuple[int, str, int]:
        kind, count = key
        return (order.index(kind) if kind in KINDS else len(order), kind, count)

    return tuple(
        Scored(*key, _together(found[key], repeats=len(summaries) > 1))
        for key in sorted(found, key=place)
    )


def _together(scores: Sequence[Estimate], *, repeats: bool) -> Estimate:
    if not repeats:
        return scores[0]
    return mean_and_stderr([score.mean for score in scores])


def repeats_of(runs: Sequence[Run]) -> tuple[tuple[Run, ...], ...]:
    """Return the runs of social learning, those together that differ in their seed.

    Runs with other settings are another experiment: a mean over them says nothing.
    """
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if is_social(run.summary):
            groups[_experiment(run)].append(run)
    return tuple(map(tuple, groups.values()))


def _experiment(run: Run) -> str:
    part = social_part(run.summary)
    settings = mapping(run.config.get("run_config"))
    decisive = {k: v for k, v in settings.items() if k not in _OF_A_REPEAT}
    told = [part.get("task"), part.get("models"), decisive]
    return json.dumps(told, sort_keys=True, default=str)


def model_names(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the teacher clients' models and the student's are called."""
    models = mapping(social_part(summary).get("models"))
    clients = [public_name(one) for one in listed(models.get("clients"))]
    student = public_name(models.get("student"))
    return visible(", ".join(clients) or "unknown"), visible(student)


def deciding_test(
    summary: Mapping[str, Any], first: str, second: str
) -> Mapping[str, Any] | None:
    """Return the test of two kinds at the largest number of examples, if there is one.

    Parameters
    ----------
    summary : mapping
    first, second : str
        Kinds; a test of the second against the first is turned round.
    """
    best: tuple[int, Mapping[str, Any]] | None = None
    for test in map(mapping, listed(social_part(summary).get("tests"))):
        names = str(test.get("first")), str(test.get("second"))
        kinds = [kind_of(name, {}) for name in names]
        if {kind for kind, _ in kinds} != {first, second}:
            continue
        size = max(count for _, count in kinds)
        if best is None or size > best[0]:
            turned = kinds[0][0] == second
            best = (size, _turned(test) if turned else test)
    return None if best is None else best[1]


def _turned(test: Mapping[str, Any]) -> Mapping[str, Any]:
    difference = number(test.get("difference"))
    return {
        **test,
        "first": test.get("second"),
        "second": test.get("first"),
        "difference": None if difference is None else -difference,
    }


def fates(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return what became of sampled texts: kept, then each reason with any text."""
    generation = mapping(social_part(summary).get("generation"))
    found = {"kept": counted(generation.get("kept"))}
    for reason, count in mapping(generation.get("discarded")).items():
        found[str(reason)] = counted(count)
    return {name: count for name, count in found.items() if count}


def one_way(value: object) -> tuple[int | None, int | None]:
    """Return bytes up and down of an entry of `bytes`."""
    entry = mapping(value)
    return counted(entry.get("uplink_bytes")), counted(entry.get("downlink_bytes"))


def traffic_ratio(summary: Mapping[str, Any]) -> float | None:
    """Return how many times the bytes of one teacher client a round of FedAvg takes."""
    sizes = mapping(social_part(summary).get("bytes"))
    text, weights = one_way(sizes.get("per_teacher")), one_way(sizes.get("fedavg"))
    if None in (*text, *weights):
        return None
    spoken = sum(filter(None, text))
    return sum(filter(None, weights)) / spoken if spoken else None
