"""Checkpoints of llama2.c: where real ones lie, how to write one, how `run.c` reads."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceTrainer

TEXTS = (
    "Once upon a time, there was a little girl named Lily.",
    "He said: \u201cIt's 12 o'clock!\u201d and went to bed.",
)


@dataclass
class Plain:
    """A checkpoint read and run by the letter of `run.c`, one token after another.

    Parameters
    ----------
    path : Path
        The ``.bin`` file.
    """

    path: Path

    def __post_init__(self) -> None:
        raw = self.path.read_bytes()
        sizes = np.frombuffer(raw[:28], dtype=np.int32).tolist()
        self.dim, self.hidden, self.layers, self.heads, self.kv = sizes[:5]
        self.vocabulary, self.sequence = abs(sizes[5]), sizes[6]
        self.rest = np.frombuffer(raw[28:], dtype=np.float32)
        self.head = self.dim // self.heads
        n, d, h = self.layers, self.dim, self.hidden
        narrow = self.kv * self.head
        self.embedding = self.take(self.vocabulary, d)
        self.norm_attention = self.take(n, d)
        self.wq, self.wk = self.take(n, d, d), self.take(n, narrow, d)
        self.wv, self.wo = self.take(n, narrow, d), self.take(n, d, d)
        self.norm_forward = self.take(n, d)
        self.w1, self.w2 = self.take(n, h, d), self.take(n, d, h)
        self.w3 = self.take(n, h, d)
        self.norm_last = self.take(d)
        self.take(self.sequence, self.head)  # Two tables that run.c skips.
        self.output = self.embedding if sizes[5] > 0 else self.take(self.vocabulary, d)
        assert not len(self.rest)

    def take(self, *shape: int) -> np.ndarray:
        found, self.rest = np.split(self.rest, [prod(shape)])
        return found.reshape(shape)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Return the logits behind each token, shape (tokens, vocabulary)."""
        keys = np.zeros((self.layers, 0, self.kv, self.head), np.float32)
        values = keys.copy()
        rows = []
        for place, token in enumerate(tokens):
            x = self.embedding[token].copy()
            new_keys, new_values = [], []
            for layer in range(self.layers):
                y = rms(x, self.norm_attention[layer])
                q = (self.wq[layer] @ y).reshape(self.heads, self.head)
                k = (self.wk[layer] @ y).reshape(self.kv, self.head)
                v = (self.wv[layer] @ y).reshape(self.kv, self.head)
                rotate(q, place)
                rotate(k, place)
                past_k = np.concatenate([keys[layer], k[None]])
                past_v = np.concatenate([values[layer], v[None]])
                new_keys.append(past_k)
                new_values.append(past_v)
                out = np.zeros((self.heads, self.head), np.float32)
                for number in range(self.heads):
                    shared = number // (self.heads // self.kv)
                    scores = past_k[:, shared] @ q[number] / np.sqrt(self.head)
                    out[number] = softmax(scores) @ past_v[:, shared]
                x += self.wo[layer] @ out.reshape(-1)
                y = rms(x, self.norm_forward[layer])
                gate = self.w1[layer] @ y
                gate = gate / (1 + np.exp(-gate)) * (self.w3[layer] @ y)
                x += self.w2[layer] @ gate
            keys, values = np.stack(new_keys), np.stack(new_values)
            rows.append(self.output @ rms(x, self.norm_last))
        return np.stack(rows)


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight * (x / np.sqrt((x * x).mean() + np.float32(1e-5)))


def rotate(rows: np.ndarray, place: int) -> None:
    """Turn each neighbouring pair of every head, in place."""
    size = rows.shape[1]
    for first in range(0, size, 2):
        angle = place / 10000.0 ** (first / size)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        a, b = rows[:, first].copy(), rows[:, first + 1].copy()
        rows[:, first] = a * cosine - b * sine
        rows[:, first + 1] = a * sine + b * cosine


def softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()


def tables(sequence: int, head: int, base: float = 10000.0) -> list[np.ndarray]:
    """Return the cosines and sines that `export.py` writes."""
    angles = np.outer(np.arange(sequence), base ** -(np.arange(0, head, 2) / head))
    return [np.cos(angles), np.sin(angles)]


def write_checkpoint(
    path: Path, *, vocabulary: int, tied: bool, base: float = 10000.0
) -> Path:
    """Write random weights for 2 layers, 4 heads, 2 key-value heads, width 32."""
    dim, hidden, layers, heads, kv, sequence = 32, 48, 2, 4, 2, 64
    head = dim // heads
    generator = np.random.default_rng(3)
    numbers = vocabulary * dim + layers * dim
    numbers += layers * (2 * dim * dim + 2 * kv * head * dim)
    numbers += layers * dim + 3 * layers * hidden * dim + dim
    weights = generator.normal(scale=0.3, size=numbers)
    last = [] if tied else [generator.normal(scale=0.3, size=vocabulary * dim)]
    sign = 1 if tied else -1
    header = [dim, hidden, layers, heads, kv, sign * vocabulary, sequence]
    blocks = [weights, *tables(sequence, head, base), *last]
    flat = np.concatenate([block.ravel() for block in blocks]).astype("<f4")
    path.write_bytes(np.array(header, dtype="<i4").tobytes() + flat.tobytes())
    return path


def train_pieces(folder: Path, name: str = "pieces", **more: object) -> Path:
    """Train a tokenizer as llama2.c does; `more` changes its settings."""
    settings = {
        "model_type": "bpe",
        "vocab_size": 300,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 1.0,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / name),
        **{**settings, **more},
    )
    return folder / f"{name}.model"
