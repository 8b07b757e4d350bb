"""Sampling whose outcome depends on a prompt and a seed, never on the batch around it.

Random numbers drawn in the order of a batch would change a completion with the prompts
beside it. Here each prompt has a stream of its own, and a token is the largest of
logits plus Gumbel noise, which is a draw from their softmax (Gumbel-max; Maddison et
al. 2014, arXiv 1411.0030).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

# SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_LARGEST_UNIFORM = 1 - 2.0**-24


def _signed(number: int) -> int:
    """Return the two's complement of 64 bits: torch multiplies no unsigned ones."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch repeats the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def random_bits(keys: Tensor, count: int) -> Tensor:
    """Return the first numbers of a SplitMix64 stream for each key.

    It runs on the device of the keys, with the same result on every device.

    Parameters
    ----------
    keys : Tensor of int64, shape (rows,)
    count : int
        Numbers for each key.

    Returns
    -------
    Tensor of int64, shape (rows, count)
        64 random bits each, in two's complement.
    """
    steps = torch.arange(1, count + 1, device=keys.device) * _signed(_GAMMA)
    bits = keys[:, None] + steps
    bits = (bits ^ _shifted(bits, 30)) * _signed(_MULTIPLIERS[0])
    bits = (bits ^ _shifted(bits, 27)) * _signed(_MULTIPLIERS[1])
    return bits ^ _shifted(bits, 31)


def gumbel_noise(keys: Tensor, count: int) -> Tensor:
    """Return standard Gumbel noise for each key.

    Parameters
    ----------
    keys : Tensor of int64, shape (rows,)
    count : int
        Values for each key.

    Returns
    -------
    Tensor of float32, shape (rows, count)
        Between -2.9 and 37.5. Single precision is finest where the noise is large,
        which is what decides.
    """
    uniform = (_shifted(random_bits(keys, count), 11).float() + 0.5) * 2.0**-53
    exponential = -torch.log1p(-uniform.clamp(max=_LARGEST_UNIFORM))
    return -exponential.log()


def prompt_digest(seed: int, prompt: Sequence[int]) -> bytes:
    """Return the SHA-256 that a prompt's noise starts from."""
    text = f"{seed}:{','.join(map(str, prompt))}"
    return hashlib.sha256(text.encode()).digest()


class GumbelNoise(LogitsProcessor):
    """Adds to each row's logits the noise of its prompt at this step.

    The largest sum is then a draw from the softmax of the logits. One object serves
    one batch: it counts the steps.

    Parameters
    ----------
    digests : sequence of bytes
        `prompt_digest` of each row.
    """

    def __init__(self, digests: Sequence[bytes]) -> None:
        self.digests = digests
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with noise; see `transformers.LogitsProcessor`."""
        step = self.step.to_bytes(8, "big")
        self.step += 1
        keys = [
            int.from_bytes(hashlib.sha256(digest + step).digest()[:8], signed=True)
            for digest in self.digests
        ]
        noise = gumbel_noise(torch.tensor(keys, device=scores.device), scores.shape[-1])
        return scores + noise


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen.

    Attributes
    ----------
    temperature : float
        What logits are divided by, at least 0; 0 takes the most likely token.
    top_p : float
        In (0, 1]: only the smallest set of most likely tokens whose probabilities add
        up to this is drawn from (nucleus sampling, arXiv 1904.09751).
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def processors(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> LogitsProcessorList:
        """Return what turns the logits of a batch into scores to take the largest of.

        Parameters
        ----------
        prompts : sequence of sequence of int
            The ids of each row, without padding.
        seeds : sequence of int
            Of each row; with its prompt it decides what is drawn.
        """
        chain = LogitsProcessorList()
        if self.temperature == 0:
            return chain
        chain.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_p < 1:
            chain.append(TopPLogitsWarper(self.top_p))
        rows = zip(prompts, seeds, strict=True)
        chain.append(GumbelNoise([prompt_digest(seed, ids) for ids, seed in rows]))
        return chain
