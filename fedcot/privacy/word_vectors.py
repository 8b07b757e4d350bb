"""Word vectors and a vocabulary artefact from public text, by counting.

A word is what stands around it: the positive pointwise mutual information of words and
the words near them, cut to a few dimensions by a singular value decomposition. On a
few hundred thousand words this is as good as training (Levy, Goldberg and Dagan, 2015,
"Improving distributional similarity with lessons learned from word embeddings",
sections 3 and 6, from which the smoothing and the square root come).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from fedcot.errors import ConfigError
from fedcot.plain_text import normalize
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.vocabulary import Vocabulary, is_number

# Damps the weight of rare contexts, which would otherwise have the highest scores.
CONTEXT_SMOOTHING = 0.75
# Every number of so many digits has a float of its own, as distances need.
MOST_DIGITS = 15
_ROWS_AT_A_TIME = 1024
# File in a folder of public data, and the fields that make up one question.
QUESTION_SOURCES: dict[str, tuple[str, ...]] = {
    "gsm8k/train.jsonl": ("question",),
    "distilling_step_by_step/cqa/cqa_train.json": ("question", "choices"),
    "distilling_step_by_step/svamp/svamp_train.json": ("input",),
    "strategyqa/train.json": ("question", "facts"),
}


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Return how often each normalised word or number stands in some texts."""
    return Counter(word for text in texts for word in normalize(text).split())


def frequent_words(texts: Iterable[str]) -> list[str]:
    """Return the usable words of some texts by falling count, ties by spelling."""
    return _ranked(count_words(texts))


def question_texts(folder: Path) -> list[str]:
    """Return the public training questions that a data folder holds.

    Parameters
    ----------
    folder : Path
        Holds some of the files of `QUESTION_SOURCES`, as one list or one object a line.

    Returns
    -------
    list of str
        A text for each row: the question with the choices or facts that belong to it.

    Raises
    ------
    ConfigError
        If it holds none of them or one of them is broken.
    """
    found = {name: folder / name for name in QUESTION_SOURCES}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        raise ConfigError(
            f"The folder of public data must hold {' or '.join(QUESTION_SOURCES)}, "
            f"found none of them in {folder}; name another folder."
        )
    texts: list[str] = []
    for name, path in found.items():
        try:
            rows = _rows(path.read_text(encoding="utf-8"))
            texts += [_joined(row, QUESTION_SOURCES[name]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"`{name}` must hold JSON rows with {QUESTION_SOURCES[name]}, found "
                "something else; fetch the file again."
            ) from error
    return texts


def word_vectors(
    texts: Sequence[str],
    words: Sequence[str],
    others: Sequence[str] = (),
    *,
    dimensions: int = 64,
    window: int = 4,
) -> NDArray[np.float64]:
    """Return a vector of each word from the words that stand near it.

    Parameters
    ----------
    texts : sequence of str
        Public; no window reaches from one into the next.
    words : sequence of str
        Distinct, normalised; they decide the dimensions. As contexts all numbers count
        as one.
    others : sequence of str
        Distinct rarer words, placed among `words` without moving them.
    dimensions : int
        At least 1 and less than the number of words.
    window : int
        How many words on each side are near, at least 1.

    Returns
    -------
    ndarray of float64, shape (words + others, dimensions)
        Rows of length 1; zero for a word that never stands near one of `words`.

    Raises
    ------
    ConfigError
        If there are too few words for the dimensions.
    """
    scores = _mutual_information(_near_counts(texts, words, others, window))
    known = scores[: len(words)]
    if not 1 <= dimensions < min(known.shape):
        raise ConfigError(
            f"`dimensions` must lie in [1, {min(known.shape) - 1}] for {len(words)} "
            f"words, found {dimensions}; pass fewer or more text."
        )
    if known.nnz == 0:
        raise ConfigError(
            "The public text must hold words that stand near each other more often "
            "than by chance, found none; pass more text."
        )
    # The fixed start and the sign rule make the same text give the same vectors.
    start = np.ones(min(known.shape))
    _, strengths, axes = svds(known, k=dimensions, v0=start, solver="arpack")
    by_strength = np.argsort(-strengths, kind="stable")
    strengths, axes = strengths[by_strength], axes[by_strength]
    highest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(dimensions), highest])[:, None]
    # An axis without strength says nothing about `words`, so nothing about others.
    strong = strengths > 1e-9 * strengths[0]
    # Equal to U sqrt(S) for `words`; the same projection places the others.
    projection = np.where(strong, axes.T / np.sqrt(np.where(strong, strengths, 1)), 0)
    vectors: NDArray[np.float64] = scores @ projection
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def build_artefact(
    texts: Iterable[str],
    *,
    words: int = 4000,
    dimensions: int = 64,
    window: int = 4,
    length: int = 32,
    rarest: int = 2,
    source: str = "public text",
) -> VocabularyArtefact:
    """Return a vocabulary of the most frequent words of public text, with vectors.

    Parameters
    ----------
    texts : iterable of str
        Public. A private text here would make the vocabulary a release of it.
    words : int
        How many words and numbers at most; frequent ones first, ties by spelling.
    dimensions, window : int
        See `word_vectors`.
    length : int
        The public number of slots of a prompt.
    rarest : int
        A word outside the vocabulary that occurs at least so often is mapped to the
        word of the vocabulary with the nearest vector; the rest become "<unk>".
    source : str
        What the texts are, for whoever reads the artefact.

    Returns
    -------
    VocabularyArtefact

    Raises
    ------
    ConfigError
        If there are too few words for the dimensions.
    """
    listed = list(texts)
    counts = count_words(listed)
    ranked = _ranked(counts)
    kept = ranked[:words]
    rare = [w for w in ranked[words:] if counts[w] >= rarest and not is_number(w)]
    # A text of few words has no 64 directions.
    dimensions = max(1, min(dimensions, len(kept) - 2))
    vectors = word_vectors(listed, kept, rare, dimensions=dimensions, window=window)
    synonyms = nearest_words(kept, vectors[: len(kept)], rare, vectors[len(kept) :])
    vocabulary = Vocabulary.of(kept, length, synonyms)
    total = max(sum(counts.values()), 1)
    provenance: dict[str, str | int | float] = {
        "source": source,
        "texts": len(listed),
        "words_read": total,
        "distinct_words": len(counts),
        "share_kept": round(sum(counts[word] for word in kept) / max(total, 1), 6),
        "share_mapped": round(
            sum(counts[word] for word in synonyms) / max(total, 1), 6
        ),
        "dimensions": dimensions,
        "window": window,
    }
    # Padding and unknown words have no place in the text, so no direction either.
    blank = np.zeros((2, dimensions))
    table = np.concatenate([blank, vectors[: len(kept)]]).astype(np.float32)
    return VocabularyArtefact(vocabulary, table, provenance)


