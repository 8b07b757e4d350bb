"""Run directories of social learning with numbers that can be followed by hand."""

import json

from fedcot.social.flow import Flow, FlowGuard, StepMessage

TASK, LABELS = "labels", ["zib", "dax"]


def score(mean, stderr=0.03, n=200):
    return {"mean": mean, "stderr": stderr, "n": n}


def student(kind, count, mean, **more):
    return {
        "kind": kind,
        "num_examples": count,
        "accuracy": score(mean),
        "answered": 0.99,
        "own": None,
        "prompt_bytes": 64 * count,
        **more,
    }


def students(shift=0.0):
    """Return ten students; `shift` is added to those that read generated examples."""
    return {
        "zero-shot": student("zero-shot", 0, 0.40),
        "instruction": student("instruction", 0, 0.55, prompt_bytes=40),
        "original.1": student("original", 1, 0.60),
        "original.8": student("original", 8, 0.90),
        "random.1": student("random", 1, 0.58 + shift),
        "random.8": student("random", 8, 0.80 + shift, own=score(0.75)),
        "voting.1": student("voting", 1, 0.62),
        "voting.8": student("voting", 8, 0.70),
        "instruction+random.8": student("instruction+random", 8, 0.84),
        "manual": student("manual", 0, 0.45),
    }


def test_of(first, second, difference, p_value, **more):
    return {
        "first": first,
        "second": second,
        "difference": difference,
        "p_value": p_value,
        "permutations": 10_000,
        "paired": True,
        **more,
    }


# pytest takes it for a test of its own otherwise.
test_of.__test__ = False


def protocol(*, extended=False, departs=False):
    """Return the log of a conversation in two steps with two teacher clients."""
    guard = FlowGuard(Flow(("teach.examples", "vote")), (0, 1), extended=extended)
    for step, kind in enumerate(("teach.examples", "vote")):
        for teacher in (0, 1):
            own = teacher if departs and step else 0
            guard.before_send(StepMessage(step, kind, {"ask": own}), teacher)
            guard.on_reply(step, teacher)
    guard.finish()
    return guard.describe()


def balance(p_value=0.4, favoured="zib"):
    return {
        "counts": {"zib": 6, "dax": 2},
        "expected": {"zib": 4.4, "dax": 3.6},
        "skew": 0.2,
        "favoured": favoured,
        "p_value": p_value,
    }


def social(**changed):
    """Return the `social` part of a summary."""
    part = {
        "task": TASK,
        "labels": LABELS,
        "hint": "",
        "models": {"clients": ["builtin"], "student": "builtin"},
        "protocol": protocol(),
        "students": students(),
        "tests": [
            test_of("random.1", "original.1", -0.02, 0.9),
            test_of("random.8", "original.8", -0.10, 0.0123),
            test_of("voting.8", "random.8", -0.10, 0.04),
        ],
        "generation": {
            "sampled": 256,
            "kept": 64,
            "discarded": {
                "malformed": 3,
                "invalid": 0,
                "verbatim": 12,
                "normalised": 0,
                "near": 4,
                "run": 0,
                "repeated": 9,
                "outranked": 164,
            },
            "checked": 0,
            "wrong": 0,
            "drawn": 120,
        },
        "pool": {
            "candidates": 60,
            "repeated": 4,
            "by_partition": {"0": 30, "1": 30},
            "labels": {"zib": 33, "dax": 27},
        },
        "chosen": {
            "random": {
                "indices": [5, 40],
                "partitions": [0, 1],
                "ties": 0,
                "epsilon": 0.0,
                "balance": balance(),
            },
            "voting": {
                "indices": [1, 2, 3],
                "partitions": [1, 1, 0],
                "ties": 1,
                "epsilon": None,
                "balance": balance(0.011),
            },
        },
        "votes": {"voters": 2, "claims": None},
        "instructions": {
            "sent": 2,
            "refused": {"empty": 0, "verbatim": 0, "run": 1},
            "merging": "single",
            "partitions": [1],
            "extension": False,
            "bytes": 40,
        },
        "bytes": {
            "examples": {"uplink_bytes": 6000, "downlink_bytes": 400},
            "ballot": {"uplink_bytes": 200, "downlink_bytes": 5000},
            "per_teacher": {"uplink_bytes": 3000, "downlink_bytes": 2000},
            "fedavg": {
                "uplink_bytes": 500_000,
                "downlink_bytes": 500_000,
                "parameters": 125_000,
                "what": "one round of FedAvg with LoRA of the same student",
            },
        },
        "distilled": None,
    }
    return {**part, **changed}


def privacy():
    line = {
        "unit": "nats",
        "neighboring_relation": "REPLACE_SPECIAL",
        "token_epsilon": None,
        "prompt_epsilon_max": None,
        "record_epsilon_max": None,
        "guarantee": "none: models write what leaves after private examples",
        "uncharged": [],
    }
    return {
        "worst_arm": {"arm": "examples"},
        "per_arm": {
            "examples": line,
            "instruction": line,
            "voting": {**line, "guarantee": "none: the server counts votes"},
        },
    }


def summary_of(part, *, seed=0, **changed):
    return {
        "status": "completed",
        "mode": "social",
        "mechanism": "none",
        "seed": seed,
        "canaries": 0,
        "num_partitions": 2,
        "num_rounds": 1,
        "accuracy": {"zero-shot": score(0.4)},
        "accuracy_by_prompt": {},
        "rationale_validity": {},
        "dataset": "world",
        "data": {},
        "community": {},
        "social": part,
        "privacy": privacy(),
        "traffic": {"uplink_bytes": 6200, "downlink_bytes": 5400},
        "timing": {"teach.examples": 3.5, "evaluate": 10.0},
        "failures": [],
        "git_commit": "0" * 40,
        "versions": {"python": "3.11"},
        "teacher": {},
        **changed,
    }


def write_social(folder, part=None, *, seed=0, settings=None, **changed):
    """Write a run directory as a run of social learning does; return it."""
    folder.mkdir(parents=True)
    found = summary_of(social() if part is None else part, seed=seed, **changed)
    (folder / "summary.json").write_text(json.dumps(found))
    run_config = {
        "mode": "social",
        "seed": seed,
        "run-dir": str(folder),
        "gate-distance": 0.1,
        "gate-run": 12,
        "client-model": "builtin",
        "prompted-student": "builtin",
        **(settings or {}),
    }
    config = {"run_config": run_config, "seed": seed, "git_commit": "c" * 40}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("")
    return folder
