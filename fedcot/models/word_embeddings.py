"""What a public model's input embedding says about whole words.

A word of a vocabulary is several tokens of a model, in as many ways as there are kinds
of tokenizers. Its vector is the mean of the rows of the tokens that it becomes where it
stands behind another word. Only the embedding is read, not the rest of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from fedcot.errors import ConfigError
from fedcot.models.sources import artefact_hash, model_folder
from fedcot.models.special_tokens import read_tokenizer

# Stands before each word, so that its first token is that of a word inside a text.
_BEFORE = ":"


@dataclass(frozen=True, eq=False)
class WordEmbedding:
    """The input embedding of a model, asked for words.

    Attributes
    ----------
    name : str
        The model's id, or the name of its folder.
    hash : str
        SHA-256 of the model's files.
    tokenizer : PreTrainedTokenizerBase
        Splits a word.
    table : ndarray of float32, shape (tokens, dimensions)
        Finite.
    """

    name: str
    hash: str
    tokenizer: PreTrainedTokenizerBase
    table: NDArray[np.float32]

    @classmethod
    def of_model(cls, source: str) -> Self:
        """Read the embedding and the tokenizer of a model.

        Parameters
        ----------
        source : str
            ``builtin`` (the built-in student), a local folder or a Hugging Face id. It
            need not be able to write: encoders do as well.

        Raises
        ------
        ConfigError
            There is no such model, or it has no token embedding in safetensors.
        """
        folder = model_folder(source, "student")
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise _refused(source, "a kind that transformers does not know") from error
        tokenizer = read_tokenizer(folder, config, source=source, role="student")
        table = _table(folder, config, source)
        if len(tokenizer) > len(table):
            raise _refused(source, f"{len(table)} rows for {len(tokenizer)} tokens")
        # Where somebody's folder lies is nobody else's business.
        name = folder.resolve().name if Path(source).expanduser().is_dir() else source
        return cls(name, artefact_hash(source, "student"), tokenizer, table)

    def vectors(self, words: Sequence[str]) -> NDArray[np.float64]:
        """Return the mean of the rows of the tokens of each word.

        Parameters
        ----------
        words : sequence of str
            W words without blanks.

        Returns
        -------
        ndarray of float64, shape (W, dimensions)
            Zero for a word that has tokens only for what is unknown.
        """
        found = np.zeros((len(words), self.table.shape[1]))
        for row, tokens in enumerate(self.token_ids(words)):
            if tokens:
                found[row] = self.table[tokens].astype(np.float64).mean(axis=0)
        return found

    def token_ids(self, words: Sequence[str]) -> Iterator[list[int]]:
        """Yield the tokens of each word behind another one, unknown ones left out."""
        if not words:
            return
        before = self._ids([_BEFORE])[0]
        alone = self._ids([f" {word}" for word in words])
        behind = self._ids([f"{_BEFORE} {word}" for word in words])
        unknown = self.tokenizer.unk_token_id
        for both, single in zip(behind, alone, strict=True):
            # Where the two are not read one after the other, the blank alone must do.
            is_behind = both[: len(before)] == before
            tokens = both[len(before) :] if is_behind else single
            yield [token for token in tokens if token != unknown]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]]
        found = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return found


def _table(folder: Path, config: PretrainedConfig, source: str) -> NDArray[np.float32]:
    """Return the input embedding that lies in a folder.

    Raises
    ------
    ConfigError
        There is none in safetensors, or it holds a value that is not finite.
    """
    names, shape = _names(config, source)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118, it is no mapping.
                    is_meant = any(f".{key}".endswith(f".{name}") for name in names)
                    if is_meant and tuple(weights.get_slice(key).get_shape()) == shape:
                        table: NDArray[np.float32] = (
                            weights.get_tensor(key).to(torch.float32).numpy()
                        )
                        if not bool(np.isfinite(table).all()):
                            raise _refused(source, "a value that is not finite")
                        return table
        except (SafetensorError, OSError) as error:
            raise _refused(source, f"a broken file {path.name}") from error
    raise _refused(source, "none in its safetensors files")


def _names(config: PretrainedConfig, source: str) -> tuple[set[str], tuple[int, ...]]:
    """Return the names that the embedding may have in a file, and its shape.

    Tied weights are saved once, under any of their names; what an `AutoModel` calls
    its own name may have the name of a larger model in front.
    """
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        weight = model.get_input_embeddings().get_parameter("weight")
    except (AttributeError, ValueError, NotImplementedError) as error:
        raise _refused(source, "no token embedding") from error
    names = {
        name
        for name, value in model.named_parameters(remove_duplicate=False)
        if value is weight
    }
    return names, tuple(weight.shape)


def _refused(source: str, found: str) -> ConfigError:
    return ConfigError(
        "`--embedding` must be a model with a token embedding in safetensors, found "
        f"{found}: {source!r}; choose another model, or save it with "
        "`save_pretrained`."
    )
