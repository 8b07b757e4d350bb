"""What `community_runs.py` varies: the points to run, and the factors that they show.

One point is one run. The point `base` is part of nearly every factor, so it is run once
and read by all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fedcot.config import RunConfig
from fedcot.rules import Scalar

BASE: Final = "base"
DIVERSITIES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of the questions that a member has in the base point.
SIZES: Final = (0.125, 0.25, 0.5, 1.0)
MEMBER_SIZE: Final = 0.25
MEMBERS: Final = (8, 16)
LEVELS: Final = (1, 2, 3, 4)
PADDED: Final = "1 padded to 4"
# Shares of a member's traces that go to the small company.
MOVED: Final = (0.2, 0.5, 0.8)
# Communities that every number of communities has, so that the curve compares the same.
LASTING: Final = ("library", "harbor")
NUMBERS: Final = {
    2: "library,harbor",
    3: "library,bakery,harbor",
    5: "library,bakery,colony,harbor,contest",
}

Value = float | str


@dataclass(frozen=True)
class Point:
    """One run for each seed.

    Attributes
    ----------
    name : str
        Folder of the run.
    settings : mapping of str to value
        Over those of the base point.
    members : int
        Clients.
    tokens_of : str
        Point whose pool of all communities says how many tokens may be used; empty for
        no limit.
    """

    name: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    members: int = 4
    tokens_of: str = ""


@dataclass(frozen=True)
class Factor:
    """Points that differ in one thing.

    Attributes
    ----------
    name : str
    axis : str
        What differs, with its unit, as a figure says it.
    places : tuple of (value, point name)
        In order.
    is_ordered : bool
        Whether the values are an amount, so that the last is compared with the first;
        else all are compared with the first.
    arms : mapping of value to str
        Whose accuracy counts, where it is not the pooled student's.
    communities : tuple of str
        Whose tests count; none: all.
    pairs : tuple of (value, value)
        What is compared with what, if not as above.
    """

    name: str
    axis: str
    places: tuple[tuple[Value, str], ...]
    is_ordered: bool = False
    arms: Mapping[Value, str] = field(default_factory=dict)
    communities: tuple[str, ...] = ()
    pairs: tuple[tuple[Value, Value], ...] = ()


@dataclass(frozen=True)
class Plan:
    """All points by name, in the order in which they are run, and all factors."""

    points: Mapping[str, Point]
    factors: tuple[Factor, ...]

    def factor(self, name: str) -> Factor:
        """Return a factor by its name."""
        return next(one for one in self.factors if one.name == name)

    def points_of(self, name: str) -> list[Point]:
        """Return the points of a factor, after those that they take tokens from."""
        wanted = {point for _, point in self.factor(name).places}
        wanted |= {self.points[one].tokens_of for one in wanted}
        return [point for point in self.points.values() if point.name in wanted]


def make_plan(base: RunConfig) -> Plan:
    """Return the plan around the settings of the base point."""
    count = len(base.community_names)
    size = base.num_records // count
    both = {"coalitions": "alone,grand"}
    grand = {"coalitions": "grand"}
    points = [Point(BASE, {"coalitions": "all"})]
    factors = [
        Factor("coalitions", "coalition", ((BASE, BASE),)),
        _diversity(base, points, both),
        *_sizes(base, points, both, size),
        _communities(points, grand, size, count),
        _granularity(points, grand),
        _objective(points, grand),
        _sharing(points, grand),
        *_providers(points, grand),
        _behaviour(points, grand, base.community_names),
        _leverage(points, grand, base.community_names),
    ]
    # Controls cost as much as what they control: those of the base point say enough.
    planned = {
        point.name: point
        if point.name == BASE
        else replace(point, settings={"controls": "none", **point.settings})
        for point in points
    }
    return Plan(planned, tuple(factors))


def _diversity(
    base: RunConfig, points: list[Point], both: Mapping[str, Scalar]
) -> Factor:
    places: list[tuple[Value, str]] = []
    for value in DIVERSITIES:
        if value == base.community_diversity:
            places.append((value, BASE))
            continue
        name = f"diversity-{value:g}"
        points.append(Point(name, {**both, "community-diversity": value}))
        places.append((value, name))
    return Factor("diversity", "diversity of communities", tuple(places), True)


def _sizes(
    base: RunConfig, points: list[Point], both: Mapping[str, Scalar], size: int
) -> tuple[Factor, ...]:
    """Return questions a member, members at constant questions, and at equal tokens."""
    count = len(base.community_names)
    examples: list[tuple[Value, str]] = []
    small = ""
    for share in SIZES:
        each = round(share * size)
        name = BASE if share == 1 else f"examples-{each}"
        if share != 1:
            points.append(Point(name, {**both, "num-records": each * count}))
        if share == MEMBER_SIZE:
            small = name
        examples.append((each, name))
    members: list[tuple[Value, str]] = [(count, small)]
    tokens: list[tuple[Value, str]] = [(count, small)]
    each = round(MEMBER_SIZE * size)
    for number in MEMBERS:
        settings = {
            "coalitions": "grand",
            "num-records": each * number,
            # As many test questions of all members together.
            "test-records": max(1, base.test_records * count // number),
        }
        points.append(Point(f"members-{number}", settings, members=number))
        points.append(
            Point(f"equal-tokens-{number}", settings, members=number, tokens_of=small)
        )
        members.append((number, f"members-{number}"))
        tokens.append((number, f"equal-tokens-{number}"))
    return (
        Factor("examples", "questions of each member", tuple(examples), True),
        Factor("members", f"members with {each} questions each", tuple(members), True),
        Factor("equal-tokens", "members, at equal tokens", tuple(tokens), True),
    )


def _communities(
    points: list[Point], grand: Mapping[str, Scalar], size: int, count: int
) -> Factor:
    places: list[tuple[Value, str]] = [(count, BASE)]
    for number, names in NUMBERS.items():
        settings = {**grand, "communities": names, "num-records": size * number}
        points.append(Point(f"communities-{number}", settings, members=number))
        places.append((number, f"communities-{number}"))
    return Factor(
        "communities",
        f"communities with {size} questions each",
        tuple(sorted(places, key=lambda place: float(place[0]))),
        True,
        communities=LASTING,
    )


def _granularity(points: list[Point], grand: Mapping[str, Scalar]) -> Factor:
    places: list[tuple[Value, str]] = []
    for level in LEVELS:
        name = f"granularity-{level}"
        points.append(Point(name, {**grand, "granularity": level}))
        places.append((level, name))
    padding: dict[str, Scalar] = {"granularity": 1, "granularity-padding": LEVELS[-1]}
    points.append(Point("granularity-padded", {**grand, **padding}))
    places.append((PADDED, "granularity-padded"))
    return Factor("granularity", "level of the traces", tuple(places))


def _objective(points: list[Point], grand: Mapping[str, Scalar]) -> Factor:
    points += [
        Point(f"label-share-{share:g}", {**grand, "label-share": share})
        for share in (0.5, 1.0)
    ]
    places = ((0.0, BASE), (0.5, "label-share-0.5"), (1.0, "label-share-1"))
    return Factor("objective", "share of the answer in the loss", places, True)


def _sharing(points: list[Point], grand: Mapping[str, Scalar]) -> Factor:
    """Return pooled against federated; the pooled student is that of `base`."""
    points += [
        Point(
            f"federated-{rounds}",
            {**grand, "sharing": "federated", "num-server-rounds": rounds},
        )
        for rounds in (1, 3)
    ]
    one, three = "federated, 1 round", "federated, 3 rounds"
    return Factor(
        "sharing",
        "what is shared",
        (("pooled", BASE), (one, "federated-1"), (three, "federated-3")),
        arms={one: "federated", three: "federated"},
    )


def _providers(
    points: list[Point], grand: Mapping[str, Scalar]
) -> tuple[Factor, Factor]:
    """Return the filter of traces, and how much reasoning the provider hands out."""
    points += [
        Point(f"filter-{kind}", {**grand, "trace-filter": kind})
        for kind in ("none", "steps")
    ]
    # A summary has no steps to check, so none of these is filtered. Whoever gets no
    # reasoning can only learn, and be asked for, answers.
    kinds = ("summary", "recap-only", "absent")
    for kind in kinds:
        settings = {**grand, "trace-filter": "none", "provider-reasoning": kind}
        if kind != "summary":
            settings["label-share"] = 1.0
        points.append(Point(f"provider-{kind}", settings))
    return (
        Factor(
            "filter",
            "filter of traces",
            (("none", "filter-none"), ("steps", "filter-steps"), ("answer", BASE)),
        ),
        Factor(
            "provider-reasoning",
            "reasoning handed out",
            (("full", "filter-none"), *((kind, f"provider-{kind}") for kind in kinds)),
        ),
    )


def _behaviour(
    points: list[Point], grand: Mapping[str, Scalar], names: tuple[str, ...]
) -> Factor:
    first, second = names[:2]
    planned = "as planned"
    scenarios = {
        f"{second} rides free": ("free-rider", second, "answer", planned),
        f"{first} strikes": ("strike", first, "answer", planned),
        f"{second} poisons, no filter": ("poison", second, "none", "no filter"),
        f"{second} poisons, steps checked": (
            "poison",
            second,
            "steps",
            "steps checked",
        ),
    }
    places: list[tuple[Value, str]] = [
        (planned, BASE),
        # What a poisoned pool is compared with: the same filter without poison.
        ("no filter", "filter-none"),
        ("steps checked", "filter-steps"),
    ]
    for value, (kind, who, trace_filter, _) in scenarios.items():
        name = kind if trace_filter == "answer" else f"{kind}-{trace_filter}"
        settings = {
            **grand,
            "scenario": f"{kind}:{who}",
            "trace-filter": trace_filter,
        }
        points.append(Point(name, settings))
        places.append((value, name))
    return Factor(
        "behaviour",
        "behaviour of a community",
        tuple(places),
        pairs=tuple((one[-1], value) for value, one in scenarios.items()),
    )


def _leverage(
    points: list[Point], grand: Mapping[str, Scalar], names: tuple[str, ...]
) -> Factor:
    """Return students of a share of every member's traces: who strikes gives none."""
    places: list[tuple[Value, str]] = []
    for share in MOVED:
        kept = f"{1 - share:g}"
        scenario = ",".join(f"strike:{name}:{kept}" for name in names)
        points.append(Point(f"moved-{share:g}", {**grand, "scenario": scenario}))
        places.append((share, f"moved-{share:g}"))
    places.append((1.0, BASE))
    return Factor("leverage", "share of traces that move", tuple(places), True)
