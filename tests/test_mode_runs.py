"""The benchmark of all modes: its plan, its measures, its table and its figure."""

import json
import math
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from fedcot.config import load_config
from fedcot.data.partition import load_partition
from fedcot.report.modes_table import epsilon_shown, modes_markdown
from fedcot.runs import write_json
from fedcot.student.files import ADAPTER_WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
# `benchmarks` is no package; its scripts import each other by name.
sys.path.append(str(ROOT / "benchmarks"))
mode_figures = import_module("mode_figures")
measures = import_module("mode_measures")
plan = import_module("mode_plan")
ARMS = {arm.label: arm for arm in plan.ARMS}
GRAND = "library+bakery"
UNIT = "nats of one record"


def privacy(**epsilons):
    return {
        "per_arm": {
            arm: {"record_epsilon_max": epsilon, "unit": UNIT, "guarantee": "what"}
            for arm, epsilon in epsilons.items()
        }
    }


def ranked(*ranks):
    return {"explain": {"ranks": ranks}, "predict": {"ranks": [9] * len(ranks)}}


def config_of(name):
    part = plan.PARTS[name]
    return load_config(ROOT / part.config, {**plan.COMMON, **part.settings, "seed": 1})


# The plan ---------------------------------------------------------------------------


def test_every_part_is_a_run_and_every_arm_is_of_a_part():
    modes = {name: config_of(name).mode for name in plan.PARTS}
    assert modes == {name: part.mode for name, part in plan.PARTS.items()}
    for arm in plan.ARMS:
        config = config_of(arm.part)
        named = (*config.arm_names, *config.sharing_names)
        assert arm.mode == "social" or arm.name in named
    assert len(ARMS) == len(plan.ARMS)


def test_what_is_compared_is_the_same_in_every_part():
    configs = [config_of(name) for name in plan.PARTS]
    for key in (
        "num_records",
        "test_records",
        "local_epochs",
        "canaries",
        "canary_insertion",
        "canary_pattern",
        "student",
        "label_share",
        "lora_r",
        "learning_rate",
        "batch_size",
    ):
        assert len({getattr(config, key) for config in configs}) == 1, key
    assert config_of("fedcot").mechanism == "rank"
    assert config_of("fedcot").aggregation == "none"


@pytest.mark.parametrize("partition", [0, 4])
def test_every_part_has_the_same_test_questions(partition):
    held = [
        load_partition(config_of(name), partition, plan.CLIENTS) for name in plan.PARTS
    ]
    assert len(held[0].test) == 100
    assert all(one.test == held[0].test for one in held)
    # Canaries stand behind them; a social client has its own elsewhere.
    size = 1280 // plan.CLIENTS
    assert all(one.train[:size] == held[0].train[:size] for one in held)


def test_an_arm_with_messages_is_alone_in_its_run():
    """Bytes of a run are those of its arm."""
    for name in ("distil", "fedcot"):
        assert config_of(name).arm_names == (name,)


# The measures -----------------------------------------------------------------------


def fedcot_rows():
    return [
        {"phase": "perturb", "uplink_bytes": 100, "downlink_bytes": 10},
        {"phase": "perturb", "uplink_bytes": 300, "downlink_bytes": 30},
        {"phase": "distil", "uplink_bytes": 20, "downlink_bytes": 200},
        # Not about a reply.
        {"phase": "distil", "arm": "fedcot"},
        # Scores teach nobody.
        {"phase": "evaluate", "uplink_bytes": 9999, "downlink_bytes": 9999},
    ]


def test_an_arm_of_fedcot_has_its_run_s_bytes_and_its_own_epsilon():
    summary = {
        "accuracy": {"fedcot": {"mean": 0.25, "stderr": 0.1, "n": 8}},
        "num_partitions": 2,
        "privacy": privacy(fedcot=168.0),
    }
    audit = {"students": {"base": ranked(5), "fedcot": ranked(0, 3)}}
    found = measures.fedcot_reading(
        summary, fedcot_rows(), audit, ARMS["fedcot/fedcot"]
    )
    assert (found.accuracy, found.num_records) == (0.25, 8)
    assert (found.uplink, found.downlink, found.delivery) == (210, 120, 0)
    assert (found.epsilon, found.unit) == (168, UNIT)
    assert found.ranks == {"explain": [0, 3], "predict": [9, 9]}


