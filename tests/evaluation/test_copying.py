"""Distances to substrings against brute force, and rates against counts."""

import tracemalloc
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.evaluation import copying
from fedcot.evaluation.copying import (
    nearest,
    plain,
    regurgitation_rate,
    substring_distance,
    verbatim_rate,
)

TEXTS = st.text(alphabet="abä ", max_size=7)


@cache
def indel(first: str, second: str) -> int:
    """Insertions and deletions by their definition."""
    if not first or not second:
        return len(first) + len(second)
    if first[0] == second[0]:
        return indel(first[1:], second[1:])
    return 1 + min(indel(first[1:], second), indel(first, second[1:]))


def brute_force(generated: str, source: str) -> float:
    ends = range(len(source) + 1)
    substrings = {source[start:stop] for start in ends for stop in ends}
    return min(indel(generated, s) for s in substrings) / len(generated)


@given(TEXTS.filter(bool), TEXTS)
def test_the_distance_is_the_least_over_all_substrings(
    generated: str, source: str
) -> None:
    assert substring_distance(generated, source) == brute_force(generated, source)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=5), st.integers(1, 40))
def test_the_nearest_source_is_the_first_of_the_least_distance(
    generated: str, sources: list[str], cells: int
) -> None:
    """Failure would mean that texts beside it, or the memory at hand, matter."""
    alone = [substring_distance(generated, source) for source in sources]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_CELLS", cells)
        found = nearest(generated, sources)
    assert (found.index, found.distance) == (alone.index(min(alone)), min(alone))


@pytest.mark.parametrize(
    ("generated", "source", "distance"),
    [
        ("tom has 3", "once tom has 3 nails", 0),
        ("abc", "xyz", 1),
        # One letter too many: deleted.
        ("abxcd", "zzabcdzz", 1 / 5),
        # Another letter in its place: deleted and inserted, never replaced.
        ("abxd", "zzabcdzz", 2 / 4),
        ("", "abc", 1),
        ("abc", "", 1),
    ],
)
def test_known_distances(generated: str, source: str, distance: float) -> None:
    assert substring_distance(generated, source) == distance


def test_memory_grows_with_the_source_alone() -> None:
    source = "tom has three nails " * 1000
    tracemalloc.start()
    assert substring_distance("tom has nine " * 20, source) < 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The whole table would be 260 rows of 20,001 numbers, 20 MB.
    assert peak < 3_000_000


def test_a_nearest_source_takes_a_source() -> None:
    with pytest.raises(ValueError, match="sources"):
        nearest("a", [])


def test_a_planted_copy_is_found_and_a_clean_text_is_not() -> None:
    sources = ["Tom has 3 nails.", "Sue sells a cup"]
    found = verbatim_rate(
        ["Tom has 3 nails.", " tom  has 3\nNAILS.", "Tom has 4 nails.", "sue"], sources
    )
    assert (found.exact.hits, found.normalised.hits, found.exact.n) == (1, 2, 4)
    assert verbatim_rate(["kim"], sources).normalised.hits == 0
    with pytest.raises(ValueError, match="n >= 1"):
        verbatim_rate([], sources)


def test_a_completion_is_compared_with_its_own_target_only() -> None:
    found = regurgitation_rate(
        [" 7 or 9", "A  b", "c", "7 or 9"], ["7 or 9", "a b"] * 2
    )
    assert (found.exact.hits, found.normalised.hits) == (1, 2)
    with pytest.raises(ValueError, match="argument"):
        regurgitation_rate(["a"], ["a", "b"])


def test_case_and_spacing_are_all_that_is_taken_away() -> None:
    assert plain("  A\tb \n C. ") == "a b c."
