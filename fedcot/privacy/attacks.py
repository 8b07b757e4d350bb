"""What an attacker learns who knows the mechanism, the vocabulary and a prior.

The success of the best attack is a sum over the channel's integer weights, so it is
computed and not sampled. Every other attack on one token must stay below it, and it
must stay below what the epsilon alone allows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.audit import row_blocks
from fedcot.privacy.channels import TokenChannel
from fedcot.privacy.public_model import PublicModel
from fedcot.privacy.vocabulary import PAD_ID

_BISECTIONS = 200
# Room for the rounding of sums of float64 shares when a success meets its bound.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """The success of attacks on one token of a channel.

    Attributes
    ----------
    unit : str
        What the probabilities are of, in words.
    guesses : int
        How many words the attacker may name.
    prior_success : float
        Share of tokens found without seeing the release.
    bayes_success : float
        Share found by the best attack, exact.
    bayes_bound : float
        The largest share that the channel's claimed epsilon allows.
    inversion_success : float or None
        Share found by naming the nearest words of the release, exact; None without a
        similarity.
    min_capacity : float
        Nats, see `min_capacity`.
    """

    unit: str
    guesses: int
    prior_success: float
    bayes_success: float
    bayes_bound: float
    inversion_success: float | None
    min_capacity: float

    @property
    def is_violated(self) -> bool:
        """Whether an attack succeeds more often than the claim allows."""
        best = max(self.bayes_success, self.inversion_success or 0.0)
        return best > self.bayes_bound + ROUNDING


def attack_token(
    channel: TokenChannel,
    *,
    prior: NDArray[np.float64] | None = None,
    similarity: NDArray[np.float64] | None = None,
    guesses: int = 1,
) -> AttackReport:
    """Attack one token of a channel in every way that can be computed exactly.

    Parameters
    ----------
    channel : TokenChannel
        Over N words.
    prior : ndarray of float64, shape (N,), optional
        Probability of each private word, by default uniform.
    similarity : ndarray of float64, shape (N, N), optional
        Public, for embedding inversion.
    guesses : int
        In [1, N].
    """
    known = _checked_prior(prior, channel.size)
    inversion = None
    if similarity is not None:
        inversion = inversion_success(channel, similarity, prior=known, guesses=guesses)
    return AttackReport(
        unit="share of tokens found, prior "
        + ("uniform" if prior is None else "given"),
        guesses=guesses,
        prior_success=float(np.sort(known)[::-1][:guesses].sum()),
        bayes_success=bayes_success(channel, prior=known, guesses=guesses),
        bayes_bound=bayes_bound(known, channel.token_epsilon, guesses=guesses),
        inversion_success=inversion,
        min_capacity=min_capacity(channel),
    )


def bayes_success(
    channel: TokenChannel,
    *,
    prior: NDArray[np.float64] | None = None,
    guesses: int = 1,
) -> float:
    """Return how often the best attack on one token succeeds.

    Parameters
    ----------
    channel : TokenChannel
        Over N words.
    prior : ndarray of float64, shape (N,), optional
        Probability of each private word, by default uniform.
    guesses : int
        Words that the attacker may name for each released one, in [1, N].

    Returns
    -------
    float
        ``sum_y`` of the `guesses` largest ``prior(x) Q(y|x)``.

    Raises
    ------
    ValueError
        If the prior is no distribution over N words or `guesses` is out of range.

    Notes
    -----
    Tong et al., "On the Vulnerability of Text Sanitization" (arXiv 2410.17052): the
    Bayes-optimal reconstruction.
    """
    known = _checked_prior(prior, channel.size)
    _check_guesses(guesses, channel.size)
    best = np.zeros((guesses, channel.size))
    for start, weights in row_blocks(channel):
        joint = known[start : start + len(weights), None] * _shares(weights)
        everything = np.concatenate([best, joint])
        best = np.partition(everything, len(everything) - guesses, axis=0)[-guesses:]
    return float(best.sum())


def bayes_bound(
    prior: NDArray[np.float64], epsilon: float, *, guesses: int = 1
) -> float:
    """Return the largest Bayes success that any mechanism with this epsilon allows.

    Parameters
    ----------
    prior : ndarray of float64, shape (N,)
        Probability of each private value.
    epsilon : float
        Nats, local differential privacy of the value, not negative; may be infinite.
    guesses : int
        In [1, N].

    Returns
    -------
    float
        At most 1. For a uniform prior ``k e**eps / (k e**eps + N - k)`` with k
        guesses. For one guess and any prior it is attained, by randomised response
        among the likeliest values.

    Raises
    ------
    ValueError
        If the prior is no distribution, or an argument is out of range.

    Notes
    -----
    Duality of linear programs. A mechanism is a sum of columns ``c (1 + (e**eps - 1)
    1_S)``, of weight ``sum_x v(x)`` for any v: so if ``v >= 0`` has sum V and every
    set G of k values has ``sum_G p + (e**eps - 1) sum_G max(0, p - v) <= V``, then no
    mechanism succeeds with more than V. The choice ``v = max(0, e**eps p - t) /
    (e**eps - 1)`` makes each term of G ``max(t, p)`` at most; the best t is searched.
    """
    known = _checked_prior(prior, len(prior))
    _check_guesses(guesses, len(known))
    if not epsilon >= 0:
        raise ValueError(f"`epsilon` must be >= 0, found {epsilon}.")
    largest = np.sort(known)[::-1][:guesses]
    growth = math.inf if epsilon > 700 else math.expm1(epsilon)
    if growth in (0.0, math.inf):
        return float(min(largest.sum(), 1.0)) if growth == 0 else 1.0

    def dual(threshold: float) -> float:
        charged = np.maximum(0.0, (growth + 1) * known - threshold).sum() / growth
        return max(float(charged), float(np.maximum(largest, threshold).sum()))

    low, high = 0.0, (growth + 1) * float(largest[0])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        charged = np.maximum(0.0, (growth + 1) * known - middle).sum() / growth
        if charged > np.maximum(largest, middle).sum():
            low = middle
        else:
            high = middle
    # Both are feasible, whatever the search did.
    return min(dual(low), dual(high), 1.0)


def min_capacity(channel: TokenChannel) -> float:
    """Return ``ln sum_y max_x Q(y|x)`` in nats.

    By so much, at most, the release multiplies an attacker's chance of naming the
    token, whatever the prior (Braun, Chatzikokolakis and Palamidessi 2009); it never
    exceeds the epsilon.
    """
    highest = np.zeros(channel.size)
    for _, weights in row_blocks(channel):
        highest = np.maximum(highest, _shares(weights).max(axis=0))
    return math.log(float(highest.sum()))


def inversion_success(
    channel: TokenChannel,
    similarity: NDArray[np.float64],
    *,
    prior: NDArray[np.float64] | None = None,
    guesses: int = 1,
) -> float:
    """Return how often the nearest words of the released one hold the private one.

    Parameters
    ----------
    channel : TokenChannel
        Over N words.
    similarity : ndarray of float64, shape (N, N)
        Row y orders the guesses for y, largest first; the word itself comes first,
        ties go by token.
    prior : ndarray of float64, shape (N,), optional
        Probability of each private word, by default uniform.
    guesses : int
        In [1, N].

    Returns
    -------
    float
        Exact, by enumeration.
    """
    known = _checked_prior(prior, channel.size)
    _check_guesses(guesses, channel.size)
    if np.shape(similarity) != (channel.size, channel.size):
        raise ValueError(f"`similarity` must have {channel.size} rows and columns.")
    # Column y of `is_named` marks the words that are named when y is released.
    is_named = np.zeros((channel.size, channel.size), dtype=bool)
    for output in range(channel.size):
        distance = -np.asarray(similarity[output], dtype=np.float64)
        distance[output] = -math.inf
        is_named[np.argsort(distance, kind="stable")[:guesses], output] = True
    return _named_success(channel, is_named, known)


def masked_token_success(
    model: PublicModel,
    private: NDArray[np.int64],
    released: NDArray[np.int64],
    *,
    guesses: int = 1,
    ignored: Sequence[int] = (PAD_ID,),
) -> float:
    """Return how often a public language model names a token from released neighbours.

    The model reads the released words before a slot, not the slot itself, and names
    its most likely next words.

    Parameters
    ----------
    model : PublicModel
        Next-word probabilities.
    private, released : ndarray of int64, shape (prompts, slots)
        The tokens and what was released for them.
    guesses : int
        In [1, N].
    ignored : sequence of int
        Private tokens that are not counted, by default padding.

    Returns
    -------
    float
        Share of the counted tokens; 0 if none is counted.
    """
    return _context_success(model, private, released, None, guesses, ignored)


def contextual_success(
    model: PublicModel,
    channel: TokenChannel,
    private: NDArray[np.int64],
    released: NDArray[np.int64],
    *,
    guesses: int = 1,
    ignored: Sequence[int] = (PAD_ID,),
) -> float:
    """Return how often Bayes' rule with a language model as prior names a token.

    As `masked_token_success`, but the model's probability of each word is multiplied
    by that of the word that was released for it.
    """
    likelihood = np.concatenate(
        [_shares(weights) for _, weights in row_blocks(channel)]
    )
    return _context_success(model, private, released, likelihood.T, guesses, ignored)


def context_bound(
    prior: NDArray[np.float64], token_epsilon: float, *, slots: int, guesses: int = 1
) -> float:
    """Return what any attack on one token that reads so many released slots can reach.

    Parameters
    ----------
    prior : ndarray of float64, shape (N,)
        True probability of the private token, over all prompts.
    token_epsilon : float
        Nats, one token.
    slots : int
        Released slots that the attack reads, its own included if it does, >= 0.
    guesses : int
        In [1, N].

    Returns
    -------
    float
        `bayes_bound` at ``slots * token_epsilon``.

    Notes
    -----
    Given the token, the others have some law; the released slots are then a mixture of
    products of channels, of which each term changes by at most ``e**epsilon`` a slot.
    It holds for every law of prompts, so also where one word determines the next.
    """
    return bayes_bound(prior, slots * token_epsilon if slots else 0.0, guesses=guesses)


def _context_success(
    model: PublicModel,
    private: NDArray[np.int64],
    released: NDArray[np.int64],
    likelihood: NDArray[np.float64] | None,
    guesses: int,
    ignored: Sequence[int],
) -> float:
    """Return the share found; `likelihood[y, x]` is that of release y for token x."""
    if private.shape != released.shape or private.ndim != 2:
        raise ValueError(
            "Private and released prompts must have equal (prompts, slots)."
        )
    counted = found = 0
    for slot in range(private.shape[1]):
        scores = model.next_probabilities(released[:, :slot])
        _check_guesses(guesses, scores.shape[1])
        if likelihood is not None:
            scores = scores * likelihood[released[:, slot]]
        named = np.argsort(-scores, axis=1, kind="stable")[:, :guesses]
        hits = (named == private[:, slot, None]).any(axis=1)
        matters = ~np.isin(private[:, slot], ignored)
        counted += int(matters.sum())
        found += int((hits & matters).sum())
    return found / counted if counted else 0.0


def _named_success(
    channel: TokenChannel, is_named: NDArray[np.bool_], prior: NDArray[np.float64]
) -> float:
    """Return ``sum_x prior(x) sum_y Q(y|x) [x is named for y]``."""
    success = 0.0
    for start, weights in row_blocks(channel):
        rows = slice(start, start + len(weights))
        found = (_shares(weights) * is_named[rows]).sum(axis=1)
        success += float((prior[rows] * found).sum())
    return success


def _shares(weights: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _checked_prior(prior: NDArray[np.float64] | None, size: int) -> NDArray[np.float64]:
    if prior is None:
        return np.full(size, 1 / size)
    known = np.asarray(prior, dtype=np.float64)
    is_law = known.shape == (size,) and bool((known >= 0).all())
    if not is_law or abs(float(known.sum()) - 1) > ROUNDING:
        raise ValueError(f"`prior` must be {size} probabilities that sum to 1.")
    return known


def _check_guesses(guesses: int, size: int) -> None:
    if not 1 <= guesses <= size:
        raise ValueError(f"`guesses` must lie in [1, {size}], found {guesses}.")
