"""The public vocabulary: text becomes a fixed number of public token ids, or nothing.

Whatever a private text holds, only ids of public words leave `Vocabulary.encode`, and
always the same number of them. The map is many-to-one and public, so that a channel's
guarantee over the vocabulary holds for every text.
"""

import bisect
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.plain_text import normalize

PAD = ""
UNKNOWN = "<unk>"
PAD_ID = 0
UNKNOWN_ID = 1
# Part of the hash: raise it when `normalize` or `encode` map any text differently.
ENCODING_VERSION = 1


@dataclass(frozen=True)
class Vocabulary:
    """Public words and the public number of slots of a prompt.

    Parameters
    ----------
    words : tuple of str
        Distinct; word 0 is the padding "" and word 1 is "<unk>".
    length : int
        How many slots every encoded prompt has, at least 1.
    synonyms : mapping of str to str
        For rarer words, as `normalize` writes them, the word of the vocabulary that
        stands for them; neither padding nor a number may be mapped.
    parts : tuple of int
        Slots of each part of a question, in order, each at least 1 and `length` in all;
        empty where a question is one part. Public: where a part begins says nothing.

    Raises
    ------
    ConfigError
        If the words, the length, the synonyms or the parts break these rules.
    """

    words: tuple[str, ...]
    length: int
    # Left out of `__hash__`: a mapping has none, and equality compares it anyway.
    synonyms: Mapping[str, str] = field(default_factory=dict, hash=False)
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the words, the length, the synonyms and the parts."""
        if self.words[:2] != (PAD, UNKNOWN):
            raise ConfigError(
                f"`words` must begin with '' and '{UNKNOWN}', found "
                f"{list(self.words[:2])}; use Vocabulary.of to add them."
            )
        if len(set(self.words)) != len(self.words):
            raise ConfigError("`words` must be distinct; remove the repeated ones.")
        if any(word.split() != [word] for word in self.words[1:]):
            raise ConfigError("`words` must not hold blanks; split them.")
        if not isinstance(self.length, int) or self.length < 1:
            raise ConfigError(
                f"`length` must be >= 1, found {self.length}; pass the number of "
                "slots that every prompt is padded to."
            )
        if self.parts and (min(self.parts) < 1 or sum(self.parts) != self.length):
            raise ConfigError(
                f"`parts` must each have a slot and {self.length} in all, found "
                f"{self.parts}; correct the slots of the dataset's mapping."
            )
        # A copy, so that nobody changes the map after it was hashed.
        object.__setattr__(self, "synonyms", dict(self.synonyms))
        self._check_synonyms()

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        length: int,
        synonyms: Mapping[str, str] | None = None,
    ) -> "Vocabulary":
        """Return a vocabulary of `words` with padding and the unknown word added."""
        return cls((PAD, UNKNOWN, *words), length, synonyms or {})

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that decides which ids a text becomes."""
        content: list[object] = [ENCODING_VERSION, self.length, list(self.words)]
        # Only where there are some: what was released without them keeps its name.
        if self.synonyms:
            content.append(sorted(self.synonyms.items()))
        if self.parts:
            content.append({"parts": list(self.parts)})
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Token id of each whole number in the vocabulary, in rising order."""
        values = {
            int(word): token for token, word in enumerate(self.words) if is_number(word)
        }
        return dict(sorted(values.items()))

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the public ids of a text, padded or cut to the public length.

        Parameters
        ----------
        text : str
            Private.

        Returns
        -------
        ndarray of int64, shape (length,)
            Rarer words are their synonym, unknown words 1, numbers the nearest number
            of the vocabulary (the smaller of two), empty slots 0.
        """
        return self._encoded(text, self.length)

    def encode_parts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the public ids of a question, each part padded or cut to its slots.

        Parameters
        ----------
        texts : sequence of str
            Private; one for each of `parts`, or just one. Parts that are missing are
            padding, so that their number does not show.

        Returns
        -------
        ndarray of int64, shape (length,)

        Raises
        ------
        ValueError
            If there are more texts than parts.
        """
        slots = self.parts or (self.length,)
        if len(texts) > len(slots):
            raise ValueError(f"a question has {len(slots)} parts at most.")
        given = [*texts, *[""] * (len(slots) - len(texts))]
        return np.concatenate(
            [
                self._encoded(text, count)
                for text, count in zip(given, slots, strict=True)
            ]
        )

    def decode_parts(self, ids: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
        """Return the words of each part, as `decode` writes them.

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary, or their number is not `length`.
        """
        if len(ids) != self.length:
            raise ValueError(f"a question has {self.length} slots.")
        ends = np.cumsum(self.parts or (self.length,)).tolist()
        starts = [0, *ends[:-1]]
        return tuple(
            self.decode(ids[start:end]) for start, end in zip(starts, ends, strict=True)
        )

    def _encoded(self, text: str, slots: int) -> NDArray[np.int64]:
        ids = np.full(slots, PAD_ID, dtype=np.int64)
        words = normalize(text).split()[:slots]
        ids[: len(words)] = [self._token(word) for word in words]
        return ids

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> str:
        """Return the words of some ids, single spaces between, padding dropped.

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary.
        """
        tokens = [int(token) for token in ids]
        if any(not 0 <= token < len(self.words) for token in tokens):
            raise ValueError(f"Token ids must lie in [0, {len(self.words)}).")
        return " ".join(self.words[token] for token in tokens if token != PAD_ID)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.words)}

    def _token(self, word: str) -> int:
        token = self._index.get(self.synonyms.get(word, word))
        if token is None and word.isdecimal():
            return self._nearest_number(word)
        return UNKNOWN_ID if token is None else token

    def _check_synonyms(self) -> None:
        """Refuse a map that could shadow a word, a number or padding."""
        targets = set(self.words[1:])
        known = set(self.words)
        for word, target in self.synonyms.items():
            is_word = normalize(word) == word and len(word.split()) == 1
            if not is_word or word.isdecimal() or word in known:
                raise ConfigError(
                    "`synonyms` must map single normalised words that are no numbers "
                    f"and not in the vocabulary, found '{word}'; leave it out."
                )
            if target not in targets:
                raise ConfigError(
                    f"`synonyms` must map to words of the vocabulary, found '{target}' "
                    f"for '{word}'; leave it out."
                )

    def _nearest_number(self, digits: str) -> int:
        values = list(self.numbers)
        if not values:
            return UNKNOWN_ID
        plain = "".join(str(unicodedata.decimal(digit)) for digit in digits)
        significant = plain.lstrip("0") or "0"
        # Python refuses to convert very long digit strings; their length is enough.
        if len(significant) > len(str(values[-1])):
            return self.numbers[values[-1]]
        value = int(significant)
        place = bisect.bisect_left(values, value)
        around = values[max(0, place - 1) : place + 1]
        return self.numbers[min(around, key=lambda number: abs(number - value))]


def is_number(word: str) -> bool:
    """Return whether a word of a vocabulary is a whole number in ASCII digits."""
    return word.isascii() and word.isdecimal()


def world_vocabulary() -> Vocabulary:
    """Return the vocabulary of the built-in world's questions."""
    from fedcot.world.vocabulary import PUBLIC_LENGTH, question_words

    return Vocabulary.of(question_words(), PUBLIC_LENGTH)
