"""The vocabulary of a dataset, made of the share of its rows that is public."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedcot.errors import ConfigError
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.vocabulary import is_number
from fedcot.privacy.word_vectors import build_artefact, frequent_words
from fedcot.runs import part_of
from fedcot.tasks.registry import configured_task

if TYPE_CHECKING:
    from fedcot.config import RunConfig

WORDS: Final = 4000
DIMENSIONS: Final = 64
DEFAULT_SLOTS: Final = 32
# Part of a file's name: raise it when the same texts make another vocabulary.
BUILD: Final = 1


def public_texts(config: RunConfig) -> list[str]:
    """Return the public questions of a configuration's dataset, all parts of each.

    Raises
    ------
    ConfigError
        The dataset cannot be read, or has no public share.
    """
    from fedcot.data.loading import load_dataset

    texts = [" ".join(record.parts) for record in load_dataset(config).public]
    if not texts:
        raise ConfigError(
            "`public-share` must leave at least one public row for a vocabulary, "
            f"found {config.public_share!r}, which leaves none; pass for example "
            "`-c public-share=0.2`."
        )
    return texts


def dataset_slots(config: RunConfig) -> int | None:
    """Return the public number of words of a question; None: the task states none."""
    return sum(slots for _, slots in configured_task(config).fields) or None


def dataset_artefact(
    config: RunConfig, *, words: int = WORDS, length: int | None = None
) -> VocabularyArtefact:
    """Return a vocabulary of the frequent words of a dataset's public share.

    Parameters
    ----------
    config : RunConfig
        Names the dataset, its folder and its public share.
    words : int
        Words and numbers at most.
    length : int | None
        Slots of a prompt; None: what the dataset's mapping says.

    Raises
    ------
    ConfigError
        As `public_texts`, or there are too few words.
    """
    return _artefact(config, public_texts(config), words, length)


def dataset_vocabulary(config: RunConfig, folder: Path) -> Path:
    """Return the file with the vocabulary of a dataset, built where it is missing.

    Parameters
    ----------
    config : RunConfig
        Names the dataset, its folder and its public share.
    folder : Path
        Where it is kept, under a name that follows from what it is built from; made
        if it is not there.

    Raises
    ------
    ConfigError
        As `dataset_artefact`.
    """
    texts = public_texts(config)
    made_from = [BUILD, WORDS, DIMENSIONS, _length(config), config.dataset, texts]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    path = folder / f"vocabulary-{digest}.safetensors"
    if _is_whole(path):
        return path
    artefact = _artefact(config, texts, WORDS, None)
    folder.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        artefact.save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _is_whole(path: Path) -> bool:
    try:
        VocabularyArtefact.load(path)
    except ConfigError:
        return False
    return True


def _length(config: RunConfig) -> int:
    return dataset_slots(config) or DEFAULT_SLOTS


def _artefact(
    config: RunConfig, texts: list[str], words: int, length: int | None
) -> VocabularyArtefact:
    # A small public share has too few words for all the dimensions.
    usable = frequent_words(texts)
    plain = [word for word in usable if not is_number(word)]
    return build_artefact(
        texts,
        words=words,
        dimensions=max(1, min(DIMENSIONS, min(len(usable), words) - 1, len(plain))),
        length=length or _length(config),
        source=f"public share {config.public_share} of {Path(config.dataset).name}",
    )
