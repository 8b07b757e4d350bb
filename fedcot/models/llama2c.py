"""A checkpoint of llama2.c (https://github.com/karpathy/llama2.c) as a model folder.

The format is that of its `run.c`: seven int32 (dim, hidden dim, layers, heads,
key-value heads, vocabulary, longest sequence; a negative vocabulary says that the
output layer has weights of its own), then fp32 weights in a fixed order. It rotates
neighbouring pairs of a head's values, Hugging Face's Llama rotates the first half
against the second, so the rows of queries and keys change places.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from fedcot import __version__
from fedcot.errors import ConfigError
from fedcot.models.sentencepiece_bpe import fast_tokenizer
from fedcot.models.sources import file_hash
from fedcot.runs import part_of

FORMAT: Final = "llama2.c"
CONVERSION: Final = "conversion.json"
ROPE_BASE: Final = 10000.0
NORM_EPSILON: Final = 1e-5
_HEADER_BYTES: Final = 28
_FLOAT: Final = np.dtype("<f4")

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Header:
    """The sizes of a checkpoint.

    Attributes
    ----------
    dim, hidden_dim : int
        Width of the residual stream, and inside the feed-forward layers.
    layers, heads, kv_heads : int
        `heads` is a multiple of `kv_heads`.
    vocabulary : int
        Tokens.
    sequence : int
        Longest sequence, in tokens.
    is_tied : bool
        Whether the output layer is the embedding.
    """

    dim: int
    hidden_dim: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    sequence: int
    is_tied: bool

    @classmethod
    def of(cls, content: bytes, name: str) -> Self:
        """Read and check the header of a checkpoint.

        Parameters
        ----------
        content : bytes
            The beginning of the file, or all of it.
        name : str
            The file, for errors.

        Raises
        ------
        ConfigError
            It is too short, or its sizes are no model's.
        """
        if len(content) < _HEADER_BYTES:
            raise _refused(name, f"{len(content)} bytes, fewer than a header has")
        numbers = np.frombuffer(content[:_HEADER_BYTES], dtype="<i4").tolist()
        dim, hidden_dim, layers, heads, kv_heads, vocabulary, sequence = numbers
        header = cls(
            dim=dim,
            hidden_dim=hidden_dim,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            vocabulary=abs(vocabulary),
            sequence=sequence,
            is_tied=vocabulary > 0,
        )
        is_sound = (
            min(*numbers[:5], header.vocabulary, sequence) > 0
            and header.dim % header.heads == 0
            and (header.dim // header.heads) % 2 == 0
            and header.heads % header.kv_heads == 0
        )
        if not is_sound:
            raise _refused(name, f"a header of {numbers}, which no model has")
        return header

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.heads

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each block of weights, as they lie in the file."""
        layers, dim, hidden = self.layers, self.dim, self.hidden_dim
        narrow = self.kv_heads * self.head_dim
        yield "embed_tokens", (self.vocabulary, dim)
        yield "input_layernorm", (layers, dim)
        yield "self_attn.q_proj", (layers, dim, dim)
        yield "self_attn.k_proj", (layers, narrow, dim)
        yield "self_attn.v_proj", (layers, narrow, dim)
        yield "self_attn.o_proj", (layers, dim, dim)
        yield "post_attention_layernorm", (layers, dim)
        yield "mlp.gate_proj", (layers, hidden, dim)
        yield "mlp.down_proj", (layers, dim, hidden)
        yield "mlp.up_proj", (layers, hidden, dim)
        yield "norm", (dim,)
        yield "cosines", (self.sequence, self.head_dim // 2)
        yield "sines", (self.sequence, self.head_dim // 2)
        if not self.is_tied:
            yield "lm_head", (self.vocabulary, dim)

    @property
    def bytes(self) -> int:
        """Length of the whole file."""
        numbers = sum(prod(shape) for _, shape in self.shapes())
        return _HEADER_BYTES + _FLOAT.itemsize * numbers


def convert(source: Path, output: Path, tokenizer: Path | None = None) -> Header:
    """Write a checkpoint of llama2.c as a Hugging Face folder.

    The folder is there whole or not at all.

    Parameters
    ----------
    source : Path
        A ``.bin`` file, or a folder with one checkpoint and its tokenizer.
    output : Path
        The folder to make.
    tokenizer : Path | None
        A SentencePiece ``.model`` file; None: the only one beside the checkpoint.

    Raises
    ------
    ConfigError
        `output` is there, or what was given is no checkpoint with its tokenizer.
    """
    if output.exists() or output.is_symlink():
        raise ConfigError(
            f"`OUTPUT` must be a folder that is not there yet, found '{output}'; pass "
            "another name, or delete it."
        )
    checkpoint = _checkpoint(source)
    pieces = tokenizer or _only(
        checkpoint.parent, ".model", "--tokenizer", is_meant=Path.is_file
    )
    header, weights = _read(checkpoint)
    fast = fast_tokenizer(pieces)
    if len(fast) != header.vocabulary:
        raise ConfigError(
            f"`--tokenizer` must have the {header.vocabulary} tokens of the weights, "
            f"found {len(fast)} in {pieces.name!r}; pass the one they were trained "
            "with."
        )
    part = part_of(output)
    part.mkdir(parents=True)
    try:
        with _no_progress_bar():
            _model(header, weights, fast).save_pretrained(part)
        fast.model_max_length = header.sequence
        fast.save_pretrained(part)
        licences = sorted(checkpoint.parent.glob("LICENSE*"))
        for licence in licences:
            shutil.copyfile(licence, part / licence.name)
        names = [licence.name for licence in licences]
        (part / "README.md").write_text(_readme(checkpoint, pieces, names), "utf-8")
        record = {
            "format": FORMAT,
            "header": asdict(header),
            "source": {path.name: file_hash(path) for path in (checkpoint, pieces)},
            "files": {path.name: file_hash(path) for path in sorted(part.iterdir())},
            "fedcot": __version__,
        }
        text = json.dumps(record, indent=2) + "\n"
        (part / CONVERSION).write_text(text, encoding="utf-8")
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return header


def _checkpoint(source: Path) -> Path:
    """Return the checkpoint that is meant; other files may end in .bin as well."""
    if not source.is_dir():
        return source
    return _only(source, ".bin", "SOURCE", is_meant=_has_its_size)


def _only(
    folder: Path, ending: str, setting: str, *, is_meant: Callable[[Path], bool]
) -> Path:
    """Return the one file of a folder that has an ending and is meant."""
    found = [path for path in sorted(folder.glob(f"*{ending}")) if is_meant(path)]
    if len(found) != 1:
        raise ConfigError(
            f"`{setting}` must name the {ending} file to take, found {len(found)} in "
            f"'{folder}'; pass its path."
        )
    return found[0]


def _has_its_size(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header = Header.of(file.read(_HEADER_BYTES), path.name)
    except (ConfigError, OSError):
        return False
    return header.bytes == path.stat().st_size


def _read(path: Path) -> tuple[Header, dict[str, Array]]:
    """Return the sizes and every block of weights of a checkpoint.

    Raises
    ------
    ConfigError
        It cannot be read, is not as long as its header says, holds a value that is not
        finite, or rotates with another base.
    """
    try:
        with path.open("rb") as file:
            header = Header.of(file.read(_HEADER_BYTES), path.name)
            # Before anything as large as a broken header says is read.
            found = os.fstat(file.fileno()).st_size
            if found != header.bytes:
                raise _refused(
                    path.name,
                    f"{found} bytes where its header needs {header.bytes}",
                )
            flat = np.fromfile(file, dtype=_FLOAT)
    except OSError as error:
        raise _refused(path.name, f"no readable file ({error.strerror})") from error
    if not bool(np.isfinite(flat).all()):
        raise _refused(path.name, "a weight that is not finite")
    weights: dict[str, Array] = {}
    start = 0
    for name, shape in header.shapes():
        end = start + prod(shape)
        weights[name] = flat[start:end].reshape(shape)
        start = end
    _check_rotation(header, weights, path.name)
    return header, weights


def _check_rotation(header: Header, weights: dict[str, Array], name: str) -> None:
    """Check the tables of cosines and sines, which the converted model computes."""
    pairs = np.arange(0, header.head_dim, 2) / header.head_dim
    angles = np.outer(np.arange(header.sequence), ROPE_BASE**-pairs)
    for table, expected in (("cosines", np.cos(angles)), ("sines", np.sin(angles))):
        if np.allclose(weights[table], expected, rtol=0, atol=1e-3):
            continue
        raise _refused(name, f"a rotation with another base than {ROPE_BASE:g}")


def _model(header: Header, weights: dict[str, Array], fast: Any) -> LlamaForCausalLM:
    """Return the model that the weights make."""
    special = {
        "bos_token_id": fast.bos_token_id,
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=header.vocabulary,
            hidden_size=header.dim,
            intermediate_size=header.hidden_dim,
            num_hidden_layers=header.layers,
            num_attention_heads=header.heads,
            num_key_value_heads=header.kv_heads,
            max_position_embeddings=header.sequence,
            rms_norm_eps=NORM_EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            tie_word_embeddings=header.is_tied,
            dtype=torch.float32,
            **special,
        )
    )
    state = dict(_state(header, weights))
    if header.is_tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    model.generation_config = GenerationConfig(**special)
    return model


def _state(
    header: Header, weights: dict[str, Array]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights by their names in `transformers`."""
    heads = {"self_attn.q_proj": header.heads, "self_attn.k_proj": header.kv_heads}
    for name, block in weights.items():
        if name in ("cosines", "sines"):
            continue
        if name == "lm_head":
            yield "lm_head.weight", torch.from_numpy(block.copy())
        elif name in ("embed_tokens", "norm"):
            yield f"model.{name}.weight", torch.from_numpy(block.copy())
        else:
            for layer, matrix in enumerate(block):
                if name in heads:
                    matrix = half_split(matrix, heads[name])
                tensor = torch.from_numpy(matrix.copy())
                yield f"model.layers.{layer}.{name}.weight", tensor


def half_split(matrix: Array, heads: int) -> Array:
    """Return a projection for a rotation of halves in place of neighbouring pairs.

    Parameters
    ----------
    matrix : ndarray, shape (heads * head_dim, dim)
        Rows 2i and 2i + 1 of a head are rotated together.
    heads : int
        Heads of the projection.

    Returns
    -------
    ndarray, shape (heads * head_dim, dim)
        Rows i and i + head_dim / 2 of a head are rotated together.
    """
    rows, dim = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, dim)
    return pairs.transpose(0, 2, 1, 3).reshape(rows, dim)


def _readme(checkpoint: Path, pieces: Path, licences: list[str]) -> str:
    terms = (
        f"Their terms are in {', '.join(licences)}, copied from beside the source."
        if licences
        else "No licence lay beside the source: look there before you pass them on."
    )
    return f"""# {checkpoint.stem}, converted

`{checkpoint.name}` with the tokenizer `{pieces.name}`, converted from the format of
[llama2.c](https://github.com/karpathy/llama2.c) by fedcot {__version__}. The weights
are unchanged but for the order of the rows of queries and keys; `{CONVERSION}` holds
the SHA-256 of what was read and written.

The weights belong to whoever made the source. {terms}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()


def _refused(name: str, found: str) -> ConfigError:
    return ConfigError(
        "`SOURCE` must be a checkpoint in the format of llama2.c's run.c (version 0, "
        f"fp32), found {name!r} with {found}; fetch it again, or export it with "
        "`python export.py --version 0`."
    )
