"""The table of utilities: complete, honest about gains, both views side by side."""

import math
from dataclasses import FrozenInstanceError
from itertools import combinations

import pytest

from fedcot.community.utility import BASELINES, UtilityTable
from fedcot.errors import ConfigError
from fedcot.evaluation.metrics import correctness, paired_p_value

A, B, AB = ("a",), ("b",), ("a", "b")
COALITIONS = (A, B, AB)


def full(**changes):
    parts = {
        "communities": ("a", "b"),
        "coalitions": COALITIONS,
        "student": {
            ("a", A): 0.5,
            ("b", A): 0.125,
            ("b", B): 0.625,
            ("a", B): 0.25,
            ("a", AB): 0.75,
            ("b", AB): 0.5,
        },
        "provider": {"a": 0.375, "b": 0.25},
        "before": {"a": 0.0625, "b": 0.03125},
        "label_only": {(name, one): 0.4375 for name in "ab" for one in COALITIONS},
    }
    return UtilityTable(**{**parts, **changes})


def without(*baselines):
    """The full table with some baselines of community a in AB taken away."""
    changes = {}
    if "provider" in baselines:
        changes["provider"] = {"b": 0.25}
    if "before" in baselines:
        changes["before"] = {"b": 0.03125}
    if "label-only" in baselines:
        changes["label_only"] = {("b", AB): 0.4375}
    if "alone" in baselines:
        student = dict(full().student)
        del student["a", A]
        changes["student"] = student
    return full(**changes)


# --- gains


@pytest.mark.parametrize(
    ("over", "gain"),
    [("provider", 0.375), ("alone", 0.25), ("before", 0.6875), ("label-only", 0.3125)],
)
def test_a_gain_is_the_difference_to_its_baseline(over, gain):
    assert full().gain("a", AB, over) == gain
    assert full().gain("a", AB) == 0.375


def test_a_loss_is_below_zero_and_a_stranger_may_use_a_student():
    assert full().gain("b", AB, "alone") == -0.125
    assert full().gain("b", A, "provider") == -0.125


@pytest.mark.parametrize(
    "missing", [some for n in range(1, 5) for some in combinations(BASELINES, n)]
)
@pytest.mark.parametrize("over", BASELINES)
def test_no_gain_without_all_four_baselines(missing, over):
    # Whichever gain is asked for, and whichever of them it is counted from.
    table = without(*missing)
    assert table.missing_baselines("a", AB) == missing
    with pytest.raises(ConfigError) as caught:
        table.gain("a", AB, over)
    assert f"found no {', '.join(missing)} for a in a+b;" in str(caught.value)
    # What was measured can still be looked at.
    assert table.utility("a", AB) == 0.75


def test_baselines_of_others_do_not_help():
    table = without("provider")
    assert table.missing_baselines("b", AB) == ()
    assert table.gain("b", AB, "provider") == 0.25
    # Label-only is of the same coalition.
    assert without("label-only").missing_baselines("b", B) == ("label-only",)


def test_a_student_that_was_not_measured_has_no_gain():
    student = {key: value for key, value in full().student.items() if key != ("a", AB)}
    table = full(student=student)
    with pytest.raises(ConfigError, match=r"`student` must be measured.*a in a\+b"):
        table.gain("a", AB)
    with pytest.raises(ConfigError, match="`over` must be one of provider"):
        full().gain("a", AB, "chance")


def test_a_coalition_is_complete_once_all_its_members_were_tested():
    assert full().complete == COALITIONS
    student = {key: value for key, value in full().student.items() if key != ("b", AB)}
    assert full(student=student).complete == (A, B)
    # Whoever is no member need not be.
    del student["b", A]
    assert full(student=student).complete == (A, B)


def test_the_outside_option_is_the_better_of_provider_and_alone():
    assert full().outside_option("a") == 0.5
    assert full(provider={"a": 0.875, "b": 0.25}).outside_option("a") == 0.875
    for missing in ("provider", "alone"):
        with pytest.raises(ConfigError, match=f"`{missing}` must be measured"):
            without(missing).outside_option("a")


# --- low utility and winners


def test_low_utility_is_strictly_below():
    assert full().low_utility(0.375) == ("b",)
    assert full().low_utility(0.376) == ("a", "b")
    assert full().low_utility(0.25) == ()
    with pytest.raises(ConfigError, match="`provider` must be measured"):
        without("provider").low_utility(0.5)
    with pytest.raises(ConfigError, match=r"`low-utility` must be in \[0, 1\]"):
        full().low_utility(math.nan)


