"""The plan of the community benchmark, its numbers over seeds, and its sentences."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fedcot.community.coalitions import label, parse_coalitions
from fedcot.community.setting_rules import check_communities
from fedcot.config import load_config
from fedcot.seeding import numpy_generator

ROOT = Path(__file__).resolve().parent.parent
# `benchmarks` is no package; its scripts import each other by name.
sys.path.append(str(ROOT / "benchmarks"))
community_findings = import_module("community_findings")
community_games = import_module("community_games")
community_measures = import_module("community_measures")
community_plan = import_module("community_plan")

BASE, Factor, make_plan = (
    community_plan.BASE,
    community_plan.Factor,
    community_plan.make_plan,
)
Reading, estimate = community_measures.Reading, community_measures.estimate
CONF = ROOT / "conf" / "community-world.toml"
NAMES = ("library", "harbor")
GRAND = "library+harbor"


@pytest.fixture(scope="module")
def plan():
    return make_plan(load_config(CONF))


def test_every_point_has_settings_that_a_run_takes(plan):
    for point in plan.points.values():
        settings = {**point.settings, "num-partitions": point.members}
        config = load_config(CONF, settings)
        check_communities(config)
        assert config.num_records % point.members == 0, point.name


def test_every_place_of_a_factor_is_a_point_and_every_point_is_of_a_factor(plan):
    named = {name for factor in plan.factors for _, name in factor.places}
    assert named == set(plan.points)
    assert all(not p.tokens_of or p.tokens_of in named for p in plan.points.values())


def test_members_grow_while_each_keeps_its_questions(plan):
    base = load_config(CONF)
    each = [
        load_config(CONF, plan.points[name].settings).num_records
        // plan.points[name].members
        for _, name in plan.factor("members").places
    ]
    assert each == [base.num_records // 16] * 3
    tests = [
        load_config(CONF, plan.points[name].settings).test_records
        * plan.points[name].members
        for _, name in plan.factor("members").places
    ]
    assert len(set(tests)) == 1


def test_points_that_take_tokens_come_after_those_that_they_take_them_from(plan):
    order = [point.name for point in plan.points_of("equal-tokens")]
    for name in order:
        taken = plan.points[name].tokens_of
        assert not taken or order.index(taken) < order.index(name)
    assert BASE not in order


def test_an_interval_is_the_t_interval_of_the_values():
    found = estimate([0.1, 0.2, 0.3, 0.4, 0.5])
    # s = sqrt(0.025); t of 4 degrees at 97.5 % is 2.776445.
    reach = 2.776445 * (0.025 / 5) ** 0.5
    assert found["mean"] == pytest.approx(0.3)
    assert found["low"] == pytest.approx(0.3 - reach, abs=1e-6)
    assert found["high"] == pytest.approx(0.3 + reach, abs=1e-6)


def test_one_seed_has_no_interval_and_a_missing_value_no_estimate():
    assert estimate([0.5])["low"] is None
    assert estimate([0.5, None]) is None
    assert estimate([0.5, float("nan")]) is None


def reading(harbor_pool: str, harbor_alone: str, provider: str):
    """Return a run in which the library is served rightly by everything."""
    right = "1" * len(provider)
    wrong = "0" * len(provider)
    own = {
        "provider": {"library": right, "harbor": provider},
        "zero-shot": {"library": wrong, "harbor": wrong},
        "pooled.library": {"library": right, "harbor": wrong},
        "pooled.harbor": {"library": wrong, "harbor": harbor_alone},
        f"pooled.{GRAND}": {"library": right, "harbor": harbor_pool},
    }
    for name in ("library", "harbor", GRAND):
        own[f"label-only.{name}"] = {"library": wrong, "harbor": wrong}
    hold_out = {student: by["harbor"] for student, by in own.items()}
    return Reading(NAMES, own, hold_out, {})


def test_accuracies_weigh_questions_and_alone_is_each_by_its_own_student():
    one = reading("1110", "1000", "0000")
    assert one.accuracy("pooled") == 7 / 8
    assert one.accuracy("pooled", ("harbor",)) == 3 / 4
    assert one.accuracy("alone") == 5 / 8
    assert one.accuracy("provider", ("harbor",)) == 0
    assert one.accuracy("random-label") is None
    # Of the two students alone: that of the library has none of the hold-out right.
    assert one.held_out("alone") == 1 / 8


def test_a_win_joins_the_questions_of_all_seeds_and_is_corrected():
    runs = [reading("1111", "1000", "0100"), reading("1111", "1000", "0100")]
    found = community_games.games(runs, 0.5, estimate)
    assert found["low_utility"] == ["harbor"]
    (win,) = found["winners"]
    assert (win["coalition"], win["n"], win["comparisons"]) == (GRAND, 8, 1)
    # Of 8 questions six differ, all in favour of the coalition: 2 ** -6.
    assert win["p_both"] == pytest.approx(2**-6)
    text = community_findings._winners(found)
    assert text["verdict"] == "shown"
    assert "harbor in library+harbor with 1.000" in text["text"]


def test_no_win_is_said_to_be_shown_without_enough_questions():
    found = community_games.games([reading("1110", "1000", "0100")], 0.5, estimate)
    assert len(found["winners"]) == 1
    assert community_findings._winners(found)["verdict"] == "not shown"


def test_shapley_values_share_the_worth_of_all():
    found = community_games.games([reading("1110", "1000", "0100")], 0.5, estimate)
    values = found["games"]["before"]["shapley"]
    total = sum(one["mean"] for one in values.values())
    assert total == pytest.approx(1 + 3 / 4)
    # v(library) = 1, v(harbor) = 1/4, v(both) = 7/4.
    assert values["harbor"]["mean"] == pytest.approx((1 / 4 + 3 / 4) / 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.11, 0.12], "higher"),
        ([-0.1, -0.11, -0.12], "lower"),
        ([0.1, -0.1, 0.1], "not shown"),
        ([0.3], "not shown"),
    ],
)
def test_a_difference_is_shown_where_its_interval_leaves_out_zero(values, expected):
    assert community_findings.verdict(estimate(values)) == expected


def test_differences_are_paired_by_seed():
    found = community_findings.compared([0.1, 0.5, 0.9], [0.2, 0.6, 1.0], estimate)
    assert found["difference"]["mean"] == pytest.approx(0.1)
    assert found["verdict"] == "higher"


def test_an_inner_peak_is_compared_with_both_ends():
    assert community_findings._peak([[0.1], [0.5], [0.2]]) == [(0, 1), (2, 1)]
    assert community_findings._peak([[0.1], [0.2], [0.5]]) == []


def test_leverage_takes_what_is_left_from_the_run_of_the_rest():
    factor = Factor(
        "leverage", "share", ((0.2, "a"), (0.8, "b"), (1.0, "c")), is_ordered=True
    )
    runs = {
        "a": [reading("1000", "1000", "0000")],
        "b": [reading("1100", "1000", "0000")],
        "c": [reading("1111", "1000", "0000")],
    }
    found = community_games.leverage_rows(factor, runs, estimate)
    axis = Figure().subplots()
    import_module("community_figures")._leverage(axis, found)
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert "transfer bonus, hold-out" in labels
    rows = found["hold-out"]
    first, second, last = rows["points"]
    assert (rows["worst"]["mean"], rows["best"]["mean"]) == (0, 1)
    assert first["cdc"]["mean"] == pytest.approx(1 / 4)
    assert first["cdc_with_strike"]["mean"] == pytest.approx((1 / 4) / (2 / 4))
    assert first["strike"]["mean"] == pytest.approx(1 - 2 / 4)
    assert first["transfer_bonus"]["mean"] == pytest.approx(2 / 4 - 1 / 4)
    said = community_findings._leverage({"hold-out": rows})["text"]
    assert said.endswith("on the hold-out, 0.50 with strike (transfer bonus +0.25).")
    assert second["cdc_with_strike"] is second["transfer_bonus"] is None
    assert last["strike"]["mean"] == 1


def test_a_run_is_read_with_the_members_in_order(tmp_path):
    rows = [
        {"phase": "evaluate", "partition": 2, "seconds": 1.0},
        *(
            {
                "phase": "evaluate",
                "partition": partition,
                "community": "library",
                "student": "provider",
                "correct": correct,
            }
            for partition, correct in ((2, "11"), (0, "00"))
        ),
        {"phase": "hold-out", "student": "provider", "correct": "10"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "metrics.jsonl").write_text(lines)
    summary = {"community": {"communities": ["library"]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    found = community_measures.read_run(tmp_path)
    assert found.own == {"provider": {"library": "0011"}}
    assert found.hold_out == {"provider": "10"}


def test_rounding_keeps_small_p_values():
    found = community_measures.rounded({"p": 0.000012345, "mean": 0.123456, "n": 3})
    assert found == {"p": 1.23e-05, "mean": 0.1235, "n": 3}


def write_run(directory, point, config, seed):
    """Write what a run leaves behind, with accuracies that a seed decides."""
    directory.mkdir(parents=True)
    rng = numpy_generator(seed, point.name)
    names = config.community_names
    coalitions = parse_coalitions(config.coalitions, names)
    arms = [*config.sharing_names]
    if "pooled" in arms:
        arms += ["label-only", "random-label"]
    levels = {"pooled": 0.6, "federated": 0.5, "label-only": 0.1, "random-label": 0.03}
    students = {"provider": 0.8, "zero-shot": 0.05}
    students |= {
        f"{arm}.{label(one)}": levels[arm] * len(one) / len(names)
        for one in coalitions
        for arm in arms
    }

    def correct(student, count, community=""):
        share = students[student]
        share -= 0.5 * (student == "provider" and community == "harbor")
        return "".join("01"[int(rng.random() < share)] for _ in range(count))

    rows = [
        {
            "phase": "evaluate",
            "partition": member,
            "community": names[member % len(names)],
            "student": student,
            "correct": correct(student, 40, names[member % len(names)]),
        }
        for member in range(point.members)
        for student in students
    ]
    rows += [
        {"phase": "hold-out", "student": student, "correct": correct(student, 50)}
        for student in students
    ]
    lines = "\n".join(map(json.dumps, rows))
    (directory / "metrics.jsonl").write_text(lines)
    traces = {"asked": 50, "filtered": 5, "offered": {label(coalitions[-1]): 45}}
    counts = {"num_traces": 150, "num_tokens": 5000, "num_invalid": 1}
    summary = {
        "community": {
            "communities": names,
            "mix": {"index": config.community_diversity},
            "traces": dict.fromkeys(names, traces),
            "students": {s: counts for s in students if s.startswith("pooled.")},
        },
        "traffic": {"uplink_bytes": 10, "downlink_bytes": 20},
        "failures": [],
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    stated = {"run_config": config.to_run_config()}
    (directory / "config.json").write_text(json.dumps(stated))


@pytest.mark.slow
def test_runs_become_a_result_with_a_finding_for_each_factor_and_figures(
    plan, tmp_path
):
    seeds = (0, 1, 2)

    def place(seed, name):
        return tmp_path / f"seed-{seed}" / name

    for seed in seeds:
        for point in plan.points.values():
            settings = {**point.settings, "num-partitions": point.members}
            config = load_config(CONF, settings)
            write_run(place(seed, point.name), point, config, seed)
    found = community_measures.measure(plan, load_config(CONF), place, seeds)
    assert found["low_utility"] == ["harbor"]
    named = {one["factor"] for one in found["findings"]}
    assert {factor.name for factor in plan.factors} <= named
    assert all(one["text"].endswith(".") for one in found["findings"])
    federated = found["points"]["federated-3"]
    assert federated["traces"] is None
    assert set(federated["arms"]) == {"federated", "provider", "before"}
    rows = found["utility"]["own_test"]
    assert {len(row["coalitions"]) for row in rows.values()} == {15}
    result = {"seeds": list(seeds), **json.loads(json.dumps(found))}
    (tmp_path / "c.json").write_text(json.dumps(result))
    drawn = import_module("community_figures").draw(result, tmp_path / "c.json")
    assert [path.stat().st_size > 10_000 for path in drawn] == [True] * 3
