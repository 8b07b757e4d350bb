"""What the runs of `mode_runs.py` measured: read by mode, and joined over seeds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from community_measures import rounded
from mode_plan import COMMUNITY, FEDCOT, SOCIAL, Arm

from fedcot.community.messages import COUNT
from fedcot.community.settings import FEDERATED, POOLED
from fedcot.evaluation.adapter_audit import BASE
from fedcot.evaluation.exposure import summarise_ranks
from fedcot.evaluation.metrics import mean_and_stderr
from fedcot.launch import read_summary
from fedcot.runs import METRICS
from fedcot.student.training import load_adapter

AUDIT: Final = Path("audit", "memorization.json")
# What `mode_exposure.py` writes into a run of mode social.
ONE_RUN: Final = Path("audit", "one-run.json")
EVALUATE: Final = "evaluate"
DISTILLED, ZERO_SHOT, ORIGINAL = "distilled", "zero-shot", "original"
SILENT: Final = "nothing is sent"
EXAMPLES: Final = "examples"
BYTES_OF_FLOAT: Final = 4

Ranks = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Reading:
    """One student of one run.

    Attributes
    ----------
    accuracy : float
        On the clients' own test questions, all pooled.
    num_records : int
        How many those are.
    uplink, downlink : float
        Bytes of one client, mean, in messages that teach; without scores.
    delivery : float
        Bytes that a client would have to get in order to use the student.
    epsilon : float
        Nats of one record; infinite where no bound holds.
    unit, guarantee : str
    ranks : mapping of str to sequence of int
        Of canaries, by the prompt that they are ranked behind; empty where it was not
        measured.
    """

    accuracy: float
    num_records: int
    uplink: float
    downlink: float
    delivery: float
    epsilon: float
    unit: str
    guarantee: str
    ranks: Ranks


def read_arm(place: Path, arm: Arm, size: int) -> Reading:
    """Return what a finished, audited run says about one of its students.

    Parameters
    ----------
    size : int
        Canary and references together, in every rank.
    """
    summary = read_summary(place)
    if arm.mode == FEDCOT:
        lines = (place / METRICS).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return fedcot_reading(summary, rows, read_audit(place / AUDIT, size), arm)
    if arm.mode == COMMUNITY:
        folder = place / "adapters" / arm.name / grand_of(summary)
        audit = read_audit(place / AUDIT, size)
        return community_reading(summary, audit, arm, adapter_bytes(folder))
    delivery = 0.0
    if arm.name == DISTILLED:
        delivery = adapter_bytes(place / "adapters" / DISTILLED / "global")
    return social_reading(summary, read_audit(place / ONE_RUN, size), arm, delivery)


def read_audit(path: Path, size: int) -> dict[str, Any]:
    """Return an audit.

    Raises
    ------
    ValueError
        Its canaries were ranked among another number of secrets.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["size"] != size:
        raise ValueError(
            f"`size` must be that of the audit in {path}, found {size} and "
            f"{content['size']}; run without --draw."
        )
    return content


def fedcot_reading(
    summary: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    audit: Mapping[str, Any],
    arm: Arm,
) -> Reading:
    """Return an arm of a run that has no other arm with messages of its own.

    Parameters
    ----------
    rows : iterable of mapping
        The lines of ``metrics.jsonl``; those about a reply say what it cost.
    """
    score = summary["accuracy"][arm.name]
    sent = {"uplink_bytes": 0.0, "downlink_bytes": 0.0}
    is_trained = arm.name != ZERO_SHOT
    for row in rows if is_trained else ():
        if "uplink_bytes" in row and row["phase"] != EVALUATE:
            for key in sent:
                sent[key] += row[key]
    clients = int(summary["num_partitions"])
    name = arm.name if is_trained else BASE
    return Reading(
        **_scored(score),
        uplink=sent["uplink_bytes"] / clients,
        downlink=sent["downlink_bytes"] / clients,
        # Personal adapters are where they are used.
        delivery=0.0,
        **_private(summary, arm.name),
        ranks=_ranks(audit["students"][name]),
    )


