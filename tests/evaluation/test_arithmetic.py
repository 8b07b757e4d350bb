"""Exact arithmetic against Python's own fractions."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.evaluation.arithmetic import MAX_DEPTH, MAX_LENGTH, canonical, evaluate

# An expression, its value (None after a division by zero), and how tightly it binds: a
# sum 1, a product 2, a number or brackets 3.
Built = tuple[str, Fraction | None, int]


def _number(parts: tuple[int, int]) -> Built:
    whole, places = parts
    digits = str(whole).zfill(places + 1)
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return text, Fraction(whole, 10**places), 3


NUMBERS = st.tuples(st.integers(0, 99_999), st.integers(0, 3)).map(_number)


def _bracketed(built: Built, level: int) -> str:
    return built[0] if built[2] >= level else f"({built[0]})"


@st.composite
def _combined(draw: st.DrawFn, parts: st.SearchStrategy[Built]) -> Built:
    sign = draw(st.sampled_from("+-*/n("))
    left = draw(parts)
    if sign == "n":
        return "-" + _bracketed(left, 3), None if left[1] is None else -left[1], 2
    if sign == "(":
        return f"( {left[0]} )", left[1], 3
    right = draw(parts)
    level = 1 if sign in "+-" else 2
    space = draw(st.sampled_from(["", " "]))
    text = (
        _bracketed(left, level)
        + space
        + sign
        + space
        + _bracketed(right, level + (sign in "-/"))
    )
    a, b = left[1], right[1]
    if a is None or b is None or (sign == "/" and b == 0):
        return text, None, level
    values = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}
    return text, values[sign], level


EXPRESSIONS = st.recursive(NUMBERS, _combined, max_leaves=12)


@given(EXPRESSIONS)
def test_values_are_those_of_fractions(built: Built) -> None:
    text, value, _ = built
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", Fraction(14)),
        ("2 - 3 - 4", Fraction(-5)),
        ("16 / 4 / 2", Fraction(2)),
        ("-(2 - 5) * --2", Fraction(6)),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("(95 * 118) + (11,210 / 84)", Fraction(476425, 42)),
        (".5", Fraction(1, 2)),
        ("12 ÷ 4 × 2 − 1", Fraction(5)),  # noqa: RUF001
        ("( ( 17.0 + 15.0 ) + 2.0 )", Fraction(34)),
    ],
)
def test_known_expressions(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 / 0",
        "1 / (2 - 2)",
        "2 3",
        "2 +",
        "+ 2",
        "()",
        "(2",
        "2)",
        "2 ** 3",
        "2 // 3",
        "2 % 3",
        "2e3",
        "5.",
        "1,23",
        "1234,567",
        "x + 1",
        "٣ + ٤",
        "__import__('os')",
        "9" * (MAX_LENGTH + 1),
        "1\x00",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert evaluate(text) is None


def test_the_limits_are_where_they_are_said_to_be() -> None:
    assert evaluate("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH) == 7
    deeper = MAX_DEPTH + 1
    assert evaluate("(" * deeper + "7" + ")" * deeper) is None
    assert evaluate("-" * MAX_DEPTH + "7") == 7
    assert evaluate("-" * deeper + "7") is None
    assert evaluate("1" * MAX_LENGTH) == Fraction(int("1" * MAX_LENGTH))


@pytest.mark.parametrize("unit", ["(", "1", "-", "1+", "1/0", " "])
def test_a_long_text_is_refused_at_once(unit: str) -> None:
    start = time.process_time()
    assert evaluate(unit * (100_000 // len(unit))) is None
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(12), "12"),
        (Fraction(-12), "-12"),
        (Fraction(0), "0"),
        (Fraction(1, 2), "0.5"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(1201, 10), "120.1"),
        (Fraction(1, 100), "0.01"),
        (Fraction(1, 3), "1/3"),
        (Fraction(-22, 7), "-22/7"),
        (Fraction(1, 10**12), "0.000000000001"),
        (Fraction(1, 10**13), "1/10000000000000"),
    ],
)
def test_one_spelling(value: Fraction, text: str) -> None:
    assert canonical(value) == text


@given(st.fractions(max_denominator=10**6))
def test_a_spelling_has_its_value(value: Fraction) -> None:
    assert Fraction(canonical(value)) == value
    assert evaluate(canonical(value)) == value
