"""What a public language model is to a mechanism: next-word probabilities.

A mechanism may show it released words only. Nothing of a private text reaches it.
"""

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.vocabulary import Vocabulary


class PublicModel(Protocol):
    """A next-word distribution over the N words of a public vocabulary."""

    @property
    def hash(self) -> str:
        """SHA-256 over everything that decides its probabilities."""
        ...

    def next_probabilities(self, prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of every word after released ones.

        Parameters
        ----------
        prefixes : ndarray of int64, shape (rows, words)
            Released words from the first slot on; no column at the first slot.

        Returns
        -------
        ndarray of float64, shape (rows, N)
            Not negative; each row sums to 1.
        """
        ...


class BigramModel:
    """Word pairs counted in public text, interpolated with single words.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    prompts : iterable of ndarray of int64, shape (slots,)
        Encoded public texts.
    weight : float
        Weight of the pair's estimate against the single word's, in (0, 1).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompts: Iterable[NDArray[np.int64]],
        *,
        weight: float = 0.8,
    ) -> None:
        size = len(vocabulary.words)
        texts = np.stack(list(prompts))
        # Row `size` stands for the beginning of a text.
        pairs = np.zeros((size + 1, size), dtype=np.int64)
        before = np.concatenate(
            [np.full((len(texts), 1), size, dtype=np.int64), texts[:, :-1]], axis=1
        )
        np.add.at(pairs, (before.reshape(-1), texts.reshape(-1)), 1)
        singles = pairs.sum(axis=0) + 1
        digest = hashlib.sha256(f"bigram {weight} {vocabulary.hash}".encode())
        digest.update(pairs.astype("<i8").tobytes())
        self.hash = digest.hexdigest()
        single = singles / singles.sum()
        totals = pairs.sum(axis=1, keepdims=True)
        known = np.divide(
            pairs, totals, out=np.tile(single, (size + 1, 1)), where=totals > 0
        )
        self._next = weight * known + (1 - weight) * single

    def next_probabilities(self, prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of every word after released ones (`PublicModel`)."""
        rows = np.asarray(prefixes, dtype=np.int64)
        if rows.shape[1] == 0:
            start: NDArray[np.float64] = np.tile(self._next[-1], (len(rows), 1))
            return start
        found: NDArray[np.float64] = self._next[rows[:, -1]]
        return found
