"""A vocabulary artefact from a public list of words and any embedding of them.

The kept words make the vocabulary. Rarer ones map to the kept word whose vector has
the highest cosine, numbers to the nearest number, and whatever is on no list is
"<unk>". The map is public and many-to-one, so a channel over the kept words has the
same epsilon for every text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.plain_text import normalize
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.vocabulary import Vocabulary, is_number
from fedcot.privacy.word_vectors import is_usable, nearest_words

LARGEST_NUMBER = 100


class Embedding(Protocol):
    """Where the vectors of words come from."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def hash(self) -> str: ...  # noqa: D102

    def vectors(self, words: Sequence[str]) -> NDArray[np.float64]:
        """Return shape (words, dimensions); zero where a word has none."""


@dataclass(frozen=True)
class WordList:
    """Public words, the most important first.

    Attributes
    ----------
    words : tuple of str
        Distinct, as `normalize` writes them.
    hash : str
        SHA-256 of the file.
    """

    words: tuple[str, ...]
    hash: str

    @classmethod
    def read(cls, path: Path, setting: str = "--word-list") -> Self:
        """Read a file with one word a line, and its count in a second column.

        Either every line has a count or none: by count, ties by spelling, or in the
        order of the file. A line that `normalize` makes several words of counts for
        each of them.

        Parameters
        ----------
        path : Path
            UTF-8; the columns are separated by blanks, a tab or a comma.
        setting : str
            What named the file, for errors.

        Raises
        ------
        ConfigError
            It cannot be read, a line has another form, or no line has a word.
        """
        try:
            content = path.expanduser().read_bytes()
            lines = content.decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"`{setting}` must be a readable text file, found {str(path)!r} "
                f"({type(error).__name__}); check the path."
            ) from error
        rows = [(place, line) for place, line in enumerate(lines, 1) if line.strip()]
        counts: Counter[str] = Counter()
        columns = {len(line.replace(",", " ").split()) for _, line in rows}
        for place, line in rows:
            word, *count = line.replace(",", " ").split()
            number = count[0] if count else "0"
            if len(count) > 1 or len(columns) > 1 or not is_number(number):
                raise ConfigError(
                    f"`{setting}` must hold a word a line, all with a whole number "
                    f"behind it or none, found line {place} of '{path.name}'; correct "
                    "the line."
                )
            for part in normalize(word).split():
                if is_usable(part):
                    counts[part] += int(number)
        if not counts:
            raise ConfigError(
                f"`{setting}` must hold words, found none in '{path.name}'; write one "
                "a line."
            )
        # Sorting is stable: without counts the order is that of the file.
        words = sorted(counts) if columns == {2} else list(counts)
        words.sort(key=lambda word: -counts[word])
        return cls(tuple(words), hashlib.sha256(content).hexdigest())


def embedded_artefact(
    ranked: Sequence[str],
    embedding: Embedding,
    *,
    words: int = 4000,
    length: int = 32,
    rare: Sequence[str] = (),
    largest_number: int = LARGEST_NUMBER,
    provenance: Mapping[str, str | int | float] | None = None,
) -> VocabularyArtefact:
    """Return a vocabulary of the first words of a list, with vectors of a model.

    Parameters
    ----------
    ranked : sequence of str
        Distinct normalised public words, the most important first.
    embedding : Embedding
        Public; a word that it has no vector for is left out, or becomes "<unk>".
    words : int
        How many words and numbers to keep at most, at least 2.
    length : int
        The public number of slots of a prompt.
    rare : sequence of str
        More public words; these and what `ranked` holds beyond `words` map to the kept
        word, no number, with the nearest vector.
    largest_number : int
        Where the words kept hold no number, 0 to this one are added; negative: none.
    provenance : mapping, optional
        What else to write down of where the words come from.

    Returns
    -------
    VocabularyArtefact
        Its vectors are those of the embedding, as float32.

    Raises
    ------
    ConfigError
        The embedding knows fewer than two of the words, or the numbers fill the room.
    """
    usable = [word for word in dict.fromkeys(ranked) if is_usable(word)]
    has_numbers = any(map(is_number, usable[:words]))
    numbers = [] if has_numbers else [str(n) for n in range(largest_number + 1)]
    room = words - len(numbers)
    if room < 2:
        raise ConfigError(
            f"`--words` must leave room for 2 words beside {len(numbers)} numbers, "
            f"found {words}; pass more, or a smaller `--numbers`."
        )
    usable_vectors = embedding.vectors(usable)
    places = [
        place
        for place, word in enumerate(usable)
        if is_number(word) or usable_vectors[place].any()
    ]
    kept = [usable[place] for place in places[:room]]
    if sum(not is_number(word) for word in kept) < 2:
        raise ConfigError(
            "`--embedding` must know at least two of the words, found fewer in "
            f"{embedding.name!r}; choose a model of the words' language."
        )
    vectors = usable_vectors[places[:room]]
    beyond = [usable[place] for place in places[room:]]
    synonyms = _synonyms(kept, vectors, _rarer(beyond, rare, kept), embedding)
    # Numbers are told apart by distance, so theirs say nothing more.
    table = np.concatenate(
        [np.zeros((2, vectors.shape[1])), vectors, embedding.vectors(numbers)]
    )
    return VocabularyArtefact(
        Vocabulary.of([*kept, *numbers], length, synonyms),
        table.astype(np.float32),
        {
            **(provenance or {}),
            "embedding": embedding.name,
            "embedding_hash": embedding.hash,
            "dimensions": vectors.shape[1],
            "words_without_vector": len(usable) - len(places),
            "words_mapped": len(synonyms),
        },
    )


def _synonyms(
    kept: Sequence[str],
    vectors: NDArray[np.float64],
    others: Sequence[str],
    embedding: Embedding,
) -> dict[str, str]:
    plain = np.array([not is_number(word) for word in kept])
    centre = vectors[plain].mean(axis=0)
    return nearest_words(
        kept,
        _directions(vectors, centre),
        others,
        _directions(embedding.vectors(others), centre),
    )


def _rarer(first: list[str], rare: Sequence[str], kept: Sequence[str]) -> list[str]:
    """Return the distinct words, no numbers, that are not kept."""
    known = set(kept)
    words = dict.fromkeys([*first, *rare])
    return [
        word
        for word in words
        if word not in known and is_usable(word) and not is_number(word)
    ]


def _directions(
    vectors: NDArray[np.float64], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return rows of length 1 from a centre, zero where there is no vector.

    All vectors of a model share a large part, which would make all words alike.
    """
    moved = np.where(vectors.any(axis=1, keepdims=True), vectors - centre, 0.0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return moved / np.where(lengths > 0, lengths, 1.0)