def test_the_untrained_student_of_fedcot_has_no_bytes_and_the_base_s_ranks():
    summary = {
        "accuracy": {"zero-shot": {"mean": 0.0, "n": 8}},
        "num_partitions": 2,
        "privacy": privacy(**{"zero-shot": 0.0}),
    }
    audit = {"students": {"base": ranked(5), "standalone": ranked(0)}}
    arm = ARMS["fedcot/zero-shot"]
    found = measures.fedcot_reading(summary, fedcot_rows(), audit, arm)
    assert (found.uplink, found.downlink, found.epsilon) == (0, 0, 0)
    assert found.ranks["explain"] == [5]


@pytest.mark.parametrize(("name", "uplink"), [("pooled", 50), ("federated", 405)])
def test_a_way_of_sharing_has_the_bytes_of_its_own_messages(name, uplink):
    summary = {
        "accuracy": {name: {"mean": 0.5, "n": 10}},
        "num_partitions": 2,
        "privacy": privacy(**{name: "inf"}),
        "community": {
            "coalitions": ["library", GRAND],
            "bytes": {
                "pooled": {"uplink_bytes": 100, "downlink_bytes": 4},
                "federated": {"uplink_bytes": 800, "downlink_bytes": 4},
                "count": {"uplink_bytes": 10, "downlink_bytes": 4},
            },
        },
    }
    audit = {"students": {f"{name}.library": ranked(7), f"{name}.{GRAND}": ranked(0)}}
    arm = ARMS[f"community/{name}"]
    found = measures.community_reading(summary, audit, arm, delivery=64.0)
    assert (found.uplink, found.delivery) == (uplink, 64)
    assert math.isinf(found.epsilon)
    assert found.ranks["explain"] == [0]


def social_summary():
    def student(own, size):
        return {
            "own": {"mean": own, "n": 20},
            "prompt_bytes": size,
            "answered": 0.5,
        }

    return {
        "privacy": privacy(examples="inf", voting="inf"),
        "social": {
            "students": {
                "zero-shot": student(0.1, 0),
                "original.2": student(0.3, 70),
                "original.10": student(0.4, 350),
                "random.2": student(0.2, 80),
                "random.10": student(0.35, 400),
            },
            "distilled": {"own": {"mean": 0.6, "n": 20}},
            "bytes": {"per_teacher": {"uplink_bytes": 1234.5, "downlink_bytes": 6.0}},
        },
    }


ONE_RUN = {
    "students": {
        "zero-shot": {"prompt": [8, 9]},
        "random.10": {"prompt": [0, 9]},
        "distilled": {"predict": [1, 2], "explain": [3, 4]},
    }
}


@pytest.mark.parametrize(
    ("name", "accuracy", "uplink", "delivery", "epsilon", "ranks"),
    [
        ("zero-shot", 0.1, 0, 0, 0, {"prompt": [8, 9]}),
        # Its examples never leave their owner, and nobody ranked them.
        ("original", 0.4, 0, 0, 0, {}),
        ("random", 0.35, 1234.5, 400, math.inf, {"prompt": [0, 9]}),
        (
            "distilled",
            0.6,
            1234.5,
            77,
            math.inf,
            {"predict": [1, 2], "explain": [3, 4]},
        ),
    ],
)
def test_students_of_social_learning_are_read_on_own_questions(
    name, accuracy, uplink, delivery, epsilon, ranks
):
    arm = ARMS[f"social/{name}"]
    found = measures.social_reading(social_summary(), ONE_RUN, arm, 77.0)
    assert (found.accuracy, found.uplink) == (accuracy, uplink)
    assert (found.delivery, found.epsilon) == (delivery, epsilon)
    assert found.ranks == ranks


def test_the_longest_prompt_is_that_with_most_examples():
    assert measures.longest(["random.2", "random.10", "voting.16"], "random") == (
        "random.10"
    )
    assert measures.longest(["zero-shot"], "distilled") == "distilled"


def test_an_adapter_weighs_four_bytes_for_each_value(tmp_path):
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(5)}
    save_file(tensors, tmp_path / ADAPTER_WEIGHTS)
    assert measures.adapter_bytes(tmp_path) == 44


