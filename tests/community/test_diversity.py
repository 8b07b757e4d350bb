"""The diversity knob and the index that reports it."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from fedcot.community.diversity import diversity_of, mixed_counts, task_mixes
from fedcot.errors import ConfigError

HOMES = ("a", "b", "c")


def names(count):
    return tuple(f"d{n}" for n in range(count))


def mixes(counts):
    return {
        name: {domain: n / sum(mix.values()) for domain, n in mix.items()}
        for name, mix in counts.items()
    }


def test_at_zero_all_hold_the_same_uniform_mix():
    assert mixed_counts(HOMES, HOMES, 0.0, 12) == {
        name: {"a": 4, "b": 4, "c": 4} for name in HOMES
    }
    # 11 cannot be divided: the earlier domains get the rest, in every community.
    assert mixed_counts(HOMES, HOMES, 0.0, 11) == {
        name: {"a": 4, "b": 4, "c": 3} for name in HOMES
    }


def test_at_one_each_holds_its_home_only():
    assert mixed_counts(HOMES, HOMES, 1.0, 7) == {
        name: {domain: 7 * (domain == name) for domain in HOMES} for name in HOMES
    }


def test_between_the_home_share_is_linear_and_rounded_by_largest_remainder():
    # d = 0.5, n = 2: own 0.75, other 0.25. Of 10: 7.5 and 2.5, the tie to the earlier.
    counts = mixed_counts(("a", "b"), ("a", "b"), 0.5, 10)
    assert counts == {"a": {"a": 8, "b": 2}, "b": {"a": 3, "b": 7}}
    # d = 0.4, n = 3: own 0.6, others 0.2. Of 8: 4.8, 1.6, 1.6 -> 5, then one of them.
    assert mixed_counts(HOMES, HOMES, 0.4, 8)["c"] == {"a": 2, "b": 1, "c": 5}


def test_a_tenth_is_a_tenth():
    # In binary 0.1 is more than a tenth, so that 5.5 and 4.5 would not tie.
    assert mixed_counts(("a", "b"), ("a", "b"), 0.1, 10)["b"] == {"a": 5, "b": 5}


def test_domains_that_are_nobodys_home_get_nothing():
    counts = mixed_counts(("c", "a"), ("a", "b", "c"), 0.0, 4)
    assert list(counts) == ["c", "a"]
    assert counts["c"] == {"a": 2, "b": 0, "c": 2}


@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 300))
def test_counts_are_whole_sum_to_size_and_keep_the_quota(count, diversity, size):
    home = names(count)
    for name, mix in mixed_counts(home, home, diversity, size).items():
        assert sum(mix.values()) == size
        for domain, n in mix.items():
            share = (1 - diversity) / count + diversity * (domain == name)
            assert abs(n - share * size) < 1 + 1e-9


@given(
    st.integers(2, 6),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.integers(1, 200),
)
def test_the_home_never_shrinks_as_the_knob_turns(count, knobs, size):
    home = names(count)
    low, high = (mixed_counts(home, home, knob, size) for knob in knobs)
    assert all(low[name][name] <= high[name][name] for name in home)


@given(st.integers(2, 6), st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_the_index_never_falls_as_the_knob_turns(count, knobs):
    home = names(count)
    low, high = (
        diversity_of(mixes(mixed_counts(home, home, knob, 10_000))) for knob in knobs
    )
    # Rounding to 1 of 10,000 is the only thing between counts and shares.
    assert low.index <= high.index + 1e-6
    assert low.mean_pairwise_bits <= high.mean_pairwise_bits + 1e-6
    assert low.mean_entropy_bits >= high.mean_entropy_bits - 1e-6


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_index_rises_over_the_grid_from_zero_to_one(count):
    home = names(count)
    found = [
        diversity_of(mixes(mixed_counts(home, home, step / 10, 600))).index
        for step in range(11)
    ]
    assert found[0] == 0
    assert found[-1] == pytest.approx(1, abs=1e-12)
    assert all(one < two for one, two in pairwise(found))


def test_identical_and_disjoint_mixes_are_the_ends():
    same = diversity_of({"x": {"a": 0.5, "b": 0.5}, "y": {"a": 0.5, "b": 0.5}})
    assert (same.index, same.mean_pairwise_bits, same.mean_entropy_bits) == (0, 0, 1)
    apart = diversity_of({"x": {"a": 1}, "y": {"b": 0.5, "c": 0.5}, "z": {"d": 1.0}})
    assert apart.index == pytest.approx(1, abs=1e-12)
    assert apart.mean_pairwise_bits == pytest.approx(1, abs=1e-12)
    assert apart.mean_entropy_bits == pytest.approx(1 / 3)


def test_two_mixes_by_hand():
    # m = (3/4, 1/4): H = 2 - 0.75 log2 3 = 0.811278; the mixes have H 1 and 0.
    found = diversity_of({"x": {"a": 0.5, "b": 0.5}, "y": {"a": 1.0}})
    assert found.index == pytest.approx(2 - 0.75 * math.log2(3) - 0.5)
    assert found.mean_pairwise_bits == pytest.approx(found.index)
    assert found.mean_entropy_bits == 0.5


distributions = st.lists(
    st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any),
    min_size=2,
    max_size=5,
)


@given(distributions)
def test_divergences_agree_with_scipy(rows):
    shares = [[n / sum(row) for n in row] for row in rows]
    found = diversity_of(
        {f"c{n}": dict(zip("abc", row, strict=True)) for n, row in enumerate(shares)}
    )
    pairs = [
        jensenshannon(one, two, base=2) ** 2
        for n, one in enumerate(shares)
        for two in shares[n + 1 :]
    ]
    mixture = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    # The mean divergence from the mixture, instead of the difference of entropies.
    general = sum(entropy(one, mixture, base=2) for one in shares) / len(shares)
    assert found.mean_pairwise_bits == pytest.approx(sum(pairs) / len(pairs), abs=1e-7)
    assert found.index == pytest.approx(general / math.log2(len(shares)), abs=1e-9)
    assert 0 <= found.index <= 1


def test_one_community_does_not_differ():
    found = diversity_of({"x": {"a": 0.25, "b": 0.75}})
    assert (found.index, found.mean_pairwise_bits) == (0, 0)
    assert found.mean_entropy_bits == pytest.approx(entropy([0.25, 0.75], base=2))


def test_mixes_are_counted_from_records():
    found = task_mixes({"x": ["b", "a", "b", "b"], "y": iter(["c"])})
    assert found == {"x": {"a": 0.25, "b": 0.75}, "y": {"c": 1.0}}


@pytest.mark.parametrize("knob", [-0.1, 1.1, math.nan])
def test_a_knob_outside_its_range_is_refused(knob):
    with pytest.raises(ConfigError, match=r"`community-diversity` must be in \[0, 1\]"):
        mixed_counts(HOMES, HOMES, knob, 10)


@pytest.mark.parametrize("home", [(), ("a", "a"), ("a", "moon")])
def test_homes_must_be_distinct_domains(home):
    with pytest.raises(ConfigError, match="`home` must be distinct domains"):
        mixed_counts(home, HOMES, 0.5, 10)


def test_other_bad_input_is_refused():
    with pytest.raises(ConfigError, match="`size` must be >= 0, found -1"):
        mixed_counts(HOMES, HOMES, 0.5, -1)
    with pytest.raises(ConfigError, match="found none in y"):
        task_mixes({"x": ["a"], "y": []})
    with pytest.raises(ConfigError, match="at least one"):
        diversity_of({})
    for bad in ({"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": math.nan}):
        with pytest.raises(ConfigError, match="`mixes` must be shares"):
            diversity_of({"x": {"a": 1.0}, "y": bad})
