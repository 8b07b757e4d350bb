"""Attack success against formulas, brute force and the bound of linear programming."""

import math
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import linprog

from fedcot.privacy.attacks import (
    attack_token,
    bayes_bound,
    bayes_success,
    context_bound,
    contextual_success,
    inversion_success,
    masked_token_success,
    min_capacity,
)
from fedcot.privacy.exponential import calibrated_exponential
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.rank import RankChannel, ramp, top
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary

SIZE = 12
WORDS = Vocabulary.of([f"w{'abcdefghij'[n]}" for n in range(SIZE - 2)], 3)
NEAR = 1 / (1 + np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE))))
SKEWED = np.arange(1.0, SIZE + 1) ** 2 / (np.arange(1.0, SIZE + 1) ** 2).sum()


@cache
def channels():
    return [
        RankChannel(WORDS, 2.0),
        RankChannel(WORDS, 3.0, shape=top(3), similarity=NEAR),
        RankChannel(WORDS, 5.0, shape=ramp(4), similarity=NEAR),
        calibrated_exponential(WORDS, 3.0, NEAR),
    ]


@cache
def law(channel):
    rows = np.array([channel.weights_row(token) for token in range(SIZE)], dtype=float)
    return rows / rows.sum(axis=1, keepdims=True)


def brute_force(channel, prior, guesses):
    joint = prior[:, None] * law(channel)
    return sum(
        max(
            joint[list(named), output].sum()
            for named in combinations(range(SIZE), guesses)
        )
        for output in range(SIZE)
    )


@pytest.mark.parametrize("guesses", [1, 2, 3])
@pytest.mark.parametrize("prior", [np.full(SIZE, 1 / SIZE), SKEWED])
def test_bayes_success_is_that_of_the_best_of_all_rules(prior, guesses):
    for channel in channels():
        found = bayes_success(channel, prior=prior, guesses=guesses)
        assert found == pytest.approx(brute_force(channel, prior, guesses))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 6.0])
def test_randomised_response_attains_the_bound_of_a_uniform_prior(epsilon):
    channel = RankChannel(WORDS, epsilon)
    exact = Fraction(channel.weights_row(3)[3], sum(channel.weights_row(3)))
    growth = math.exp(epsilon)
    formula = growth / (growth + SIZE - 1)
    assert bayes_success(channel) == pytest.approx(float(exact))
    assert bayes_success(channel) == pytest.approx(formula, rel=1e-5)
    uniform = np.full(SIZE, 1 / SIZE)
    assert bayes_bound(uniform, epsilon) == pytest.approx(formula)
    assert bayes_success(channel) <= bayes_bound(uniform, channel.token_epsilon) + 1e-12


def optimum(prior, epsilon, guesses):
    """The best success of any mechanism, over all columns c(1 + (e^eps-1) 1_S)."""
    size, growth = len(prior), math.exp(epsilon)
    columns = [
        np.where(np.isin(np.arange(size), chosen), growth, 1.0)
        for count in range(size + 1)
        for chosen in combinations(range(size), count)
    ]
    gains = [np.sort(prior * column)[::-1][:guesses].sum() for column in columns]
    solved = linprog(
        -np.array(gains), A_eq=np.array(columns).T, b_eq=np.ones(size), method="highs"
    )
    return -solved.fun


PRIORS = [
    [0.25] * 4,
    [0.4, 0.3, 0.2, 0.1],
    [0.97, 0.01, 0.01, 0.01],
    [0.5, 0.5, 0.0, 0.0],
    [1.0, 0.0, 0.0, 0.0],
]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0])
def test_the_bound_for_one_guess_is_the_optimum_over_all_mechanisms(prior, epsilon):
    bound = bayes_bound(np.array(prior), epsilon)
    assert bound == pytest.approx(optimum(np.array(prior), epsilon, 1), abs=1e-9)
    # The closed form: randomised response among the likeliest k values.
    sums = np.cumsum(sorted(prior, reverse=True))
    growth = math.exp(epsilon)
    closed = max(growth * sums[k - 1] / (growth + k - 1) for k in range(1, 5))
    assert bound == pytest.approx(closed, abs=1e-9)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("guesses", [2, 3])
