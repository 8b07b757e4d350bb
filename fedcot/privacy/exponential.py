"""Score exponential mechanism over the whole vocabulary, calibrated by enumeration.

The weight of an output is ``exp(scale * score)`` with a public score in [0, 1]. The
textbook scale is epsilon / 2; here the scale is searched for until the epsilon that is
enumerated from the integer weights is the one asked for.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.exact import (
    BLOCK_ROWS,
    checked_totals,
    enumerate_epsilon,
    integer_weight,
)
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.tokens import checked_epsilon, checked_ids, checked_similarity
from fedcot.privacy.vocabulary import Vocabulary

BITS = 20
# Scores are held to this many levels: weights become a look-up in a short exact table.
LEVELS = 1024
# The scale is a multiple of 1 / SCALE_STEPS nats, which fixes it on every machine.
SCALE_STEPS = 4096
TOLERANCE = 0.02
GROUP = 64
# Keeps the tables of one step of `sample` within a few megabytes.
DRAWS_AT_ONCE = 4096


class ExponentialChannel(TokenClaims):
    """Replace a token by one drawn with a weight that depends on its score.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    levels : ndarray of int, shape (N, N)
        Score level of each output for each input, an index of `table`.
    table : ndarray of int64, shape (levels,)
        Positive weight of each level.
    requested_epsilon : float
        Nats; what the table was made for.

    Raises
    ------
    ValueError
        If a weight is not positive or a row's total is not below 2**62.
    """

    name = "exponential"
    guarantee = (
        "pure local differential privacy of every token over the whole public "
        "vocabulary, enumerated from integer weights"
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        levels: NDArray[np.uint16],
        table: NDArray[np.int64],
        requested_epsilon: float,
    ) -> None:
        self.requested_epsilon = requested_epsilon
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        self._levels = levels
        self._table = table
        # Where each group of outputs ends: a draw looks at one group, not at a row.
        self._group_ends = np.concatenate(
            [_group_ends(table[rows]) for rows in _row_blocks(levels)]
        )
        self._totals = self._group_ends[:, -1]
        self.token_epsilon = enumerate_epsilon(self.weights_block, self.size)
        law = json.dumps([self.name, vocabulary.hash, table.tolist()])
        scores = levels.astype("<u2").tobytes()
        self.hash = hashlib.sha256(law.encode() + scores).hexdigest()

    def weights_row(self, token: int) -> list[int]:
        """Return the integer weight of every output for one input token."""
        return [int(weight) for weight in self._table[self._levels[token]]]

    def weights_block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the weights of the inputs from `start` to before `stop`.

        Returns
        -------
        ndarray of int64, shape (stop - start, size)
        """
        weights: NDArray[np.int64] = self._table[self._levels[start:stop]]
        return weights

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the tokens to release, each drawn on its own.

        Parameters
        ----------
        ids : ndarray of int64, any shape
            Private tokens.
        source : RandomSource
            Where the uniform integers come from.

        Returns
        -------
        ndarray of int64, shape of `ids`

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary.
        """
        tokens = checked_ids(ids, self.size)
        flat = tokens.reshape(-1)
        draws = source.below(self._totals[flat])
        released = np.empty_like(flat)
        for start in range(0, len(flat), DRAWS_AT_ONCE):
            part = slice(start, start + DRAWS_AT_ONCE)
            released[part] = self._outputs(flat[part], draws[part])
        return released.reshape(tokens.shape)

    def _outputs(
        self, tokens: NDArray[np.int64], draws: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return in which weight's interval of its token's row each draw fell."""
        ends = self._group_ends[tokens]
        groups = (draws[:, None] >= ends).sum(axis=1)
        before = np.take_along_axis(ends, np.maximum(groups - 1, 0)[:, None], axis=1)
        rest = draws - np.where(groups > 0, before[:, 0], 0)
        outputs = groups[:, None] * GROUP + np.arange(GROUP)
        near = self._levels[tokens[:, None], np.minimum(outputs, self.size - 1)]
        # The last group may be short: nothing stands behind the last output.
        weights = np.where(outputs < self.size, self._table[near], 0)
        within = np.cumsum(weights, axis=1)
        released: NDArray[np.int64] = (rest[:, None] >= within).sum(axis=1)
        released += groups * GROUP
        return released


