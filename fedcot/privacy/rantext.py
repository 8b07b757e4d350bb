"""RANTEXT, as published: random candidate lists, for comparison only.

Tong et al., "InferDPT: Privacy-Preserving Inference for Black-box Large Language
Models" (arXiv 2310.12214), section 4, and the authors' code (mengtong0110/InferDPT,
`func.py`), from which the constants come. For each token a noisy copy of its embedding
is drawn, Laplace noise in every dimension; its distance from the embedding is the
radius ``r``. Candidates are the words nearer than ``r``, and one of them is drawn with
weight ``exp(epsilon / 2 * (r - d) / r)`` for a word at distance ``d``.

No finite epsilon is claimed, although the paper claims one: its proof is about the draw
from a list that is given, and the list is made from the private token. Words farther
than the radius never come out; in many dimensions the radius hardly varies, so a
release tells which words cannot have been the input. Besides, from epsilon 2 on the
noise is nearly the same for every epsilon.

Two traps of the published code are not copied: words without an embedding and
numbers pass through the same mechanism, and every prompt keeps its public length.
"""

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.tokens import checked_epsilon, checked_ids
from fedcot.privacy.vocabulary import Vocabulary

BITS = 20
# The noise has as many quantiles as a float tells apart after adding one half.
QUANTILES = 1 << 52
# Numbers held in memory at once while drawing.
CHUNK = 1 << 22
# Fit of the noise divisor to epsilon >= LINEAR_BELOW in the authors' code.
LINEAR_BELOW = 2.0
FACTOR, SLOPE, OFFSET, CONSTANT = (
    0.01658160142016071,
    19.064721649556482,
    38.1294334077209,
    9.311083811697406,
)


def noise_divisor(epsilon: float) -> float:
    """Return what the range of a dimension is divided by to give its Laplace scale.

    Parameters
    ----------
    epsilon : float
        Nominal, > 0.

    Returns
    -------
    float
        `epsilon` itself below 2, else ``0.01658 ln(19.06 epsilon - 38.13) + 9.311``.
    """
    if epsilon < LINEAR_BELOW:
        return epsilon
    return FACTOR * math.log(SLOPE * epsilon - OFFSET) + CONSTANT


class RantextChannel(TokenClaims):
    """Replace a token by one of a random list of near ones.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    token_epsilon : float
        Nominal, > 0: the epsilon that the paper states. It is not guaranteed.
    vectors : ndarray of float, shape (N, dimensions)
        A public embedding of the words.

    Attributes
    ----------
    distances : ndarray of float64, shape (N, N)
        Euclidean, between the embeddings.
    scales : ndarray of float64, shape (dimensions,)
        Laplace scale of each dimension.

    Raises
    ------
    ConfigError
        If an argument breaks these rules, all vectors are equal, or the weights need
        more than 62 bits.

    Notes
    -----
    All draws come from the random source as integers, but the noise becomes a float.
    That is good enough for a baseline without a guarantee, and for nothing else.
    """

    name = "rantext"
    guarantee = "no finite guarantee"
    adjacency = "none: no finite bound is claimed for any neighbours"
    token_epsilon = math.inf

    def __init__(
        self,
        vocabulary: Vocabulary,
        token_epsilon: float,
        vectors: NDArray[np.float64],
    ) -> None:
        self.requested_epsilon = checked_epsilon(token_epsilon)
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        embedding = _checked_vectors(vectors, self.size)
        self._bits = _checked_bits(self.requested_epsilon, self.size)
        ranges = embedding.max(axis=0) - embedding.min(axis=0)
        self.scales = ranges / noise_divisor(self.requested_epsilon)
        self.distances = np.stack(
            [np.sqrt(((embedding - row) ** 2).sum(axis=1)) for row in embedding]
        )
        law = json.dumps(
            [self.name, vocabulary.hash, self.requested_epsilon, self._bits]
        )
        places = np.ascontiguousarray(embedding, dtype="<f8").tobytes()
        self.hash = hashlib.sha256(law.encode() + places).hexdigest()

    def radii(self, count: int, source: RandomSource) -> NDArray[np.float64]:
        """Draw the lengths of Laplace noise vectors.

        Parameters
        ----------
        count : int
            How many.
        source : RandomSource
            One integer below 2**52 for each dimension is drawn from it; it becomes a
            magnitude by the inverse of the distribution. Signs do not change a length.

        Returns
        -------
        ndarray of float64, shape (count,)
            Positive.
        """
        draws = source.below(np.full((count, len(self.scales)), QUANTILES))
        magnitudes = -np.log((draws + 0.5) / QUANTILES) * self.scales
        lengths: NDArray[np.float64] = np.sqrt((magnitudes**2).sum(axis=1))
        return lengths

    def list_weights(
        self, tokens: NDArray[np.int64], radii: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the integer weight of every output, given the radius.

        Parameters
        ----------
        tokens : ndarray of int64, shape (n,)
            Private tokens.
        radii : ndarray of float, shape (n,)
            Positive.

        Returns
        -------
        ndarray of int64, shape (n, N)
            0 for the words that are not nearer than the radius.
        """
        distances, outer = self.distances[tokens], radii[:, None]
        closeness = np.maximum(outer - distances, 0.0) / outer
        weights = np.exp2(self._bits) * np.exp(self.requested_epsilon / 2 * closeness)
        near: NDArray[np.int64] = np.where(distances < outer, weights, 0).astype(
            np.int64
        )
        return near

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the tokens to release, each from a list of its own.

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
        released = np.empty_like(flat)
        step = max(1, CHUNK // (self.size + len(self.scales)))
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            weights = self.list_weights(part, self.radii(part.size, source))
            cumulative = np.cumsum(weights, axis=1)
            draws = source.below(cumulative[:, -1])
            places = (cumulative <= draws[:, None]).sum(axis=1)
            released[start : start + step] = places
        return released.reshape(tokens.shape)


def _checked_vectors(vectors: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    values = np.asarray(vectors, dtype=np.float64)
    is_table = values.ndim == 2 and len(values) == size
    if (
        not is_table
        or not bool(np.isfinite(values).all())
        or not np.ptp(values, 0).any()
    ):
        raise ConfigError(
            f"`vectors` must hold one finite row for each of {size} words, not all "
            f"equal, found shape {values.shape}; build them for the same vocabulary."
        )
    return values


def _checked_bits(epsilon: float, size: int) -> int:
    """Return how many binary digits below one the weights of a full list leave room."""
    room = math.log2(LARGEST_BOUND) - epsilon / 2 / math.log(2) - math.log2(size + 1)
    if room < 1:
        raise ConfigError(
            f"`token-epsilon` must leave every total below 2**62, found {epsilon}; "
            "pass for example `-c token-epsilon=8.0`."
        )
    return min(BITS, math.floor(room) - 1)
