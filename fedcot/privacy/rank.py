"""Rank exponential mechanism: a weight for each rank, the same for every word.

Each row is a permutation of the vocabulary, the true word first, so all rows have one
normaliser and the exponent itself is the epsilon: no factor 2 is lost.
"""

import hashlib
import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.exact import BLOCK_ROWS, enumerate_epsilon, integer_weight
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.tokens import checked_epsilon, checked_ids, checked_similarity
from fedcot.privacy.vocabulary import Vocabulary

BITS = 20

Shape = tuple[Fraction, ...]


def top(size: int) -> Shape:
    """Return the staircase: the first `size` ranks share the highest weight."""
    return (Fraction(1),) * size


def ramp(size: int) -> Shape:
    """Return the ramp: the exponent falls in equal steps to 0 at rank `size`."""
    return tuple(1 - Fraction(rank, size) for rank in range(size))


class RankChannel(TokenClaims):
    """Replace a token by one of a rank drawn from public integer weights.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    token_epsilon : float
        Nats, finite, > 0; what the enumerated epsilon must not exceed.
    shape : tuple of Fraction
        Share of the exponent at each rank: 1 first, not rising, within [0, 1]; later
        ranks have 0. The default favours the true word alone.
    similarity : ndarray of float, shape (N, N), optional
        Orders the words after the true one; ties go by token id. None is one tie.
    bits : int
        Binary digits below the lowest weight.

    Raises
    ------
    ConfigError
        If the epsilon, the shape or the similarity break these rules, or if the
        epsilon is too large for 62-bit weights.
    """

    name = "rank"
    guarantee = (
        "pure local differential privacy of every token over the whole public "
        "vocabulary, enumerated from integer weights"
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        token_epsilon: float,
        *,
        shape: Shape = (Fraction(1),),
        similarity: NDArray[np.float64] | None = None,
        bits: int = BITS,
    ) -> None:
        self.requested_epsilon = checked_epsilon(token_epsilon)
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        exponents = _checked_shape(shape, self.size)
        self.rank_weights = _rank_weights(
            self.requested_epsilon, (*exponents, Fraction(0)), self.size, bits
        )
        self._cumulative = np.cumsum(self.rank_weights)
        if similarity is not None:
            similarity = checked_similarity(similarity, self.size)
        self._order = _permutations(similarity, self.size)
        self.token_epsilon = enumerate_epsilon(self.weights_block, self.size)
        law = json.dumps([self.name, vocabulary.hash, self.rank_weights.tolist()])
        digest = hashlib.sha256(law.encode())
        for start in range(0, self.size, BLOCK_ROWS):
            rows = self._order[start : start + BLOCK_ROWS]
            digest.update(rows.astype("<i8").tobytes())
        self.hash = digest.hexdigest()

    def weights_row(self, token: int) -> list[int]:
        """Return the integer weight of every output for one input token."""
        return [int(weight) for weight in self.weights_block(token, token + 1)[0]]

    def weights_block(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the weights of the inputs from `start` to before `stop`.

        Returns
        -------
        ndarray of int64, shape (stop - start, size)
        """
        order = self._order[start:stop]
        block = np.empty(order.shape, dtype=np.int64)
        np.put_along_axis(block, order, self.rank_weights[None, :], axis=1)
        return block

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
        draws = source.below(np.full(tokens.shape, self._cumulative[-1]))
        ranks = np.searchsorted(self._cumulative, draws, side="right")
        released: NDArray[np.int64] = self._order[tokens, ranks].astype(np.int64)
        return released


def _checked_shape(shape: Shape, size: int) -> Shape:
    falls = all(left >= right for left, right in pairwise(shape))
    if not shape or shape[0] != 1 or not falls or shape[-1] < 0 or len(shape) >= size:
        raise ConfigError(
            "`shape` must start at 1, never rise or go below 0 and have fewer ranks "
            f"than the {size} words, found {len(shape)} ranks; pass top(m) or ramp(m)."
        )
    return tuple(Fraction(share) for share in shape)


def _rank_weights(
    epsilon: float, exponents: Shape, size: int, bits: int
) -> NDArray[np.int64]:
    """Return the weight of each rank, with as many of `bits` as 62 bits allow."""
    for kept in range(bits, -1, -1):
        by_share = {
            share: integer_weight(Fraction(epsilon) * share, kept)
            for share in set(exponents)
        }
        head = [by_share[share] for share in exponents]
        weights = head + head[-1:] * (size - len(head))
        if sum(weights) < LARGEST_BOUND:
            return np.array(weights, dtype=np.int64)
    raise ConfigError(
        f"`token-epsilon` must leave every total below 2**62, found {epsilon}; pass "
        "for example `-c token-epsilon=8.0`."
    )


def _permutations(
    similarity: NDArray[np.float64] | None, size: int
) -> NDArray[np.int32]:
    """Return the tokens of each row by rank: itself, then by similarity, then by id."""
    order = np.empty((size, size), dtype=np.int32)
    for start in range(0, size, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, size)
        distance = np.zeros((stop - start, size))
        if similarity is not None:
            distance -= similarity[start:stop]
        distance[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        order[start:stop] = np.argsort(distance, axis=1, kind="stable")
    return order
