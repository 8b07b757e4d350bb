"""A causal language model as the public model of a mechanism."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fedcot.errors import ConfigError
from fedcot.models.loading import load_model
from fedcot.models.sources import artefact_hash
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary, world_vocabulary

BATCH = 1024


class CausalPublicModel:
    """Next-word probabilities of a model whose tokens are the vocabulary's words.

    Parameters
    ----------
    model : PreTrainedModel
        Causal; its token ids are the vocabulary's indices, and padding opens a text.
    size : int
        Number of words N of the vocabulary.
    content_hash : str
        SHA-256 over the model's files.
    """

    def __init__(self, model: PreTrainedModel, *, size: int, content_hash: str) -> None:
        self.hash = content_hash
        self._model = model
        self._size = size

    @torch.inference_mode()
    def next_probabilities(self, prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of every word after released ones (`PublicModel`).

        Equal prefixes are computed once, in sorted order, so the answer does not
        depend on which private record a prefix belongs to. The last digits may depend
        on the other prefixes of the batch, which were released as well.
        """
        rows = np.asarray(prefixes, dtype=np.int64)
        if not len(rows):
            return np.zeros((0, self._size))
        distinct, places = np.unique(rows, axis=0, return_inverse=True)
        opened = np.full((len(distinct), distinct.shape[1] + 1), PAD_ID, dtype=np.int64)
        opened[:, 1:] = distinct
        found = np.concatenate(
            [
                self._probabilities(opened[start : start + BATCH])
                for start in range(0, len(opened), BATCH)
            ]
        )
        if distinct.shape[1]:
            # Padding opens a text as well; after the end of one nothing follows.
            ended = distinct[:, -1] == PAD_ID
            found[ended] = 0.0
            found[ended, PAD_ID] = 1.0
        result: NDArray[np.float64] = found[places.reshape(-1)]
        return result

    def _probabilities(self, opened: NDArray[np.int64]) -> NDArray[np.float64]:
        ids = torch.from_numpy(opened)
        logits = self._model(input_ids=ids, logits_to_keep=1).logits[
            :, -1, : self._size
        ]
        shares: NDArray[np.float64] = torch.softmax(logits.double(), dim=-1).numpy()
        return shares


def builtin_public_model(vocabulary: Vocabulary) -> CausalPublicModel:
    """Return the shipped model of public question text.

    Raises
    ------
    ConfigError
        The vocabulary is not that of the built-in world.
    """
    if vocabulary.words != world_vocabulary().words:
        raise ConfigError(
            "`vocabulary` must be `world` for the shipped public model, found "
            f"{len(vocabulary.words)} other words; pass `-c vocabulary=world`."
        )
    loaded = load_model("builtin", "public-lm")
    return CausalPublicModel(
        loaded.model,
        size=len(vocabulary.words),
        content_hash=artefact_hash("builtin", "public-lm"),
    )