def calibrated_exponential(
    vocabulary: Vocabulary, token_epsilon: float, similarity: NDArray[np.float64]
) -> ExponentialChannel:
    """Return the channel whose enumerated epsilon is just below the one asked for.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    token_epsilon : float
        Nats, finite, > 0.
    similarity : ndarray of float, shape (N, N)
        Public scores in [0, 1].

    Raises
    ------
    ConfigError
        If an argument breaks these rules, or if no scale comes within 0.02 nats.
    """
    epsilon = checked_epsilon(token_epsilon)
    scores = checked_similarity(similarity, len(vocabulary.words))
    levels = np.empty(scores.shape, dtype=np.uint16)
    for start in range(0, len(scores), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        levels[rows] = np.floor(scores[rows] * (LEVELS - 1))
    table = _search(levels, epsilon)
    channel = ExponentialChannel(
        vocabulary, levels=levels, table=table, requested_epsilon=epsilon
    )
    if not epsilon - TOLERANCE <= channel.token_epsilon <= epsilon:
        raise _not_reachable(epsilon)
    return channel


def _search(levels: NDArray[np.uint16], epsilon: float) -> NDArray[np.int64]:
    """Return the table of the largest scale found whose epsilon is not too large."""
    # With scores in [0, 1] the epsilon is at most twice the scale, so half is safe.
    low = int(epsilon * SCALE_STEPS / 2)
    high = low + 1
    while _approximate_epsilon(levels, _table(high, len(levels))) <= epsilon:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = _approximate_epsilon(levels, _table(middle, len(levels))) <= epsilon
        low, high = (middle, high) if fits else (low, middle)
    return _table(low, len(levels))


def _approximate_epsilon(levels: NDArray[np.uint16], table: NDArray[np.int64]) -> float:
    """Return the epsilon to float accuracy, a few rows of weights at a time."""
    weights = table.astype(np.float64)
    highest, lowest = np.zeros(len(levels)), np.full(len(levels), np.inf)
    for rows in _row_blocks(levels):
        shares = weights[rows]
        shares /= shares.sum(axis=1, keepdims=True)
        np.maximum(highest, shares.max(axis=0), out=highest)
        np.minimum(lowest, shares.min(axis=0), out=lowest)
    return math.log(float((highest / lowest).max()))


def _group_ends(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cumulative weight after each group of outputs; (rows, groups)."""
    checked_totals(weights)
    firsts = np.arange(0, weights.shape[1], GROUP)
    ends: NDArray[np.int64] = np.cumsum(
        np.add.reduceat(weights, firsts, axis=1), axis=1
    )
    return ends


def _row_blocks(levels: NDArray[np.uint16]) -> Iterator[NDArray[np.uint16]]:
    for start in range(0, len(levels), BLOCK_ROWS):
        yield levels[start : start + BLOCK_ROWS]


def _table(scale_steps: int, size: int) -> NDArray[np.int64]:
    """Return the weight of each score level, so that `size` of them fit in 62 bits."""
    scale = Fraction(scale_steps, SCALE_STEPS)
    largest = (integer_weight(scale, 0) + 1) * size
    bits = min(BITS, LARGEST_BOUND.bit_length() - 1 - largest.bit_length())
    if bits < 0:
        raise _not_reachable(float(scale))
    weights = [
        integer_weight(scale * Fraction(level, LEVELS - 1), bits)
        for level in range(LEVELS)
    ]
    return np.array(weights, dtype=np.int64)


def _not_reachable(epsilon: float) -> ConfigError:
    return ConfigError(
        "`token-epsilon` must be reachable by the exponential mechanism on this "
        f"vocabulary to within {TOLERANCE} nats with 62-bit weights, found {epsilon}; "
        "pass a smaller one or `-c mechanism=rank`."
    )
