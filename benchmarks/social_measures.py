"""What the runs of `social_runs.py` measured: read, and compared over all repeats."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedcot.evaluation.metrics import mean_and_stderr
from fedcot.evaluation.permutation import (
    ArmComparison,
    paired_permutation_test,
    pooled_permutation_test,
)
from fedcot.launch import read_summary
from fedcot.runs import METRICS
from fedcot.seeding import derive_seed

DIGITS: Final = 4
ORIGINAL, RANDOM, VOTING = "original", "random", "voting"
INSTRUCTION, ZERO_SHOT = "instruction", "zero-shot"


@dataclass(frozen=True)
class Repeat:
    """One run.

    Attributes
    ----------
    correct : dict of str to list of bool
        By student: whether each public question was answered rightly, in their order.
    summary : dict
    """

    correct: dict[str, list[bool]]
    summary: dict[str, Any]


def read_repeat(place: Path) -> Repeat:
    """Read a run directory; the clients' shares of the questions are put together."""
    correct: dict[str, list[bool]] = {}
    shares: dict[str, dict[int, str]] = defaultdict(dict)
    for line in (place / METRICS).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("phase") == "hold-out":
            correct[row["student"]] = [digit == "1" for digit in row["correct"]]
        elif row.get("phase") == "evaluate" and "correct" in row:
            shares[row["student"]][row["partition"]] = row["correct"]
    for student, held in shares.items():
        if student.startswith("own/"):
            continue
        clients = len(held)
        total = sum(map(len, held.values()))
        correct[student] = [
            held[number % clients][number // clients] == "1" for number in range(total)
        ]
    return Repeat(correct, read_summary(place))


def measure(places: Sequence[Path], name: str) -> dict[str, Any]:
    """Return the students' accuracies over all repeats, and their comparisons."""
    repeats = [read_repeat(place) for place in places]
    students = sorted(set.intersection(*(set(one.correct) for one in repeats)))
    found: dict[str, Any] = {}
    for student in students:
        shares = [
            sum(one.correct[student]) / len(one.correct[student]) for one in repeats
        ]
        score = mean_and_stderr(shares)
        found[student] = {
            "mean": _rounded(score.mean),
            "stderr": _rounded(score.stderr),
            "repeats": [_rounded(share) for share in shares],
        }
    return {
        "students": found,
        "comparisons": _comparisons(repeats, students, name),
        "generation": _generation(repeats),
        "messages": _messages(repeats),
        "balance": _balance(repeats),
        "rules": [one.summary["social"].get("hint", "") for one in repeats],
    }


def _comparisons(
    repeats: Sequence[Repeat], students: Sequence[str], name: str
) -> list[dict[str, Any]]:
    counts = sorted(
        int(student.partition(".")[2])
        for student in students
        if student.startswith(f"{ORIGINAL}.")
    )
    pairs = [
        (f"{kind}.{n}", f"{ORIGINAL}.{n}") for n in counts for kind in (RANDOM, VOTING)
    ]
    pairs += [(f"{VOTING}.{n}", f"{RANDOM}.{n}") for n in counts]
    pairs += [(INSTRUCTION, f"{ORIGINAL}.{counts[-1]}"), (INSTRUCTION, ZERO_SHOT)]
    pairs += [(f"{ORIGINAL}.{counts[-1]}", ZERO_SHOT)]
    found = []
    for first, second in pairs:
        if not {first, second} <= set(students):
            continue
        arms = [[one.correct[arm] for one in repeats] for arm in (first, second)]
        seed = derive_seed(0, "social-measures", name, first, second)
        # The paper's test takes all outcomes for exchangeable; the paired one swaps the
        # two answers to a question.
        pooled = pooled_permutation_test(*arms, seed=seed)
        paired = paired_permutation_test(*arms, seed=seed)
        found.append(
            {
                "first": first,
                "second": second,
                "difference": _rounded(pooled.difference),
                "p_pooled": _p_value(pooled),
                "p_paired": _p_value(paired),
                "permutations": pooled.num_permutations,
            }
        )
    return found


def _generation(repeats: Sequence[Repeat]) -> dict[str, Any]:
    total: dict[str, int] = defaultdict(int)
    discarded: dict[str, int] = defaultdict(int)
    for one in repeats:
        told = one.summary["social"]["generation"]
        for reason, count in told["discarded"].items():
            discarded[reason] += count
        for key in ("sampled", "kept"):
            total[key] += told[key]
    return {**total, "discarded": dict(discarded)}


def _messages(repeats: Sequence[Repeat]) -> dict[str, float]:
    """Return mean bytes of a teacher client, and what a round of FedAvg would cost."""
    told = [one.summary["social"]["bytes"] for one in repeats]
    found = {}
    for kind in ("per_teacher", "fedavg"):
        for key in ("uplink_bytes", "downlink_bytes"):
            values = [one[kind][key] for one in told if one.get(kind)]
            found[f"{kind}_{key}"] = round(sum(values) / max(1, len(values)), 1)
    return found


def _balance(repeats: Sequence[Repeat]) -> dict[str, Any]:
    """Return, for each aggregator, the mean skew of the labels that it chose."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in repeats:
        for aggregator, chosen in one.summary["social"]["chosen"].items():
            if chosen["balance"]:
                found[aggregator].append(chosen["balance"]["skew"])
    return {name: _rounded(sum(some) / len(some)) for name, some in found.items()}


def _p_value(test: ArmComparison) -> float:
    return float(f"{asdict(test)['p_value']:.3g}")


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
