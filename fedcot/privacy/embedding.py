"""A public similarity between the words of a vocabulary.

It orders what a word may be replaced by; privacy does not depend on it, utility does.
Everything is computed from public artefacts in integers, or in single IEEE operations
on integers, so that every client gets the same similarity and so the same channel.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedcot.errors import ConfigError
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary

EMBEDDING_NAME = "model.embed_tokens.weight"
WORD_PREFIX = "▁"
# Vectors are held to this many steps, which makes their products exact in int64.
STEPS = 1 << 10


def blend_similarity(
    vocabulary: Vocabulary, vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how well one word stands for another.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    vectors : ndarray of float, shape (N, dimensions)
        A public embedding of each word; the rows of padding and numbers are not used.

    Returns
    -------
    ndarray of float64, shape (N, N)
        In [0, 1], symmetric, 1 on the diagonal. Two numbers have
        ``1 / (1 + distance)``, two words the positive part of the cosine of their
        centred vectors; a number and a word, or padding and anything else, have 0.

    Raises
    ------
    ValueError
        If `vectors` has another number of rows or a value that is not finite.
    """
    if len(vectors) != len(vocabulary.words) or not bool(np.isfinite(vectors).all()):
        raise ValueError("`vectors` needs one finite row for each word.")
    similarity = np.eye(len(vocabulary.words))
    numbers = np.array(list(vocabulary.numbers.values()), dtype=np.int64)
    values = np.array([float(value) for value in vocabulary.numbers])
    similarity[np.ix_(numbers, numbers)] = 1 / (1 + np.abs(values[:, None] - values))
    others = np.array([PAD_ID, *numbers.tolist()], dtype=np.int64)
    words = np.setdiff1d(np.arange(len(vocabulary.words)), others)
    if words.size:
        similarity[np.ix_(words, words)] = _positive_cosine(vectors[words])
    np.fill_diagonal(similarity, 1.0)
    return similarity


def model_vectors(vocabulary: Vocabulary, folder: Path) -> NDArray[np.float64]:
    """Return the input embeddings that a public language model gives the words.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    folder : Path
        A Hugging Face folder with `model.safetensors` and `tokenizer.json`.

    Returns
    -------
    ndarray of float64, shape (N, dimensions)
        Zero for a word that is no token of the model.

    Raises
    ------
    ConfigError
        If the folder lacks the embeddings or knows none of the words.
    """
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            table = weights.get_tensor(EMBEDDING_NAME).double().numpy()
        tokens: dict[str, int] = content["model"]["vocab"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "The public language model needs `tokenizer.json` with a vocabulary and "
            f"`model.safetensors` with `{EMBEDDING_NAME}`; not found in {folder}."
        ) from error
    vectors = np.zeros((len(vocabulary.words), table.shape[1]))
    known = 0
    for row, word in enumerate(vocabulary.words):
        token = tokens.get(WORD_PREFIX + word, tokens.get(word))
        if word and token is not None:
            vectors[row] = table[token]
            known += 1
    if known == 0:
        raise ConfigError(f"The model in {folder} knows no word of the vocabulary.")
    return vectors


def world_similarity(vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return the similarity by the shipped public language model of question text."""
    return blend_similarity(vocabulary, world_vectors(vocabulary))


def world_vectors(vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return the embeddings of the shipped public language model of question text."""
    # Imported here because finding models is needed by no other part of privacy.
    from fedcot.models.sources import model_folder

    return model_vectors(vocabulary, model_folder("builtin", "public-lm"))


def _positive_cosine(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosines of centred rows, negative ones as 0; shape (rows, rows)."""
    largest = float(np.abs(vectors).max())
    steps = np.rint(vectors / (largest or 1.0) * STEPS).astype(np.int64)
    # Whole numbers far below 2**53: the float product is exact in whatever order the
    # linear algebra library adds, and much faster than the integer one.
    centred = (steps - steps.sum(axis=0) // len(steps)).astype(np.float64)
    cosines: NDArray[np.float64] = centred @ centred.T
    lengths = np.sqrt(np.diag(cosines))
    lengths[lengths == 0] = 1.0
    cosines /= lengths[:, None]
    cosines /= lengths
    symmetric = cosines + cosines.T
    symmetric /= 2
    return np.clip(symmetric, 0.0, 1.0, out=symmetric)
