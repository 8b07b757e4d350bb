"""All sections on communities, each by its name; what cannot be had says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fedcot.community.games import Reference
from fedcot.errors import ConfigError
from fedcot.report.community_incentives import (
    compatibility_section,
    incentives_section,
)
from fedcot.report.community_objectives import objectives_section
from fedcot.report.community_sharing import audit_section, sharing_section
from fedcot.report.community_utility import gains_section, utility_section
from fedcot.report.community_view import Section
from fedcot.report.reader import Run

TITLES: Final[Mapping[str, str]] = {
    "utility": "Utility",
    "gains": "Gains",
    "objectives": "Social objectives",
    "incentives": "Incentives",
    "compatibility": "Format compatibility",
    "sharing": "Sharing",
    "audit": "Audit",
}
SECTIONS: Final = tuple(TITLES)


def section(
    run: Run, name: str, *, arm: str = "", reference: Reference = "before"
) -> Section:
    """Return one section.

    Parameters
    ----------
    run : Run
        Of communities.
    name : str
        One of `SECTIONS`.
    arm : str
        Way of sharing whose students are looked at; empty: the first of the run.
        `sharing` and `audit` are of all ways.
    reference : {"before", "provider", "alone", "none"}
        What the worth of a coalition is counted from, for `incentives`.

    Raises
    ------
    ConfigError
        The name is unknown, or the section cannot be had: a gain, for example, without
        all its baselines.
    """
    if name not in TITLES:
        raise ConfigError(
            f"`--section` must be one of {', '.join(SECTIONS)}, found {name!r}; name "
            "one of these."
        )
    makers: Mapping[str, Callable[[], Section]] = {
        "utility": lambda: utility_section(run, arm),
        "gains": lambda: gains_section(run, arm),
        "objectives": lambda: objectives_section(run, arm),
        "incentives": lambda: incentives_section(run, arm, reference=reference),
        "compatibility": lambda: compatibility_section(run, arm),
        "sharing": lambda: sharing_section(run),
        "audit": lambda: audit_section(run),
    }
    return makers[name]()


def all_sections(
    run: Run, *, arm: str = "", reference: Reference = "before"
) -> tuple[Section, ...]:
    """Return every section; one that cannot be had holds the reason instead."""
    found = []
    for name, title in TITLES.items():
        try:
            found.append(section(run, name, arm=arm, reference=reference))
        except ConfigError as error:
            found.append(Section(name=name, title=title, problem=str(error)))
    return tuple(found)
