"""Lengths and order of levels by hand, and on the released SVAMP levels."""

import json
from pathlib import Path
from statistics import median

import pytest

from fedcot.community.level_data import LEVEL_FILES, read_levels
from fedcot.community.level_statistics import check_levels, level_statistics
from fedcot.errors import ConfigError

LEVELS = [
    ["So 7.", "a b c. The answer is 1", "x"],
    ["So 3. Then 7! The answer is 7", "a b. c d", "x y"],
    ["One. Two? Three. The answer is 7 now", "a b c d e", "x y z"],
]


def test_every_statistic_by_hand() -> None:
    found = level_statistics(LEVELS)
    assert found.questions == 3
    assert found.medians == (2, 4, 5)
    assert found.means == pytest.approx((10 / 3, 14 / 3, 16 / 3))
    # Ends of sentences: 1, 1 and 0 texts; then 2, 1 and 0; then 3, 0 and 0.
    assert found.sentences == pytest.approx((2 / 3, 3 / 3, 3 / 3))
    assert found.marked == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    # Words: 2, 7, 1; then 8, 4, 2; then 8, 5, 3.
    assert found.longer == pytest.approx((2 / 3, 2 / 3))
    assert found.finest_longer == pytest.approx(2 / 3)
    assert found.monotone == pytest.approx(1 / 3)
    assert found.is_increasing


def test_the_measure_is_passed_in() -> None:
    found = level_statistics([["abc", "z"], ["a b", "z z z"]], measure=len)
    assert found.means == (2, 4)
    assert found.longer == (0.5,)


def test_statistics_are_json() -> None:
    found = level_statistics(LEVELS).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["is_increasing"] is True
    assert found["medians"] == [2, 4, 5]


def test_equal_medians_are_no_levels() -> None:
    assert check_levels(LEVELS).questions == 3
    with pytest.raises(ConfigError, match=r"medians of 2, 2; put them in order"):
        check_levels([["a b"], ["c d"]])
    with pytest.raises(ConfigError, match="`levels`"):
        check_levels([LEVELS[1], LEVELS[0]])
    # More on the mean, and on each question but one, is not enough.
    with pytest.raises(ConfigError, match="`levels`"):
        check_levels([["a", "b b", "c c"], ["a a a a", "b b", "c"]])


@pytest.mark.parametrize("levels", [[], [["a"]], [[], []], [["a"], ["a", "b"]]])
def test_levels_must_be_joined(levels: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="`levels`"):
        level_statistics(levels)


def test_the_released_levels_have_the_known_statistics(data_folder: Path) -> None:
    # From the level files themselves, joined on the question: 698 of 700.
    found = read_levels(data_folder / "svamp_levels").written
    assert found.questions == 698
    assert found.medians == (31.5, 35, 46, 55, 69.5, 77)
    assert round(found.finest_longer, 3) == 0.904
    expected = (0.603, 0.804, 0.693, 0.672, 0.606)
    assert tuple(round(share, 3) for share in found.longer) == expected
    assert (round(found.sentences[0], 1), round(found.sentences[-1], 1)) == (1.9, 6.8)
    assert (round(found.marked[0], 3), round(found.marked[-1], 3)) == (0.999, 0.974)
    assert found.is_increasing
    assert found.monotone < 0.1  # In aggregate only.


def test_medians_of_the_whole_files_are_the_known_ones(data_folder: Path) -> None:
    medians = []
    for name in LEVEL_FILES:
        path = data_folder / "svamp_levels" / name
        rows = json.loads(path.read_text(encoding="utf-8"))
        medians.append(median(len(row["output"].split()) for row in rows))
    assert medians == [31, 35, 46, 55, 70, 77]
