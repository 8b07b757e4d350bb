"""Variations of public prompts: a beginning is kept, a public model writes the rest.

What was released is public, so variations of it cost no privacy. Choosing among them
is what Aug-PE (https://arxiv.org/abs/2403.01749) does with an aggregate; here a client
chooses by itself, under its own epsilon.
"""

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.public_model import PublicModel
from fedcot.privacy.vocabulary import PAD_ID


def vary(
    prompts: NDArray[np.int64],
    model: PublicModel,
    count: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return variations of released prompts.

    Parameters
    ----------
    prompts : ndarray of int64, shape (rows, slots)
        Released, so public; taken in turn.
    model : PublicModel
        Continues a beginning.
    count : int
        How many variations.
    generator : numpy.random.Generator
        Decides how much of a prompt is kept, from its first word to all, and the rest.
        It is no source of privacy.

    Returns
    -------
    ndarray of int64, shape (count, slots)
        May hold repetitions.
    """
    parents = prompts[np.arange(count) % len(prompts)]
    lengths = np.maximum(1, (parents != PAD_ID).sum(axis=1))
    kept = 1 + np.floor(generator.random(count) * lengths).astype(np.int64)
    varied = parents.copy()
    for slot in range(1, parents.shape[1]):
        rows = np.flatnonzero(kept <= slot)
        if not rows.size:
            continue
        law = np.cumsum(model.next_probabilities(varied[rows, :slot]), axis=1)
        uniform = generator.random(rows.size)[:, None] * law[:, -1:]
        varied[rows, slot] = (law <= uniform).sum(axis=1)
    return varied