def test_ranks_among_another_number_of_secrets_are_refused(tmp_path):
    write_json(tmp_path / "audit.json", {"size": 30, "students": {}})
    assert measures.read_audit(tmp_path / "audit.json", 30)["students"] == {}
    with pytest.raises(ValueError, match="`size` must be that of the audit"):
        measures.read_audit(tmp_path / "audit.json", 300)


def reading(accuracy, *, epsilon=1.0, ranks=None, uplink=10.0):
    return measures.Reading(
        accuracy=accuracy,
        num_records=4,
        uplink=uplink,
        downlink=2.0,
        delivery=3.0,
        epsilon=epsilon,
        unit=UNIT,
        guarantee="what",
        ranks={} if ranks is None else ranks,
    )


def test_seeds_are_averaged_and_the_worst_epsilon_counts():
    found = measures.joined(
        [reading(0.5), reading(0.7, epsilon=math.inf, uplink=30.0)], 10
    )
    assert found["accuracy"]["mean"] == pytest.approx(0.6)
    # s / sqrt(2), with s = 0.1 * sqrt(2).
    assert found["accuracy"]["stderr"] == pytest.approx(0.1)
    assert found["accuracy"]["per_seed"] == [0.5, 0.7]
    assert found["bytes"]["total"]["mean"] == pytest.approx(25)
    assert found["test_questions"] == 8
    assert math.isinf(found["epsilon"])
    assert found["exposure"] is None


def test_one_seed_has_no_standard_error():
    assert measures.joined([reading(0.5)], 10)["accuracy"]["stderr"] is None


def test_ranks_of_all_seeds_count_under_the_prompt_that_exposes_most():
    seeds = [
        {"predict": [1, 1], "explain": [0, 9]},
        {"predict": [1, 1], "explain": [9, 9]},
    ]
    found = measures.exposure_of(seeds, 10)
    assert found["prompt"] == "explain"
    zero = found["rank_zero"]
    assert (zero["hits"], zero["n"]) == (1, 4)
    assert found["rank_zero_expected"] == pytest.approx(0.4)
    # Three ranks of 9 among 10 have log2(10 / 10) bits.
    assert found["median_bits"] == 0
    assert found["prompts"]["predict"]["median_bits"] == pytest.approx(
        math.log2(5), abs=1e-4
    )
    assert measures.exposure_of([{}, seeds[0]], 10) is None


def test_replays_are_joined_for_each_prompted_student():
    audits = [
        {"size": 10, "students": {"random.4": {"ranks": [rank]}, "zero-shot": {}}}
        for rank in (0, 5)
    ]
    for one in audits:
        one["students"]["zero-shot"] = {"ranks": [3]}
    found = measures.replays_of(audits)
    assert found["random.4"]["trials"] == 2
    assert found["random.4"]["rank_zero"]["hits"] == 1


def test_students_of_every_number_of_examples_are_averaged():
    summaries = [social_summary(), social_summary()]
    summaries[1]["social"]["students"]["random.2"]["own"]["mean"] = 0.4
    found = measures.counts_of(summaries)
    assert found["random.2"]["own"]["mean"] == pytest.approx(0.3)
    assert found["original.2"]["own"]["stderr"] == 0
    assert found["original.2"]["answered"]["mean"] == 0.5


def test_texts_that_students_learn_from_are_averaged():
    communities = [
        {
            "community": {
                "coalitions": ["library", GRAND],
                "students": {f"pooled.{GRAND}": {"num_traces": count}},
            }
        }
        for count in (10, 20)
    ]
    social = [{"social": {"distilled": {"num_examples": 8}}}] * 2
    found = measures.texts_of(communities, social)
    assert found["community/pooled"]["mean"] == 15
    assert found["social/distilled"]["mean"] == 8


# Table and figure -------------------------------------------------------------------


