"""What requests make clients release: the events that an account is charged for.

Flower's accountants know one event, a Gaussian release of a sampled population. Here
a record's account holds three kinds, because the same server sees all of them.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsEvent:
    """Prompts of one client, at most one per record and channel, released once ever.

    Attributes
    ----------
    server_round, partition_id : int
        When and who.
    prompt_epsilon : float
        Nats of one prompt, pure; infinite where nothing bounds it.
    channel_hash : str
        The mechanism. A record's prompt is drawn once per channel and sent again at no
        cost.
    token_epsilon : float
        Nats of one token, for the books only.
    record_keys : tuple of str
        Pseudonyms of the records that were released freshly; empty in a request, which
        may touch any record.
    reported_epsilon : float
        Nats that the client's own ledger states for its most charged record, private
        trainings and earlier runs included.
    """

    server_round: int
    partition_id: int
    prompt_epsilon: float
    channel_hash: str
    token_epsilon: float = 0.0
    record_keys: tuple[str, ...] = ()
    reported_epsilon: float = 0.0

    @property
    def partitions(self) -> tuple[int, ...]:
        """The clients whose records pay."""
        return (self.partition_id,)

    @property
    def is_bounded(self) -> bool:
        """Whether a finite epsilon exists."""
        return math.isfinite(self.prompt_epsilon)

    def __str__(self) -> str:
        """Name the kind for messages."""
        return "prompts"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEvent:
    """One training by DP-SGD whose adapter leaves a client; every record pays.

    Attributes
    ----------
    server_round, partition_id : int
        When and who.
    noise_multiplier : float
        Standard deviation over clipping norm, >= 0; 0 bounds nothing.
    sampling_rate : float
        Probability, in (0, 1], that a record takes part in a step (Poisson).
    steps : int
        >= 1.
    arm : str
        Which adapter; each is a release of its own.
    """

    server_round: int
    partition_id: int
    noise_multiplier: float
    sampling_rate: float
    steps: int
    arm: str = ""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_noise(self.noise_multiplier)
        if not 0 < self.sampling_rate <= 1 or self.steps < 1:
            raise ValueError(
                "`sampling_rate` must lie in (0, 1] and `steps` be >= 1, found "
                f"{self.sampling_rate} and {self.steps}."
            )

    @property
    def partitions(self) -> tuple[int, ...]:
        """The clients whose records pay."""
        return (self.partition_id,)

    @property
    def is_bounded(self) -> bool:
        """Whether a finite epsilon exists."""
        return self.noise_multiplier > 0

    def __str__(self) -> str:
        """Name the kind for messages."""
        return "private training"


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateEvent:
    """One noised mean of clients' updates that the server hands out.

    Attributes
    ----------
    server_round : int
        When.
    partition_ids : tuple of int
        Clients whose updates are in the mean.
    noise_multiplier : float
        Standard deviation of the noise over what one client can move the mean.
    arm : str
        Which adapter.
    counts_for_records : bool
        Whether the records pay too. False where the updates were charged or free
        themselves: then their mean is post-processing.
    """

    server_round: int
    partition_ids: tuple[int, ...]
    noise_multiplier: float
    arm: str = ""
    counts_for_records: bool = True

    def __post_init__(self) -> None:
        """Check the range."""
        _check_noise(self.noise_multiplier)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The clients that pay."""
        return self.partition_ids

    @property
    def is_bounded(self) -> bool:
        """Whether a finite epsilon exists."""
        return self.noise_multiplier > 0

    def __str__(self) -> str:
        """Name the kind for messages."""
        return "a noised mean"


PrivacyEvent = PromptsEvent | TrainingEvent | AggregateEvent


def _check_noise(noise_multiplier: float) -> None:
    if not 0 <= noise_multiplier < math.inf:
        raise ValueError(
            f"`noise_multiplier` must be >= 0 and finite, found {noise_multiplier}."
        )
