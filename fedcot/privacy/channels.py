"""What a mechanism is, the mechanisms there are, and their epsilon by enumeration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.custext import CusTextChannel
from fedcot.privacy.embedding import world_similarity, world_vectors
from fedcot.privacy.exact import enumerate_epsilon
from fedcot.privacy.exponential import calibrated_exponential
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.public_model import PublicModel
from fedcot.privacy.rank import RankChannel, Shape, top
from fedcot.privacy.rantext import RantextChannel
from fedcot.privacy.saliency import SaliencyChannel, unigram_information
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.shapes import best_staircase, neighbour_utility
from fedcot.privacy.vocabulary import Vocabulary

Artefact = TypeVar("Artefact")


class Channel(Protocol):
    """A public random map of prompts to prompts."""

    @property
    def name(self) -> str:
        """The mechanism, as the setting `mechanism` calls it."""
        ...

    @property
    def token_epsilon(self) -> float:
        """Epsilon of one token in nats, from the integer weights, rounded up.

        A mechanism that treats a prompt as a whole has no cheaper one for a token.
        """
        ...

    @property
    def prompt_epsilon(self) -> float:
        """Nats that one whole prompt is charged, rounded up to a nano-nat."""
        ...

    @property
    def adjacency(self) -> str:
        """The neighbours for which the epsilons hold, in words."""
        ...

    @property
    def requested_epsilon(self) -> float:
        """Epsilon that was asked for, in nats: of one token, or of one prompt."""
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

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the tokens to release for private prompts of shape (..., slots)."""
        ...


@runtime_checkable
class TokenChannel(Channel, Protocol):
    """A channel that treats every token alike, whatever stands beside it."""

    def weights_row(self, token: int) -> list[int]:
        """Return the integer weight of every output for one input token."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What mechanisms are built from.

    Attributes
    ----------
    vocabulary : Vocabulary
        N public words and the public length.
    token_epsilon : float
        Nats for one token; at most that for one slot where budgets move.
    prompt_epsilon : float
        Nats for one prompt; 0 is slots x token_epsilon.
    similarity : ndarray of float, shape (N, N), optional
        Public, in [0, 1].
    public_model : PublicModel, optional
        A public language model over the vocabulary.
    bank : Bank, optional
        Public prompts.
    neighbours : int
        How many nearest words count as a hit where the mechanism plans for hits; 1
        counts the true word alone.
    """

    vocabulary: Vocabulary
    token_epsilon: float
    prompt_epsilon: float = 0.0
    similarity: NDArray[np.float64] | None = None
    public_model: PublicModel | None = None
    bank: Bank | None = None
    neighbours: int = 1

    def shape(self) -> Shape:
        """Return the rank shape with most hits: the true word alone, or a staircase."""
        if self.neighbours == 1:
            return top(1)
        size = len(self.vocabulary.words)
        utility = neighbour_utility(size, self.neighbours)
        return best_staircase(self.token_epsilon, utility)

    def ranked(self) -> NDArray[np.float64]:
        """Return the similarity, by default that of the shipped public model."""
        if self.similarity is None:
            return world_similarity(self.vocabulary)
        return self.similarity


Builder = Callable[[Ingredients], Channel]

CHANNELS: dict[str, Builder] = {
    "exponential": lambda given: calibrated_exponential(
        given.vocabulary, given.token_epsilon, given.ranked()
    ),
    "rank": lambda given: RankChannel(
        given.vocabulary,
        given.token_epsilon,
        shape=given.shape(),
        similarity=given.similarity,
    ),
    "adaptive": lambda given: AdaptiveChannel(
        given.vocabulary,
        given.token_epsilon,
        prompt_epsilon=given.prompt_epsilon,
        model=_required(given.public_model, "public_model"),
        calibration=_required(given.bank, "bank").prompts,
        similarity=given.similarity,
        neighbours=given.neighbours,
    ),
    "saliency": lambda given: SaliencyChannel(
        given.vocabulary,
        given.token_epsilon,
        # Removal costs half of what any replacement does.
        removal_epsilon=(
            given.prompt_epsilon or given.vocabulary.length * given.token_epsilon
        )
        / 2,
        information=None if given.bank is None else _information(given.bank),
    ),
    "selection": lambda given: SelectionChannel(
        given.vocabulary, given.prompt_epsilon, bank=_required(given.bank, "bank")
    ),
    "rantext": lambda given: RantextChannel(
        given.vocabulary,
        given.token_epsilon,
        # The rows of a similarity are an embedding as well.
        world_vectors(given.vocabulary)
        if given.similarity is None
        else given.similarity,
    ),
    "custext": lambda given: CusTextChannel(
        given.vocabulary, given.token_epsilon, given.ranked()
    ),
    "none": lambda given: IdentityChannel(given.vocabulary),
}


def build_channel(
    mechanism: str,
    vocabulary: Vocabulary,
    token_epsilon: float,
    *,
    prompt_epsilon: float = 0.0,
    similarity: NDArray[np.float64] | None = None,
    public_model: PublicModel | None = None,
    bank: Bank | None = None,
    neighbours: int = 1,
) -> Channel:
    """Return the channel of a mechanism.

    Parameters
    ----------
    mechanism : str
        One of `CHANNELS`.
    vocabulary, token_epsilon, prompt_epsilon
        See `Ingredients`.
    similarity, public_model, bank, neighbours
        See `Ingredients`; each mechanism says which it needs. By default the
        similarity is that of the shipped public language model, and `rank` favours
        the true word alone and so needs none.

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
    return CHANNELS[mechanism](
        Ingredients(
            vocabulary=vocabulary,
            token_epsilon=token_epsilon,
            prompt_epsilon=prompt_epsilon,
            similarity=similarity,
            public_model=public_model,
            bank=bank,
            neighbours=neighbours,
        )
    )


def exact_epsilon(channel: TokenChannel) -> float:
    """Enumerate a channel's token epsilon from its integer weights.

    Returns
    -------
    float
        The largest log ratio over all inputs and outputs in nats, rounded up;
        infinite if some output tells that some input was not there.
    """

    def rows(start: int, stop: int) -> NDArray[np.int64]:
        found = [channel.weights_row(token) for token in range(start, stop)]
        return np.array(found, dtype=np.int64)

    return enumerate_epsilon(rows, channel.size)


def _information(bank: Bank) -> NDArray[np.float64]:
    """Return how much each word tells, from how rare it is in public prompts."""
    size = len(bank.vocabulary.words)
    counts = np.bincount(bank.prompts.reshape(-1), minlength=size)
    return unigram_information(counts)


def _required(value: Artefact | None, name: str) -> Artefact:
    if value is None:
        raise ValueError(f"`{name}` must be given to build this mechanism.")
    return value