def is_usable(word: str) -> bool:
    """Return whether a word has one spelling only: no 007, no foreign digits."""
    if word.isdecimal():
        is_plain = is_number(word) and word == (word.lstrip("0") or "0")
        return is_plain and len(word) <= MOST_DIGITS
    return normalize(word) == word


def nearest_words(
    words: Sequence[str],
    vectors: NDArray[np.float64],
    rare: Sequence[str],
    rare_vectors: NDArray[np.float64],
) -> dict[str, str]:
    """Return the word, no number, with the highest cosine for each rare word.

    Parameters
    ----------
    words, rare : sequence of str
    vectors, rare_vectors : ndarray of float64, shape (words, D) and (rare, D)
        Rows of length 1 or 0.

    Returns
    -------
    dict of str to str
        The first of `words` where two are as near; without the rare words that have no
        positive cosine with any.
    """
    plain = [place for place, word in enumerate(words) if not is_number(word)]
    found: dict[str, str] = {}
    if not plain:
        return found
    targets = vectors[plain].T
    # In pieces: all cosines of a long list would not fit into memory.
    for start in range(0, len(rare), _ROWS_AT_A_TIME):
        cosines = rare_vectors[start : start + _ROWS_AT_A_TIME] @ targets
        best = cosines.argmax(axis=1)
        for row, place in enumerate(best):
            if cosines[row, place] > 0:
                found[rare[start + row]] = words[plain[place]]
    return found


def _ranked(counts: Counter[str]) -> list[str]:
    usable = [word for word in counts if is_usable(word)]
    return sorted(usable, key=lambda word: (-counts[word], word))


def _rows(content: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(content)
    except ValueError:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    return rows


def _joined(row: dict[str, Any], fields: tuple[str, ...]) -> str:
    values = [row[field] for field in fields]
    parts = [value if isinstance(value, str) else " ".join(value) for value in values]
    return " ".join(parts)


def _near_counts(
    texts: Sequence[str], words: Sequence[str], others: Sequence[str], window: int
) -> csr_matrix:
    """Return how often each row's word stands near each context's word."""
    plain = [word for word in words if not is_number(word)]
    columns = {word: place for place, word in enumerate(plain)}
    rows = {word: place for place, word in enumerate((*words, *others))}
    outside = len(plain) + 1
    shape = (len(rows), outside)
    left, right = [], []
    for text in texts:
        tokens = normalize(text).split()
        row_ids = np.array([rows.get(word, -1) for word in tokens], dtype=np.int64)
        context_ids = np.array(
            [
                len(plain) if is_number(word) else columns.get(word, -1)
                for word in tokens
            ],
            dtype=np.int64,
        )
        for first, second in _near_places(len(tokens), window):
            near = (row_ids[first] >= 0) & (context_ids[second] >= 0)
            left.append(row_ids[first][near])
            right.append(context_ids[second][near])
    places = (_concatenated(left), _concatenated(right))
    return csr_matrix((np.ones(len(places[0])), places), shape=shape)


def _near_places(count: int, window: int) -> Iterator[tuple[slice, slice]]:
    for step in range(1, min(window, count - 1) + 1):
        yield slice(0, count - step), slice(step, count)
        yield slice(step, count), slice(0, count - step)


def _concatenated(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _mutual_information(counts: csr_matrix) -> csr_matrix:
    """Return ``max(0, ln(p(row, context) / (p(row) p(context))))``, smoothed."""
    by_row = np.asarray(counts.sum(axis=1)).ravel()
    by_context = np.asarray(counts.sum(axis=0)).ravel() ** CONTEXT_SMOOTHING
    shares = by_context / max(by_context.sum(), 1.0)
    # Rows and contexts without a count hold no entry, so their inverse is not used.
    rows = diags(1 / np.where(by_row > 0, by_row, 1.0))
    contexts = diags(1 / np.where(shares > 0, shares, 1.0))
    scores = (rows @ counts @ contexts).tocsr()
    scores.data = np.maximum(np.log(scores.data), 0.0)
    scores.eliminate_zeros()
    return scores
