"""CusText, conservative variant: words are exchanged inside fixed blocks; a baseline.

Chen et al., "A Customized Text Sanitization Mechanism with Differential Privacy",
Findings of ACL 2023 (arXiv 2207.01193), section 4. The vocabulary is split into blocks
of K words; the output of a word is drawn from its own block with weight
``exp(epsilon * u / 2)``, where ``u`` is the similarity, min-max normalised over the
block. Which block a word is in is released as it is, so the epsilon over the vocabulary
is infinite.

Unlike the published code, a word never reaches the output unchanged because it is
unknown, a stop word or a number; and no block takes words that others already have.
"""

import hashlib
import json
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.exact import checked_totals, integer_weight, largest_log_ratio
from fedcot.privacy.exponential import BITS, LEVELS
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.tokens import checked_epsilon, checked_ids, checked_similarity
from fedcot.privacy.vocabulary import Vocabulary

BLOCK_SIZE = 20


class CusTextChannel(TokenClaims):
    """Replace a token by one of its block, nearer ones more often.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    token_epsilon : float
        Nats, finite, > 0; the epsilon inside a block does not exceed it.
    similarity : ndarray of float, shape (N, N)
        Public, in [0, 1]; it makes the blocks and the scores.
    block_size : int
        Words of a block, >= 2; the last block has up to ``2 * block_size - 1``.

    Attributes
    ----------
    blocks : list of ndarray of int64
        The token ids of each block, rising; every token is in exactly one.
    block_epsilon : float
        Nats, the largest log ratio for two words of one block, enumerated from the
        integer weights and rounded up.
    token_epsilon : float
        Nats, over the whole vocabulary: infinite as soon as there are two blocks.

    Raises
    ------
    ConfigError
        If an argument breaks these rules or needs weights beyond 62 bits.
    """

    name = "custext"
    guarantee = (
        "pure local differential privacy inside a block only; which block a word is in "
        "is released, so none over the vocabulary"
    )
    adjacency = (
        "one token replaced by another of its own block (block epsilon); no bound "
        "holds for any other replacement, nor for padding"
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        token_epsilon: float,
        similarity: NDArray[np.float64],
        *,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        self.requested_epsilon = checked_epsilon(token_epsilon)
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        scores = checked_similarity(similarity, self.size)
        self.blocks = similarity_blocks(scores, block_size)
        largest = max(len(block) for block in self.blocks)
        table = _table(self.requested_epsilon, largest)
        # Rows of short blocks are filled up with weight 0, which is never drawn.
        self._members = np.zeros((self.size, largest), dtype=np.int64)
        self._weights = np.zeros((self.size, largest), dtype=np.int64)
        for block in self.blocks:
            self._members[block, : len(block)] = block
            levels = _levels(scores[np.ix_(block, block)])
            self._weights[block, : len(block)] = table[levels]
        self._totals = checked_totals(self._weights)
        self._cumulative = np.cumsum(self._weights, axis=1)
        self.block_epsilon = max(
            largest_log_ratio(self._weights[block]) for block in self.blocks
        )
        self.token_epsilon = self.block_epsilon if len(self.blocks) == 1 else math.inf
        law = json.dumps([self.name, vocabulary.hash])
        rows = np.concatenate([self._members, self._weights]).astype("<i8").tobytes()
        self.hash = hashlib.sha256(law.encode() + rows).hexdigest()

    def weights_row(self, token: int) -> list[int]:
        """Return the integer weight of every output for one input token."""
        row = np.zeros(self.size, dtype=np.int64)
        drawn = self._weights[token] > 0
        row[self._members[token][drawn]] = self._weights[token][drawn]
        return [int(weight) for weight in row]

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the tokens to release, each drawn on its own from its block.

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
        draws = source.below(self._totals[tokens])
        places = (self._cumulative[tokens] <= draws[..., None]).sum(axis=-1)
        released: NDArray[np.int64] = self._members[tokens, places]
        return released


def similarity_blocks(
    similarity: NDArray[np.float64], block_size: int = BLOCK_SIZE
) -> list[NDArray[np.int64]]:
    """Split tokens into disjoint blocks, greedily as the paper's conservative variant.

    The first token without a block takes the most similar ones that have none either;
    ties go by token id. When fewer than two blocks are left they become one, because a
    block of one word would release that word as it is.

    Parameters
    ----------
    similarity : ndarray of float, shape (N, N)
        Public.
    block_size : int
        Tokens of a block, >= 2.

    Returns
    -------
    list of ndarray of int64
        Token ids of each block, rising. With N < 2 * `block_size` there is one block.

    Raises
    ------
    ConfigError
        If the block size is below 2.
    """
    if block_size < 2:
        raise ConfigError(
            f"`block_size` must be >= 2, found {block_size}; the paper's is "
            f"{BLOCK_SIZE}."
        )
    blocks = []
    left = np.arange(len(similarity), dtype=np.int64)
    while left.size:
        # `left` rises, so its first entry is the seed and a stable sort breaks ties.
        nearest = np.argsort(-similarity[left[0], left[1:]], kind="stable")
        order = np.concatenate([[0], 1 + nearest])
        taken = order if left.size < 2 * block_size else order[:block_size]
        blocks.append(np.sort(left[taken]))
        left = np.delete(left, taken)
    return blocks


def _levels(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return min-max normalised rows in levels; 0 throughout where all are alike."""
    lowest = scores.min(axis=1, keepdims=True)
    spans = scores.max(axis=1, keepdims=True) - lowest
    normalised = (scores - lowest) / np.where(spans > 0, spans, 1.0)
    levels: NDArray[np.int64] = np.floor(normalised * (LEVELS - 1)).astype(np.int64)
    return levels


def _table(epsilon: float, block_size: int) -> NDArray[np.int64]:
    """Return the weight of each level, with as many bits as a block's total allows."""
    half = Fraction(epsilon) / 2
    for bits in range(BITS, -1, -1):
        if (integer_weight(half, bits) + 1) * block_size < LARGEST_BOUND:
            weights = [
                integer_weight(half * Fraction(level, LEVELS - 1), bits)
                for level in range(LEVELS)
            ]
            return np.array(weights, dtype=np.int64)
    raise ConfigError(
        f"`token-epsilon` must leave every total below 2**62, found {epsilon}; pass "
        "for example `-c token-epsilon=8.0`."
    )
