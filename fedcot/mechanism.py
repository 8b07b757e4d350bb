"""The mechanism of a configuration, with the public artefacts that it needs.

Server and client build it from the same settings; `Channel.hash` and the vocabulary's
hash say whether they really got the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.channels import Channel, build_channel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary

if TYPE_CHECKING:
    from fedcot.privacy.public_model import PublicModel

WORLD = "world"
# Public prompts on which `adaptive` plans its budget: enough for a mean.
CALIBRATION_PROMPTS = 180
# A release counts as near when it is among that many nearest words; the words of the
# built-in world mean something else each, so there only the true one counts.
NEIGHBOURS = 10


def configured_vocabulary(config: RunConfig) -> Vocabulary:
    """Return the public vocabulary of a configuration.

    Raises
    ------
    ConfigError
        Its file is missing or broken.
    """
    if config.vocabulary == WORLD:
        return world_vocabulary()
    return _artefact(config.vocabulary).vocabulary


def vocabulary_hash(config: RunConfig) -> str:
    """Return the SHA-256 of the vocabulary and of the vectors that rank its words."""
    if config.vocabulary == WORLD:
        return world_vocabulary().hash
    return _artefact(config.vocabulary).hash


def configured_channel(config: RunConfig, *, slots: int | None = None) -> Channel:
    """Return a configuration's mechanism over its vocabulary.

    Parameters
    ----------
    config : RunConfig
        Names mechanism, epsilons, vocabulary and public bank.
    slots : int | None
        Tokens of a prompt, >= 1; None: the vocabulary's own length.

    Raises
    ------
    ConfigError
        The mechanism cannot give the epsilon, or a public artefact is missing.
    """
    return _channel(
        config.mechanism,
        config.token_epsilon,
        config.prompt_epsilon,
        config.vocabulary,
        config.bank,
        config.bank_size,
        slots,
    )


def granted_channel(
    config: RunConfig,
    *,
    mechanism: str,
    token_epsilon: float,
    prompt_epsilon: float,
    bank: Sequence[int] = (),
) -> Channel:
    """Return the mechanism that a server granted, built on the client.

    Parameters
    ----------
    bank : sequence of int
        Public prompts that `selection` chooses from, one after another; empty: those
        of the settings.

    Raises
    ------
    ConfigError
        The mechanism cannot give the epsilon, or the bank is no bank.
    """
    granted = dataclasses.replace(
        config,
        mechanism=mechanism,
        token_epsilon=token_epsilon,
        prompt_epsilon=prompt_epsilon,
    )
    if mechanism != "selection" or not bank:
        return configured_channel(granted)
    vocabulary = configured_vocabulary(config)
    words = np.array(bank, dtype=np.int64)
    size = len(vocabulary.words)
    if len(words) % vocabulary.length or not ((words >= 0) & (words < size)).all():
        raise ConfigError(
            f"`bank` must hold prompts of {vocabulary.length} words each, out of "
            f"{size}, found {len(words)} ids; the server must send whole prompts."
        )
    prompts = words.reshape(-1, vocabulary.length)
    return SelectionChannel(vocabulary, prompt_epsilon, bank=Bank(vocabulary, prompts))


@lru_cache(maxsize=4)
def _channel(
    mechanism: str,
    token_epsilon: float,
    prompt_epsilon: float,
    words: str,
    bank: str,
    bank_size: int,
    slots: int | None,
) -> Channel:
    """Build each mechanism once per process: a bank takes seconds to rank."""
    is_world = words == WORLD
    vocabulary = world_vocabulary() if is_world else _artefact(words).vocabulary
    if slots is not None:
        vocabulary = dataclasses.replace(vocabulary, length=slots)
    return build_channel(
        mechanism,
        vocabulary,
        token_epsilon,
        prompt_epsilon=prompt_epsilon,
        similarity=None if is_world else _artefact(words).similarity,
        public_model=(
            public_model(vocabulary, words, bank) if mechanism == "adaptive" else None
        ),
        bank=_bank(mechanism, vocabulary, bank, bank_size),
        neighbours=1 if is_world else NEIGHBOURS,
    )


@lru_cache(maxsize=2)
def _artefact(path: str) -> VocabularyArtefact:
    return VocabularyArtefact.load(Path(path).expanduser())


def configured_public_model(config: RunConfig) -> PublicModel:
    """Return what knows the public text of a configuration."""
    vocabulary = configured_vocabulary(config)
    return public_model(vocabulary, config.vocabulary, config.bank)


def public_model(vocabulary: Vocabulary, words: str, bank: str) -> PublicModel:
    """Return the shipped model, or counts of the words of a file of public texts.

    Parameters
    ----------
    words, bank : str
        The settings `vocabulary` and `bank`.
    """
    if words == WORLD:
        # Loads torch, which only this mechanism needs.
        from fedcot.models.public_predictor import builtin_public_model

        return builtin_public_model(vocabulary)
    from fedcot.data.banks import read_lines

    if bank == WORLD:
        raise ConfigError(
            "`bank` must be a file of public texts for the mechanism adaptive on a "
            "vocabulary of its own, found 'world'; pass `-c bank=FILE`."
        )
    encoded: list[NDArray[np.int64]] = [
        vocabulary.encode(line) for line in read_lines(Path(bank), "bank")
    ]
    return BigramModel(vocabulary, encoded)


def _bank(
    mechanism: str, vocabulary: Vocabulary, source: str, size: int
) -> Bank | None:
    """Return the public prompts that a mechanism chooses from or plans with."""
    from fedcot.data.banks import load_bank

    if mechanism == "selection":
        return load_bank(vocabulary, source, size)
    if mechanism in ("adaptive", "saliency"):
        return load_bank(vocabulary, source, min(size, CALIBRATION_PROMPTS))
    return None
