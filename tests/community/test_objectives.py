"""The best coalition and the best division under each social objective."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.coalitions import all_coalitions, set_partitions
from fedcot.community.objectives import (
    OBJECTIVES,
    best_coalition,
    best_partition,
    coalition_welfare,
    egalitarian,
    mean_utility,
    nash,
    utilitarian,
)
from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

A, B, C = ("a",), ("b",), ("c",)
AB, AC, BC, ABC = ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")

# Members only. Sum: abc 1.6. Mean: ab (0.9 + 0.5) / 2. Worst off: bc 0.55. Gains over
# before, 0.1: abc has one of 0.0, ab 0.8 * 0.4 = 0.32, bc 0.45 * 0.5 = 0.225.
MEMBERS = {
    A: (0.4,),
    B: (0.3,),
    C: (0.3,),
    AB: (0.9, 0.5),
    AC: (0.45, 0.3),
    BC: (0.55, 0.6),
    ABC: (0.95, 0.55, 0.1),
}


def table(cells=MEMBERS, *, provider=0.2, before=0.1, names=("a", "b", "c"), **more):
    coalitions = tuple(cells)
    return UtilityTable(
        communities=names,
        coalitions=coalitions,
        **{
            "student": {
                (name, one): value
                for one, values in cells.items()
                for name, value in zip(one, values, strict=True)
            },
            "provider": dict.fromkeys(names, provider) if provider else {},
            "before": dict.fromkeys(names, before),
            "label_only": {(name, one): 0.2 for one in coalitions for name in one},
            **more,
        },
    )


# --- the objectives by themselves


def test_sum_mean_smallest_and_product():
    values = {"a": 0.5, "b": 0.25, "c": 0.75}
    assert utilitarian(values) == 1.5
    assert mean_utility(values) == 0.5
    assert egalitarian(values) == 0.25
    assert nash(values) == pytest.approx(math.log(0.5 * 0.25 * 0.75))


def test_sizes_weigh_sum_and_mean():
    values, sizes = {"a": 0.5, "b": 0.25}, {"a": 1, "b": 3, "c": 9}
    assert utilitarian(values, sizes) == 1.25
    assert mean_utility(values, sizes) == 0.3125


@pytest.mark.parametrize("gain", [0.0, -0.5])
def test_nash_excludes_who_does_not_gain(gain):
    assert nash({"a": 0.5, "b": gain}) == -math.inf


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_equal_sizes_are_no_sizes(values):
    utilities = {f"c{n}": value for n, value in enumerate(values)}
    sizes = dict.fromkeys(utilities, 7.0)
    assert mean_utility(utilities, sizes) == pytest.approx(mean_utility(utilities))
    assert utilitarian(utilities, sizes) == pytest.approx(7 * utilitarian(utilities))


@pytest.mark.parametrize("objective", [utilitarian, mean_utility, egalitarian, nash])
def test_nobody_has_no_welfare(objective):
    with pytest.raises(ConfigError, match="at least one community"):
        objective({})


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_sizes_must_be_above_zero(size):
    with pytest.raises(ConfigError, match="`sizes` must be > 0 and finite"):
        utilitarian({"a": 0.5}, {"a": size})
    with pytest.raises(ConfigError, match="found None for a"):
        mean_utility({"a": 0.5}, {"b": 1})


# --- the best coalition


@pytest.mark.parametrize(
    ("objective", "coalition", "welfare"),
    [
        ("utilitarian", ABC, 1.6),
        ("mean", AB, 0.7),
        ("egalitarian", BC, 0.55),
        ("nash", AB, math.log(0.32)),
    ],
)
def test_each_objective_has_its_own_best_coalition(objective, coalition, welfare):
    found = best_coalition(table(), objective)
    assert found.coalition == coalition
    assert found.welfare == pytest.approx(welfare)


@pytest.mark.parametrize(
    ("objective", "coalition", "welfare"),
    [
        # Outside: a has 0.4 alone, b and c 0.3 alone, all above the provider's 0.2.
        # Sums: abc 1.6, ab 1.4 + 0.3, ac 0.75 + 0.3, bc 1.15 + 0.4.
        ("utilitarian", AB, 1.7),
        ("mean", AB, 1.7 / 3),
        # bc leaves a its 0.4; ab leaves c 0.3.
        ("egalitarian", BC, 0.4),
        # Gains over 0.1: ab 0.8 * 0.4 * 0.2 = 0.064; bc 0.45 * 0.5 * 0.3 = 0.0675.
        ("nash", BC, math.log(0.0675)),
    ],
)
def test_everybody_counts_if_asked(objective, coalition, welfare):
    found = best_coalition(table(), objective, scope="all")
    assert found.coalition == coalition
    assert found.welfare == pytest.approx(welfare)


def test_outside_the_provider_may_be_better_than_alone():
    found = coalition_welfare(table(provider=0.7), AB, "utilitarian", scope="all")
    assert found == pytest.approx(0.9 + 0.5 + 0.7)


def test_sizes_can_turn_the_choice():
    # abc: 0.95 + 0.55 + 0.1 n; bc: 0.55 + 0.6 n; equal at n = 1.9.
    for size, coalition in ((1.8, ABC), (2.0, BC)):
        found = best_coalition(
            table(), "utilitarian", sizes={"a": 1, "b": 1, "c": size}
        )
        assert found.coalition == coalition


def test_nash_may_exclude_all():
    assert best_coalition(table(before=0.99), "nash") is None
    # Whoever is outside with what it had before gains nothing; abc gives c no more.
    nothing = table(provider=0.3, before=0.3)
    assert best_coalition(nothing, "nash", scope="all").coalition == BC
    without = {one: values for one, values in MEMBERS.items() if one != BC}
    few = table(without, provider=0.3, before=0.3)
    assert best_coalition(few, "nash", scope="all") is None


def test_ties_go_to_the_smaller_then_the_earlier():
    cells = {ABC: (0.25, 0.25, 0.25), BC: (0.25, 0.25), AC: (0.25, 0.25), C: (0.25,)}
    cells |= {A: (0.125,), B: (0.125,)}
    assert best_coalition(table(cells), "egalitarian").coalition == C
    assert best_coalition(table(cells), "mean").coalition == C
    del cells[C]
    cells[C] = (0.125,)
    assert best_coalition(table(cells), "egalitarian").coalition == BC
    # 0.1 + 0.2 and 0.3 differ in the last bit only, and are as good.
    close = {A: (0.3,), B: (0.1,), C: (0.1,), AB: (0.1, 0.2)}
    assert 0.1 + 0.2 > 0.3
    assert best_coalition(table(close), "utilitarian").coalition == A


def test_nash_refuses_gains_without_baselines():
    bare = table(label_only={})
    assert best_coalition(bare, "utilitarian").coalition == ABC
    with pytest.raises(ConfigError, match="found no label-only"):
        best_coalition(bare, "nash")
    with pytest.raises(ConfigError, match="found no label-only"):
        best_partition(bare, "nash")


@pytest.mark.parametrize("call", [best_coalition, best_partition])
def test_an_unknown_objective_is_refused(call):
    with pytest.raises(ConfigError, match="`objective` must be one of utilitarian"):
        call(table(), "selfish")


def test_an_unknown_scope_and_a_missing_cell_are_refused():
    with pytest.raises(ConfigError, match="`scope` must be members or all"):
        coalition_welfare(table(), AB, "mean", scope="world")
    with pytest.raises(ConfigError, match="`provider` must be measured"):
        coalition_welfare(table(provider=None), AB, "mean", scope="all")


# --- the best partition


@pytest.mark.parametrize(
    ("objective", "partition", "welfare"),
    [
        # ab + c: 0.9 + 0.5 + 0.3; all else is less.
        ("utilitarian", (AB, C), 1.7),
        ("mean", (AB, C), 1.7 / 3),
        ("egalitarian", (A, BC), 0.4),
        ("nash", (A, BC), math.log(0.3 * 0.45 * 0.5)),
    ],
)
def test_each_objective_has_its_best_partition(objective, partition, welfare):
    found = best_partition(table(), objective)
    assert found.partition == partition
    assert found.welfare == pytest.approx(welfare)
    assert found.considered == 5


def test_by_itself_a_community_may_stay_with_the_provider():
    found = best_partition(table(provider=0.65), "utilitarian")
    assert found.partition == (AB, C)
    assert found.welfare == pytest.approx(0.9 + 0.5 + 0.65)
    assert best_partition(table(provider=0.8), "utilitarian").partition == (A, B, C)


def test_only_coalitions_that_were_run_can_form():
    cells = {one: MEMBERS[one] for one in (A, B, C, AC, ABC)}
    found = best_partition(table(cells), "utilitarian")
    assert found.considered == 3
    assert found.partition == (ABC,)


def test_a_coalition_that_was_not_tested_on_all_its_members_cannot_form():
    whole = table()
    cells = {key: value for key, value in whole.student.items() if key != ("c", ABC)}
    found = best_partition(table(student=cells), "utilitarian")
    assert found.considered == 4
    assert found.partition == (AB, C)


def test_of_equal_partitions_the_finer_one():
    cells = {one: (0.25,) * len(one) for one in MEMBERS}
    assert best_partition(table(cells), "mean").partition == (A, B, C)
    cells[ABC], cells[BC] = (0.25, 0.375, 0.375), (0.375, 0.375)
    assert best_partition(table(cells), "mean").partition == (A, BC)


def test_nash_may_exclude_every_partition():
    assert best_partition(table(before=0.99), "nash") is None


def test_nine_communities_are_too_many():
    names = tuple(f"c{n}" for n in range(9))
    many = table({(name,): (0.5,) for name in names}, names=names)
    with pytest.raises(ConfigError, match="at most 8"):
        best_partition(many, "mean")


@given(st.data())
def test_the_best_is_the_best_of_all(data):
    names = ("a", "b", "c", "d")
    cells = {
        one: tuple(data.draw(st.sampled_from((0.2, 0.3, 0.45, 0.7, 0.95))) for _ in one)
        for one in all_coalitions(names)
    }
    made = table(cells, names=names)

    def value(partition):
        utilities = [
            max(u, 0.2) if len(block) == 1 else u
            for block in partition
            for u in cells[block]
        ]
        gains = [u - 0.1 for u in utilities]
        return {
            "utilitarian": sum(utilities),
            "mean": sum(utilities) / 4,
            "egalitarian": min(utilities),
            "nash": math.log(math.prod(gains)),
        }

    values = [value(partition) for partition in set_partitions(names)]
    for objective in OBJECTIVES:
        found = best_partition(made, objective)
        best = max(one[objective] for one in values)
        assert found.welfare == pytest.approx(best)
        assert value(found.partition)[objective] == pytest.approx(best)
        assert found.considered == 15