def test_winners_beat_both_alone_and_the_provider():
    # b does worse in a+b than alone; a beats 0.5 alone and 0.375 of the provider.
    (win,) = full().winners(0.5)
    assert (win.community, win.coalition) == ("a", AB)
    assert (win.over_alone, win.over_provider) == (0.25, 0.375)
    assert win.p_over_alone is None
    assert win.p_over_provider is None
    # With a threshold of 0.3 only b counts as badly served.
    assert full().winners(0.3) == ()


@pytest.mark.parametrize("student", [0.5, 0.375])
def test_as_good_is_not_better(student):
    cells = {**full().student, ("a", AB): student}
    assert full(student=cells).winners(0.5) == ()


def test_a_provider_that_is_better_leaves_no_winner():
    assert full(provider={"a": 0.8, "b": 0.25}).winners(0.9) == ()


def test_who_is_no_member_is_no_winner():
    # The student of b alone would serve a best.
    cells = {**full().student, ("a", B): 1.0, ("a", AB): 0.1}
    assert full(student=cells).winners(0.5) == ()


def test_winners_need_all_baselines():
    with pytest.raises(ConfigError, match="found no before for a in a"):
        without("before").winners(0.5)


# --- paired tests


STUDENT, ALONE, PROVIDER = "1111111101", "1100000010", "1111000010"


def test_the_paired_test_is_over_the_same_questions():
    table = full(
        student_correct={("a", AB): STUDENT, ("a", A): ALONE},
        provider_correct={"a": PROVIDER},
        before_correct={"a": "0" * 10},
        label_only_correct={("a", AB): STUDENT},
    )
    # Alone: 7 wins, 1 loss of 8: (1 + 8) / 2^8. Provider: 5 and 1 of 6: 7 / 64.
    assert table.p_value("a", AB, "alone") == pytest.approx(9 / 256)
    assert table.p_value("a", AB, "provider") == pytest.approx(7 / 64)
    assert table.p_value("a", AB, "before") == pytest.approx(1 / 2**9)
    assert table.p_value("a", AB, "label-only") == 1.0
    assert table.p_value("b", AB, "alone") is None
    (win,) = table.winners(0.5)
    assert (win.p_over_alone, win.p_over_provider) == pytest.approx((9 / 256, 7 / 64))


def test_correctness_is_what_the_test_reads():
    ours, theirs = [True, True, False, True], [False, True, False, False]
    table = full(
        student_correct={("a", AB): correctness(ours), ("a", A): correctness(theirs)}
    )
    assert table.p_value("a", AB, "alone") == paired_p_value(ours, theirs) == 0.25


# --- what stands in the table


def test_a_table_does_not_change():
    student = dict(full().student)
    table = full(student=student)
    student["a", AB] = 0.0
    assert table.utility("a", AB) == 0.75
    with pytest.raises(TypeError):
        table.student["a", AB] = 0.0
    with pytest.raises(FrozenInstanceError):
        table.student = {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"communities": ()}, "`communities` must be at least one"),
        ({"communities": ("a", "a")}, "each once"),
        ({"coalitions": (A, A)}, "each once"),
        ({"coalitions": (A, B, ("b", "a"))}, r"in their order, found b\+a"),
        ({"coalitions": (A, B, ())}, "found nobody"),
        ({"coalitions": (A, B, ("a", "z"))}, "in their order"),
        ({"provider": {"z": 0.5}}, "`provider` must be of communities"),
        ({"before": {"z": 0.5}}, "`before` must be of"),
        ({"student_correct": {("a", ("z",)): "1"}}, "`student_correct` must be of"),
        ({"student": {("a", ("z",)): 0.5}}, "`student` must be of"),
        ({"hold_out": {("z",): 0.5}}, "`hold_out` must be of"),
        ({"provider_correct": {"z": "1"}}, "`provider_correct` must be of"),
        ({"provider": {"a": 1.5}}, r"in \[0, 1\], found 1.5 for a"),
        ({"student": {("a", AB): math.nan}}, r"found nan for a in a\+b"),
        ({"hold_out": {AB: -0.5}}, r"found -0.5 for a\+b"),
        ({"provider_correct": {"a": "012"}}, "one 0 or 1"),
        (
            {"provider_correct": {"a": "01"}, "before_correct": {"a": "010"}},
            "the same questions",
        ),
    ],
)
def test_what_is_no_table_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        full(**changes)


def test_communities_may_have_tests_of_different_lengths():
    table = full(provider_correct={"a": "01", "b": "011"})
    assert table.provider_correct["b"] == "011"
