"""The mechanism of a configuration, with the public artefacts that it needs.

Server and client build it from the same settings; `Channel.hash` says whether they
really got the same one.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING

from fedcot.config import RunConfig
from fedcot.privacy.channels import Channel, build_channel
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary

if TYPE_CHECKING:
    from fedcot.privacy.public_model import PublicModel
    from fedcot.privacy.selection import Bank

# Public prompts on which `adaptive` plans its budget: enough for a mean.
CALIBRATION_PROMPTS = 180


def configured_channel(config: RunConfig, *, slots: int | None = None) -> Channel:
    """Return a configuration's mechanism over the vocabulary of the built-in world.

    Parameters
    ----------
    config : RunConfig
        Names mechanism, epsilons and public bank.
    slots : int | None
        Tokens of a prompt, >= 1; None: the world's own length.

    Raises
    ------
    ConfigError
        The mechanism cannot give the epsilon, or its public artefact is missing.
    """
    return _channel(
        config.mechanism,
        config.token_epsilon,
        config.prompt_epsilon,
        config.bank,
        config.bank_size,
        slots,
    )


@lru_cache(maxsize=4)
def _channel(
    mechanism: str,
    token_epsilon: float,
    prompt_epsilon: float,
    bank: str,
    bank_size: int,
    slots: int | None,
) -> Channel:
    """Build each mechanism once per process: a bank takes seconds to rank."""
    vocabulary = world_vocabulary()
    if slots is not None:
        vocabulary = dataclasses.replace(vocabulary, length=slots)
    return build_channel(
        mechanism,
        vocabulary,
        token_epsilon,
        prompt_epsilon=prompt_epsilon,
        public_model=_public_model(vocabulary) if mechanism == "adaptive" else None,
        bank=_bank(mechanism, vocabulary, bank, bank_size),
    )


def _public_model(vocabulary: Vocabulary) -> PublicModel:
    # Loads torch, which only this mechanism needs.
    from fedcot.models.public_predictor import builtin_public_model

    return builtin_public_model(vocabulary)


def _bank(
    mechanism: str, vocabulary: Vocabulary, source: str, size: int
) -> Bank | None:
    """Return the public prompts that a mechanism chooses from or plans with."""
    from fedcot.data.banks import load_bank

    if mechanism == "selection":
        return load_bank(vocabulary, source, size)
    if mechanism == "adaptive":
        return load_bank(vocabulary, source, min(size, CALIBRATION_PROMPTS))
    return None
