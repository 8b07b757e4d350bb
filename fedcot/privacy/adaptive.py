"""Adaptive exponential mechanism: each slot's channel follows what was released.

A public language model reads the words that were already released and says what may
come next. That decides, slot by slot and before the private word is looked at, which
words may be released, how the rest rank when the true word is not among them, and how
much of the prompt's budget the slot gets: none where the model's word will do as well.

All of it is a public function of the released prefix. So a slot's channel is a rank
mechanism over a public support: one normaliser for all private words, and the log ratio
of its two integer weights is the slot's exact epsilon. A prompt costs the sum over its
slots, which a filter keeps at or below a public total (Rogers, Roth, Ullman and Vadhan
2016, Privacy Odometers and Filters: pure budgets chosen adaptively add up).
"""

import hashlib
import json
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError
from fedcot.privacy import slot_plans
from fedcot.privacy.claims import ADJACENCY
from fedcot.privacy.exact import logarithm_up
from fedcot.privacy.public_model import PublicModel
from fedcot.privacy.sampler import LARGEST_BOUND, RandomSource
from fedcot.privacy.slot_law import (
    BITS,
    STEPS_PER_NAT,
    SlotLaw,
    support_sizes,
    weight_table,
)
from fedcot.privacy.slot_plans import (
    best_support,
    demand,
    importance,
    importance_threshold,
)
from fedcot.privacy.tokens import checked_epsilon, checked_ids, checked_similarity
from fedcot.privacy.vocabulary import Vocabulary

# Probabilities of a slot without a budget become integers with this many digits.
PROBABILITY_BITS = 30
# How sure the public model is taken to be right before anything was released.
TRUST = 0.98
# Below it, the model is not believed any more and every slot is treated alike.
BELIEVED = 0.5
# Odds beyond this many nats are as good as certain, and larger ones overflow.
SURE = 500.0
# A budget that keeps the true word less often than this is better spent elsewhere.
WORTHWHILE = 0.5


@dataclass(eq=False)
class _Prompts:
    """Prompts on their way: what was released, spent and learnt from it."""

    released: NDArray[np.int64]  # (rows, slots)
    spent: NDArray[np.int64]  # budget steps, (rows,)
    log_odds: NDArray[np.float64]  # that the public model is right, (rows,)


