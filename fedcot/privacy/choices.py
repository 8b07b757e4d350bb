"""The exact law of code that draws: run it for every choice its source can make.

A model checker for randomised code. The code under test is run again and again with a
source that hands out scripted draws; whatever bound it asks for next is branched on.
Large bounds are not tried draw by draw: a channel looks up in which interval a draw
falls, so the intervals are found by bisection and count with their exact lengths.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import FedcotError
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource

Outcome = Hashable
Law = dict[Outcome, Fraction]
# Runs the code under test: once for each input of a list, drawing from a source.
Release = Callable[[Sequence[str], RandomSource], Sequence[Outcome]]

# A bound up to this is tried draw by draw.
EXHAUSTIVE = 16
# Evenly spaced draws that are tried under every larger bound before bisection.
GRID = 9
LARGEST_TREE = 3000
# So many choices are also run without others beside them.
ALONE = 2


class EnumerationError(FedcotError):
    """The code under test cannot be enumerated; nothing is known about its law."""


class _RowsDifferError(EnumerationError):
    """Copies that run together asked for different numbers of draws."""


class ScriptedSource:
    """Draws that are prescribed for each of some copies that run together.

    Parameters
    ----------
    scripts : ndarray of int64, shape (copies, draws)
        The first draws of each copy.
    to_last : bool
        Whether later draws are the last below their bound instead of 0.
    """

    def __init__(self, scripts: NDArray[np.int64], *, to_last: bool = False) -> None:
        self._scripts = scripts
        self._to_last = to_last
        self._asked: list[NDArray[np.int64]] = []

    @property
    def private(self) -> bool:
        """False: the draws are prescribed."""
        return False

    def bounds(self, copy: int) -> tuple[int, ...]:
        """Return the bounds that a copy asked for beyond its script."""
        places = range(self._scripts.shape[1], len(self._asked))
        return tuple(int(self._asked[place][copy]) for place in places)

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the prescribed draws; the leading axis runs over the copies.

        Raises
        ------
        EnumerationError
            If the copies ask for different numbers of draws, or if a script does not
            fit the bound: the code does not repeat itself.
        """
        wanted = np.asarray(bounds, dtype=np.int64)
        copies = len(self._scripts)
        if wanted.size % copies:
            raise _RowsDifferError(
                "Runs beside each other draw different numbers of times."
            )
        per_copy = wanted.reshape(copies, -1)
        draws = np.empty_like(per_copy)
        for column in range(per_copy.shape[1]):
            bound, place = per_copy[:, column], len(self._asked)
            if place < self._scripts.shape[1]:
                draws[:, column] = self._scripts[:, place]
            else:
                draws[:, column] = bound - 1 if self._to_last else 0
            self._asked.append(bound)
        if bool(((draws < 0) | (draws >= per_copy)).any()):
            raise EnumerationError("The code asks for other bounds when run again.")
        return draws.reshape(wanted.shape)


# The code's private input and the first draws of a run.
Script = tuple[str, tuple[int, ...]]


@dataclass(slots=True)
class _Node:
    """A set of choices: the draw in `[low, high]` of each draw so far."""

    name: str
    low: tuple[int, ...]
    high: tuple[int, ...]
    share: Fraction

    @property
    def script(self) -> Script:
        return self.name, self.low


