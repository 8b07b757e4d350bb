"""Checks that every channel makes of what it is given."""

import math

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError


def checked_epsilon(token_epsilon: float) -> float:
    """Return the epsilon asked for.

    Raises
    ------
    ConfigError
        Unless it is finite and positive.
    """
    if not (math.isfinite(token_epsilon) and token_epsilon > 0):
        raise ConfigError(
            f"`token-epsilon` must be > 0 and finite, found {token_epsilon}; pass for "
            "example `-c token-epsilon=8.0`."
        )
    return float(token_epsilon)


def checked_similarity(
    similarity: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Return a public similarity of `size` words.

    Raises
    ------
    ConfigError
        Unless it is square of that size and within [0, 1].
    """
    values = np.asarray(similarity, dtype=np.float64)
    if values.shape != (size, size) or not bool(((values >= 0) & (values <= 1)).all()):
        raise ConfigError(
            f"`similarity` must be {size} x {size} with values in [0, 1], found shape "
            f"{values.shape}; build it for the same vocabulary."
        )
    return values


def checked_ids(ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return token ids that all lie in the vocabulary.

    Raises
    ------
    ValueError
        If one does not; the message tells nothing about the ids, which are private.
    """
    tokens = np.asarray(ids)
    inside = tokens.dtype.kind in "iu" and bool(((tokens >= 0) & (tokens < size)).all())
    if not inside:
        raise ValueError(f"Token ids must be integers in [0, {size}).")
    return tokens.astype(np.int64)
