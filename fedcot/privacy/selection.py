"""Selection: one draw from a public bank of prompts, for one whole-prompt epsilon.

The private prompt only orders the bank. The first ranks of that order share a high
weight, all others a low one, and the bank's prompt that is drawn is sent in the private
one's place. Every order is a permutation of the same bank, so all rows have one
normaliser and the log ratio of the two weights is the epsilon of the whole prompt, not
of a token.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.claims import PROMPT_ADJACENCY
from fedcot.privacy.exact import integer_weight, logarithm_up
from fedcot.privacy.nats import cost_in_nano_nats, nats
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.shapes import best_staircase
from fedcot.privacy.tokens import checked_ids
from fedcot.privacy.vocabulary import PAD_ID, UNKNOWN_ID, Vocabulary

BITS = 20
# Rareness of a word is held to this many steps per nat, so that scores are exact.
STEPS = 64
# How many prompts of the bank stand for private ones when the shape is chosen.
TRIALS = 256
CHUNK = 512
BINS = 100


@dataclass(frozen=True, eq=False)
class Bank:
    """Public prompts, and how alike they are to any prompt.

    Two prompts are alike by the words that they share, rare ones counting more:
    cosine of their sets of words, each weighted by its rareness in the bank. Numbers
    count as one word, because a shared number says little about what is asked.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    prompts : ndarray of int64, shape (K, slots)
        Distinct, at least two, made without looking at a private prompt.

    Raises
    ------
    ConfigError
        If there are fewer than two prompts, or some are equal.
    """

    vocabulary: Vocabulary
    prompts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the prompts."""
        prompts = checked_ids(self.prompts, len(self.vocabulary.words))
        if prompts.ndim != 2 or prompts.shape[1] != self.vocabulary.length:
            raise ConfigError(
                f"`bank` must hold prompts of {self.vocabulary.length} slots, found "
                f"shape {prompts.shape}; encode them with the run's vocabulary."
            )
        distinct = len(np.unique(prompts, axis=0))
        if distinct < 2 or distinct != len(prompts):
            raise ConfigError(
                f"`bank` must hold at least 2 prompts, all distinct, found {distinct} "
                f"distinct of {len(prompts)}; add some or remove those that are equal."
            )
        object.__setattr__(self, "prompts", prompts)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the vocabulary, the prompts and their order."""
        content = self.prompts.astype("<i8").tobytes()
        law = json.dumps([self.vocabulary.hash, STEPS])
        return hashlib.sha256(law.encode() + content).hexdigest()

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.prompts)

    def similarity(self, prompts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how alike some prompts are to each prompt of the bank.

        Parameters
        ----------
        prompts : ndarray of int64, shape (rows, slots)

        Returns
        -------
        ndarray of float64, shape (rows, K)
            In [0, 1]; sums of integers and one rounded division, so equal on every
            machine.
        """
        asked = self._features(prompts)
        shared = (asked * self._weights) @ self._bank_features.T
        norms = asked @ self._weights
        sizes = np.sqrt(norms.astype(np.float64))[:, None] * self._bank_sizes
        result: NDArray[np.float64] = np.divide(
            shared, sizes, out=np.zeros(shared.shape), where=sizes > 0
        )
        # Rounding may lift a prompt's likeness to itself above 1.
        return np.minimum(result, 1.0)

    def order(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bank's prompts from most to least alike; ties by position."""
        order: NDArray[np.int64] = np.argsort(
            -self.similarity(prompts), axis=1, kind="stable"
        )
        return order

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        """Feature of each word: numbers share one, padding and unknown have none."""
        columns = np.arange(len(self.vocabulary.words))
        numbers = list(self.vocabulary.numbers.values())
        if numbers:
            columns[numbers] = numbers[0]
        columns[[PAD_ID, UNKNOWN_ID]] = -1
        return columns

    def _features(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        columns = self._columns[prompts]
        features = np.zeros((len(prompts), len(self.vocabulary.words)), dtype=np.int64)
        rows = np.repeat(np.arange(len(prompts)), prompts.shape[1])
        known = columns.reshape(-1) >= 0
        features[rows[known], columns.reshape(-1)[known]] = 1
        return features

    @cached_property
    def _bank_features(self) -> NDArray[np.int64]:
        return self._features(self.prompts)

    @cached_property
    def _weights(self) -> NDArray[np.int64]:
        """Squared rareness of each feature, an integer."""
        known = np.maximum(1, self._bank_features.sum(axis=0))
        rareness = [
            round(STEPS * math.log(Fraction(len(self) + 1, int(count))))
            for count in known
        ]
        return np.array(rareness, dtype=np.int64) ** 2

    @cached_property
    def _bank_sizes(self) -> NDArray[np.float64]:
        sizes: NDArray[np.float64] = np.sqrt(
            (self._bank_features @ self._weights).astype(np.float64)
        )
        return sizes


class SelectionChannel:
    """Send a public prompt that is probably like the private one.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    prompt_epsilon : float
        Nats for one whole prompt, finite, > 0.
    bank : Bank
        K public prompts.
    favoured : int, optional
        How many ranks m share the high weight, in [1, K). By default the number with
        the largest chance that what is drawn is alike, where alike means a similarity
        above `separating_threshold`. It is measured on prompts of the bank itself: the
        private ones have no part in it.

    Raises
    ------
    ConfigError
        If an argument breaks these rules or the weights do not fit in 62 bits.

    Notes
    -----
    ``P(rank < m) = m e**epsilon / (m e**epsilon + K - m)``. The shape is a staircase
    because no other falling shape within the same ratio has a larger expected utility
    (see `fedcot.privacy.shapes`). A utility that asks for the most alike prompt would
    favour few ranks: then many private prompts share few public ones, which a student
    learns less from.
    """

    name = "selection"
    guarantee = (
        "pure local differential privacy of the whole prompt over a public bank, "
        "enumerated from integer weights"
    )
    adjacency = PROMPT_ADJACENCY

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_epsilon: float,
        *,
        bank: Bank,
        favoured: int | None = None,
    ) -> None:
        if not (math.isfinite(prompt_epsilon) and prompt_epsilon > 0):
            raise ConfigError(
                "`prompt-epsilon` must be > 0 for the mechanism selection, found "
                f"{prompt_epsilon}; pass for example `-c prompt-epsilon=8.0`."
            )
        if bank.vocabulary.hash != vocabulary.hash:
            raise ConfigError(
                "`bank` must be encoded with the run's vocabulary, found another one; "
                "build it again."
            )
        self.requested_epsilon = float(prompt_epsilon)
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        self.bank = bank
        self.high, self.low = _weights(self.requested_epsilon, len(bank))
        self.favoured = favoured if favoured is not None else self._best_favoured()
        if not 1 <= self.favoured < len(bank):
            raise ConfigError(
                f"`favoured` must be in [1, {len(bank)}), found {self.favoured}; leave "
                "it out to have it chosen."
            )
        self.total = self.favoured * self.high + (len(bank) - self.favoured) * self.low
        exact = logarithm_up(self.high, self.low)
        # One slot would cost this much; a prompt costs no more, whatever its length.
        self.token_epsilon = self.prompt_epsilon = nats(cost_in_nano_nats(exact, 1))
        law = json.dumps([self.name, bank.hash, self.favoured, self.high, self.low])
        self.hash = hashlib.sha256(law.encode()).hexdigest()

    def weights_row(self, prompt: NDArray[np.int64]) -> list[int]:
        """Return the integer weight of each prompt of the bank, in the bank's order."""
        row = np.full(len(self.bank), self.low, dtype=np.int64)
        row[self.bank.order(prompt[None, :])[0, : self.favoured]] = self.high
        return [int(weight) for weight in row]

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return a prompt of the bank for each private one, drawn on its own.

        Parameters
        ----------
        ids : ndarray of int64, shape (..., slots)
            Private prompts.
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
        prompts = tokens.reshape(-1, self.slots)
        draws = source.below(np.full(len(prompts), self.total, dtype=np.int64))
        boosted = self.favoured * self.high
        ranks = np.where(
            draws < boosted,
            draws // self.high,
            self.favoured + (draws - boosted) // self.low,
        )
        chosen = np.empty_like(ranks)
        for start in range(0, len(prompts), CHUNK):
            part = slice(start, start + CHUNK)
            order = self.bank.order(prompts[part])
            chosen[part] = np.take_along_axis(order, ranks[part, None], axis=1)[:, 0]
        released: NDArray[np.int64] = self.bank.prompts[chosen].reshape(tokens.shape)
        return released

    def _best_favoured(self) -> int:
        """Return the number of ranks with the largest chance of an alike prompt."""
        places = np.linspace(0, len(self.bank) - 1, min(TRIALS, len(self.bank)))
        trials = self.bank.prompts[places.astype(np.int64)]
        ranked = -np.sort(-self.bank.similarity(trials), axis=1)
        alike = ranked >= separating_threshold(ranked)
        # Rank 0 is the trial itself, which no private prompt will find in the bank.
        utility = np.append(alike[:, 1:].mean(axis=0), 0.0)
        return len(best_staircase(self.requested_epsilon, utility))


def separating_threshold(similarity: NDArray[np.float64]) -> float:
    """Return what best parts similarities into alike and not.

    The threshold with the largest variance between the two groups (Otsu 1979, A
    threshold selection method from gray-level histograms, equation 18), on a histogram
    of `BINS` equal bins over [0, 1].
    """
    counts, edges = np.histogram(similarity, bins=BINS, range=(0.0, 1.0))
    shares = counts / counts.sum()
    below = np.cumsum(shares)
    moments = np.cumsum(shares * (edges[1:] + edges[:-1]) / 2)
    spread = below * (1 - below)
    between = np.divide(
        (moments[-1] * below - moments) ** 2,
        spread,
        out=np.zeros(BINS),
        where=spread > 0,
    )
    return float(edges[np.argmax(between) + 1])


def _weights(epsilon: float, size: int) -> tuple[int, int]:
    """Return the high and the low weight, with as many digits as 62 bits allow."""
    for bits in range(BITS, -1, -1):
        high = integer_weight(Fraction(epsilon), bits)
        if high * size < LARGEST_BOUND:
            return high, 1 << bits
    raise ConfigError(
        "`prompt-epsilon` must leave every total below 2**62, found "
        f"{epsilon}; pass for example `-c prompt-epsilon=8.0`."
    )
