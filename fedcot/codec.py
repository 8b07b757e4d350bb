"""Frozen dataclasses to flat mappings of scalars and lists, and back.

`fedcot.records` declares the messages; this module turns them into what a Flower
`ConfigRecord` can hold. A tuple of nested dataclasses becomes one list per column, so
that a message of a hundred prompts has a handful of keys. Nothing is converted: a
value of another type than declared is refused in both directions.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args, get_origin, get_type_hints

from fedcot.errors import WireError

Scalar = bool | int | float | str
Flat = dict[str, Any]
SCALARS: Final = (bool, int, float, str)
LENGTHS: Final = ".lengths"
# Flower carries integers as sint64; a larger one fails only once it is serialised.
LARGEST: Final = 2**63 - 1


def flatten(message: Any) -> Flat:
    """Return the message as a mapping of kebab-case keys to scalars and lists.

    Raises
    ------
    WireError
        A value that is not of the declared type, or a number that is not finite.
    """
    flat: Flat = {}
    for name, kind in columns(type(message)):
        value = getattr(message, name)
        if kind in SCALARS:
            flat[kebab(name)] = scalar(value, kind, kebab(name))
        elif item_of(kind) in SCALARS:
            flat[kebab(name)] = scalars(value, item_of(kind), kebab(name))
        else:
            flat.update(_flatten_rows(value, item_of(kind), kebab(name)))
    return flat


def unflatten(message_type: type[Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments of a message from its flat mapping.

    Raises
    ------
    WireError
        A key is missing or not known, or a value is not of the declared type.
    """
    expected = set(keys_of(message_type))
    _compare_keys(expected, set(flat), message_type.__name__)
    arguments: dict[str, Any] = {}
    for name, kind in columns(message_type):
        key = kebab(name)
        if kind in SCALARS:
            arguments[name] = scalar(flat[key], kind, key)
        elif item_of(kind) in SCALARS:
            arguments[name] = tuple(scalars(flat[key], item_of(kind), key))
        else:
            arguments[name] = _unflatten_rows(flat, item_of(kind), key)
    return arguments


def keys_of(message_type: type[Any]) -> Iterable[str]:
    """Yield every key of the flat mapping of a message type."""
    for name, kind in columns(message_type):
        row_type = item_of(kind)
        if kind in SCALARS or row_type in SCALARS:
            yield kebab(name)
            continue
        for column, column_kind in columns(row_type):
            yield f"{kebab(name)}.{kebab(column)}"
            if column_kind not in SCALARS:
                yield f"{kebab(name)}.{kebab(column)}{LENGTHS}"


def scalar(value: Any, kind: Any, key: str) -> Scalar:
    """Return the value if it is exactly of the kind and can be carried.

    Infinity is a legal epsilon (mechanism `none`) and nothing else.
    """
    if type(value) is not kind:
        raise WireError(
            f"`{key}` must be {kind.__name__}, found {type(value).__name__}."
        )
    if kind is int and abs(value) > LARGEST:
        raise WireError(f"`{key}` must fit 64 bits.")
    if kind is float and math.isnan(value):
        raise WireError(f"`{key}` must be a number, found nan.")
    if kind is float and math.isinf(value) and not key.endswith("epsilon"):
        raise WireError(f"`{key}` must be finite, found {value}.")
    # A lone surrogate passes in memory and fails when a deployed node serialises it.
    if kind is str and re.search("[\ud800-\udfff]", value):
        raise WireError(f"`{key}` must be valid Unicode text.")
    return value  # type: ignore[no-any-return]


def scalars(values: Any, kind: Any, key: str) -> list[Any]:
    """Return a list of checked scalars from a tuple or list."""
    if not isinstance(values, tuple | list):
        raise WireError(f"`{key}` must be a list, found {type(values).__name__}.")
    return [scalar(value, kind, key) for value in values]


def kebab(name: str) -> str:
    """Return the key of a field."""
    return name.replace("_", "-")


def item_of(kind: Any) -> Any:
    """Return `T` of `tuple[T, ...]`."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def columns(message_type: Any) -> tuple[tuple[str, Any], ...]:
    """Return name and type of each field that goes into the flat mapping.

    Fields with metadata ``{"wire": False}`` are left to the caller.
    """
    hints = get_type_hints(message_type)
    found = tuple(
        (item.name, hints[item.name])
        for item in dataclasses.fields(message_type)
        if item.metadata.get("wire", True)
    )
    for name, kind in found:
        nested = item_of(kind)
        known = kind in SCALARS or nested in SCALARS
        if not known and not dataclasses.is_dataclass(nested):
            raise TypeError(f"{message_type.__name__}.{name}: {kind} has no wire form.")
    return found


def _flatten_rows(rows: Any, row_type: Any, key: str) -> Flat:
    if not isinstance(rows, tuple):
        raise WireError(f"`{key}` must be a tuple, found {type(rows).__name__}.")
    for row in rows:
        if type(row) is not row_type:
            raise WireError(
                f"`{key}` may hold {row_type.__name__} only, "
                f"found {type(row).__name__}."
            )
    flat: Flat = {}
    for name, kind in columns(row_type):
        column = f"{key}.{kebab(name)}"
        values = [getattr(row, name) for row in rows]
        if kind in SCALARS:
            flat[column] = scalars(values, kind, column)
            continue
        lists = [scalars(value, item_of(kind), column) for value in values]
        flat[column] = [value for items in lists for value in items]
        flat[column + LENGTHS] = [len(items) for items in lists]
    return flat


def _unflatten_rows(flat: Mapping[str, Any], row_type: Any, key: str) -> Any:
    named: dict[str, list[Any]] = {}
    for name, kind in columns(row_type):
        column = f"{key}.{kebab(name)}"
        if kind in SCALARS:
            named[name] = scalars(flat[column], kind, column)
        else:
            values = scalars(flat[column], item_of(kind), column)
            lengths = scalars(flat[column + LENGTHS], int, column + LENGTHS)
            named[name] = _split(values, lengths, column)
    sizes = {len(values) for values in named.values()}
    if len(sizes) != 1:
        raise WireError(f"`{key}` must have columns of one length, found {sizes}.")
    build = getattr(row_type, "from_wire", row_type)
    rows = zip(*named.values(), strict=True)
    return tuple(build(**dict(zip(named, row, strict=True))) for row in rows)


def _split(values: list[Any], lengths: list[int], key: str) -> list[tuple[Any, ...]]:
    if any(length < 0 for length in lengths) or sum(lengths) != len(values):
        raise WireError(f"`{key}{LENGTHS}` must add up to {len(values)}.")
    split, start = [], 0
    for length in lengths:
        split.append(tuple(values[start : start + length]))
        start += length
    return split


def _compare_keys(expected: set[str], found: set[str], name: str) -> None:
    if missing := sorted(expected - found):
        raise WireError(f"{name} lacks the keys {', '.join(missing)}.")
    # The surplus keys are not quoted: what they say is not ours.
    if surplus := len(found - expected):
        raise WireError(f"{name} has {surplus} keys that it must not have.")
