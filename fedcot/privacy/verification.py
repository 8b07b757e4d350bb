"""What `fedcot privacy verify` enumerates, for every kind of mechanism.

A token mechanism is one matrix of integer weights. The adaptive one has a matrix for
every released prefix, of which some are enumerated; selection has one over its bank.
What cannot be enumerated at full size says so, and is enumerated on a small vocabulary
by `fedcot privacy audit`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.audit import enumerate_channel
from fedcot.privacy.channels import Channel, TokenChannel
from fedcot.privacy.custext import CusTextChannel
from fedcot.privacy.exact import largest_log_ratio
from fedcot.privacy.selection import SelectionChannel
from fedcot.privacy.slot_law import STEPS_PER_NAT

# Matrices of N x N integers that are enumerated for the adaptive mechanism.
WORDS_ENUMERATED = 8_000
FEWEST_PREFIXES = 8
SELECTION_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What an enumeration found.

    Attributes
    ----------
    mechanism, unit, adjacency, guarantee : str
        What the epsilons are of, in words.
    requested_epsilon : float
        Nats that were asked for.
    exact_epsilon : float
        Nats by enumeration, rounded up; infinite where no finite bound holds.
    prompt_epsilon : float
        Nats that one whole prompt is charged.
    enumerated : str
        Which weights were looked at; empty where there are too many, and what the
        channel states stands instead.
    scope : str
        Where a narrower bound holds, or an empty text.
    holds : bool
        Whether what was found is finite and at most what was stated and asked for.
    """

    mechanism: str
    unit: str
    adjacency: str
    guarantee: str
    requested_epsilon: float
    exact_epsilon: float
    prompt_epsilon: float
    enumerated: str
    scope: str = ""
    holds: bool


def verify_channel(channel: Channel) -> Verification:
    """Enumerate a channel's integer weights and compare with what it states."""
    unit, scope = "nats, one token", ""
    limit = channel.requested_epsilon
    if isinstance(channel, AdaptiveChannel):
        exact, enumerated, within = _adaptive(channel)
        limit = min(limit, channel.prompt_epsilon)
    elif isinstance(channel, SelectionChannel):
        unit = "nats, one whole prompt"
        exact, enumerated, within = _selection(channel)
    elif isinstance(channel, TokenChannel):
        report = enumerate_channel(channel)
        exact, within = report.epsilon, report.epsilon <= channel.token_epsilon
        enumerated = f"{channel.size} x {channel.size} weights"
        if isinstance(channel, CusTextChannel):
            scope = (
                f"inside one of {len(channel.blocks)} blocks: "
                f"{channel.block_epsilon!r} nats, one token"
            )
    else:
        exact, within = channel.token_epsilon, True
        enumerated = ""
        limit = exact
    return Verification(
        mechanism=channel.name,
        unit=unit,
        adjacency=channel.adjacency,
        guarantee=channel.guarantee,
        requested_epsilon=channel.requested_epsilon,
        exact_epsilon=exact,
        prompt_epsilon=channel.prompt_epsilon,
        enumerated=enumerated,
        scope=scope,
        holds=within and exact <= limit and math.isfinite(exact),
    )


def _adaptive(channel: AdaptiveChannel) -> tuple[float, str, bool]:
    """Return the largest slot epsilon over some prefixes, and whether all hold."""
    largest, count, within = 0.0, 0, True
    for prefix in tested_prefixes(channel):
        law = channel.slot_law(prefix)
        rows = np.stack([law.row(token) for token in range(channel.size)])
        exact = largest_log_ratio(rows)
        largest, count = max(largest, exact), count + 1
        within &= exact <= min(law.epsilon, law.steps / STEPS_PER_NAT)
        within &= channel.spent(prefix) + law.steps <= channel.total_steps
    size = channel.size
    return largest, f"{size} x {size} weights after each of {count} prefixes", within


def tested_prefixes(channel: AdaptiveChannel) -> Iterator[NDArray[np.int64]]:
    """Yield prefixes of every length: of public prompts, and some of no text at all."""
    number = max(FEWEST_PREFIXES, WORDS_ENUMERATED // channel.size)
    texts = channel.calibration
    for index in range(number):
        length = index % channel.slots
        if index % 4 == 3:
            # A walk through the vocabulary, which no model expects.
            yield (np.arange(length) * 7 + index) % channel.size
        else:
            yield texts[index % len(texts), :length]


def _selection(channel: SelectionChannel) -> tuple[float, str, bool]:
    bank = channel.bank
    places = np.linspace(0, len(bank) - 1, min(SELECTION_ROWS, len(bank)))
    nothing = np.zeros((1, channel.slots), dtype=np.int64)
    asked = np.concatenate([nothing, bank.prompts[places.astype(np.int64)]])
    rows = np.array([channel.weights_row(prompt) for prompt in asked], dtype=np.int64)
    exact = largest_log_ratio(rows)
    # Every row has as many high weights, so those that were not looked at have the
    # same two weights and the same total.
    alike = bool(((rows == channel.high).sum(axis=1) == channel.favoured).all())
    within = alike and Fraction(exact) <= Fraction(channel.prompt_epsilon)
    return exact, f"{len(rows)} rows over the {len(bank)} prompts of the bank", within
