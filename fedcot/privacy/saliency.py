"""Private budgets for the slots of a prompt, with one public total.

Rare words keep more than common ones, and which slots get the budget is private. That
is sound for a whole prompt, never for one token:

Let ``rho`` be the uniform law over the N words. Slot ``i`` with budget ``e_i`` has a
law ``Q_i`` with ``e**-e_i <= Q_i(y) / rho(y) <= e**e_i`` for every word ``y``, and
budgets are never negative. Let the budgets be any function of the prompt ``x`` with
``sum(e_i) <= E``, where E is public. The slots are drawn independently, so the ratio of
the prompt's law ``P_x`` to ``rho**L`` is a product of L factors and lies within
``e**-E`` and ``e**E``.

* Zero-out of the prompt (all its tokens become padding): padding has no budget, so the
  law of the empty prompt is ``rho**L`` itself and the epsilon is E.
* Replacement of the prompt by any other: ``P_x / P_x'`` is a product of two such
  ratios, so the epsilon is 2 E.
* Replacement or removal of one token moves the budgets of all other slots too, so what
  holds for it is what holds for the prompt, 2 E. It really exceeds E for some prompts,
  and so any epsilon of the changed slot alone.

Two rounds that use the same prompt cost the sum of their totals, as usual.
"""

import hashlib
import json
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy.exact import integer_weight
from fedcot.privacy.nats import NANO, nats
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.tokens import checked_epsilon, checked_ids
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary

# The public total is shared out in this many equal units for each slot.
UNITS_PER_SLOT = 16
SALIENCY_LEVELS = 1 << 16
# More nats than any weight below 2**62 can tell apart.
LARGEST_EXPONENT = 64
EXPONENT_BITS = 128


