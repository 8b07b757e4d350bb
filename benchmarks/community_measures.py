"""What the runs of `community_runs.py` measured: read, and averaged over seeds."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import community_findings
import community_games
from community_plan import LASTING, Plan

from fedcot.community.coalitions import label
from fedcot.community.messages import BEFORE, PROVIDER
from fedcot.config import RunConfig
from fedcot.evaluation.metrics import half_interval, mean_and_stderr
from fedcot.evaluation.rates import CONFIDENCE
from fedcot.launch import read_summary
from fedcot.runs import CONFIG, METRICS

ALONE, POOLED, FEDERATED = "alone", "pooled", "federated"
LABEL_ONLY, RANDOM_LABEL = "label-only", "random-label"
ARMS: Final = (
    POOLED,
    FEDERATED,
    LABEL_ONLY,
    RANDOM_LABEL,
    ALONE,
    PROVIDER,
    "before",
)
DIGITS: Final = 4

Place = Callable[[int, str], Path]


@dataclass(frozen=True)
class Reading:
    """One run.

    Attributes
    ----------
    communities : tuple of str
    own : dict of str to dict of str to str
        By student, then by community: 1 or 0 for each question, members in order.
    hold_out : dict of str to str
        By student.
    summary : dict
    """

    communities: tuple[str, ...]
    own: dict[str, dict[str, str]]
    hold_out: dict[str, str]
    summary: dict[str, Any]

    @property
    def grand(self) -> str:
        """The label of the coalition of all."""
        return label(self.communities)

    def students(self, arm: str, community: str) -> str:
        """Return the student that an arm serves a community with."""
        if arm == ALONE:
            return f"{POOLED}.{community}"
        if arm in (PROVIDER, "before"):
            return PROVIDER if arm == PROVIDER else BEFORE
        return f"{arm}.{self.grand}"

    def accuracy(self, arm: str, communities: Iterable[str] = ()) -> float | None:
        """Return the accuracy on the own tests of communities; none: of all.

        Each question weighs the same; None where the arm was not run.
        """
        names = tuple(communities) or self.communities
        given = [self.own.get(self.students(arm, one), {}).get(one) for one in names]
        return share("".join(one or "" for one in given)) if all(given) else None

    def held_out(self, arm: str) -> float | None:
        """Return the accuracy on the hold-out; of `alone` the mean of its students."""
        names = dict.fromkeys(self.students(arm, one) for one in self.communities)
        given = [self.hold_out.get(name) for name in names]
        return share("".join(one or "" for one in given)) if all(given) else None


def measure(
    plan: Plan, base: RunConfig, place: Place, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return everything that the result file holds of the runs."""
    readings = {
        name: [read_run(place(seed, name)) for seed in seeds] for name in plan.points
    }
    points = {
        name: {
            "settings": dict(point.settings),
            "members": point.members,
            "pool_tokens_of": point.tokens_of,
            "pool_tokens": [pool_limit(place(seed, name)) for seed in seeds],
            **point_row(readings[name]),
        }
        for name, point in plan.points.items()
    }
    factors = {
        factor.name: {
            "axis": factor.axis,
            "places": [list(one) for one in factor.places],
            "is_ordered": factor.is_ordered,
            "communities": list(factor.communities),
        }
        for factor in plan.factors
    }
    games = community_games.games(readings["base"], base.low_utility, estimate)
    leverage = community_games.leverage_rows(
        plan.factor("leverage"), readings, estimate
    )
    return rounded(
        {
            "interval": f"{CONFIDENCE:.0%} t-interval over seeds",
            "points": points,
            "factors": factors,
            **games,
            "leverage": leverage,
            "rule": community_findings.RULE,
            "findings": community_findings.findings(
                plan, readings, games, leverage, estimate
            ),
        }
    )