def community_reading(
    summary: Mapping[str, Any], audit: Mapping[str, Any], arm: Arm, delivery: float
) -> Reading:
    """Return the student of all communities for one way of sharing."""
    student = f"{arm.name}.{grand_of(summary)}"
    told = summary["community"]["bytes"]
    # The weights of the mean are counts that members send before the last round.
    kinds = (FEDERATED, COUNT) if arm.name == FEDERATED else (arm.name,)
    clients = int(summary["num_partitions"])
    sent = {
        key: sum(told.get(kind, {}).get(key, 0) for kind in kinds) / clients
        for key in ("uplink_bytes", "downlink_bytes")
    }
    return Reading(
        **_scored(summary["accuracy"][arm.name]),
        uplink=sent["uplink_bytes"],
        downlink=sent["downlink_bytes"],
        delivery=delivery,
        **_private(summary, arm.name),
        ranks=_ranks(audit["students"][student]),
    )


def social_reading(
    summary: Mapping[str, Any], one_run: Mapping[str, Any], arm: Arm, delivery: float
) -> Reading:
    """Return a student of mode social on its teacher clients' own questions.

    Parameters
    ----------
    one_run : mapping
        The ranks of the run's canaries, by student and prompt.
    delivery : float
        Of a trained student; that of a prompted one is its prompt.
    """
    social = summary["social"]
    name = longest(social["students"], arm.name)
    is_distilled = arm.name == DISTILLED
    student = social[DISTILLED] if is_distilled else social["students"][name]
    # The prompt of `original` is made of its owner's examples, where it is read.
    is_silent = arm.name in (ZERO_SHOT, ORIGINAL)
    told = {} if is_silent else social["bytes"]["per_teacher"]
    private = {"epsilon": 0.0, "unit": "nats", "guarantee": SILENT}
    if not is_silent:
        private = _private(summary, EXAMPLES)
    if not is_distilled:
        delivery = 0.0 if is_silent else float(student["prompt_bytes"])
    return Reading(
        **_scored(student["own"]),
        uplink=float(told.get("uplink_bytes", 0)),
        downlink=float(told.get("downlink_bytes", 0)),
        delivery=delivery,
        **private,
        ranks=one_run["students"].get(name, {}),
    )


def grand_of(summary: Mapping[str, Any]) -> str:
    """Return the label of the coalition of all."""
    return str(summary["community"]["coalitions"][-1])


def longest(students: Iterable[str], kind: str) -> str:
    """Return the student of a kind with most examples in its prompt; else the kind."""
    names = [name for name in students if name.partition(".")[0] == kind]
    return max(names, key=lambda name: int(name.partition(".")[2] or 0), default=kind)


def adapter_bytes(folder: Path) -> float:
    """Return the size of an adapter's values as float32, without any framing."""
    values = sum(tensor.numel() for tensor in load_adapter(folder).values())
    return float(BYTES_OF_FLOAT * values)


def joined(readings: Sequence[Reading], size: int) -> dict[str, Any]:
    """Return one student over seeds.

    Parameters
    ----------
    size : int
        Canary and references together, in every rank.

    Returns
    -------
    dict
        Means with standard errors; the largest epsilon; ranks of all seeds together.
    """
    worst = max(readings, key=lambda one: one.epsilon)
    totals = [one.uplink + one.downlink + one.delivery for one in readings]
    # Infinity stays a number until the file is written.
    return {
        **rounded(
            {
                "accuracy": _mean([one.accuracy for one in readings]),
                "bytes": {
                    "uplink": _mean([one.uplink for one in readings]),
                    "downlink": _mean([one.downlink for one in readings]),
                    "delivery": _mean([one.delivery for one in readings]),
                    "total": _mean(totals),
                },
            }
        ),
        "test_questions": sum(one.num_records for one in readings),
        "epsilon": worst.epsilon,
        "epsilon_unit": worst.unit,
        "guarantee": worst.guarantee,
        "exposure": exposure_of([one.ranks for one in readings], size),
    }


