"""What the tests know about privacy on their own, without the code under test."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.vocabulary import Vocabulary

Law = Mapping[tuple[int, ...], Fraction]

TINY = Vocabulary.of(["fox", "hen", "3"], 3)


def token_law(weights: Sequence[int]) -> dict[tuple[int, ...], Fraction]:
    """One row of integer weights as a law of one token."""
    total = sum(weights)
    return {(token,): Fraction(weight, total) for token, weight in enumerate(weights)}


def worst_ratio(laws: Iterable[Law]) -> Fraction | float:
    """The largest ratio of the probabilities of one output under two inputs."""
    listed = list(laws)
    worst: Fraction | float = Fraction(1)
    for output in set().union(*listed):
        shares = [law.get(output, Fraction(0)) for law in listed]
        if max(shares) == 0:
            continue
        if min(shares) == 0:
            return math.inf
        worst = max(worst, max(shares) / min(shares))
    return worst


def keeps(ratio: Fraction | float, epsilon: float) -> bool:
    """Whether ``ratio <= e**epsilon``, decided with 120 digits."""
    if not isinstance(ratio, Fraction):
        return False
    digits = Context(prec=120)
    log = digits.ln(digits.divide(Decimal(ratio.numerator), ratio.denominator))
    return log <= Decimal(epsilon)


def nats_of(ratio: Fraction | float) -> float:
    """The logarithm of a ratio, to float accuracy."""
    if not isinstance(ratio, Fraction):
        return math.inf
    return math.log(ratio.numerator) - math.log(ratio.denominator)


class ChoiceTape:
    """A source that hands out every possible draw, one row of a batch each."""

    private = True

    def __init__(self) -> None:
        self.calls = 0

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        self.calls += 1
        per_row = [int(bound) for bound in np.reshape(bounds, (-1, TINY.length))[0]]
        draws = np.array(list(product(*(range(bound) for bound in per_row))))
        if not (np.reshape(bounds, draws.shape) == per_row).all():
            raise ValueError("the batch must hold one prompt, once for each draw")
        return draws.reshape(np.shape(bounds))


def enumerated_law(
    text: str,
    totals: Sequence[int],
    release: Callable[[str, int, ChoiceTape], Sequence[tuple[int, ...]]],
) -> dict[tuple[int, ...], Fraction]:
    """The exact law of what is released for a text.

    `release` is the path under test: text, number of copies and the tape to draw
    from. Equal copies see all draws between them, so counting is enumerating.
    """
    count = math.prod(totals)
    outputs = release(text, count, ChoiceTape())
    if len(outputs) != count:
        raise ValueError("every copy must be released")
    return {ids: Fraction(n, count) for ids, n in Counter(outputs).items()}
