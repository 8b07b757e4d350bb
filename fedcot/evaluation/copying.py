"""How much of a private text a generated one repeats.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning, section 5 and appendix D):
share of verbatim copies, and the insertions and deletions to the nearest substring.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcot.evaluation.rates import ExactRate, exact_rate

# Cells of the row that is held for several sources together.
_CELLS = 1 << 20


@dataclass(frozen=True, slots=True)
class Nearest:
    """The private text that a generated one is nearest to.

    Attributes
    ----------
    index : int
        Of the source; the text itself stays where it is.
    distance : float
        As `substring_distance`.
    """

    index: int
    distance: float


@dataclass(frozen=True, slots=True)
class VerbatimRate:
    """How many generated texts are copies.

    Attributes
    ----------
    exact : ExactRate
        Character by character.
    normalised : ExactRate
        After `plain`: whatever the case and the spacing.
    """

    exact: ExactRate
    normalised: ExactRate


def plain(text: str) -> str:
    """Return a text without differences of case and of spacing."""
    return " ".join(text.split()).casefold()


def verbatim_rate(generated: Sequence[str], sources: Sequence[str]) -> VerbatimRate:
    """Return the share of generated texts that are identical to any source.

    Raises
    ------
    ValueError
        If nothing was generated.
    """
    known, alike = set(sources), {plain(source) for source in sources}
    return VerbatimRate(
        exact_rate(sum(text in known for text in generated), len(generated)),
        exact_rate(sum(plain(text) in alike for text in generated), len(generated)),
    )


def regurgitation_rate(
    completions: Sequence[str], targets: Sequence[str]
) -> VerbatimRate:
    """Return the share of completions that are identical to their own target.

    Blanks at either end do not count, because a tokenizer may add one.

    Raises
    ------
    ValueError
        If nothing was generated, or there are more of the one than of the other.
    """
    pairs = list(zip(completions, targets, strict=True))
    exact = sum(written.strip() == wanted.strip() for written, wanted in pairs)
    alike = sum(plain(written) == plain(wanted) for written, wanted in pairs)
    return VerbatimRate(exact_rate(exact, len(pairs)), exact_rate(alike, len(pairs)))


def substring_distance(generated: str, source: str) -> float:
    """Return how far a text is from the nearest substring of a source.

    Parameters
    ----------
    generated : str
    source : str

    Returns
    -------
    float
        ``min over substrings s of indel(generated, s) / len(generated)`` in [0, 1],
        where indel counts insertions and deletions of characters: 0 where the text
        stands in the source, 1 where they share no character. An empty text copies
        nothing: 1.

    Notes
    -----
    Social Learning, appendix D. Memory grows with the length of the source only, time
    with the product of the lengths.
    """
    return nearest(generated, [source]).distance


def nearest(generated: str, sources: Sequence[str]) -> Nearest:
    """Return which source has the nearest substring; the first of several.

    Raises
    ------
    ValueError
        If there are no sources.
    """
    if not sources:
        raise ValueError("`sources` must not be empty.")
    if not generated:
        return Nearest(0, 1.0)
    best = Nearest(0, math.inf)
    text = _characters(generated)
    for start, block in _blocks(sources):
        distances = _insertions_and_deletions(text, block) / len(text)
        place = int(distances.argmin())
        if distances[place] < best.distance:
            best = Nearest(start + place, float(distances[place]))
    return best


def _characters(text: str) -> NDArray[np.int32]:
    return np.array([ord(character) for character in text], dtype=np.int32)


def _blocks(sources: Sequence[str]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield the index of the first source and several sources as rows of characters.

    They are padded with what no text holds: a substring with padding in it is never
    nearer than the same one without.
    """
    start = 0
    while start < len(sources):
        stop, longest = start, 0
        while stop < len(sources):
            longest = max(longest, len(sources[stop]))
            if stop > start and longest * (stop + 1 - start) > _CELLS:
                break
            stop += 1
        width = max(len(source) for source in sources[start:stop])
        block = np.full((stop - start, width), -1, dtype=np.int32)
        for row, source in enumerate(sources[start:stop]):
            block[row, : len(source)] = _characters(source)
        yield start, block
        start = stop


def _insertions_and_deletions(
    text: NDArray[np.int32], sources: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the fewest edits from a text to a substring of each row.

    An edit inserts or deletes a character. Row i of the table holds, for each end j in
    a source, the cost of the first i characters against the best substring that ends
    there. Going right costs one, which a running minimum of ``cost - j`` does for the
    whole row.
    """
    ends = np.arange(sources.shape[1] + 1, dtype=np.int32)
    cost = np.zeros((len(sources), len(ends)), dtype=np.int32)  # It may begin anywhere.
    for character in text:
        above = cost + 1
        matched = np.where(sources == character, cost[:, :-1], above[:, 1:])
        above[:, 1:] = np.minimum(above[:, 1:], matched)
        cost = np.minimum.accumulate(above - ends, axis=1) + ends
    lowest: NDArray[np.int32] = cost.min(axis=1)
    return lowest
