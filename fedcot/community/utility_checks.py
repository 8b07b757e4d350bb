"""The rules that a table of utilities keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fedcot.community.coalitions import Coalition, label
from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.community.utility import UtilityTable

Cell = tuple[str, Coalition]


def named(key: str | Coalition | Cell) -> str:
    """Return how a community, a coalition or a pair of them stands in an error."""
    if isinstance(key, str):
        return key
    if any(isinstance(one, tuple) for one in key):
        return " in ".join(one if isinstance(one, str) else label(one) for one in key)
    return label(tuple(str(one) for one in key))


def check_table(table: UtilityTable) -> None:
    """Check names, accuracies and answers of a table.

    Raises
    ------
    ConfigError
        See `fedcot.community.utility.UtilityTable`.
    """
    _check_names(table)
    _check_values(table)
    _check_answers(table)


def _parts(table: UtilityTable) -> dict[str, Mapping[Any, Any]]:
    """Return the mappings of a table by name, accuracies and answers."""
    return {
        one.name: getattr(table, one.name)
        for one in fields(table)
        if isinstance(getattr(table, one.name), Mapping)
    }


def _are_answers(name: str) -> bool:
    return name.endswith("_correct")


def _check_names(table: UtilityTable) -> None:
    communities, coalitions = table.communities, table.coalitions
    known = set(communities)
    good = bool(communities) and len(known) == len(communities)
    if not good or len(set(coalitions)) != len(coalitions):
        raise ConfigError(
            "`communities` must be at least one, each once, and `coalitions` each "
            f"once, found {', '.join(communities) or 'none'} and "
            f"{', '.join(map(label, coalitions)) or 'none'}; name each once."
        )
    for one in coalitions:
        if not one or one != tuple(name for name in communities if name in one):
            raise ConfigError(
                "`coalitions` must be communities in their order, found "
                f"{label(one) or 'nobody'}; the order is {', '.join(communities)}."
            )
    cells = {(name, one) for name in communities for one in coalitions}
    by_community, by_coalition = ("provider", "before"), ("hold_out",)
    for name, held in _parts(table).items():
        allowed: set[Any] = cells
        if name.startswith(by_community):
            allowed = known
        elif name.startswith(by_coalition):
            allowed = set(coalitions)
        for key in held:
            if key not in allowed:
                raise ConfigError(
                    f"`{name}` must be of communities and coalitions of the table, "
                    f"found {key!r}; name it there or leave it out."
                )


def _check_values(table: UtilityTable) -> None:
    for name, held in _parts(table).items():
        if _are_answers(name):
            continue
        for key, value in held.items():
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"`{name}` must be accuracies in [0, 1], found {value} for "
                    f"{named(key)}; leave out what was not measured."
                )


def _check_answers(table: UtilityTable) -> None:
    lengths: dict[str, int] = {}
    for name, held in _parts(table).items():
        if not _are_answers(name):
            continue
        for key, text in held.items():
            community = key if isinstance(key, str) else key[0]
            if set(text) - {"0", "1"} or lengths.setdefault(
                community, len(text)
            ) != len(text):
                raise ConfigError(
                    f"`{name}` must be one 0 or 1 for each of the community's test "
                    f"questions, found {len(text)} characters for {named(key)}; give "
                    "all of a community the same questions."
                )
