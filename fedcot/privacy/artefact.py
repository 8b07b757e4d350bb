"""A public vocabulary with its word vectors in one file that both sides check.

The file is in the safetensors format, so loading it runs no code: one float32 tensor
`vectors`, and one JSON object under `fedcot` in its metadata. The hash in that object
covers words, length, synonyms, provenance and vectors.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcot.errors import ConfigError
from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.vocabulary import Vocabulary

FORMAT = 1
TENSOR = "vectors"
METADATA = "fedcot"


@dataclass(frozen=True, eq=False)
class VocabularyArtefact:
    """A vocabulary, a vector of each word, and where they come from.

    Parameters
    ----------
    vocabulary : Vocabulary
        N public words, the public length and the synonyms of rarer words.
    vectors : ndarray of float32, shape (N, dimensions)
        Public and finite; the rows of padding and "<unk>" may be zero.
    provenance : mapping of str to str, int or float
        What it was built from, in words and counts.

    Raises
    ------
    ConfigError
        If the vectors do not fit the vocabulary.
    """

    vocabulary: Vocabulary
    vectors: NDArray[np.float32]
    provenance: Mapping[str, str | int | float]

    def __post_init__(self) -> None:
        """Check the vectors."""
        size = len(self.vocabulary.words)
        table = self.vectors
        fits = table.ndim == 2 and len(table) == size and table.shape[1] > 0
        if not fits or table.dtype != np.float32 or not bool(np.isfinite(table).all()):
            raise ConfigError(
                f"`vectors` must be finite float32 with {size} rows, found "
                f"{table.dtype} of shape {table.shape}; build them for this vocabulary."
            )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything in the artefact, the same on every machine."""
        vectors = np.ascontiguousarray(self.vectors).astype("<f4")
        content = json.dumps([self._content(), list(vectors.shape)], sort_keys=True)
        return hashlib.sha256(content.encode() + vectors.tobytes()).hexdigest()

    @cached_property
    def similarity(self) -> NDArray[np.float64]:
        """Public similarity of the words, see `blend_similarity`; shape (N, N)."""
        return blend_similarity(self.vocabulary, self.vectors.astype(np.float64))

    def save(self, path: Path) -> None:
        """Write the artefact to one file."""
        content = json.dumps({**self._content(), "hash": self.hash}, sort_keys=True)
        tensors = {TENSOR: np.ascontiguousarray(self.vectors)}
        path.write_bytes(save(tensors, metadata={METADATA: content}))

    @classmethod
    def load(cls, path: Path) -> "VocabularyArtefact":
        """Return the artefact in a file.

        Raises
        ------
        ConfigError
            If the file is missing, broken, of another format or was changed after it
            was written.
        """
        content, vectors = _read(path)
        try:
            vocabulary = Vocabulary(
                tuple(content["words"]), content["length"], content["synonyms"]
            )
            artefact = cls(vocabulary, vectors, content["provenance"])
            is_whole = content["hash"] == artefact.hash
        except ConfigError as error:
            raise ConfigError(f"`vocabulary` file {path} is broken: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _broken(path, "its description lacks a part") from error
        if not is_whole:
            raise _broken(path, "its hash does not match its content")
        return artefact

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "words": list(self.vocabulary.words),
            "length": self.vocabulary.length,
            "synonyms": dict(self.vocabulary.synonyms),
            "provenance": dict(self.provenance),
        }


def _read(path: Path) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Return the description and the vectors of a file, nothing of them checked yet."""
    if not path.is_file():
        raise ConfigError(
            f"`vocabulary` must be 'world', 'dataset' or a file, found '{path}'; pass "
            "the path of a vocabulary artefact."
        )
    try:
        with safe_open(path, framework="numpy") as opened:
            content = json.loads((opened.metadata() or {})[METADATA])
            vectors: NDArray[np.float32] = opened.get_tensor(TENSOR)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise _broken(path, "it is no vocabulary artefact") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _broken(path, f"its format is not {FORMAT}")
    return content, vectors


def _broken(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"`vocabulary` must be a whole vocabulary artefact, found {path}: {reason}; "
        "fetch or build it again."
    )
