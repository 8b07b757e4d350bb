"""Whether two arms answer differently well: tests that permute outcomes.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 4: outcomes of all
repeats are pooled and permuted 10,000 times. The paired variant flips whole questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.evaluation.metrics import Estimate, mean_and_stderr
from fedcot.seeding import numpy_generator

NUM_PERMUTATIONS = 10_000

Outcomes = Sequence[Sequence[bool]]
"""Whether each question was answered rightly: a sequence for each repeat."""


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """Two arms and how likely their difference is by chance.

    Attributes
    ----------
    first, second : Estimate
        Accuracy in [0, 1]: mean and standard error over the repeats.
    difference : float
        Accuracy of all outcomes of the first arm minus that of the second.
    p_value : float
        Two-sided, in (0, 1].
    num_permutations : int
        Drawn at random; the smallest p-value is ``1 / (1 + num_permutations)``.
    is_paired : bool
    """

    first: Estimate
    second: Estimate
    difference: float
    p_value: float
    num_permutations: int
    is_paired: bool


def pooled_permutation_test(
    first: Outcomes,
    second: Outcomes,
    *,
    seed: int,
    num_permutations: int = NUM_PERMUTATIONS,
) -> ArmComparison:
    """Compare two arms as the paper does: all outcomes are exchangeable.

    Parameters
    ----------
    first, second : sequence of sequence of bool
        Outcomes of each repeat; repeats and questions need not be the same.
    seed : int
    num_permutations : int
        At least 1.

    Returns
    -------
    ArmComparison
        ``p = (1 + hits) / (1 + num_permutations)``, where a hit is a permutation with
        accuracies at least as far apart (Phipson and Smyth 2010, equation 2).

    Raises
    ------
    ConfigError
        If an arm has no outcomes, or nothing is to be permuted.

    Notes
    -----
    How many right answers a permutation gives the first arm is hypergeometric, so that
    number is drawn in place of the permutation: the law is the same. Differences are
    compared as integers.

    Answers to one question in several repeats, and answers with one prompt, are alike;
    the test takes them as independent. Where the arms answer the same questions,
    `paired_permutation_test` does not.
    """
    _check(first, second, num_permutations)
    sizes = sum(map(len, first)), sum(map(len, second))
    right = _num_right(first), _num_right(second)
    total, all_right = sum(sizes), sum(right)
    generator = numpy_generator(seed, "permutation-test")
    drawn = generator.hypergeometric(
        all_right, total - all_right, sizes[0], size=num_permutations
    )
    # The difference of the accuracies, times the product of the sizes.
    distance = np.abs(drawn * total - all_right * sizes[0])
    here = abs(right[0] * total - all_right * sizes[0])
    return _compared(first, second, distance >= here, is_paired=False)


def paired_permutation_test(
    first: Outcomes,
    second: Outcomes,
    *,
    seed: int,
    num_permutations: int = NUM_PERMUTATIONS,
) -> ArmComparison:
    """Compare two arms on the same questions by swapping the arms of whole questions.

    Parameters
    ----------
    first, second : sequence of sequence of bool
        Outcomes of each repeat, the same questions in the same order everywhere, as
        many repeats in both.
    seed : int
    num_permutations : int
        At least 1.

    Returns
    -------
    ArmComparison
        See `pooled_permutation_test`.

    Raises
    ------
    ConfigError
        If an arm has no outcomes, the arms differ in shape, or nothing is to be
        permuted.

    Notes
    -----
    The unit is the question: its outcomes of all repeats change arms together, so that
    they may be alike. Under the null each question's difference is symmetric. The
    signs of equal differences are drawn together, as a binomial: the law is the same.
    The prompts of the repeats are taken as given.
    """
    _check(first, second, num_permutations)
    shapes = {tuple(map(len, arm)) for arm in (first, second)}
    if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
        raise ConfigError(
            "`first` and `second` must be of the same questions in every repeat, found "
            f"repeats of {sorted(shapes)} questions; use pooled_permutation_test."
        )
    differences = _rights_by_question(first) - _rights_by_question(second)
    generator = numpy_generator(seed, "paired-permutation-test")
    drawn = np.zeros(num_permutations, dtype=np.int64)
    for size, questions in sorted(Counter(np.abs(differences).tolist()).items()):
        positive = generator.binomial(questions, 0.5, size=num_permutations)
        drawn += size * (2 * positive - questions)
    here = abs(int(differences.sum()))
    return _compared(first, second, np.abs(drawn) >= here, is_paired=True)


def _check(first: Outcomes, second: Outcomes, num_permutations: int) -> None:
    if not all(arm and all(len(repeat) for repeat in arm) for arm in (first, second)):
        raise ConfigError(
            "`first` and `second` must hold outcomes in every repeat, found an empty "
            "one; evaluate both arms first."
        )
    if num_permutations < 1:
        raise ConfigError(
            f"`num_permutations` must be at least 1, found {num_permutations}; pass "
            f"for example {NUM_PERMUTATIONS}."
        )


def _compared(
    first: Outcomes, second: Outcomes, is_hit: NDArray[np.bool_], *, is_paired: bool
) -> ArmComparison:
    accuracies = [
        [_num_right([repeat]) / len(repeat) for repeat in arm]
        for arm in (first, second)
    ]
    pooled = [_num_right(arm) / sum(map(len, arm)) for arm in (first, second)]
    return ArmComparison(
        first=mean_and_stderr(accuracies[0]),
        second=mean_and_stderr(accuracies[1]),
        difference=pooled[0] - pooled[1],
        p_value=(1 + int(is_hit.sum())) / (1 + len(is_hit)),
        num_permutations=len(is_hit),
        is_paired=is_paired,
    )


def _num_right(arm: Outcomes) -> int:
    return sum(bool(outcome) for repeat in arm for outcome in repeat)


def _rights_by_question(arm: Outcomes) -> NDArray[np.int64]:
    """Return in how many repeats each question was answered rightly."""
    counts: NDArray[np.int64] = np.array(arm, dtype=np.int64).sum(axis=0)
    return counts
