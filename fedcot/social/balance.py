"""Whether the demonstrations that were chosen favour a label.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), appendix H: a model that
favours one label generates more of it, and voting amplifies that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedcot.errors import ConfigError

# Tables that are listed for an exact p-value.
LARGEST_ENUMERATION = 100_000
# Probabilities this close count as equal, as in SciPy's binomial and Fisher's tests.
TOLERANCE = 1 + 1e-7


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """How often each label was chosen, and how often chance would.

    Attributes
    ----------
    counts : dict of str to int
        Chosen demonstrations of each label, in the order of the task's labels.
    expected : dict of str to float
        Their mean number under the null.
    skew : float
        Total variation distance of the two, in [0, 1]: the share of what was chosen
        that would have to change its label.
    favoured : str
        The label furthest above its expectation; empty where none is.
    p_value : float
        Probability under the null of a table that is as unlikely as this one or more,
        in (0, 1].
    is_exact : bool
        Whether all tables were listed; else the p-value is that of a chi-square test.
    """

    counts: dict[str, int]
    expected: dict[str, float]
    skew: float
    favoured: str
    p_value: float
    is_exact: bool


def class_balance(
    chosen: Sequence[str], labels: Sequence[str], *, pool: Sequence[str] | None = None
) -> ClassBalance:
    """Compare the labels of what was chosen with a uniform choice of labels.

    Parameters
    ----------
    chosen : sequence of str
        Label of each chosen demonstration, at least one.
    labels : sequence of str
        The task's closed set, at least two.
    pool : sequence of str, optional
        Label of each candidate that could be chosen. With it, the null is a draw of
        candidates without replacement: what the aggregator adds to the skew of what was
        generated.

    Returns
    -------
    ClassBalance

    Raises
    ------
    ConfigError
        If there is nothing to compare, a label is unknown, or more was chosen than the
        pool holds.

    Notes
    -----
    The exact test lists every table of so many labels: multinomial with equal shares,
    or multivariate hypergeometric. For two labels these are the two-sided binomial test
    and Fisher's exact test.
    """
    names = list(dict.fromkeys(labels))
    if len(names) < 2 or not chosen:
        raise ConfigError(
            "`labels` must be at least 2 and `chosen` at least 1 of them, found "
            f"{len(names)} and {len(chosen)}; take a task with a closed set of answers."
        )
    counts = _counted(chosen, names)
    total = sum(counts)
    there = None if pool is None else _counted(pool, names)
    if there is not None and any(c > t for c, t in zip(counts, there, strict=True)):
        raise ConfigError(
            "`chosen` must come from the pool, found a label more often than there; "
            "pass the labels of all candidates."
        )
    shares = [1 / len(names)] * len(names)
    if there is not None:
        shares = [count / sum(there) for count in there]
    expected = [total * share for share in shares]
    above = [count - mean for count, mean in zip(counts, expected, strict=True)]
    p_value, is_exact = _p_value(counts, expected, there)
    return ClassBalance(
        counts=dict(zip(names, counts, strict=True)),
        expected=dict(zip(names, expected, strict=True)),
        skew=sum(abs(excess) for excess in above) / (2 * total),
        favoured=names[int(np.argmax(above))] if max(above) > 1e-9 else "",
        p_value=p_value,
        is_exact=is_exact,
    )


def _counted(found: Sequence[str], names: Sequence[str]) -> list[int]:
    counted = Counter(found)
    unknown = sum(number for label, number in counted.items() if label not in names)
    if unknown:
        # Not named: an answer that is no label may be private text.
        raise ConfigError(
            f"`labels` must hold every answer, found {unknown} that are none of them; "
            "drop malformed demonstrations first."
        )
    return [counted[name] for name in names]


def _p_value(
    counts: Sequence[int], expected: Sequence[float], pool: Sequence[int] | None
) -> tuple[float, bool]:
    """Return the p-value of a table, and whether it is exact."""
    total = sum(counts)
    if math.comb(total + len(counts) - 1, total) > LARGEST_ENUMERATION:
        # A label that the pool has not got can be neither chosen nor expected.
        possible = [place for place, mean in enumerate(expected) if mean > 0]
        if len(possible) < 2:
            return 1.0, False
        test = stats.chisquare(
            [counts[place] for place in possible],
            [expected[place] for place in possible],
        )
        return max(float(test.pvalue), math.ulp(0.0)), False
    tables = np.array(list(_tables(total, len(counts))))
    if pool is None:
        law = stats.multinomial(total, np.full(len(counts), 1 / len(counts)))
        likelihoods, here = law.pmf(tables), float(law.pmf(counts))
    else:
        drawn = stats.multivariate_hypergeom(list(pool), total)
        likelihoods, here = drawn.pmf(tables), float(drawn.pmf(counts))
    as_unlikely = likelihoods[likelihoods <= here * TOLERANCE]
    return min(1.0, float(as_unlikely.sum())), True


def _tables(total: int, places: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to write a number as an ordered sum of numbers >= 0."""
    if places == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _tables(total - first, places - 1):
            yield (first, *rest)
