"""What a setting has to satisfy: its type, its range, and how a bad value is told.

Every refusal is one line that names the parameter, the rule, the value found and a
value that is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Final, NoReturn

from fedcot.errors import ConfigError

Scalar = bool | int | float | str

LARGEST: Final = 2**63 - 1  # Flower carries integers as sint64
_NAMES_OF_TYPES: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value has to satisfy, in words and as a test."""

    text: str
    holds: Callable[[Any], bool]


def one_of(*allowed: str) -> Rule:
    """Allow exactly these texts."""
    return Rule("one of " + ", ".join(allowed), lambda value: value in allowed)


def at_least(low: int) -> Rule:
    """Allow whole numbers from `low` on, as far as Flower can carry them."""
    return Rule(f">= {low} and < 2^63", lambda value: low <= value <= LARGEST)


def list_of(*allowed: str) -> Rule:
    """Allow a comma list that holds one or more of these texts, each once."""

    def holds(value: str) -> bool:
        names = split_list(value)
        return set(names) <= set(allowed) and len(set(names)) == len(names)

    return Rule("a comma list, each once, out of " + ", ".join(allowed), holds)


def split_list(value: str) -> tuple[str, ...]:
    """Return the names of a comma list; spaces around a name do not count."""
    return tuple(name.strip() for name in value.split(","))


POSITIVE: Final = Rule("> 0 and finite", lambda value: 0 < value < math.inf)
NOT_NEGATIVE: Final = Rule(">= 0 and finite", lambda value: 0 <= value < math.inf)
# Below, accountants of Gaussian noise lose all digits; it protects nothing anyway.
NOISE: Final = Rule(
    "0, or >= 0.001 and finite", lambda value: value == 0 or 0.001 <= value < math.inf
)
NORM: Final = Rule("from 1e-100 to 1e100", lambda value: 1e-100 <= value <= 1e100)
OPEN_UNIT: Final = Rule("inside (0, 1)", lambda value: 0 < value < 1)
SHARE: Final = Rule("inside (0, 1]", lambda value: 0 < value <= 1)
UNIT: Final = Rule("inside [0, 1]", lambda value: 0 <= value <= 1)
PART: Final = Rule("inside [0, 1)", lambda value: 0 <= value < 1)
DEVICE: Final = Rule(
    "auto, cpu, mps, cuda or cuda:N",
    lambda value: re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value) is not None,
)
DROPOUT: Final = Rule("inside [0, 1)", lambda value: 0 <= value < 1)
TEXT: Final = Rule("text that is not empty", lambda value: bool(value.strip()))
ANY: Final = Rule("", lambda value: True)
# More of them tell no more, and the built-in world would be searched for hours.
HOLD_OUT: Final = Rule("0 to 10000", lambda value: 0 <= value <= 10_000)
# What one message to a teacher client may ask for.
SAMPLES: Final = Rule("1 to 10000", lambda value: 1 <= value <= 10_000)
TEMPERATURE: Final = Rule("0 to 100", lambda value: 0 <= value <= 100)
# Between them the weights of private votes can be calibrated.
VOTE_EPSILON: Final = Rule(
    "0, or from 0.0001 to 64", lambda value: value == 0 or 1e-4 <= value <= 64
)
SLUG: Final = Rule(
    "1 to 64 of a-z, 0-9 and '-', a letter or digit first",
    lambda value: re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value) is not None,
)


def setting(default: Any, rule: Rule, text: str, *, example: Any = None) -> Any:
    """Declare a field with its rule, its help text and a value that is allowed."""
    metadata = {"rule": rule, "help": text, "example": example}
    return field(default=default, metadata=metadata)


def key_of(item: Field[Any]) -> str:
    """Return the kebab-case key of a field of `RunConfig`."""
    return item.name.replace("_", "-")


def type_of(item: Field[Any]) -> type[Scalar]:
    """Return the type of a field's value."""
    return {"bool": bool, "int": int, "float": float, "str": str}[str(item.type)]


def default_of(item: Field[Any]) -> Scalar | None:
    """Return the default of a field, or None where the library has none."""
    return None if item.default is MISSING else item.default


def typed(item: Field[Any], value: Any) -> Any:
    """Return the value with integers widened to floats; refuse any other type.

    `bool` is a subclass of `int` in Python and never counts as one here.
    """
    wanted = type_of(item)
    if type(value) is int and wanted is float and abs(value) <= LARGEST:
        return float(value)
    if type(value) is not wanted:
        refuse(item, f"be {_NAMES_OF_TYPES[wanted]}", value)
    if isinstance(value, float) and not math.isfinite(value):
        check_rule(item, value)
        refuse(item, "be finite", value)
    if isinstance(value, str) and not value.isprintable():
        refuse(item, "be one line of printable text", value)
    return value


def check_rule(item: Field[Any], value: Any) -> None:
    """Refuse a value that breaks the rule its field was declared with."""
    rule: Rule = item.metadata["rule"]
    if not rule.holds(value):
        refuse(item, f"be {rule.text}", value)


def refuse(item: Field[Any], rule: str, value: Any) -> NoReturn:
    """Raise the one line that says what was wrong and what would be right."""
    example = item.metadata["example"]
    example = default_of(item) if example is None else example
    allowed = str(example).lower() if isinstance(example, bool) else example
    raise ConfigError(
        f"`{key_of(item)}` must {rule}, found {shown(value)}; "
        f"pass for example `-c {key_of(item)}={allowed}`."
    )


def shown(value: object) -> str:
    """Show a value on one line, shortened; text in backquotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) > 10**40:
        return "a whole number of more than 40 digits"
    if isinstance(value, int | float):
        return str(value)
    text = repr(str(value))[1:-1]
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"