def exposure_of(ranks: Sequence[Ranks], size: int) -> dict[str, Any] | None:
    """Return what the ranks of all seeds say, under the prompt that exposes most.

    A canary counts behind the prompt that gives most rank 0, then most bits at the
    median: whoever looks for it takes the better one. By chance that is a little more
    than one prompt gives.

    Returns
    -------
    dict or None
        None where nothing was ranked.
    """
    prompts = sorted(set[str]().union(*ranks)) if all(ranks) else []
    found = {}
    for prompt in prompts:
        report = summarise_ranks([rank for one in ranks for rank in one[prompt]], size)
        found[prompt] = {
            "trials": report.trials,
            "rank_zero": asdict(report.rank_zero),
            "rank_zero_p_value": report.rank_zero_p_value,
            "median_bits": report.exposure_quantiles["0.5"],
            "mean_rank": report.mean_rank.mean,
        }
    if not found:
        return None
    worst = max(
        found,
        key=lambda name: (found[name]["rank_zero"]["rate"], found[name]["median_bits"]),
    )
    expected = found[worst]["trials"] / size
    return dict(
        rounded(
            {
                "size": size,
                "rank_zero_expected": expected,
                "prompt": worst,
                **found[worst],
                "prompts": found,
            }
        )
    )


def replays_of(audits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, for each prompted student, ranks of replayed conversations over seeds."""
    size = int(audits[0]["size"])
    names = set.intersection(*(set(one["students"]) for one in audits))
    return {
        name: exposure_of(
            [{"prompt": one["students"][name]["ranks"]} for one in audits], size
        )
        for name in sorted(names)
    }


def counts_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return every prompted student of mode social over seeds.

    Returns
    -------
    dict
        ``own``: accuracy on own questions. ``answered``: share of the public questions
        to which an answer could be read at all.
    """
    told = [one["social"]["students"] for one in summaries]
    names = set.intersection(*(set(one) for one in told))
    return {
        name: rounded(
            {
                "own": _mean([one[name]["own"]["mean"] for one in told]),
                "answered": _mean([one[name]["answered"] for one in told]),
            }
        )
        for name in sorted(names)
        if all(one[name]["own"] for one in told)
    }


def texts_of(
    communities: Sequence[Mapping[str, Any]], social: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how many texts the pooled and the distilled student learn from."""
    pooled = [
        one["community"]["students"][f"{POOLED}.{grand_of(one)}"]["num_traces"]
        for one in communities
    ]
    distilled = [one["social"][DISTILLED]["num_examples"] for one in social]
    return {
        f"{COMMUNITY}/{POOLED}": rounded(_mean(pooled)),
        f"{SOCIAL}/{DISTILLED}": rounded(_mean(distilled)),
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard error over seeds; None for one seed."""
    found = mean_and_stderr(values)
    stderr = found.stderr if math.isfinite(found.stderr) else None
    return {"mean": found.mean, "stderr": stderr, "per_seed": list(values)}


def _scored(score: Mapping[str, Any]) -> dict[str, Any]:
    return {"accuracy": float(score["mean"]), "num_records": int(score["n"])}


def _private(summary: Mapping[str, Any], arm: str) -> dict[str, Any]:
    line = summary["privacy"]["per_arm"][arm]
    return {
        # JSON has no infinity; the summary writes it as a text.
        "epsilon": float(line["record_epsilon_max"]),
        "unit": str(line["unit"]),
        "guarantee": str(line["guarantee"]),
    }


def _ranks(reports: Mapping[str, Mapping[str, Any]]) -> Ranks:
    return {prompt: list(report["ranks"]) for prompt, report in reports.items()}
