"""What the levels of a reasoning are worth: their lengths and their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Final

from fedcot.community.step_text import Measure, count_words
from fedcot.errors import ConfigError

# A stop, question mark or exclamation mark with white space or the end behind it.
_SENTENCE: Final = re.compile(r"[.!?](?:\s|$)")
MARKER: Final = "The answer is"


@dataclass(frozen=True, slots=True)
class LevelStatistics:
    """The same questions at each level, coarse to fine.

    Attributes
    ----------
    questions : int
    medians, means : tuple of float
        Length of each level, in what was measured; words unless said otherwise.
    sentences : tuple of float
        Mean number of sentence ends of each level.
    marked : tuple of float
        Share of each level's texts that hold the answer phrase, `MARKER`.
    longer : tuple of float
        For each pair of neighbours, the share of questions whose finer text is longer.
    finest_longer : float
        Share of questions whose finest text is longer than the coarsest one.
    monotone : float
        Share of questions whose every level is longer than the one before.
    """

    questions: int
    medians: tuple[float, ...]
    means: tuple[float, ...]
    sentences: tuple[float, ...]
    marked: tuple[float, ...]
    longer: tuple[float, ...]
    finest_longer: float
    monotone: float

    @property
    def is_increasing(self) -> bool:
        """Whether the median grows strictly from level to level."""
        return all(finer > coarser for coarser, finer in pairwise(self.medians))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON writes it."""
        fields = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        return {**fields, "is_increasing": self.is_increasing}


def level_statistics(
    levels: Sequence[Sequence[str]],
    *,
    measure: Measure = count_words,
) -> LevelStatistics:
    """Return lengths and order of levels; nothing is refused but what cannot be.

    Parameters
    ----------
    levels : sequence of sequence of str
        For each level, coarse to fine, the texts of the same questions in one order.
    measure : callable
        Length of a text.

    Raises
    ------
    ConfigError
        Fewer than two levels, no question, or levels of different size.
    """
    sizes = {len(level) for level in levels}
    if len(levels) < 2 or len(sizes) != 1 or 0 in sizes:
        raise ConfigError(
            "`levels` must be two or more with the same questions, found "
            f"{[len(level) for level in levels]} texts; join them on the question."
        )
    lengths = [[measure(text) for text in level] for level in levels]
    pairs = [_longer(coarse, fine) for coarse, fine in pairwise(lengths)]
    return LevelStatistics(
        questions=len(levels[0]),
        medians=tuple(float(median(found)) for found in lengths),
        means=tuple(fmean(found) for found in lengths),
        sentences=tuple(
            fmean(len(_SENTENCE.findall(text)) for text in level) for level in levels
        ),
        marked=tuple(fmean(MARKER in text for text in level) for level in levels),
        longer=tuple(map(fmean, pairs)),
        finest_longer=fmean(_longer(lengths[0], lengths[-1])),
        monotone=fmean(map(all, zip(*pairs, strict=True))),
    )


def check_levels(
    levels: Sequence[Sequence[str]],
    *,
    measure: Measure = count_words,
) -> LevelStatistics:
    """Return the statistics of levels that are levels: their medians grow strictly.

    Levels that a model was asked for grow in aggregate only, not question by question
    (see `LevelStatistics.longer`), so no more than that is required.

    Raises
    ------
    ConfigError
        As `level_statistics`, or a median is not above that of the coarser level.
    """
    found = level_statistics(levels, measure=measure)
    if not found.is_increasing:
        shown = ", ".join(f"{one:g}" for one in found.medians)
        raise ConfigError(
            "`levels` must grow in median length from each to the next, found medians "
            f"of {shown}; put them in order from coarse to fine, or leave one out."
        )
    return found


def _longer(coarse: Sequence[int], fine: Sequence[int]) -> list[bool]:
    return [after > before for before, after in zip(coarse, fine, strict=True)]
