"""How far reasoning in one community's format teaches the format of another.

The source says that task-format compatibility matters and does not tell us how it was
measured; the matrix is our definition. A student is trained on each community's records
and tested on each community's test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedcot.community.utility import UtilityTable
from fedcot.errors import ConfigError

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class FormatCompatibility:
    """Accuracies of students trained on one community and tested on another.

    Attributes
    ----------
    communities : tuple of str
        In the order of rows and columns.
    raw : tuple of tuple of float
        Accuracy in [0, 1]; the row is the community trained on, the column the one
        tested on.
    """

    communities: tuple[str, ...]
    raw: Matrix

    @property
    def relative(self) -> Matrix:
        """Each accuracy over that of the student trained on the tested community.

        1 on the diagonal; >= 0 elsewhere, above 1 where another community's records
        teach more than its own. Not a number in the column of a community whose own
        student is never right.
        """
        own = [self.raw[place][place] for place in range(len(self.communities))]
        return tuple(
            tuple(
                value / diagonal if diagonal > 0 else math.nan
                for value, diagonal in zip(row, own, strict=True)
            )
            for row in self.raw
        )

    @property
    def diagonal_dominance(self) -> float:
        """Share of cells off the diagonal that are not above their column's diagonal.

        In [0, 1]; not a number for one community.
        """
        cells = self._off_diagonal(self.raw)
        kept = [value <= self.raw[test][test] for _, test, value in cells]
        return sum(kept) / len(kept) if kept else math.nan

    @property
    def mean_transfer(self) -> float:
        """Mean relative accuracy off the diagonal; not a number where none is defined.

        0: what one format teaches is useless in every other; 1: formats do not matter.
        """
        cells = self._off_diagonal(self.relative)
        known = [value for *_, value in cells if not math.isnan(value)]
        return math.fsum(known) / len(known) if known else math.nan

    def incompatible_pairs(self, threshold: float) -> tuple[tuple[str, str], ...]:
        """Return (trained on, tested on) whose relative accuracy is below a threshold.

        Parameters
        ----------
        threshold : float
            For example 0.5: less than half of what the tested community's own records
            teach.
        """
        return tuple(
            (self.communities[train], self.communities[test])
            for train, test, value in self._off_diagonal(self.relative)
            if value < threshold
        )

    def _off_diagonal(self, matrix: Matrix) -> tuple[tuple[int, int, float], ...]:
        return tuple(
            (train, test, value)
            for train, row in enumerate(matrix)
            for test, value in enumerate(row)
            if train != test
        )


def format_compatibility(
    communities: tuple[str, ...], accuracy: Mapping[tuple[str, str], float]
) -> FormatCompatibility:
    """Return the matrix of students trained on one community and tested on another.

    Parameters
    ----------
    communities : tuple of str
    accuracy : mapping of (trained on, tested on) to float
        Of every pair, in [0, 1].

    Raises
    ------
    ConfigError
        A pair is missing or outside [0, 1].
    """
    for train in communities:
        for test in communities:
            value = accuracy.get((train, test), math.nan)
            if not 0 <= value <= 1:
                raise ConfigError(
                    "`accuracy` must be in [0, 1] for every pair of communities, "
                    f"found {value} for the one trained on {train} and tested on "
                    f"{test}; test each community's student on every test."
                )
    return FormatCompatibility(
        tuple(communities),
        tuple(
            tuple(float(accuracy[train, test]) for test in communities)
            for train in communities
        ),
    )


def compatibility_of(table: UtilityTable) -> FormatCompatibility:
    """Return the matrix of the students that communities distil alone.

    Raises
    ------
    ConfigError
        One of them was not tested on every community.
    """
    return format_compatibility(
        table.communities,
        {
            (train, test): table.student[test, (train,)]
            for train in table.communities
            for test in table.communities
            if (test, (train,)) in table.student
        },
    )