@dataclass(slots=True)
class ChoiceTree:
    """Enumerates what code does with each of some private inputs.

    Attributes
    ----------
    source : RandomSource
        Draws the points at which every interval is checked.
    exhaustive : int
        Bounds up to this are tried draw by draw.
    largest_tree : int
        More choices for an input, or more draws tried at one depth, are refused.

    Notes
    -----
    The law is exact if the code under test, given all other draws, does the same at
    every draw between two neighbouring ones, of those tried, at which it does the
    same. A look-up in cumulative weights has this property. A cut found for one input
    is tried for all others under the same bound, which finds an outcome that has two
    intervals, and every interval is checked at a random point. A bound that is tried
    draw by draw needs no assumption.
    """

    source: RandomSource
    exhaustive: int = EXHAUSTIVE
    largest_tree: int = LARGEST_TREE
    _cuts: dict[int, set[int]] = field(default_factory=dict)

    def laws(self, release: Release, names: Sequence[str]) -> dict[str, Law]:
        """Return the exact probability of every outcome for each input.

        Parameters
        ----------
        release : callable
            ``release(names, source)`` runs the code under test once for each name in a
            list and returns what each run showed. The leading axis of the bounds that
            it asks for runs over the list.
        names : sequence of str
            The inputs, distinct.

        Raises
        ------
        EnumerationError
            If the code has too many choices, does not repeat itself, or does not look
            its draws up in intervals.
        """
        nodes = [_Node(name, (), (), Fraction(1)) for name in names]
        leaves: list[_Node] = []
        shown: list[Outcome] = []
        while nodes:
            runs = _run(release, [node.script for node in nodes])
            inner = []
            for node, (bounds, outcome) in zip(nodes, runs, strict=True):
                if bounds:
                    inner.append((node, bounds[0]))
                else:
                    leaves.append(node)
                    shown.append(outcome)
            nodes = self._children(release, inner, len(names))
            self._refuse_more_than_allowed(len(nodes) + len(leaves), len(names))
        self._check(release, leaves, shown)
        laws: dict[str, Law] = {name: defaultdict(Fraction) for name in names}
        for node, outcome in zip(leaves, shown, strict=True):
            laws[node.name][outcome] += node.share
        return {name: dict(law) for name, law in laws.items()}

    def _children(
        self, release: Release, inner: list[tuple[_Node, int]], inputs: int
    ) -> list[_Node]:
        """Branch every node on the draw that it asks for next."""
        small = {
            place: list(range(bound))
            for place, (_, bound) in enumerate(inner)
            if bound <= self.exhaustive
        }
        self._refuse_more_than_allowed(sum(map(len, small.values())), inputs)
        large = {p: inner[p] for p in range(len(inner)) if p not in small}
        starts = {**small, **self._interval_starts(release, large, inputs)}
        made = []
        for place, (node, bound) in enumerate(inner):
            for low, after in itertools.pairwise([*starts[place], bound]):
                share = node.share * Fraction(after - low, bound)
                ends = (*node.low, low), (*node.high, after - 1)
                made.append(_Node(node.name, *ends, share))
        return made

    def _interval_starts(
        self, release: Release, large: dict[int, tuple[_Node, int]], inputs: int
    ) -> dict[int, list[int]]:
        """Return the first draw of each interval, by bisection of all nodes at once."""
        seen: dict[int, dict[int, Hashable]] = {place: {} for place in large}
        wanted = {
            place: self._first_probes(bound) for place, (_, bound) in large.items()
        }
        while any(wanted.values()):
            probes = [(place, draw) for place in wanted for draw in wanted[place]]
            tried = len(probes) + sum(map(len, seen.values()))
            self._refuse_more_than_allowed(tried, inputs)
            scripts = [
                (large[place][0].name, (*large[place][0].low, draw))
                for place, draw in probes
            ]
            ends = _both_ends(release, scripts)
            for (place, draw), behaviour in zip(probes, ends, strict=True):
                seen[place][draw] = behaviour
            wanted = {place: _middles(seen[place]) for place in large}
            if not any(wanted.values()):
                wanted = self._shared_probes(seen, large)
        return {place: [0, *_cuts_in(seen[place])] for place in large}

    def _shared_probes(
        self, seen: dict[int, dict[int, Hashable]], large: dict[int, tuple[_Node, int]]
    ) -> dict[int, set[int]]:
        """Return, for each node, the cuts of all others that it has not looked at."""
        for place, (_, bound) in large.items():
            self._cuts.setdefault(bound, set()).update(_cuts_in(seen[place]))
        return {
            place: self._known_cuts(bound) - seen[place].keys()
            for place, (_, bound) in large.items()
        }

    def _refuse_more_than_allowed(self, count: int, inputs: int) -> None:
        if count > self.largest_tree * inputs:
            raise EnumerationError(
                f"More than {self.largest_tree} choices; use fewer words or slots."
            )

    def _first_probes(self, bound: int) -> set[int]:
        """Return where to look first: everywhere, and where others had their cuts."""
        grid = {(bound - 1) * step // (GRID - 1) for step in range(GRID)}
        if bound not in self._cuts:
            # Rare outcomes often lie at an end: look there on every scale.
            scales = {bound >> bits for bits in range(1, bound.bit_length())}
            grid |= scales | {bound - 1 - scale for scale in scales}
        return grid | self._known_cuts(bound)

    def _known_cuts(self, bound: int) -> set[int]:
        """Return both sides of every cut known under a bound."""
        return {cut - side for cut in self._cuts.get(bound, ()) for side in (0, 1)}

    def _points(
        self, low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return a random draw of each interval, at a random distance from its end."""
        scales = self.source.below(np.full(low.shape, LARGEST_BOUND.bit_length()))
        reach = np.minimum(high - low, np.int64(1) << scales)
        from_end = self.source.below(reach + 1)
        is_from_low = self.source.below(np.full(low.shape, 2)) == 0
        points: NDArray[np.int64] = np.where(
            is_from_low, low + from_end, high - from_end
        )
        return points

    def _check(
        self, release: Release, leaves: list[_Node], shown: list[Outcome]
    ) -> None:
        """Run every leaf at a random point of its intervals and compare."""
        by_depth = defaultdict(list)
        for place, leaf in enumerate(leaves):
            by_depth[len(leaf.low)].append(place)
        for depth, places in by_depth.items():
            if depth == 0:
                continue
            low = np.array([leaves[place].low for place in places], dtype=np.int64)
            high = np.array([leaves[place].high for place in places], dtype=np.int64)
            points = self._points(low, high).tolist()
            names = [leaves[place].name for place in places]
            scripts = list(zip(names, map(tuple, points), strict=True))
            runs = _run(release, scripts)
            # Some of them alone: what a run shows must not depend on the others.
            few = range(0, len(places), -(-len(places) // ALONE))
            alone = [_run_together(release, [scripts[row]])[0] for row in few]
            expected = [((), shown[place]) for place in places]
            if runs != expected or alone != [expected[row] for row in few]:
                raise EnumerationError(
                    "A draw acts otherwise than its neighbours: the code does not "
                    "look draws up in intervals, so its law is not known."
                )


def _middles(seen: dict[int, Hashable]) -> set[int]:
    """Return the draws half-way between neighbours that behave differently."""
    draws = sorted(seen)
    return {
        (left + right) // 2
        for left, right in itertools.pairwise(draws)
        if right - left > 1 and seen[left] != seen[right]
    }


def _cuts_in(seen: dict[int, Hashable]) -> list[int]:
    """Return the draws that behave otherwise than the one before, of those tried."""
    return [b for a, b in itertools.pairwise(sorted(seen)) if seen[a] != seen[b]]


def _run(
    release: Release, scripts: Sequence[Script], *, to_last: bool = False
) -> list[tuple[tuple[int, ...], Outcome]]:
    """Return, for each script, the bounds asked for beyond it and what was shown."""
    if not scripts:
        return []
    try:
        return _run_together(release, scripts, to_last)
    except _RowsDifferError:
        return [_run_together(release, [script], to_last)[0] for script in scripts]


def _both_ends(release: Release, scripts: Sequence[Script]) -> list[Hashable]:
    """Return what each script leads to when later draws are the first and the last."""
    first = _run(release, scripts)
    # Without a later draw there is nothing to vary.
    open_ = [place for place, (bounds, _) in enumerate(first) if bounds]
    last = _run(release, [scripts[place] for place in open_], to_last=True)
    later: dict[int, Hashable] = dict(zip(open_, last, strict=True))
    return [(first[place], later.get(place)) for place in range(len(first))]


def _run_together(
    release: Release, scripts: Sequence[Script], to_last: bool = False
) -> list[tuple[tuple[int, ...], Outcome]]:
    draws = [draws for _, draws in scripts]
    table = np.array(draws, dtype=np.int64).reshape(len(scripts), -1)
    source = ScriptedSource(table, to_last=to_last)
    shown = release([name for name, _ in scripts], source)
    if len(shown) != len(scripts):
        raise EnumerationError("Every copy must be released.")
    return [(source.bounds(copy), outcome) for copy, outcome in enumerate(shown)]