def test_the_bound_for_several_guesses_is_never_below_the_optimum(
    prior, epsilon, guesses
):
    bound = bayes_bound(np.array(prior), epsilon, guesses=guesses)
    assert optimum(np.array(prior), epsilon, guesses) <= bound + 1e-9
    assert bound <= 1
    if prior == PRIORS[0]:
        growth = guesses * math.exp(epsilon)
        assert bound == pytest.approx(growth / (growth + 4 - guesses))


def test_the_bound_at_the_ends():
    assert bayes_bound(SKEWED, 0.0) == pytest.approx(SKEWED.max())
    assert bayes_bound(SKEWED, 0.0, guesses=2) == pytest.approx(SKEWED[-2:].sum())
    assert bayes_bound(SKEWED, math.inf) == 1
    assert bayes_bound(SKEWED, 800.0) == 1
    assert bayes_bound(SKEWED, 500.0) == pytest.approx(1)
    assert bayes_bound(SKEWED, 3.0, guesses=SIZE) == pytest.approx(1)


@pytest.mark.parametrize("guesses", [1, 2, 5])
@pytest.mark.parametrize("prior", [None, SKEWED])
def test_no_attack_passes_the_best_one_and_the_best_not_the_bound(prior, guesses):
    for channel in channels():
        report = attack_token(channel, prior=prior, similarity=NEAR, guesses=guesses)
        assert report.prior_success <= report.bayes_success + 1e-12
        assert report.inversion_success <= report.bayes_success + 1e-12
        assert report.bayes_success <= report.bayes_bound
        assert (
            report.bayes_success
            <= math.exp(report.min_capacity) * report.prior_success + 1e-12
        )
        assert report.min_capacity <= channel.token_epsilon
        assert not report.is_violated


def test_a_claim_that_is_too_small_is_found_by_the_attack():
    channel = RankChannel(WORDS, 4.0)
    channel.token_epsilon = 3.5
    assert attack_token(channel).is_violated


def test_min_capacity_is_the_largest_gain_over_a_uniform_prior():
    for channel in channels():
        expected = math.log(SIZE * bayes_success(channel))
        assert min_capacity(channel) == pytest.approx(expected)
    assert min_capacity(IdentityChannel(WORDS)) == pytest.approx(math.log(SIZE))
    assert bayes_success(IdentityChannel(WORDS)) == pytest.approx(1)


@pytest.mark.parametrize("guesses", [1, 3])
def test_inversion_is_the_share_of_releases_whose_nearest_words_hold_the_token(guesses):
    for channel in channels():
        expected = 0.0
        for token, released in product(range(SIZE), repeat=2):
            distance = [(-NEAR[released, other], other) for other in range(SIZE)]
            named = [other for _, other in sorted(distance)][:guesses]
            if token in named:
                expected += SKEWED[token] * law(channel)[token, released]
        found = inversion_success(channel, NEAR, prior=SKEWED, guesses=guesses)
        assert found == pytest.approx(expected)


def test_inversion_names_the_released_word_first_whatever_the_similarity():
    channel = RankChannel(WORDS, 2.0)
    assert inversion_success(channel, 1 - NEAR) == pytest.approx(bayes_success(channel))


class Bigrams:
    """A public model that knows the law of the prompts."""

    hash = "test"

    def __init__(self, start, following):
        self.start, self.following = start, following

    def next_probabilities(self, prefixes):
        if prefixes.shape[1] == 0:
            return np.tile(self.start, (len(prefixes), 1))
        return self.following[prefixes[:, -1]]


CYCLE = 0.9 * np.roll(np.eye(SIZE), 1, axis=1) + 0.1 / SIZE


def drawn_prompts(channel, count=4000):
    generator = np.random.default_rng(3)
    private = np.empty((count, 3), dtype=np.int64)
    private[:, 0] = generator.choice(SIZE, count, p=SKEWED)
    for slot in (1, 2):
        jump = generator.random(count) < 0.9
        anything = generator.integers(0, SIZE, count)
        private[:, slot] = np.where(jump, (private[:, slot - 1] + 1) % SIZE, anything)
    return private, channel.sample(private, TapeRandomSource(5))


