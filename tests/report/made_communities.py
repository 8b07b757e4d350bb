"""A run directory of two communities with numbers that can be followed by hand.

``north`` has one member with 10 test questions, ``south`` two with 5 each. Right
answers are nested: whoever is right more often is right wherever the other is.
"""

import json
import math

import pytest

from fedcot.errors import ConfigError
from fedcot.report.reader import read_run

COMMUNITIES = ("north", "south")
NORTH, SOUTH, BOTH = ("north",), ("south",), ("north", "south")
GRAND = "north+south"
# Right answers of 10, on the tests of north and south, and on the hold-out.
PROVIDER = (9, 4, 8)
BEFORE = (1, 1, 1)
STUDENTS = {
    "pooled.north": (5, 2, 3),
    "pooled.south": (3, 4, 2),
    f"pooled.{GRAND}": (8, 7, 6),
    "federated.north": (4, 2, 3),
    "federated.south": (3, 3, 2),
    f"federated.{GRAND}": (6, 5, 5),
    "label-only.north": (2, 1, 1),
    "label-only.south": (1, 2, 1),
    f"label-only.{GRAND}": (2, 3, 2),
    f"random-label.{GRAND}": (0, 1, 0),
}
BYTES = {
    "pooled": {"uplink_bytes": 1000, "downlink_bytes": 200},
    "federated": {"uplink_bytes": 50_000, "downlink_bytes": 40_000},
}


def score(hits):
    """Return a score over 10 questions."""
    mean = hits / 10
    return {"mean": mean, "stderr": math.sqrt(mean * (1 - mean) / 10), "n": 10}


def views(hits):
    """Return what the summary says of one model."""
    north, south, hold_out = hits
    return {
        "own": {"north": score(north), "south": score(south)},
        "hold_out": score(hold_out),
    }


def membership(auc, copied=2):
    """Return the audit of one community as the evaluation writes it."""
    rate = {"hits": copied, "n": 10, "rate": copied / 10, "low": 0.0, "high": 1.0}
    gain = {"members": 10, "controls": 100, "auc": auc, "p_value": 0.04}
    return {
        "gain": {**gain, "tpr_at_one_percent": rate, "note": ""},
        "regurgitated": {"exact": rate, "normalised": rate},
        "controls_regurgitated": {"exact": rate, "normalised": {**rate, "rate": 0.05}},
        "regurgitation_p_value": 0.25,
    }


AUDIT = {
    "pooled": {"members": {"north": membership(0.7), "south": membership(0.6)}},
    "federated": {"members": {"north": membership(0.5), "south": membership(0.6)}},
}


def entry(epsilon, guarantee):
    """Return the privacy of one arm."""
    return {
        "unit": "nats",
        "neighboring_relation": "REPLACE_SPECIAL",
        "token_epsilon": epsilon,
        "prompt_epsilon_max": epsilon,
        "record_epsilon_max": epsilon,
        "record_epsilon_at_delta": epsilon,
        "delta": 1e-6,
        "guarantee": guarantee,
        "uncharged": [],
    }


def community_summary(*, students=None, coalitions=None, audit=None, **changed):
    """Return the `community` part of a summary."""
    shown = STUDENTS if students is None else students
    coalitions = coalitions or ["north", "south", GRAND]
    offered = {"north": 30, "south": 20}
    part = {
        "communities": list(COMMUNITIES),
        "coalitions": list(coalitions),
        "low_utility": 0.5,
        "members": {"north": [0], "south": [1, 2]},
        "mix": {
            "questions": {"north": {"a": 1.0}, "south": {"a": 0.25, "b": 0.75}},
            "index": 0.5,
            "mean_pairwise_bits": 0.5,
            "mean_entropy_bits": 0.4,
        },
        "traces": {
            name: {
                "members": 1 + (name == "south"),
                "asked": 40,
                "unparsed": 1,
                "filtered": 9,
                "withdrawn": 2,
                "offered": {
                    one: offered[name] - (one == GRAND)
                    for one in coalitions
                    if name in one
                },
            }
            for name in COMMUNITIES
        },
        "written": {},
        "bytes": BYTES,
        "audit": audit or {},
        "provider": views(PROVIDER),
        "before": views(BEFORE),
        "students": {name: views(hits) for name, hits in shown.items()},
        "legal_note": "This note is not legal advice.",
    }
    return part | changed


def rows(students):
    """Yield the lines of `metrics.jsonl`: per member, then on the hold-out."""
    scored = {"provider": PROVIDER, "zero-shot": BEFORE, **students}
    for student, (north, south, _) in scored.items():
        south_text = "1" * south + "0" * (10 - south)
        parts = {
            2: ("south", south_text[5:]),
            0: ("north", "1" * north + "0" * (10 - north)),
            1: ("south", south_text[:5]),
        }
        for partition, (community, text) in parts.items():
            yield {
                "round": 1,
                "phase": "evaluate",
                "partition": partition,
                "community": community,
                "student": student,
                "num_records": len(text),
                "correct": text,
            }


def write_communities(folder, *, settings=None, mode="community", **changed):
    """Write a run directory; `changed` goes to `community_summary`."""
    part = community_summary(**changed)
    shown = part["students"]
    arms = {"teacher": score(6), "zero-shot": score(1), "pooled": score(7)}
    if f"federated.{GRAND}" in shown:
        arms["federated"] = score(5)
    summary = {
        "status": "completed",
        "mode": mode,
        "mechanism": "none",
        "seed": 0,
        "num_partitions": 3,
        "num_rounds": 1,
        "accuracy": arms,
        "accuracy_by_prompt": {},
        "rationale_validity": {},
        "dataset": "world",
        "data": {},
        "community": part,
        "privacy": {
            "worst_arm": {"arm": "pooled"},
            "per_arm": {
                "pooled": entry("inf", "none: traces are sent as they are"),
                "federated": entry(3.0, "DP-SGD"),
            },
            "covers": "a scope bounds nothing",
        },
        "traffic": {"uplink_bytes": 60_000, "downlink_bytes": 90_000},
        "timing": {"collect": 1.0, "distil": 2.0},
        "failures": [],
        "git_commit": "0" * 40,
        "versions": {"python": "3.11"},
    }
    stated = {"trace-scope": "coalition", "trace-filter": "answer"}
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(
        json.dumps({"run_config": stated | (settings or {})})
    )
    measured = {
        name: STUDENTS[name]
        for name in shown
        if shown[name]["own"].keys() == set(COMMUNITIES)
    }
    lines = "".join(json.dumps(row) + "\n" for row in rows(measured))
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def made(tmp_path, **changed):
    """Return a run as it is read, changed as `write_communities` says."""
    return read_run(write_communities(tmp_path / "changed", **changed))


def without(*names):
    """Return the students but those named."""
    return {name: hits for name, hits in STUDENTS.items() if name not in names}


def rows_of(found, place=0):
    """Return the rows of one sheet of a section by their first cells."""
    return {row[0]: row[1:] for row in found.sheets[place].rows}


def refused(call, *named):
    """Check that a call is refused in one line that names something."""
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in named:
        assert text in message
