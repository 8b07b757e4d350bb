"""The public bank that `selection` chooses from: the built-in world's, or a file's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.privacy.selection import Bank
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.rules import LARGEST
from fedcot.settings import DATASET, WORLD
from fedcot.world.families import FAMILIES
from fedcot.world.splits import draw_problems

# The bank is a public artefact: it does not change with the seed of a run.
BANK_SEED = 0


def load_bank(vocabulary: Vocabulary, source: str, size: int) -> Bank:
    """Return public prompts over a vocabulary.

    Parameters
    ----------
    vocabulary : Vocabulary
        Encodes the questions.
    source : str
        ``world``: problems of all nine families in equal share, from a split that
        holds no client's problem. Otherwise a text file with one question a line.
    size : int
        Prompts at most; a file's first ones are taken.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds fewer than two distinct prompts.
    """
    if source == WORLD:
        try:
            problems = draw_problems("bank", tuple(FAMILIES), size, seed=BANK_SEED)
        except ValueError as error:
            raise ConfigError(
                f"`bank-size` must be at most what the world holds, found {size} "
                f"({error}); pass for example `-c bank-size=4500`."
            ) from error
        questions = [problem.record().question for problem in problems]
    else:
        questions = read_lines(Path(source), "bank")[:size]
    return _bank_of(
        vocabulary, [vocabulary.encode_parts((text,)) for text in questions], source
    )


def configured_bank(vocabulary: Vocabulary, config: RunConfig, size: int) -> Bank:
    """Return the public prompts of a configuration, `size` at most.

    Raises
    ------
    ConfigError
        As `load_bank`, or the dataset has no public share.
    """
    if config.bank != DATASET:
        return load_bank(vocabulary, config.bank, size)
    return _bank_of(vocabulary, public_prompts(vocabulary, config)[:size], DATASET)


def public_prompts(
    vocabulary: Vocabulary, config: RunConfig
) -> list[NDArray[np.int64]]:
    """Return every public text of a configuration as ids, in order.

    Raises
    ------
    ConfigError
        The file cannot be read, or the dataset has no public share.
    """
    if config.bank == DATASET:
        # Reads the dataset's files, which a bank of the world does not need.
        from fedcot.data.partition import load_public_bank

        records = load_public_bank(config, LARGEST)
        return [vocabulary.encode_parts(record.parts) for record in records]
    lines = read_lines(Path(config.bank), "bank")
    return [vocabulary.encode_parts((line,)) for line in lines]


def _bank_of(
    vocabulary: Vocabulary, prompts: Sequence[NDArray[np.int64]], source: str
) -> Bank:
    if not prompts:
        raise ConfigError(
            "`bank` must hold at least 2 prompts, all distinct, found none in "
            f"{source!r}; write one question a line."
        )
    encoded = np.stack(prompts)
    # Different questions may have the same words; the first of them stands.
    _, first = np.unique(encoded, axis=0, return_index=True)
    return Bank(vocabulary, encoded[np.sort(first)])


def read_lines(path: Path, setting: str) -> list[str]:
    """Return the lines of a text file that are not blank.

    Parameters
    ----------
    path : Path
        UTF-8.
    setting : str
        What named the file, for the error.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"`{setting}` must be a readable text file, found {str(path)!r} "
            f"({type(error).__name__}); check the path."
        ) from error
    return [line for line in (line.strip() for line in lines) if line]