def point_row(readings: Sequence[Reading]) -> dict[str, Any]:
    """Return accuracies, and what they took, of one point over seeds."""
    names = readings[0].communities
    arms: dict[str, Any] = {}
    for arm in ARMS:
        if readings[0].accuracy(arm) is None:
            continue
        own = {
            name: estimate([one.accuracy(arm, (name,)) for one in readings])
            for name in names
        }
        # The part that every number of communities has.
        lasting = [one.accuracy(arm, LASTING) for one in readings]
        arms[arm] = {
            "own": {
                **own,
                "all": estimate([one.accuracy(arm) for one in readings]),
                "+".join(LASTING): estimate(lasting),
            },
            "hold_out": estimate([one.held_out(arm) for one in readings]),
        }
    summaries = [one.summary for one in readings]
    communities = [one["community"] for one in summaries]

    def counted(key: str) -> Any:
        return estimate(
            [sum(t[key] for t in one["traces"].values()) for one in communities]
        )

    return {
        "communities": list(names),
        "arms": arms,
        "traces": estimate([_grand(one, "num_traces") for one in readings]),
        "tokens": estimate([_grand(one, "num_tokens") for one in readings]),
        "invalid": estimate([_grand(one, "num_invalid") for one in readings]),
        "asked": counted("asked"),
        "filtered": counted("filtered"),
        "offered": estimate([_offered(one) for one in readings]),
        "uplink_bytes": estimate([one["traffic"]["uplink_bytes"] for one in summaries]),
        "downlink_bytes": estimate(
            [one["traffic"]["downlink_bytes"] for one in summaries]
        ),
        "mix_index": estimate([one["mix"].get("index") for one in communities]),
        "failures": sum(len(one["failures"]) for one in summaries),
    }


def read_run(directory: Path) -> Reading:
    """Return what a run measured."""
    own: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    hold_out: dict[str, str] = {}
    for line in (directory / METRICS).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("phase") == "hold-out":
            hold_out[row["student"]] = row["correct"]
        elif row.get("phase") == "evaluate" and "student" in row:
            # Lines stand in the order of the rounds; the newest counts.
            own[row["student"]][row["community"]][row["partition"]] = row["correct"]
    summary = read_summary(directory)
    return Reading(
        communities=tuple(summary["community"]["communities"]),
        own={
            student: {
                name: "".join(found[member] for member in sorted(found))
                for name, found in by_name.items()
            }
            for student, by_name in own.items()
        },
        hold_out=hold_out,
        summary=summary,
    )


def pool_tokens(directory: Path) -> int:
    """Return the tokens that the student of all communities of a run was trained on."""
    reading = read_run(directory)
    return int(
        reading.summary["community"]["students"][f"{POOLED}.{reading.grand}"][
            "num_tokens"
        ]
    )


def pool_limit(directory: Path) -> int:
    """Return the setting `pool-tokens` of a run."""
    stored = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    return int(stored["run_config"]["pool-tokens"])


def estimate(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Return mean and t-interval over seeds.

    Returns
    -------
    dict or None
        `mean`, `stderr`, `low`, `high` and `per_seed`; the middle three are None for
        one seed. None if a value is missing.
    """
    found = list(values)
    if not found or any(value is None or math.isnan(value) for value in found):
        return None
    per_seed = [float(value) for value in found if value is not None]
    spread = mean_and_stderr(per_seed)
    if len(per_seed) == 1:
        bounds: dict[str, Any] = {"stderr": None, "low": None, "high": None}
    else:
        reach = half_interval(spread)
        bounds = {
            "stderr": spread.stderr,
            "low": spread.mean - reach,
            "high": spread.mean + reach,
        }
    return {"mean": spread.mean, **bounds, "per_seed": per_seed}


def share(bits: str) -> float | None:
    """Return the share of ones; None without any digit."""
    return bits.count("1") / len(bits) if bits else None


def rounded(content: Any) -> Any:
    """Return JSON content with floats of few digits."""
    if isinstance(content, float):
        return (
            round(content, DIGITS) if abs(content) >= 0.01 else float(f"{content:.3g}")
        )
    if isinstance(content, Mapping):
        return {str(key): rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return content


def _grand(reading: Reading, key: str) -> float | None:
    """Return what was counted of the pool of all; None where nothing was pooled."""
    students = reading.summary["community"]["students"]
    found = students.get(f"{POOLED}.{reading.grand}", {}).get(key)
    return None if found is None else float(found)


def _offered(reading: Reading) -> float:
    traces = reading.summary["community"]["traces"]
    return float(sum(one["offered"].get(reading.grand, 0) for one in traces.values()))
