"""How different the tasks of the communities are: the knob and the index.

The source names community diversity as a factor and gives no measure that we know of,
so knob and index are our definition. The index is the generalised Jensen-Shannon
divergence: J. Lin, Divergence measures based on the Shannon entropy, IEEE Transactions
on Information Theory 37 (1991), doi 10.1109/18.61115.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError

TaskMix = Mapping[str, float]  # domain -> share


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """How different the task mixes of communities are; each community weighs the same.

    Attributes
    ----------
    index : float
        Generalised Jensen-Shannon divergence over its largest value, in [0, 1]: 0 for
        identical mixes, 1 for mixes without a common domain; 0 for one community.
    mean_pairwise_bits : float
        Mean Jensen-Shannon divergence of two communities, in bits, in [0, 1]; 0 for one
        community.
    mean_entropy_bits : float
        Mean entropy of a community's own mix, in bits: 0 where each has one domain.
    """

    index: float
    mean_pairwise_bits: float
    mean_entropy_bits: float


def mixed_counts(
    home: Sequence[str], domains: Sequence[str], diversity: float, size: int
) -> dict[str, dict[str, int]]:
    """Return how many records of each domain each community holds.

    The share of a community's own home is ``(1 - diversity) / n + diversity``, of every
    other home ``(1 - diversity) / n``, with n homes; whole counts by the method of the
    largest remainder, ties to the earlier domain. The home's count never falls as
    `diversity` grows. The index of the shares never falls either; that of whole counts
    may, by less than 0.01, where `size` is below a few times n.

    Parameters
    ----------
    home : sequence of str
        The home domain of each community, distinct.
    domains : sequence of str
        All domains, in the order of the counts; those that are nobody's home get 0.
    diversity : float
        In [0, 1]. 0: all communities hold the same mix, uniform over the homes. 1: each
        holds only its home.
    size : int
        Records of one community, >= 0.

    Returns
    -------
    dict of str to dict of str to int
        By home, then by domain; each community's counts sum to `size`.

    Raises
    ------
    ConfigError
        `diversity` outside [0, 1], `size` < 0, no home, or a home that stands twice or
        is no domain.
    """
    if not 0 <= diversity <= 1:
        raise ConfigError(
            f"`community-diversity` must be in [0, 1], found {diversity}; pass for "
            "example `-c community-diversity=0.5`."
        )
    if size < 0:
        raise ConfigError(f"`size` must be >= 0, found {size}; pass 0 or more.")
    if not home or len(set(home)) != len(home) or not set(home) <= set(domains):
        raise ConfigError(
            "`home` must be distinct domains, at least one, found "
            f"{', '.join(home) or 'none'}; the domains are {', '.join(domains)}."
        )
    # As written, 0.1 is one tenth; as a binary float it is not, and ties would break.
    knob = Fraction(str(float(diversity)))
    common = (1 - knob) / len(home)
    others = {domain: common if domain in home else Fraction(0) for domain in domains}
    return {
        name: _largest_remainder({**others, name: common + knob}, size) for name in home
    }


def task_mixes(domains: Mapping[str, Iterable[str]]) -> dict[str, dict[str, float]]:
    """Return the share of each domain among the records of each community.

    Parameters
    ----------
    domains : mapping of str to iterable of str
        Of each community, the domain of each of its records.

    Raises
    ------
    ConfigError
        A community has no records, so that it has no mix.
    """
    counts = {name: Counter(held) for name, held in domains.items()}
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise ConfigError(
            "`communities` must each hold at least one record to have a task mix, "
            f"found none in {', '.join(empty)}; give them records or leave them out."
        )
    return {
        name: {domain: n / count.total() for domain, n in sorted(count.items())}
        for name, count in counts.items()
    }


def diversity_of(mixes: Mapping[str, TaskMix]) -> Diversity:
    """Return how different the mixes are.

    With H the entropy and m the mean of the n mixes, the divergence is
    ``H(m) - mean(H(p_c))`` (Lin 1991, section V, equal weights); for disjoint mixes it
    is ``log2 n``, the largest value, by which the index divides.

    Parameters
    ----------
    mixes : mapping of str to mapping of str to float
        Of each community, the share of each domain: in [0, 1], summing to 1.

    Raises
    ------
    ConfigError
        There are no communities, or shares that are no distribution.
    """
    shares = _matrix(mixes)
    count = len(shares)
    pairs = [
        _divergence(shares[[first, second]])
        for first, second in combinations(range(count), 2)
    ]
    return Diversity(
        index=_divergence(shares) / math.log2(count) if count > 1 else 0.0,
        mean_pairwise_bits=float(np.mean(pairs)) if pairs else 0.0,
        mean_entropy_bits=float(_entropy(shares).mean()),
    )


def _largest_remainder(shares: Mapping[str, Fraction], size: int) -> dict[str, int]:
    quotas = {domain: share * size for domain, share in shares.items()}
    counts = {domain: math.floor(quota) for domain, quota in quotas.items()}
    left = size - sum(counts.values())
    # sorted() keeps the order of the domains among equal remainders.
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for domain in by_remainder[:left]:
        counts[domain] += 1
    return counts


def _matrix(mixes: Mapping[str, TaskMix]) -> NDArray[np.float64]:
    """Return the shares, one row per community and one column per domain."""
    if not mixes:
        raise ConfigError(
            "`communities` must be at least one to be compared, found none; name some."
        )
    domains = sorted({domain for mix in mixes.values() for domain in mix})
    shares = np.array(
        [[mix.get(domain, 0.0) for domain in domains] for mix in mixes.values()],
        dtype=np.float64,
    )
    for name, row in zip(mixes, shares, strict=True):
        if not np.all(row >= 0) or not math.isclose(row.sum(), 1, abs_tol=1e-9):
            raise ConfigError(
                "`mixes` must be shares >= 0 that sum to 1 in each community, found a "
                f"sum of {row.sum():.6g} in {name}; divide the counts by their sum."
            )
    return shares


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of each row, in bits, with ``0 log 0 = 0``."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1), dtype=np.float64)


def _divergence(shares: NDArray[np.float64]) -> float:
    """Return the generalised Jensen-Shannon divergence of the rows, in bits."""
    mixture = shares.mean(axis=0, keepdims=True)
    # Rounding may leave it a hair outside its range.
    raw = float(_entropy(mixture)[0] - _entropy(shares).mean())
    return min(max(raw, 0.0), math.log2(len(shares)))