def exact_share(channel, slot, *, reads_own, optimal):
    """Success at a slot, summed over all prompts and releases."""
    chances = law(channel)
    found = 0.0
    for released in product(range(SIZE), repeat=slot + 1):
        # Joint probability of each token at the slot with the releases read.
        joint = SKEWED * chances[:, released[0]] if slot or reads_own else SKEWED.copy()
        for place in range(1, slot + 1):
            joint = joint @ CYCLE
            if place < slot or reads_own:
                joint = joint * chances[:, released[place]]
        if optimal:
            named = int(np.argmax(joint))
        else:
            model = Bigrams(SKEWED, CYCLE)
            scores = model.next_probabilities(np.array([released[:slot]], dtype=int))[0]
            named = int(
                np.argmax(scores * chances[:, released[-1]] if reads_own else scores)
            )
        # What is not read is summed over once, not once for each value.
        found += joint[named] / (1 if reads_own else SIZE)
    return found


@pytest.mark.parametrize("reads_own", [False, True])
def test_context_attacks_find_what_enumeration_says(reads_own):
    channel = RankChannel(WORDS, 2.5, shape=top(2), similarity=NEAR)
    private, released = drawn_prompts(channel)
    model = Bigrams(SKEWED, CYCLE)
    if reads_own:
        found = contextual_success(model, channel, private, released, ignored=())
    else:
        found = masked_token_success(model, private, released, ignored=())
    shares = [
        exact_share(channel, n, reads_own=reads_own, optimal=False) for n in range(3)
    ]
    assert found == pytest.approx(np.mean(shares), abs=0.03)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
@pytest.mark.parametrize("reads_own", [False, True])
def test_the_best_context_attack_stays_below_the_bound_of_the_slots_it_reads(
    epsilon, reads_own
):
    channel = RankChannel(WORDS, epsilon)
    prior = SKEWED
    for slot in range(3):
        if slot:
            prior = prior @ CYCLE
        read = slot + reads_own
        best = exact_share(channel, slot, reads_own=reads_own, optimal=True)
        used = exact_share(channel, slot, reads_own=reads_own, optimal=False)
        bound = context_bound(prior, channel.token_epsilon, slots=read)
        assert used <= best + 1e-12
        assert best <= bound + 1e-12
        assert bound < 1


def test_context_bound_counts_the_slots_that_are_read():
    bounds = [context_bound(SKEWED, 0.7, slots=slots) for slots in range(4)]
    assert bounds[0] == pytest.approx(SKEWED.max())
    assert bounds == sorted(bounds)
    assert bounds[2] == pytest.approx(bayes_bound(SKEWED, 1.4))


def test_padding_is_not_counted():
    model = Bigrams(np.full(SIZE, 1 / SIZE), np.eye(SIZE))
    private = np.array([[4, 4, 0], [5, 6, 0]])
    # The model repeats the released word: right once of the two that count after it.
    assert masked_token_success(model, private, private) == 1 / 4
    everything = masked_token_success(model, private, private, guesses=SIZE)
    assert everything == 1
    assert masked_token_success(model, private * 0, private) == 0


def test_bad_arguments_are_refused():
    channel = RankChannel(WORDS, 2.0)
    model = Bigrams(SKEWED, CYCLE)
    with pytest.raises(ValueError, match="probabilities that sum to 1"):
        bayes_success(channel, prior=np.ones(SIZE))
    with pytest.raises(ValueError, match="probabilities that sum to 1"):
        bayes_bound(np.array([1.5, -0.5]), 1.0)
    with pytest.raises(ValueError, match="`guesses`"):
        bayes_success(channel, guesses=0)
    with pytest.raises(ValueError, match="`guesses`"):
        bayes_bound(SKEWED, 1.0, guesses=SIZE + 1)
    with pytest.raises(ValueError, match="`epsilon`"):
        bayes_bound(SKEWED, -1.0)
    with pytest.raises(ValueError, match="`similarity`"):
        inversion_success(channel, NEAR[:3])
    with pytest.raises(ValueError, match="equal"):
        masked_token_success(model, np.zeros((2, 3), int), np.zeros((2, 2), int))
