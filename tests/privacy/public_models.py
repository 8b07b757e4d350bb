"""Public models that are wildly sure, wrong or empty, and channels made of them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.vocabulary import Vocabulary

# Padding, the unknown word and three words; three slots.
TINY = Vocabulary.of(["fox", "hen", "3"], 3)
TEXTS = np.array([[2, 3, 0], [2, 4, 3], [3, 4, 0], [2, 3, 4]])


class SkewedModel:
    """One word is nearly certain after each prefix, others fall off by a factor.

    With `factor` 0 all other words are impossible. Which word it is follows from the
    whole prefix, so that no two histories look alike.
    """

    def __init__(self, size: int, factor: float) -> None:
        self.size = size
        self.factor = factor
        self.hash = hashlib.sha256(f"skewed {size} {factor}".encode()).hexdigest()

    def next_probabilities(self, prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        shares = float(self.factor) ** np.arange(self.size)
        rows = []
        for prefix in np.asarray(prefixes).tolist():
            first = (
                3 * len(prefix) + sum((i + 2) * w for i, w in enumerate(prefix))
            ) % 5
            row = np.empty(self.size)
            row[(first + 2 * np.arange(self.size)) % self.size] = shares / shares.sum()
            rows.append(row)
        return np.array(rows).reshape(-1, self.size)


class ConstantModel:
    """The same probabilities whatever was released."""

    def __init__(self, shares: list[float]) -> None:
        self.shares = np.array(shares)
        self.hash = hashlib.sha256(self.shares.tobytes()).hexdigest()

    def next_probabilities(self, prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.tile(self.shares, (len(prefixes), 1))


def tiny_channel(
    kind: type[AdaptiveChannel] = AdaptiveChannel,
    *,
    factor: float = 0.3,
    token_epsilon: float = 1.0,
    prompt_epsilon: float = 1.25,
    similarity: NDArray[np.float64] | None = None,
    neighbours: int = 1,
) -> AdaptiveChannel:
    """A channel over five words and three slots whose model is never flat."""
    return kind(
        TINY,
        token_epsilon,
        prompt_epsilon=prompt_epsilon,
        model=SkewedModel(5, factor),
        calibration=TEXTS,
        similarity=similarity,
        neighbours=neighbours,
    )
