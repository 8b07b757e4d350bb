"""Audits that must find what is wrong, and must not find what is right."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from fedcot.privacy.audit import (
    HOLDS,
    NO_CLAIM,
    VIOLATED,
    enumerate_channel,
    is_token_channel,
    row_blocks,
    verdict_of,
)
from fedcot.privacy.black_box import (
    audit_draws,
    audit_gaussian_step,
    audit_step_epsilon,
    code_bound,
    farthest_tokens,
    sampler_p_value,
    score_bound,
)
from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.exponential import calibrated_exponential
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.lower_bounds import mu_lower_bound
from fedcot.privacy.rank import RankChannel, ramp, top
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import keeps, nats_of, token_law, worst_ratio

SIZE = 40
LETTERS = "abcdefghijklmnopqrs"
WORDS = Vocabulary.of([f"{a}{b}" for a in LETTERS[:2] for b in LETTERS], 3)
NEAR = 1 / (1 + np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE))))
EXPONENTIAL = calibrated_exponential(WORDS, 3.0, NEAR)
STAIRCASE = RankChannel(WORDS, 4.0, shape=top(3), similarity=NEAR)


@dataclass
class TableChannel(TokenClaims):
    """A channel of any integer weights with any claim; it draws as they say."""

    table: np.ndarray
    token_epsilon: float
    name = "table"
    guarantee = "test"
    hash = "0" * 64
    slots = 2

    @property
    def requested_epsilon(self):
        return self.token_epsilon

    @property
    def size(self):
        return len(self.table)

    def weights_row(self, token):
        return self.table[token].tolist()

    def sample(self, ids, source):
        cumulative = self.table.cumsum(axis=1)[ids]
        draws = source.below(cumulative[..., -1])
        return (draws[..., None] >= cumulative).sum(axis=-1)


def rows(channel):
    return [token_law(channel.weights_row(token)) for token in range(channel.size)]


@pytest.mark.parametrize("channel", [EXPONENTIAL, STAIRCASE], ids=lambda c: c.name)
def test_the_enumerated_epsilon_is_that_of_the_rows(channel):
    report = enumerate_channel(channel)
    assert report.epsilon == pytest.approx(nats_of(worst_ratio(rows(channel))))
    assert keeps(worst_ratio(rows(channel)), report.epsilon)
    assert report.verdict == HOLDS
    assert report.full_support
    assert report.equal_totals == (channel is STAIRCASE)
    assert "one token" in report.unit
    assert report.adjacency == channel.adjacency


def test_weights_that_come_row_by_row_give_the_same():
    table = np.array([STAIRCASE.weights_row(token) for token in range(SIZE)])
    channel = TableChannel(table, STAIRCASE.token_epsilon)
    assert enumerate_channel(channel) == enumerate_channel(STAIRCASE)
    blocks = list(row_blocks(channel, rows=7))
    assert [start for start, _ in blocks] == list(range(0, SIZE, 7))
    assert (np.concatenate([weights for _, weights in blocks]) == table).all()


def test_a_claim_that_is_too_small_by_a_hair_is_violated():
    weights = np.array([[3, 1], [1, 3]])
    assert enumerate_channel(TableChannel(weights, math.log(3) + 1e-9)).verdict == HOLDS
    report = enumerate_channel(TableChannel(weights, math.log(3) - 1e-9))
    assert report.verdict == VIOLATED
    assert report.epsilon == pytest.approx(math.log(3))


def test_an_output_that_excludes_an_input_is_infinite():
    report = enumerate_channel(
        TableChannel(np.array([[3, 1, 0], [1, 3, 2], [1, 1, 1]]), 9.0)
    )
    assert report.epsilon == math.inf
    assert report.verdict == VIOLATED
    assert not report.full_support
    assert enumerate_channel(IdentityChannel(WORDS)).verdict == NO_CLAIM


def test_only_what_claims_for_tokens_has_token_weights():
    assert is_token_channel(STAIRCASE)

    class Whole:
        def __getattr__(self, name):
            return getattr(STAIRCASE, name)

    assert not is_token_channel(Whole())


def test_verdicts():
    assert verdict_of(1.0, 1.0) == HOLDS
    assert verdict_of(1.0 + 1e-12, 1.0) == VIOLATED
    assert verdict_of(math.inf, math.inf) == NO_CLAIM


@pytest.mark.parametrize(
    "channel",
    [
        EXPONENTIAL,
        STAIRCASE,
        RankChannel(WORDS, 6.0),
        RankChannel(WORDS, 2.0, shape=ramp(5)),
    ],
)
def test_the_farthest_tokens_reach_the_epsilon_and_no_pair_reaches_it_oftener(channel):
    first, second = farthest_tokens(channel)
    laws = rows(channel)
    reached = [one / laws[second][out] for out, one in laws[first].items()]
    assert nats_of(max(reached)) == pytest.approx(channel.token_epsilon)

    def mass(other):
        return sum(
            share
            for output, share in laws[first].items()
            if share / laws[other][output] > max(reached) * (1 - Fraction(1, 10**9))
        )

    assert mass(second) == max(mass(other) for other in range(channel.size))


@pytest.mark.parametrize("seed", range(3))
def test_draws_prove_most_of_a_staircase_and_never_more(seed):
    """The power check: 85 % of epsilon 4 from 200 000 draws."""
    first, second = farthest_tokens(STAIRCASE)
    report = audit_draws(
        STAIRCASE,
        np.array(second),
        np.array(first),
        claimed=STAIRCASE.token_epsilon,
        unit="nats, one token",
        draws=200_000,
        source=TapeRandomSource(seed),
    )
    assert 0.85 * 4 <= report.lower_bound <= STAIRCASE.token_epsilon
    assert report.verdict == HOLDS
    assert not report.is_violated


def test_draws_find_an_exponent_that_is_too_large():
    """Claims 4, has the weights of 4.8."""
    mutant = RankChannel(WORDS, 4.8, shape=top(3), similarity=NEAR)
    first, second = farthest_tokens(mutant)
    report = audit_draws(
        mutant,
        np.array(first),
        np.array(second),
        claimed=4.0,
        unit="nats",
        draws=200_000,
        source=TapeRandomSource(0),
    )
    assert report.is_violated
    assert report.lower_bound <= mutant.token_epsilon


def test_draws_of_equal_inputs_prove_nothing():
    found = [
        audit_draws(
            STAIRCASE,
            np.array(3),
            np.array(3),
            claimed=0.0,
            unit="nats",
            draws=5000,
            source=TapeRandomSource(seed),
            confidence=0.9,
        ).is_violated
        for seed in range(40)
    ]
    # At confidence 0.9 at most one audit in ten may accuse a channel that is right.
    assert sum(found) <= 8


def test_whole_prompts_are_told_apart_by_what_the_auditor_looks_at():
    prompts = np.array([2, 3, 4]), np.array([20, 21, 22])
    given = {
        "claimed": 3 * STAIRCASE.token_epsilon,
        "unit": "nats",
        "draws": 20_000,
    }
    everything = audit_draws(STAIRCASE, *prompts, **given, source=TapeRandomSource(1))
    near = audit_draws(
        STAIRCASE,
        *prompts,
        **given,
        source=TapeRandomSource(1),
        observe=lambda released: (released >= 12).sum(axis=1),
    )
    assert near.lower_bound > 1
    assert everything.lower_bound < near.claimed
    assert near.verdict == everything.verdict == HOLDS


def test_codes_prove_from_either_side():
    """An output that only `left` gives, and one that only `right` gives."""
    often, rare = np.arange(4000) % 2, np.zeros(4000, dtype=int)
    for left, right in ((often, rare), (rare, often)):
        assert code_bound(left, right, confidence=0.99) > 4


def test_the_half_that_chooses_is_not_the_half_that_tests():
    """Many outputs, no difference: the best of them looks different by chance."""
    generator = np.random.default_rng(0)
    bounds = [
        code_bound(
            generator.integers(0, 3000, 3000),
            generator.integers(0, 3000, 3000),
            confidence=0.9,
        )
        for _ in range(20)
    ]
    assert sum(bound > 0 for bound in bounds) <= 5


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        score_bound(np.zeros(3), np.zeros(9), mu_lower_bound, 0.9)


@pytest.mark.parametrize("channel", [EXPONENTIAL, STAIRCASE], ids=lambda c: c.name)
def test_a_sampler_that_follows_its_weights_passes(channel):
    for token in (0, 7):
        assert (
            sampler_p_value(
                channel, token, draws=60_000, source=TapeRandomSource(token)
            )
            > 1e-6
        )
    values = [
        sampler_p_value(channel, 5, draws=2000, source=TapeRandomSource(seed))
        for seed in range(150)
    ]
    # Uniform under the hypothesis: neither too small nor too good to be true.
    assert 0.4 < np.mean(values) < 0.6
    assert 0.02 <= np.mean(np.array(values) < 0.1) <= 0.2


def test_a_sampler_that_draws_otherwise_fails():
    class Biased(RankChannel):
        def sample(self, ids, source):
            drawn = super().sample(ids, source)
            return np.where(source.below(np.full(ids.shape, 50)) == 0, ids, drawn)

    mutant = Biased(WORDS, 2.0)
    assert sampler_p_value(mutant, 3, draws=60_000, source=TapeRandomSource(0)) < 1e-9


def test_a_sampler_that_draws_the_impossible_fails():
    channel = IdentityChannel(WORDS)
    assert sampler_p_value(channel, 3, draws=100, source=TapeRandomSource(0)) == 1
    channel.sample = lambda ids, source: np.where(np.arange(len(ids)) == 7, 4, ids)
    assert sampler_p_value(channel, 3, draws=100, source=TapeRandomSource(0)) == 0


# One step of DP-SGD on a toy: gradients of norm 1, clipping norm 1, noise sigma.
SIGMA = 1.0


def toy_step(generator, *, sigma=SIGMA, rate=1.0, steps=1, always_in=False):
    def step(with_canary, trials):
        others = 3.0
        statistic = np.zeros(trials)
        for _ in range(steps):
            is_in = generator.random(trials) < (1.0 if always_in else rate)
            update = (
                others + with_canary * is_in + sigma * generator.normal(size=trials)
            )
            statistic += update - others
        return statistic

    return step


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_a_correct_step_reaches_most_of_its_mu_and_not_more(sigma):
    step = toy_step(np.random.default_rng(1), sigma=sigma)
    report = audit_gaussian_step(step, noise_multiplier=sigma, trials=50_000)
    assert 0.85 / sigma <= report.lower_bound <= 1 / sigma == report.claimed
    assert report.verdict == HOLDS


def test_half_the_noise_is_found():
    step = toy_step(np.random.default_rng(1), sigma=SIGMA / 2)
    report = audit_gaussian_step(step, noise_multiplier=SIGMA, trials=5000)
    assert report.is_violated
    assert report.lower_bound > 1.5


def test_a_gradient_that_is_not_clipped_is_found():
    step = toy_step(np.random.default_rng(2))
    report = audit_gaussian_step(
        lambda with_canary, trials: step(with_canary, trials) + 1.0 * with_canary,
        noise_multiplier=SIGMA,
        trials=5000,
    )
    assert report.is_violated


def subsampled_epsilon(delta, *, rate, steps):
    from dp_accounting.pld import privacy_loss_distribution as pld

    one = pld.from_gaussian_mechanism(SIGMA, sampling_prob=rate)
    return one.self_compose(steps).get_epsilon_for_delta(delta)


def test_batches_that_always_hold_the_canary_are_found():
    """Poisson accounting with batches that are not sampled at all."""
    generator = np.random.default_rng(4)
    claim = {
        "claimed_epsilon": subsampled_epsilon(1e-5, rate=0.05, steps=40),
        "delta": 1e-5,
    }
    honest = toy_step(generator, rate=0.05, steps=40)
    report = audit_step_epsilon(honest, **claim, trials=20_000)
    assert report.verdict == HOLDS
    assert "delta 1e-05" in report.unit
    mutant = toy_step(generator, rate=0.05, steps=40, always_in=True)
    assert audit_step_epsilon(mutant, **claim, trials=20_000).is_violated


def test_delta_is_taken_off_the_proof():
    step = toy_step(np.random.default_rng(5), sigma=0.5)
    bounds = [
        audit_step_epsilon(
            step, claimed_epsilon=9.0, delta=delta, trials=20_000
        ).lower_bound
        for delta in (0.0, 0.1)
    ]
    assert bounds[1] < bounds[0]
    # The exact epsilon at delta 0.1 of one Gaussian with mu 2.
    mu, epsilon = 2.0, bounds[1]
    exact = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(
        -mu / 2 - epsilon / mu
    )
    assert exact >= 0.1


def test_a_step_without_noise_cannot_be_claimed():
    with pytest.raises(ValueError, match="`noise_multiplier`"):
        audit_gaussian_step(
            toy_step(np.random.default_rng(0)), noise_multiplier=0.0, trials=9
        )
