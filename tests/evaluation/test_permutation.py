"""Permutation tests against SciPy, against enumeration and under the null."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.errors import ConfigError
from fedcot.evaluation.metrics import mean_and_stderr
from fedcot.evaluation.permutation import (
    NUM_PERMUTATIONS,
    ArmComparison,
    paired_permutation_test,
    pooled_permutation_test,
)

FIRST = [[True, True, False, True, True], [True, False, True, True, True]]
SECOND = [[False, True, False, False, True], [False, False, True, False, False]]
MANY = 40_000


def margin(p_value: float) -> float:
    """Four standard errors of a share of `MANY` permutations."""
    return 4 * math.sqrt(p_value * (1 - p_value) / MANY) + 1 / MANY


def pooled(arm: list[list[bool]]) -> list[int]:
    return [int(outcome) for repeat in arm for outcome in repeat]


def exact_pooled(first: list[int], second: list[int]) -> float:
    """The share of all ways to deal the outcomes that are as far apart."""
    everything, size = np.array(first + second), len(first)
    dealt = [
        everything[list(chosen)].sum()
        for chosen in combinations(range(len(everything)), size)
    ]
    rest = len(everything) - size
    gaps = [
        abs(right / size - (everything.sum() - right) / rest)
        for right in map(int, dealt)
    ]
    here = abs(np.mean(first) - np.mean(second))
    return float(np.mean(np.array(gaps) >= here - 1e-12))


def exact_paired(first: list[list[bool]], second: list[list[bool]]) -> float:
    """The share of all swaps of whole questions that are as far apart."""
    gaps = np.array(first, dtype=int).sum(axis=0) - np.array(second, dtype=int).sum(
        axis=0
    )
    sums = [
        abs(int(np.dot(signs, gaps))) for signs in product((-1, 1), repeat=len(gaps))
    ]
    return float(np.mean(np.array(sums) >= abs(gaps.sum())))


def gap(first, second, axis=-1):  # type: ignore[no-untyped-def]
    return np.abs(np.mean(first, axis=axis) - np.mean(second, axis=axis))


def test_the_pooled_p_value_is_that_of_enumeration_and_of_scipy() -> None:
    found = pooled_permutation_test(FIRST, SECOND, seed=1, num_permutations=MANY)
    first, second = pooled(FIRST), pooled(SECOND)
    exact = exact_pooled(first, second)
    assert found.p_value == pytest.approx(exact, abs=margin(exact))
    oracle = stats.permutation_test(
        (first, second), gap, alternative="greater", n_resamples=np.inf, vectorized=True
    )
    assert exact == pytest.approx(oracle.pvalue)
    assert not found.is_paired
    # The two-sided test of Fisher lists the same tables where both sizes are equal.
    table = [[sum(first), 10 - sum(first)], [sum(second), 10 - sum(second)]]
    assert exact == pytest.approx(stats.fisher_exact(table).pvalue)


def test_arms_of_different_sizes_compare_accuracies() -> None:
    first, second = [[True, True, True]], [[False, True, False, False, True, False]]
    found = pooled_permutation_test(first, second, seed=2, num_permutations=MANY)
    exact = exact_pooled(pooled(first), pooled(second))
    assert found.p_value == pytest.approx(exact, abs=margin(exact))
    assert found.difference == pytest.approx(1 - 1 / 3)


def test_the_paired_p_value_is_that_of_enumeration_and_of_scipy() -> None:
    found = paired_permutation_test(FIRST, SECOND, seed=3, num_permutations=MANY)
    exact = exact_paired(FIRST, SECOND)
    assert found.p_value == pytest.approx(exact, abs=margin(exact))
    oracle = stats.permutation_test(
        (np.mean(FIRST, axis=0), np.mean(SECOND, axis=0)),
        gap,
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert exact == pytest.approx(oracle.pvalue)
    assert found.is_paired


def test_one_repeat_of_pairs_is_the_two_sided_test_of_mcnemar() -> None:
    first = [[True] * 9 + [False] * 2 + [True] * 5]
    second = [[False] * 9 + [True] * 2 + [True] * 5]
    exact = float(stats.binomtest(9, 11).pvalue)
    found = paired_permutation_test(first, second, seed=4, num_permutations=MANY)
    assert found.p_value == pytest.approx(exact, abs=margin(exact))


def test_a_question_changes_arms_as_a_whole() -> None:
    """Five repeats of two questions are two units, whatever the pooled test takes."""
    first, second = [[True, True]] * 5, [[False, False]] * 5
    paired = paired_permutation_test(first, second, seed=5, num_permutations=MANY)
    assert paired.p_value == pytest.approx(0.5, abs=margin(0.5))
    plain = pooled_permutation_test(first, second, seed=5, num_permutations=MANY)
    assert plain.p_value < 0.001


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=2),
    st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=2),
)
def test_any_small_sample_agrees_with_enumeration(
    first: list[list[bool]], second: list[list[bool]]
) -> None:
    found = pooled_permutation_test(first, second, seed=6, num_permutations=4000)
    exact = exact_pooled(pooled(first), pooled(second))
    # Five standard errors of 4,000 permutations.
    assert found.p_value == pytest.approx(exact, abs=0.04)


def test_the_p_value_counts_the_sample_itself() -> None:
    """It is (1 + hits) / (1 + permutations): never 0, and 1 where nothing differs."""
    far = pooled_permutation_test(
        [[True] * 60], [[False] * 60], seed=0, num_permutations=99
    )
    assert far.p_value == 1 / 100
    near = paired_permutation_test([[True]], [[True]], seed=0, num_permutations=7)
    assert near.p_value == 1.0
    assert far.num_permutations == 99
    assert pooled_permutation_test(FIRST, SECOND, seed=0).num_permutations == 10_000
    assert NUM_PERMUTATIONS == 10_000


def test_the_arms_are_summed_up_over_repeats() -> None:
    found = pooled_permutation_test(FIRST, [[True], [False, True]], seed=0)
    assert found.first == mean_and_stderr([0.8, 0.8])
    assert found.second == mean_and_stderr([1.0, 0.5])
    # All outcomes count alike in what is tested.
    assert found.difference == pytest.approx(0.8 - 2 / 3)


@pytest.mark.parametrize("test", [pooled_permutation_test, paired_permutation_test])
def test_swapping_the_arms_changes_the_sign_only(test) -> None:  # type: ignore[no-untyped-def]
    one: ArmComparison = test(FIRST, SECOND, seed=9, num_permutations=MANY)
    other: ArmComparison = test(SECOND, FIRST, seed=9, num_permutations=MANY)
    assert one.difference == -other.difference > 0
    assert one.p_value == pytest.approx(other.p_value, abs=2 * margin(0.1))
    assert test(FIRST, SECOND, seed=9, num_permutations=MANY) == one
    assert test(FIRST, SECOND, seed=10, num_permutations=MANY) != one


@pytest.mark.parametrize("is_paired", [False, True])
def test_p_values_are_uniform_under_the_null(is_paired: bool) -> None:
    """No level is exceeded, and discreteness costs less than 0.04 with 800 answers."""
    rng = np.random.default_rng(17)
    test = paired_permutation_test if is_paired else pooled_permutation_test
    found = []
    for repeat in range(1500):
        # Questions differ in difficulty: the paired test must not mind.
        hard = rng.uniform(0.2, 0.9, size=400) if is_paired else np.full(400, 0.6)
        first, second = (rng.random((2, 400)) < hard).tolist()
        result = test([first], [second], seed=repeat, num_permutations=199)
        found.append(result.p_value)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        share = float(np.mean(np.array(found) <= level))
        error = 4 * math.sqrt(level * (1 - level) / 1500)
        assert level - 0.05 - error < share < level + error


@pytest.mark.parametrize("test", [pooled_permutation_test, paired_permutation_test])
def test_a_real_difference_is_found(test) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    first = (rng.random((5, 100)) < 0.8).tolist()
    second = (rng.random((5, 100)) < 0.6).tolist()
    assert test(first, second, seed=0).p_value < 0.001


@pytest.mark.parametrize("test", [pooled_permutation_test, paired_permutation_test])
def test_arms_without_outcomes_are_refused(test) -> None:  # type: ignore[no-untyped-def]
    for first, second in [([], FIRST), (FIRST, []), ([[True], []], FIRST)]:
        with pytest.raises(ConfigError, match="outcomes"):
            test(first, second, seed=0)
    with pytest.raises(ConfigError, match="`num_permutations`"):
        test(FIRST, SECOND, seed=0, num_permutations=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([[True, False]], [[True]]),
        ([[True, False]], [[True, False], [True, True]]),
        ([[True], [True, False]], [[True], [True, False]]),
    ],
)
def test_other_questions_cannot_be_paired(first, second) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="same questions"):
        paired_permutation_test(first, second, seed=0)
