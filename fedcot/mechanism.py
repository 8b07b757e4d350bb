"""The mechanism of a configuration, with the public artefacts that it needs.

Server and client build it from the same settings; `Channel.hash` and the vocabulary's
hash say whether they really got the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.channels import Channel, build_channel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from fedcot.settings import DATASET, WORLD
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.privacy.public_model import PublicModel

# What a mechanism depends on.
DECISIVE: Final = (
    "mechanism",
    "token_epsilon",
    "prompt_epsilon",
    "vocabulary",
    "bank",
    "bank_size",
    "dataset",
    "data_dir",
    "public_share",
)
# Public prompts on which `adaptive` plans its budget: enough for a mean.
CALIBRATION_PROMPTS = 180
# A release counts as near when it is among that many nearest words; the words of the
# built-in world mean something else each, so there only the true one counts.
NEIGHBOURS = 10


def configured_vocabulary(config: RunConfig) -> Vocabulary:
    """Return the public vocabulary of a configuration, with its dataset's slots.

    Raises
    ------
    ConfigError
        Its file is missing or broken.
    """
    words = config.vocabulary
    vocabulary = world_vocabulary() if words == WORLD else _artefact(words).vocabulary
    parts = tuple(slots for _, slots in configured_task(config).fields)
    if not parts:
        return vocabulary
    return dataclasses.replace(vocabulary, length=sum(parts), parts=parts)


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
    return _channel(_decisive(config), slots)


def _decisive(config: RunConfig) -> RunConfig:
    """Return the defaults but for what decides a mechanism, to build each once."""
    decisive = {name: getattr(config, name) for name in DECISIVE}
    # The rules between settings were checked with the arms that the run has.
    return RunConfig(**decisive, arms="standalone")


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
def _channel(config: RunConfig, slots: int | None) -> Channel:
    """Build each mechanism once per process: a bank takes seconds to rank."""
    is_world = config.vocabulary == WORLD
    mechanism = config.mechanism
    vocabulary = configured_vocabulary(config)
    if slots is not None:
        vocabulary = dataclasses.replace(vocabulary, length=slots, parts=())
    return build_channel(
        mechanism,
        vocabulary,
        config.token_epsilon,
        prompt_epsilon=config.prompt_epsilon,
        similarity=None if is_world else _artefact(config.vocabulary).similarity,
        public_model=(
            public_model(vocabulary, config) if mechanism == "adaptive" else None
        ),
        bank=_bank(config, vocabulary),
        neighbours=1 if is_world else NEIGHBOURS,
    )


@lru_cache(maxsize=2)
def _artefact(path: str) -> VocabularyArtefact:
    if path == DATASET:
        raise ConfigError(
            "`vocabulary` must be a file where the run does not start with `fedcot "
            "run`, found 'dataset'; build it with `fedcot privacy vocabulary "
            "--dataset NAME --output FILE` and pass `-c vocabulary=FILE`."
        )
    return VocabularyArtefact.load(Path(path).expanduser())


def configured_public_model(config: RunConfig) -> PublicModel:
    """Return what knows the public text of a configuration."""
    return public_model(configured_vocabulary(config), config)


def public_model(vocabulary: Vocabulary, config: RunConfig) -> PublicModel:
    """Return the shipped model, or counts of the words of public texts."""
    if config.vocabulary == WORLD:
        # Loads torch, which only this mechanism needs.
        from fedcot.models.public_predictor import builtin_public_model

        return builtin_public_model(vocabulary)
    if config.bank == WORLD:
        raise ConfigError(
            "`bank` must be a file of public texts or `dataset` for the mechanism "
            "adaptive on a vocabulary of its own, found 'world'; pass `-c bank=FILE`."
        )
    from fedcot.data.banks import public_prompts

    return BigramModel(vocabulary, public_prompts(vocabulary, config))


def _bank(config: RunConfig, vocabulary: Vocabulary) -> Bank | None:
    """Return the public prompts that a mechanism chooses from or plans with."""
    from fedcot.data.banks import configured_bank

    if config.mechanism == "selection":
        return configured_bank(vocabulary, config, config.bank_size)
    if config.mechanism in ("adaptive", "saliency"):
        size = min(config.bank_size, CALIBRATION_PROMPTS)
        return configured_bank(vocabulary, config, size)
    return None
