"""What a run needs that is made from its settings before it starts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

from fedcot.config import RunConfig
from fedcot.settings import DATASET

DATA_VARIABLE: Final = "FEDCOT_DATA"
FOLDER: Final = "artefacts"


def with_artefacts(config: RunConfig, root: Path) -> RunConfig:
    """Return settings that name files where they said how to make them.

    The folder of the data is written down, since a server and its clients do not share
    their environment. `vocabulary=dataset` becomes the file of a vocabulary that is
    built from the dataset's public share, once.

    Parameters
    ----------
    config : RunConfig
        As the user wrote it.
    root : Path
        Folder of the runs; the vocabulary is kept in `artefacts` below it.

    Raises
    ------
    ConfigError
        The dataset cannot be read or has no public share.
    """
    if not config.data_dir and os.environ.get(DATA_VARIABLE):
        config = dataclasses.replace(config, data_dir=os.environ[DATA_VARIABLE])
    if config.vocabulary != DATASET:
        return config
    # Reads the dataset and builds word vectors, which few commands need.
    from fedcot.privacy.dataset_vocabulary import dataset_vocabulary

    path = dataset_vocabulary(config, root / FOLDER)
    return dataclasses.replace(config, vocabulary=str(path))