class SaliencyChannel:
    """Keep each token with a chance that its share of the prompt's budget allows.

    A slot releases its own token or, else, a uniform one, from ``N * resolution``
    equally likely draws whatever its budget: each word has ``resolution - d`` of them,
    and the true word ``N * d`` more.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words, of which padding never gets a budget.
    token_epsilon : float
        Nats, finite, > 0: the average of a slot, where `removal_epsilon` is 0.
    removal_epsilon : float
        Nats, finite: the total E of a prompt; 0 stands for ``slots * token_epsilon``.
    information : ndarray of float, shape (N,), optional
        Public, >= 0: the weight of each word when the total is shared out, for example
        `unigram_information`. None: all words alike. Padding counts as 0.
    resolution : int, optional
        Draws of each word without a budget, >= 2. By default as many as 62 bits allow.

    Attributes
    ----------
    removal_epsilon : float
        Nats for the removal of a prompt, E, rounded up to a nano-nat.
    prompt_epsilon : float
        Nats for any replacement of a prompt, 2 E, rounded up to a nano-nat. This is
        what is charged, so that sums with other mechanisms hold for replacement too.
    token_epsilon : float
        Nats for the replacement or removal of one token: `prompt_epsilon`.
    requested_epsilon : float
        Nats, the average of a slot that was asked for.
    unit : Fraction
        Nats of one unit of budget; ``16 * slots`` of them make E exactly.

    Raises
    ------
    ConfigError
        If an argument breaks these rules, or if an average slot could not use its
        budget with these weights.
    """

    name = "saliency"
    guarantee = (
        "pure local differential privacy of a whole prompt, from integer weights; half "
        "of it against the prompt's removal, and no less than all of it for one token"
    )
    adjacency = (
        "any replacement of a whole prompt (prompt, record and token epsilon), so one "
        "token is not cheaper than all; zero-out, all its tokens replaced by padding, "
        "costs half of that"
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        token_epsilon: float,
        *,
        removal_epsilon: float = 0.0,
        information: NDArray[np.float64] | None = None,
        resolution: int | None = None,
    ) -> None:
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        self.resolution = _checked_resolution(resolution, self.size)
        total = _checked_total(token_epsilon, removal_epsilon, self.slots)
        _check_reachable(total / self.slots, self.resolution)
        self.requested_epsilon = float(total / self.slots)
        self.removal_epsilon = nats(math.ceil(total * NANO))
        self.prompt_epsilon = nats(math.ceil(2 * total * NANO))
        self.token_epsilon = self.prompt_epsilon
        self.units = UNITS_PER_SLOT * self.slots
        self.unit = total / self.units
        boosts = [
            largest_boost(self.unit * units, self.size, self.resolution)
            for units in range(self.units + 1)
        ]
        self._boosts = np.array(boosts, dtype=np.int64)
        self._saliency = _quantised(information, self.size)
        law = [self.name, vocabulary.hash, str(total), self.resolution, boosts]
        content = json.dumps([*law, self._saliency.tolist()])
        self.hash = hashlib.sha256(content.encode()).hexdigest()

    def budgets(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Share the total out among the slots of each prompt; private.

        Parameters
        ----------
        ids : ndarray of int64, shape (..., slots)
            Private tokens.

        Returns
        -------
        ndarray of int64, shape of `ids`
            Budget of each slot in units of `unit`, by largest remainder; equal
            remainders go to the earlier slot. The sum over a prompt is `units`, or 0
            where no word has any information, as in an empty prompt.

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary or a prompt has not the public length.
        """
        saliency = self._saliency[self._checked(ids)]
        sums = saliency.sum(axis=-1, keepdims=True)
        shares, remainders = np.divmod(saliency * self.units, np.maximum(sums, 1))
        left = np.where(sums > 0, self.units - shares.sum(axis=-1, keepdims=True), 0)
        order = np.argsort(-remainders, axis=-1, kind="stable")
        # Fewer units are left than there are remainders, so none goes to padding.
        budgets: NDArray[np.int64] = shares + (np.argsort(order, axis=-1) < left)
        return budgets

    def weights(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the integer weight of every output of every slot; private.

        Parameters
        ----------
        ids : ndarray of int64, shape (slots,)
            One private prompt.

        Returns
        -------
        ndarray of int64, shape (slots, N)
            Each row's total is ``N * resolution``; the slots are independent.

        Raises
        ------
        ValueError
            As for `budgets`.
        """
        boosts = self._boosts[self.budgets(ids)]
        rows = np.repeat(self.resolution - boosts[:, None], self.size, axis=1)
        rows[np.arange(self.slots), self._checked(ids)] += self.size * boosts
        return rows

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the prompts to release, by one draw for each slot.

        Parameters
        ----------
        ids : ndarray of int64, shape (..., slots)
            Private tokens of whole prompts.
        source : RandomSource
            Where the uniform integers come from. All have the same bound, so neither
            their number nor their rejections depend on the prompt.

        Returns
        -------
        ndarray of int64, shape of `ids`

        Raises
        ------
        ValueError
            As for `budgets`.
        """
        tokens = self._checked(ids)
        rest = self.resolution - self._boosts[self.budgets(tokens)]
        draws = source.below(np.full(tokens.shape, self.size * self.resolution))
        released: NDArray[np.int64] = np.where(
            draws < self.size * rest, draws // rest, tokens
        )
        return released

    def _checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        tokens = checked_ids(ids, self.size)
        if tokens.ndim == 0 or tokens.shape[-1] != self.slots:
            raise ValueError(f"Each prompt must have {self.slots} slots.")
        return tokens


def largest_boost(epsilon: Fraction, size: int, resolution: int) -> int:
    """Return how many draws each word can give up to the true one within an epsilon.

    Of ``size * resolution`` draws, the true word has ``resolution + (size - 1) * d``
    and every other ``resolution - d``. Against the ``resolution`` draws of the uniform
    law, the first bound binds up to ``e**epsilon = size - 1``, the second above.

    Parameters
    ----------
    epsilon : Fraction
        Nats, >= 0.
    size : int
        Words, >= 2.
    resolution : int
        Draws of each word under the uniform law, >= 1.

    Returns
    -------
    int
        The largest ``d < resolution`` with ``resolution + (size - 1) * d <=
        resolution * e**epsilon`` and ``resolution - d >= resolution * e**-epsilon``.
        The power is rounded down to a multiple of 2**-128.
    """
    exponent = min(epsilon, Fraction(LARGEST_EXPONENT))
    power = Fraction(integer_weight(exponent, EXPONENT_BITS), 1 << EXPONENT_BITS)
    by_true_word = resolution * (power - 1) / (size - 1)
    return min(math.floor(by_true_word), resolution - math.ceil(resolution / power))


def unigram_information(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much each word tells by itself, from counts in public text.

    Parameters
    ----------
    counts : ndarray of int64, shape (N,)
        How often each word of the vocabulary stands in public text, >= 0.

    Returns
    -------
    ndarray of float64, shape (N,)
        Nats, ``-ln`` of the share of a word after one was added to every count, so
        that all are positive and finite; 0 for padding, which is not counted.

    Raises
    ------
    ValueError
        If a count is negative or there is no word besides padding.
    """
    if counts.ndim != 1 or len(counts) < 2 or bool((counts < 0).any()):
        raise ValueError("`counts` must hold one count >= 0 for each of >= 2 words.")
    words = np.delete(counts, PAD_ID) + 1.0
    # One more in the total stands for all other words: no share is the whole.
    return np.insert(-np.log(words / (words.sum() + 1.0)), PAD_ID, 0.0)


def _checked_total(
    token_epsilon: float, removal_epsilon: float, slots: int
) -> Fraction:
    token = checked_epsilon(token_epsilon)
    if not (math.isfinite(removal_epsilon) and removal_epsilon >= 0):
        raise ConfigError(
            "`prompt-epsilon` must be >= 0 and finite, found "
            f"{2 * removal_epsilon}; pass 0 for `token-epsilon` times the number of "
            "slots."
        )
    return Fraction(removal_epsilon) or slots * Fraction(token)


def _checked_resolution(resolution: int | None, size: int) -> int:
    largest = (LARGEST_BOUND - 1) // size
    if resolution is not None and not 2 <= resolution <= largest:
        raise ConfigError(
            f"`resolution` must lie in [2, {largest}] for {size} words, found "
            f"{resolution}; leave it out."
        )
    return resolution or largest


def _check_reachable(average: Fraction, resolution: int) -> None:
    if average > Fraction(math.log(resolution)):
        raise ConfigError(
            "`token-epsilon` must be at most "
            f"{math.floor(math.log(resolution))} on the average of a prompt's slots "
            f"with 62-bit weights, found {float(average)}; pass for example "
            "`-c token-epsilon=4.0`."
        )


def _quantised(information: NDArray[np.float64] | None, size: int) -> NDArray[np.int64]:
    """Return information in whole steps, at least one wherever there is any."""
    values = np.ones(size) if information is None else np.asarray(information, float)
    inside = values.shape == (size,) and bool(np.isfinite(values).all())
    if not inside or bool((values < 0).any()) or not bool(np.delete(values, 0).any()):
        raise ConfigError(
            f"`information` must hold {size} finite values >= 0, not 0 for all words, "
            f"found shape {values.shape}; build it for the same vocabulary."
        )
    words = np.where(np.arange(size) == PAD_ID, 0.0, values)
    steps = np.rint(words / words.max() * SALIENCY_LEVELS).astype(np.int64)
    return np.where(words > 0, np.maximum(steps, 1), 0)