class AdaptiveChannel:
    """Replace words by ones that the released context makes likely.

    Parameters
    ----------
    vocabulary : Vocabulary
        N words.
    token_epsilon : float
        Nats, finite, > 0: the most that one slot may cost.
    prompt_epsilon : float
        Nats that all slots of a prompt may cost together; 0 is slots x token_epsilon,
        which gives every slot the same.
    model : PublicModel
        Sees released words only.
    calibration : ndarray of int64, shape (texts, slots)
        Public prompts on which the plan of the budget is made.
    similarity : ndarray of float, shape (N, N), optional
        Orders the support by likeness to the private word; by default the true word
        comes first and then what the public model finds most likely.
    neighbours : int
        Utility: chance that what is released is among that many nearest words, the
        true one included. 1 counts the true word alone.

    Raises
    ------
    ConfigError
        If an argument breaks these rules.

    Notes
    -----
    The public model's probabilities are floating-point numbers. They choose among
    public channels; no draw and no epsilon is computed from them.
    """

    name = "adaptive"
    guarantee = (
        "pure local differential privacy over the whole public vocabulary: of one "
        "token as its slot's integer weights give it, of one prompt by a filter on "
        "their sum"
    )
    adjacency = ADJACENCY

    def __init__(
        self,
        vocabulary: Vocabulary,
        token_epsilon: float,
        *,
        prompt_epsilon: float = 0.0,
        model: PublicModel,
        calibration: NDArray[np.int64],
        similarity: NDArray[np.float64] | None = None,
        neighbours: int = 1,
    ) -> None:
        self.requested_epsilon = checked_epsilon(token_epsilon)
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        self._model = model
        self.total_steps, self.cap_steps = self._budget(prompt_epsilon)
        self._weights = self._checked_weights()
        if not 1 <= neighbours < self.size or (neighbours > 1 and similarity is None):
            raise ConfigError(
                f"`neighbours` must be in [1, {self.size}) and 1 without a similarity, "
                f"found {neighbours}; pass both."
            )
        self._order = None if similarity is None else _orders(similarity, self.size)
        self._nearest = _nearest(self._order, self.size, neighbours)
        # Rank of each word in each order, the inverse of the permutations.
        self._places = (
            None
            if self._order is None
            else np.argsort(self._order, axis=1).astype(np.int32)
        )
        self._sizes = support_sizes(self.size)
        self.calibration = self._checked_calibration(calibration)
        self._threshold = self._plan(self.calibration)
        # Each step's exact epsilon is at most its nominal one, so sums are too.
        self.token_epsilon = logarithm_up(*self._weights[self.cap_steps])
        self.prompt_epsilon = self.total_steps / STEPS_PER_NAT
        law = [
            self.name,
            vocabulary.hash,
            model.hash,
            hashlib.sha256(self.calibration.astype("<i8").tobytes()).hexdigest(),
            self.total_steps,
            self.cap_steps,
            neighbours,
            self._weights[self.cap_steps],
            [PROBABILITY_BITS, TRUST, BELIEVED, WORTHWHILE, *slot_plans.CONSTANTS],
        ]
        order = b"" if self._order is None else self._order.astype("<i4").tobytes()
        self.hash = hashlib.sha256(json.dumps(law).encode() + order).hexdigest()

    def _budget(self, prompt_epsilon: float) -> tuple[int, int]:
        """Return the total and the largest slot's budget in whole steps."""
        cap = math.floor(Fraction(self.requested_epsilon) * STEPS_PER_NAT)
        if not (math.isfinite(prompt_epsilon) and prompt_epsilon >= 0):
            raise ConfigError(
                "`prompt-epsilon` must be >= 0 and finite, found "
                f"{prompt_epsilon}; pass for example `-c prompt-epsilon=84.0`."
            )
        whole = cap * self.slots
        asked = math.floor(Fraction(prompt_epsilon) * STEPS_PER_NAT)
        total = whole if prompt_epsilon == 0 else min(asked, whole)
        if cap < 1 or total < 1:
            raise ConfigError(
                f"`token-epsilon` and `prompt-epsilon` must be at least "
                f"{1 / STEPS_PER_NAT} for the mechanism adaptive, found "
                f"{self.requested_epsilon} and {prompt_epsilon}; pass larger ones."
            )
        return total, min(cap, total)

    def _checked_calibration(self, calibration: NDArray[np.int64]) -> NDArray[np.int64]:
        public = checked_ids(calibration, self.size)
        if public.ndim != 2 or public.shape[1] != self.slots or not len(public):
            raise ConfigError(
                f"`calibration` must hold prompts of {self.slots} slots, found shape "
                f"{public.shape}; encode public texts with the run's vocabulary."
            )
        return public

    def _checked_weights(self) -> list[tuple[int, int]]:
        """Return both weights of each budget; the largest total fits in 62 bits."""
        # Looked at before any weight is computed: a huge exponent takes for ever.
        digits = self.cap_steps / STEPS_PER_NAT / math.log(2) + BITS
        if digits + math.log2(self.size) >= math.log2(LARGEST_BOUND):
            raise ConfigError(
                "`token-epsilon` must leave every total below 2**62, found "
                f"{self.requested_epsilon}; pass for example `-c token-epsilon=8.0`."
            )
        return weight_table(self.cap_steps)

    def _plan(self, public: NDArray[np.int64]) -> float:
        """Return the importance from which on a slot gets a budget."""
        if self.total_steps == self.cap_steps * self.slots:
            return 0.0
        worth = np.empty(public.shape)
        needed = np.empty(public.shape)
        for slot in range(self.slots):
            prefixes = public[:, :slot]
            likely = self._model.next_probabilities(prefixes)
            worth[:, slot] = importance(self._model, prefixes, likely)
            needed[:, slot] = demand(_mixed(likely, np.full(len(likely), TRUST)))
        cap = self.cap_steps / STEPS_PER_NAT
        total = self.total_steps / STEPS_PER_NAT
        return importance_threshold(worth, np.minimum(needed, cap), total=total)

    def slot_law(self, prefix: NDArray[np.int64]) -> SlotLaw:
        """Return the channel of the slot after a released prefix.

        Parameters
        ----------
        prefix : ndarray of int64, shape (slot,)
            Released words; fewer than the public number of slots.
        """
        return self._laws(self._after(prefix), len(prefix))[0]

    def spent(self, prefix: NDArray[np.int64]) -> int:
        """Return what releasing a prefix has cost, in steps of the budget."""
        return int(self._after(prefix).spent[0])

    def _after(self, prefix: NDArray[np.int64]) -> _Prompts:
        """Return what is known after a released prefix."""
        released = np.asarray(prefix, dtype=np.int64)
        state = self._start(1)
        for slot in range(len(released)):
            laws = self._laws(state, slot)
            self._account(state, slot, laws, released[slot : slot + 1])
        return state

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return the prompts to release, slot after slot.

        Parameters
        ----------
        ids : ndarray of int64, shape (..., slots)
            Private prompts.
        source : RandomSource
            Where the uniform integers come from.

        Returns
        -------
        ndarray of int64, shape of `ids`

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary.
        """
        tokens = checked_ids(ids, self.size)
        private = tokens.reshape(-1, self.slots)
        state = self._start(len(private))
        for slot in range(self.slots):
            laws = self._laws(state, slot)
            words = self._draw(laws, private[:, slot], source)
            self._account(state, slot, laws, words)
        return state.released.reshape(tokens.shape)

    def _start(self, rows: int) -> _Prompts:
        return _Prompts(
            released=np.zeros((rows, self.slots), dtype=np.int64),
            spent=np.zeros(rows, dtype=np.int64),
            log_odds=np.full(rows, math.log(TRUST / (1 - TRUST))),
        )

    def _laws(self, state: _Prompts, slot: int) -> list[SlotLaw]:
        """Return each row's channel; rows of one history share one."""
        prefixes = state.released[:, :slot]
        # Spent budget and trust follow from the prefix.
        _, first, places = np.unique(
            prefixes, axis=0, return_index=True, return_inverse=True
        )
        distinct = prefixes[first]
        likely = self._model.next_probabilities(distinct)
        trust = 1 / (1 + np.exp(-np.clip(state.log_odds[first], -SURE, SURE)))
        left = self.total_steps - state.spent[first]
        evenly = np.minimum(self.cap_steps, left // (self.slots - slot))
        # Where every slot can have the most, or where the model is not believed, all
        # slots are alike.
        alike = (evenly == self.cap_steps) | (trust < BELIEVED)
        budgets = np.where(alike, evenly, 0)
        if not alike.all():
            planned = self._planned(distinct, likely, trust)
            budgets = np.where(alike, evenly, np.minimum(planned, left))
        laws = [
            self._law(*row)
            for row in zip(likely, trust, budgets.tolist(), alike.tolist(), strict=True)
        ]
        return [laws[place] for place in places.reshape(-1)]

    def _planned(
        self,
        prefixes: NDArray[np.int64],
        likely: NDArray[np.float64],
        trust: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Return what each row's slot needs in steps, 0 where it is not worth it."""
        wanted = np.ceil(demand(_mixed(likely, trust)) * STEPS_PER_NAT)
        asked = importance(self._model, prefixes, likely) >= self._threshold
        steps: NDArray[np.int64] = np.where(
            asked, np.minimum(wanted, self.cap_steps), 0
        ).astype(np.int64)
        return steps

    def _law(
        self, likely: NDArray[np.float64], trust: float, steps: int, forced: bool
    ) -> SlotLaw:
        """Return the channel of one row with a budget of some steps."""
        mixed = _mixed(likely[None], np.array([trust]))[0]
        order = np.argsort(-mixed, kind="stable")
        if steps:
            high, low = self._weights[steps]
            chosen = best_support(
                mixed, order, high / low, neighbours=self._nearest, sizes=self._sizes
            )
            if forced or chosen.hits >= WORTHWHILE:
                support = order[: chosen.size]
                none = np.zeros(0, dtype=np.int64)
                return SlotLaw(
                    support,
                    chosen.favoured,
                    high,
                    low,
                    none,
                    steps,
                    likely,
                    self._order,
                )
        believed = likely if trust >= BELIEVED else mixed
        free = np.floor(believed[order] * 2**PROBABILITY_BITS).astype(np.int64)
        kept = free > 0
        return SlotLaw(order[kept], 0, 1, 1, free[kept], 0, likely, self._order)

    def _draw(
        self, laws: list[SlotLaw], tokens: NDArray[np.int64], source: RandomSource
    ) -> NDArray[np.int64]:
        """Return one released word for each private one."""
        draws = source.below(np.array([law.total for law in laws], dtype=np.int64))
        given = zip(laws, tokens.tolist(), draws.tolist(), strict=True)
        return np.array([law.word(*rest) for law, *rest in given], dtype=np.int64)

    def _account(
        self,
        state: _Prompts,
        slot: int,
        laws: list[SlotLaw],
        words: NDArray[np.int64],
    ) -> None:
        """Note what was released, what it cost, and what it says of the model."""
        for row, (law, word) in enumerate(zip(laws, words.tolist(), strict=True)):
            if law.favoured:
                state.spent[row] += law.steps
                # Bayes: how likely this word was if private words follow the model,
                # against any word being as likely.
                favouring = law.favouring(word, self._places)
                gain = law.high - law.low
                told = law.low + gain * float(law.likely[favouring].sum())
                blind = law.low + gain * float(favouring.mean())
                state.log_odds[row] += math.log(told / blind)
        state.released[:, slot] = words


def _mixed(
    likely: NDArray[np.float64], trust: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the model's probabilities with some for every word, by trust."""
    sure = trust[:, None]
    mixed: NDArray[np.float64] = sure * likely + (1 - sure) / likely.shape[1]
    return mixed


def _orders(similarity: NDArray[np.float64], size: int) -> NDArray[np.int32]:
    """Return the words from most to least alike to each one, itself first."""
    distance = -checked_similarity(similarity, size)
    np.fill_diagonal(distance, -np.inf)
    return np.argsort(distance, axis=1, kind="stable").astype(np.int32)


def _nearest(
    order: NDArray[np.int32] | None, size: int, neighbours: int
) -> NDArray[np.int64]:
    if order is None:
        return np.arange(size)[:, None]
    return order[:, :neighbours].astype(np.int64)