@pytest.fixture
def result(tmp_path):
    ranks = {"prompt": [0, 9, 0, 9]}
    arms = {
        "fedcot/fedcot": (168.5, 0.5, ranks),
        "community/pooled": (math.inf, 0.75, ranks),
        "social/original": (0.0, 0.25, None),
    }
    content = {
        "clients": 5,
        "seeds": [0, 1],
        "size": 10,
        "canaries_per_seed": 4,
        "replays_per_seed": 1,
        "arms": {
            label: {
                "mode": ARMS[label].mode,
                "name": ARMS[label].name,
                "holder": ARMS[label].holder,
                **measures.joined(
                    [
                        reading(accuracy, epsilon=epsilon, ranks=found, uplink=12345.0),
                        reading(accuracy + 0.1, epsilon=epsilon, ranks=found),
                    ],
                    10,
                ),
            }
            for label, (epsilon, accuracy, found) in arms.items()
        },
        "texts": {
            "community/pooled": {"mean": 1283.5},
            "social/distilled": {"mean": 320.0},
        },
        "social_students": {
            "zero-shot": {"answered": {"mean": 0.0}},
            "random.4": {"answered": {"mean": 0.125}},
        },
        "social_replays": {
            "random.4": measures.exposure_of([{"prompt": [0, 4]}], 10),
            "zero-shot": None,
        },
    }
    path = tmp_path / "results" / "modes.json"
    path.parent.mkdir()
    write_json(path, content)
    return path


def test_the_table_has_a_row_for_each_student_and_says_what_it_counts(result):
    lines = modes_markdown(result).splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert {len(row) for row in rows} == {10}
    head, *body = rows
    assert head[8] == "rank 0 of N = 10"
    assert [row[:2] for row in body] == [
        ["fedcot", "fedcot"],
        ["community", "pooled"],
        ["social", "original"],
    ]
    assert body[0][2:9] == [
        "its client alone",
        "55.0 ± 5.0",
        "6.2",
        "0.0",
        "0.0",
        "168.5",
        "4 of 8 (0.16 to 0.84)",
    ]
    assert [row[7] for row in body] == ["168.5", "infinite", "0"]
    assert body[2][8:] == ["not ranked", "not ranked"]
    notes = "\n".join(lines[len(rows) + 1 :])
    for said in (
        "8 own test questions of 5 clients",
        "over 2 seeds",
        "pure, in nats",
        "4 canaries for each seed among N = 10",
        "chance gives 0.8 with rank 0",
        "3.32 bits at most",
        "random.4: rank 0 for 1 of 2",
        "from 1,284 traces",
        "from 320 examples",
        "at most 12.5 % of the public questions",
        "`results/modes.json`",
    ):
        assert said in notes
    assert "zero-shot: rank" not in notes


def test_the_table_of_one_seed_has_no_standard_error(result):
    content = json.loads(result.read_text())
    content["seeds"] = [0]
    for arm in content["arms"].values():
        arm["accuracy"]["stderr"] = None
    write_json(result, content)
    text = modes_markdown(result)
    assert "±" not in text
    assert "of 1 seed." in text


def test_an_infinite_epsilon_is_written_as_such():
    assert [epsilon_shown(one) for one in (math.inf, 0.0, 167.99999)] == [
        "infinite",
        "0",
        "168",
    ]


def test_the_figure_tells_modes_and_epsilons_apart(result, monkeypatch, tmp_path):
    drawn = []
    axes = import_module("matplotlib.axes")
    real = axes.Axes.errorbar

    def noted(self, x, y, *given, **style):
        drawn.append((style["marker"], style["color"] == style["markerfacecolor"]))
        return real(self, x, y, *given, **style)

    monkeypatch.setattr(axes.Axes, "errorbar", noted)
    path = mode_figures.draw(json.loads(result.read_text()), tmp_path / "modes.png")
    assert path.stat().st_size > 1000
    assert drawn == [("o", True), ("s", False), ("^", True)]


def test_labels_of_arms_without_bytes_stand_above_each_other():
    def arm(name, accuracy, size):
        return {
            "mode": "fedcot",
            "name": name,
            "accuracy": {"mean": accuracy},
            "bytes": {"total": {"mean": size}},
        }

    some = [arm("b", 0.05, 0), arm("a", 0.04, 0), arm("c", 0.9, 0), arm("d", 0.9, 5)]
    found = mode_figures.label_heights(some)
    assert list(found) == ["fedcot/a", "fedcot/b", "fedcot/c"]
    assert found["fedcot/a"] == pytest.approx(0.04 / mode_figures.HIGHEST)
    assert found["fedcot/b"] == pytest.approx(found["fedcot/a"] + mode_figures.APART)
    assert found["fedcot/c"] == pytest.approx(0.9 / mode_figures.HIGHEST)
