"""False equations are found; what does not read plainly is left alone."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.evaluation.equations import wrong_equations


@pytest.mark.parametrize(
    "text",
    [
        "84 / 2 = 42.",
        "She pays $3 x 4 = $12, so 12 - 2 = 10 are left.",
        "48/2 = <<48/2=24>>24 clips",
        "12/60 = $<<12/60=0.2>>0.2 per minute",
        "2 / 3 = 0.66 and 2 / 3 = 0.67",
        "5 * 3 = 15 = 10 + 5",
        "(3 + 4 = 7)",
        "20% * 50 = 10",
        "5 / 20 = 25%",
        "5 / 20 * 100 = 25%",
        "1,000 + 250 = 1,250",
        "- 3 + 4 = 7\n* 2 * 2 = 4",
        "Step 1. 3 + 4 = 7 - and that is all",
        "0.1 + 0.2 = 0.3",
        "7 − 2 = 5",  # noqa: RUF001
        "17 − 5 = 12 x 1",  # noqa: RUF001
    ],
)
def test_true_equations_are_not_counted(text: str) -> None:
    assert wrong_equations(text) == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("84 / 2 = 43.", 1),
        ("84 / 2 = 43 and 3 + 3 = 7", 2),
        ("She pays $3 x 4 = $13", 1),
        ("48/2 = <<48/2=25>>25 clips", 1),  # the same claim in the text and in a mark
        ("He has <<48/2=25>>25 clips", 1),
        ("2 / 3 = 0.65", 1),
        ("2 / 3 = 1", 1),
        ("3 + 4 = 7 * 2 = 14", 1),  # a chain that stops being true
        ("1 + 1 = 3 = 4 - 1", 1),
        ("(3 + 4 = 8)", 1),
        ("8 = 3 + 4", 1),
        ("20% * 50 = 11", 1),
        ("- 3 + 4 = 8", 1),
        ("0.2 * 3 = 0.7", 1),
        ("3 + 4 == 8", 1),
    ],
)
def test_false_equations_are_counted(text: str, count: int) -> None:
    assert wrong_equations(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no sums here",
        "x = 5 = 6",
        "2x + 3 = 8",
        "y - 3 + 5 = 20",
        "b3 + 4 = 9",
        "2^3 + 1 = 9",
        "half of 20 + 3 = 13",
        "11 / 2 = 5 1/2",
        "7 / 2 = 3 remainder 1",
        "2 * 1000 = 2 thousand",
        "10 / 2 = 6x",
        "5 apples + 3 apples = 9 apples",
        "1 / 0 = 4",
        "3:30 + 2 = 5:30",
        "3 + 4 != 8",
        "16,0000 / 10 = 16000",
        "48 = 100% + 20% = 120% of it",
        "= 3 + 4",
        "3 + 4 =",
        "3 + = 8",
    ],
)
def test_what_does_not_read_plainly_is_left_alone(text: str) -> None:
    assert wrong_equations(text) == 0


@given(
    st.integers(0, 500), st.sampled_from("+-*"), st.integers(0, 500), st.integers(-9, 9)
)
def test_an_equation_counts_exactly_when_it_is_false(
    a: int, sign: str, b: int, shift: int
) -> None:
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    text = f"First we see that {a} {sign} {b} = {value + shift}. Then we go on."
    assert wrong_equations(text) == (shift != 0)


@pytest.mark.parametrize(
    "unit", ["(", "1", "1=", "1+1=3 ", "<<", "<<1=1>>", "=", "-", "1 ", "x"]
)
def test_the_time_is_bounded(unit: str) -> None:
    text = unit * (100_000 // len(unit))

    def seconds() -> float:
        start = time.process_time()
        wrong_equations(text)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.05


def test_human_steps_of_gsm8k_are_true(data_folder: Path) -> None:
    lines = (data_folder / "gsm8k" / "test.jsonl").read_text().splitlines()
    counts = [wrong_equations(json.loads(line)["answer"]) for line in lines]
    # The three that are not, by hand: 3/2 = 1.50+3.00, 364 / 4 = 273, 32 - 20 = 300.
    assert (len(counts), sum(counts), max(counts)) == (1319, 3, 1)
