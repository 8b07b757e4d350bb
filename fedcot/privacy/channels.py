"""What a mechanism is, the mechanisms there are, and their epsilon by enumeration."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.embedding import world_similarity
from fedcot.privacy.exact import largest_log_ratio
from fedcot.privacy.exponential import calibrated_exponential
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.vocabulary import Vocabulary


class Channel(Protocol):
    """A public random map of tokens to tokens."""

    @property
    def name(self) -> str:
        """The mechanism, as the setting `mechanism` calls it."""
        ...

    @property
    def token_epsilon(self) -> float:
        """Epsilon of one token in nats, from the integer weights, rounded up."""
        ...

    @property
    def requested_epsilon(self) -> float:
        """Epsilon of one token that was asked for, in nats."""
        ...

    @property
    def guarantee(self) -> str:
        """What holds, in words."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 over everything that decides what is released."""
        ...

    @property
    def slots(self) -> int:
        """The public number of tokens of every prompt."""
        ...

    @property
    def size(self) -> int:
        """The number of tokens in the public vocabulary."""
        ...

    def weights_row(self, token: int) -> list[int]:
        """Return the integer weight of every output for one input token."""
        ...

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the tokens to release for private ones, any shape."""
        ...


Builder = Callable[[Vocabulary, float, NDArray[np.float64] | None], Channel]

CHANNELS: dict[str, Builder] = {
    "exponential": lambda vocabulary, epsilon, similarity: calibrated_exponential(
        vocabulary,
        epsilon,
        world_similarity(vocabulary) if similarity is None else similarity,
    ),
    "rank": lambda vocabulary, epsilon, similarity: RankChannel(
        vocabulary, epsilon, similarity=similarity
    ),
    "none": lambda vocabulary, epsilon, similarity: IdentityChannel(vocabulary),
}


def build_channel(
    mechanism: str,
    vocabulary: Vocabulary,
    token_epsilon: float,
    *,
    similarity: NDArray[np.float64] | None = None,
) -> Channel:
    """Return the channel of a mechanism.

    Parameters
    ----------
    mechanism : str
        One of `CHANNELS`.
    vocabulary : Vocabulary
        N public words and the public length.
    token_epsilon : float
        Nats for one token, finite, > 0; `none` ignores it.
    similarity : ndarray of float, shape (N, N), optional
        Public, in [0, 1]. By default `exponential` takes it from the shipped public
        language model; `rank`, which favours the true word alone, needs none.

    Raises
    ------
    ConfigError
        If the mechanism is unknown or cannot give the epsilon.
    """
    if mechanism not in CHANNELS:
        raise ConfigError(
            f"`mechanism` must be one of {', '.join(CHANNELS)}, found '{mechanism}'; "
            "pass for example `-c mechanism=rank`."
        )
    return CHANNELS[mechanism](vocabulary, token_epsilon, similarity)


def exact_epsilon(channel: Channel) -> float:
    """Enumerate a channel's token epsilon from its integer weights.

    Returns
    -------
    float
        The largest log ratio over all inputs and outputs in nats, rounded up;
        infinite if some output tells that some input was not there.
    """
    rows = [channel.weights_row(token) for token in range(channel.size)]
    return largest_log_ratio(np.array(rows, dtype=np.int64))
