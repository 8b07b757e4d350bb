"""Generators derived from one seed and a path of names.

Every random choice outside privacy takes a generator made here, so that the order in
which parts of a run execute cannot change what they draw. Privacy draws never come
from here: they use the operating system (see `fedcot.privacy.sampler`).
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Parameters
    ----------
    seed : int
        The run's seed.
    *path : str or int
        What the randomness is for, for example ``("sampling", server_round)``.

    Returns
    -------
    int
        In [0, 2**63); SHA-256 of the seed and the path, so that neighbouring seeds
        and rounds are unrelated.
    """
    names = [f"{type(part).__name__}:{part}" for part in path]
    # Escaped, so that no name can imitate the separator.
    escaped = [n.replace("\\", "\\\\").replace("\x1f", "\\u") for n in names]
    text = "\x1f".join([str(seed), *escaped])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *path))
