"""The exact audit of a token channel: its integer weights, enumerated.

`fedcot.privacy.end_to_end` audits the whole path that runs, `fedcot.privacy.black_box`
what comes out of it, `fedcot.privacy.attacks` what an attacker makes of that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.channels import Channel, TokenChannel
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.exact import checked_totals, enumerate_epsilon

BLOCK = 256
NO_CLAIM, HOLDS, VIOLATED = "no finite claim", "holds", "violated"


@dataclass(frozen=True, kw_only=True)
class ExactReport:
    """What the integer weights of a channel give.

    Attributes
    ----------
    unit, adjacency : str
        What the epsilons are of, in words.
    epsilon : float
        Nats by enumeration, rounded up; infinite where an output excludes an input.
    claimed : float
        Nats that the channel states.
    full_support : bool
        Whether every input can give every output.
    equal_totals : bool
        Whether all rows have the same total.
    verdict : str
        "holds", "violated" or "no finite claim".
    """

    unit: str
    adjacency: str
    epsilon: float
    claimed: float
    full_support: bool
    equal_totals: bool
    verdict: str


def row_blocks(
    channel: TokenChannel, rows: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield a channel's integer weights, `rows` inputs at a time.

    Yields
    ------
    tuple of int and ndarray of int64, shape (at most rows, N)
        The first input of the block and the weights of every output for each.
    """
    for start in range(0, channel.size, rows):
        yield start, _block(channel, start, min(start + rows, channel.size))


def is_token_channel(channel: Channel) -> TypeGuard[TokenChannel]:
    """Return whether a channel has integer weights for each token by itself.

    One that treats prompts as a whole may have rows of weights too, but for prompts.
    """
    return isinstance(channel, TokenClaims) and isinstance(channel, TokenChannel)


def enumerate_channel(channel: TokenChannel) -> ExactReport:
    """Enumerate the epsilon of a token channel and compare it with its claim.

    Parameters
    ----------
    channel : TokenChannel
        Gives its weights by `weights_block(start, stop)` or by `weights_row(token)`.
    """
    epsilon = enumerate_epsilon(
        lambda start, stop: _block(channel, start, stop), channel.size
    )
    totals: set[int] = set()
    full_support = True
    for _, weights in row_blocks(channel):
        totals.update(checked_totals(weights).tolist())
        full_support &= bool((weights > 0).all())
    return ExactReport(
        unit="nats, one token",
        adjacency=channel.adjacency,
        epsilon=epsilon,
        claimed=channel.token_epsilon,
        full_support=full_support,
        equal_totals=len(totals) == 1,
        verdict=verdict_of(epsilon, channel.token_epsilon),
    )


def verdict_of(found: float, claimed: float) -> str:
    """Return what a found epsilon, or lower bound on one, says about a claim."""
    if math.isinf(claimed):
        return NO_CLAIM
    return HOLDS if found <= claimed else VIOLATED


def _block(channel: TokenChannel, start: int, stop: int) -> NDArray[np.int64]:
    """Return the weights of some inputs, by block where the channel offers that."""
    weights_block = getattr(channel, "weights_block", None)
    if weights_block is not None:
        block: NDArray[np.int64] = weights_block(start, stop)
        return block
    rows = [channel.weights_row(token) for token in range(start, stop)]
    return np.array(rows, dtype=np.int64)
