"""What goes into a draw and what comes out of it, all of public length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.tokens import checked_ids

if TYPE_CHECKING:
    from fedcot.privacy.channels import Channel
    from fedcot.privacy.sampler import RandomSource


@dataclass(frozen=True, slots=True)
class Release:
    """A perturbed prompt that may be sent, again and again.

    Attributes
    ----------
    record_key : str
        The record's key; says nothing about its content.
    ids : tuple of int
        Public length, tokens of the public vocabulary.
    channel_hash : str
        The artefact that perturbed it.
    prompt_epsilon : float
        Nats charged for it; infinite where nothing was perturbed.
    fresh : bool
        Whether this call drew it; otherwise it came from the store and cost nothing.
    """

    record_key: str
    ids: tuple[int, ...]
    channel_hash: str
    prompt_epsilon: float
    fresh: bool


def distinct_keys(keys: Sequence[str]) -> list[str]:
    """Return record keys as they are.

    Raises
    ------
    ValueError
        If one repeats.
    """
    if len(set(keys)) != len(keys):
        raise ValueError("Record keys must be distinct; number equal records.")
    return list(keys)


def stacked_prompts(
    prompts: Sequence[NDArray[np.int64]], channel: Channel
) -> NDArray[np.int64]:
    """Return private prompts as rows; the errors name no content.

    Parameters
    ----------
    prompts : sequence of ndarray of int64 of shape (slots,)
        Private token ids.
    channel : Channel
        What is to perturb them.

    Returns
    -------
    ndarray of int64, shape (prompts, slots)

    Raises
    ------
    ValueError
        If a prompt has not the public length or an id lies outside the vocabulary.
    """
    arrays = [np.asarray(ids) for ids in prompts]
    if any(ids.shape != (channel.slots,) for ids in arrays):
        raise ValueError(
            f"Every prompt must have the public length of {channel.slots} slots."
        )
    if not arrays:
        return np.empty((0, channel.slots), dtype=np.int64)
    # Stacking would turn one prompt of another type into integers like the others.
    odd = [ids for ids in arrays if ids.dtype.kind not in "iu"]
    return checked_ids(odd[0] if odd else np.stack(arrays), channel.size)


def draw_outputs(
    ids: NDArray[np.int64], channel: Channel, source: RandomSource
) -> list[list[int]]:
    """Draw one output for each row.

    Parameters
    ----------
    ids : ndarray of int64, shape (prompts, slots)
        Private token ids.
    channel : Channel
        What perturbs them.
    source : RandomSource
        Its randomness; not used where there is no row.

    Returns
    -------
    list of list of int
        Public length each, tokens of the public vocabulary.

    Raises
    ------
    ValueError
        If the channel made anything else: the shape of an output would tell more than
        was charged.
    """
    if not len(ids):
        return []
    drawn = checked_ids(channel.sample(ids, source), channel.size)
    if drawn.shape != ids.shape:
        raise ValueError("A channel must keep the shape of what it perturbs.")
    outputs: list[list[int]] = drawn.tolist()
    return outputs
