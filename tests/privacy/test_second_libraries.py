"""Our numbers beside those of libraries that have nothing in common with our code."""

import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import (
    from_gaussian_mechanism,
    from_two_probability_mass_functions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.channels import build_channel
from fedcot.privacy.composition import compose_record, epsilon_at_delta
from fedcot.privacy.composition import training_epsilon as training_at
from fedcot.privacy.exponential import ExponentialChannel
from fedcot.privacy.filters import PureFilter
from fedcot.privacy.loss_distributions import DpTraining, from_pure
from fedcot.privacy.rank import RankChannel, top
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary

DELTA = 1e-6
DRAWS = 3000
# A false alarm in a million runs: our tape is fixed, their draws are not.
ALARM = 1e-6
TRAININGS = [(1.0, 0.05, 200), (0.8, 0.1, 100), (2.0, 0.02, 1000), (1.5, 0.5, 20)]


def trained(noise: float, rate: float, steps: int) -> DpTraining:
    return DpTraining(noise_multiplier=noise, phases=((rate, steps),))


@pytest.mark.parametrize(("noise", "rate", "steps"), TRAININGS)
def test_dp_sgd_beside_opacus_and_prv_accountant(
    noise: float, rate: float, steps: int
) -> None:
    """The moments bound lies above; both numerical accountants lie beside."""
    opacus = pytest.importorskip("opacus.accountants")
    prv = pytest.importorskip("prv_accountant")
    ours = training_at(trained(noise, rate, steps), delta=DELTA)
    moments = opacus.RDPAccountant()
    moments.history = [(noise, rate, steps)]
    assert ours <= moments.get_epsilon(delta=DELTA)
    theirs = opacus.create_accountant("prv")
    theirs.history = [(noise, rate, steps)]
    assert ours == pytest.approx(theirs.get_epsilon(delta=DELTA), abs=0.02)
    law = prv.PoissonSubsampledGaussianMechanism(
        sampling_probability=rate, noise_multiplier=noise
    )
    accountant = prv.PRVAccountant(
        prvs=[law], max_self_compositions=[steps], eps_error=0.05, delta_error=1e-9
    )
    lower, _, upper = accountant.compute_epsilon(
        delta=DELTA, num_self_compositions=[steps]
    )
    assert lower <= ours <= upper


@pytest.mark.parametrize(("noise", "rate", "steps"), TRAININGS)
def test_dp_sgd_is_never_below_the_optimistic_estimate(
    noise: float, rate: float, steps: int
) -> None:
    least = from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        pessimistic_estimate=False,
        use_connect_dots=False,
        value_discretization_interval=1e-4,
    ).self_compose(steps)
    found = training_at(trained(noise, rate, steps), delta=DELTA)
    low = least.get_epsilon_for_delta(DELTA)
    # Rounding down costs the estimate up to an interval a step.
    assert low <= found <= low + steps * 1e-4


def test_training_too_long_to_convolve_has_the_bound_by_moments() -> None:
    noise, rate, steps = 0.5, 0.5, 1000
    training = trained(noise, rate, steps)
    found = training_at(training, delta=DELTA)
    # Mironov, Talwar and Zhang 2019 at order 2.
    divergence = math.log1p(rate**2 * math.expm1(1 / noise**2))
    bound = steps * divergence + math.log(0.5) - math.log(2 * DELTA)
    assert 200 < found == pytest.approx(bound, rel=1e-9)
    beside = compose_record(ranked(1.0, 4), dp=training, delta=DELTA)
    assert beside.record_epsilon == pytest.approx(found + 4.0, abs=1e-3)


def test_one_full_batch_is_the_gaussian_mechanism() -> None:
    """Balle and Wang 2018: delta(a) = N(1/2s - as) - e^a N(-1/2s - as)."""
    noise = 2.0
    found = training_at(trained(noise, 1.0, 1), delta=DELTA)
    below, above = 0.5 / noise - found * noise, -0.5 / noise - found * noise
    exact = stats.norm.cdf(below) - math.exp(found) * stats.norm.cdf(above)
    assert 0.99 * DELTA < exact <= DELTA


def optimal_composition(epsilon: float, times: int, order: float) -> float:
    """Kairouz, Oh and Viswanath 2015, theorem 3.3 with no delta of its own."""
    scale = (1 + math.exp(epsilon)) ** -times
    return sum(
        math.comb(times, less)
        * max(
            0.0,
            scale * math.exp((times - less) * epsilon)
            - scale * math.exp(order + less * epsilon),
        )
        for less in range(times + 1)
    )


@pytest.mark.parametrize(("epsilon", "times"), [(0.5, 30), (1.0, 30), (3.0, 12)])
def test_pure_mechanisms_compose_to_the_optimal_closed_form(
    epsilon: float, times: int
) -> None:
    composed = from_pure(epsilon, 5e-3).self_compose(times)
    for share in (0.1, 0.4, 0.8):
        order = share * times * epsilon
        exact = optimal_composition(epsilon, times, order)
        found = composed.get_delta_for_epsilon(order)
        assert exact * (1 - 1e-9) - 1e-14 <= found <= exact * 1.01 + 1e-14


def test_published_epsilons_of_optimal_composition() -> None:
    """Thirty times 0.5 nats are 13.95 nats, thirty times 1 are 29.99."""
    for epsilon, published in ((0.5, 13.95), (1.0, 29.99)):
        composed = from_pure(epsilon, 5e-3).self_compose(30)
        assert composed.get_epsilon_for_delta(DELTA) == pytest.approx(
            published, abs=0.01
        )


@pytest.mark.parametrize("epsilon", [0.7, 2.0])
def test_channels_are_never_below_the_optimistic_estimate_of_a_real_pair(
    epsilon: float,
) -> None:
    vocabulary = Vocabulary.of(["w" * (index + 1) for index in range(30)], 12)
    similarity = np.random.default_rng(1).random((32, 32))
    for mechanism in ("rank", "exponential"):
        channel = build_channel(mechanism, vocabulary, epsilon, similarity=similarity)
        bound = epsilon_at_delta(channel, delta=DELTA)
        for one, other in ((2, 7), (3, 30)):
            rows = [np.array(channel.weights_row(token)) for token in (one, other)]  # type: ignore[attr-defined]
            first, second = (
                dict(enumerate(np.log(row / row.sum()).tolist())) for row in rows
            )
            least = from_two_probability_mass_functions(
                second, first, pessimistic_estimate=False
            ).self_compose(vocabulary.length)
            assert least.get_epsilon_for_delta(DELTA) <= bound


def ranked(epsilon: float, length: int) -> RankChannel:
    vocabulary = Vocabulary.of(["w" * (index + 1) for index in range(198)], length)
    return RankChannel(vocabulary, epsilon, shape=top(4), similarity=np.eye(200))


def test_more_slots_epsilon_or_noise_only_move_epsilon_one_way() -> None:
    by_slots = [epsilon_at_delta(ranked(1.5, n), delta=DELTA) for n in (1, 5, 20, 60)]
    assert by_slots == sorted(by_slots)
    by_epsilon = [
        epsilon_at_delta(ranked(epsilon, 20), delta=DELTA)
        for epsilon in (0.2, 0.5, 1.0, 2.0, 4.0)
    ]
    assert by_epsilon == sorted(by_epsilon)
    channel = ranked(1.5, 20)
    by_noise = [
        compose_record(channel, dp=trained(noise, 0.1, 50), delta=DELTA).record_epsilon
        for noise in (0.7, 1.0, 1.5, 3.0)
    ]
    assert by_noise == sorted(by_noise, reverse=True)
    by_delta = [epsilon_at_delta(channel, delta=10.0**-power) for power in range(2, 12)]
    assert by_delta == sorted(by_delta)
    assert epsilon_at_delta(channel, delta=1e-14) == channel.prompt_epsilon


def test_the_order_of_phases_does_not_matter() -> None:
    phases = ((0.1, 20), (0.05, 40), (0.3, 5))
    found = [
        training_at(DpTraining(noise_multiplier=1.1, phases=order), delta=DELTA)
        for order in (phases, phases[::-1], (phases[1], phases[0], phases[2]))
    ]
    assert max(found) - min(found) < 1e-6


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.floats(min_value=0.1, max_value=2.0), min_size=1, max_size=12),
    st.floats(min_value=0.5, max_value=6.0),
)
def test_the_pure_filter_stops_where_opendp_stops(
    asked: list[float], total: float
) -> None:
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    space = dp.atom_domain(T=int), dp.absolute_distance(T=int)
    odometer = dp.c.make_fully_adaptive_composition(*space, dp.max_divergence())
    queryable = dp.c.make_privacy_filter(odometer, d_in=1, d_out=total)(0)
    keeper = PureFilter(total)
    for epsilon in asked:
        laplace = dp.m.make_laplace(*space, scale=1 / epsilon)
        cost = laplace.map(1)
        if abs(keeper.remaining - cost) < 1e-6:
            # Both round up; which comes first at the very edge says nothing.
            return
        if keeper.would_exceed(cost):
            with pytest.raises(dp.OpenDPException):
                queryable(laplace)
            with pytest.raises(PrivacyBudgetExhausted):
                keeper.spend(cost)
            # Theirs answers nothing after its first refusal.
            return
        queryable(laplace)
        keeper.spend(cost)


def same_law(ours: list[int], theirs: list[int], outputs: int) -> float:
    """The p-value of a chi-square test that both were drawn from one law."""
    table = np.array(
        [np.bincount(drawn, minlength=outputs) for drawn in (ours, theirs)]
    )
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)


def drawn(channel: RankChannel | ExponentialChannel, token: int) -> list[int]:
    ids = np.full((DRAWS, channel.slots), token, dtype=np.int64)
    released: list[int] = channel.sample(ids, TapeRandomSource(11))[:, 0].tolist()
    return released


def test_rank_draws_like_opendp_randomised_response() -> None:
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    channel = RankChannel(Vocabulary.of(["fox", "hen", "owl"], 1), 1.5)
    row = channel.weights_row(3)
    keep = row[3] / sum(row)
    theirs = dp.m.make_randomized_response(list(range(5)), keep)
    assert theirs.map(1) == pytest.approx(channel.token_epsilon, abs=1e-6)
    answers = [theirs(3) for _ in range(DRAWS)]
    assert same_law(drawn(channel, 3), answers, 5) > ALARM
    biased = dp.m.make_randomized_response(list(range(5)), keep - 0.2)
    assert same_law(drawn(channel, 3), [biased(3) for _ in range(DRAWS)], 5) < ALARM


def test_the_exponential_mechanism_draws_like_opendp_noisy_max() -> None:
    """Noisy max with Gumbel noise is the exponential mechanism: weights e^(score)."""
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    similarity = np.random.default_rng(2).random((6, 6))
    np.fill_diagonal(similarity, 1.0)
    vocabulary = Vocabulary.of(["fox", "hen", "owl", "pig"], 1)
    channel = build_channel("exponential", vocabulary, 2.0, similarity=similarity)
    assert isinstance(channel, ExponentialChannel)
    scores = np.log(np.array(channel.weights_row(2), dtype=float))
    space = (
        dp.vector_domain(dp.atom_domain(T=float, nan=False)),
        dp.linf_distance(T=float, monotonic=False),
    )

    def answers(scale: float) -> list[int]:
        divergence = dp.zero_concentrated_divergence()
        mechanism = dp.m.make_noisy_max(*space, divergence, scale)
        return [mechanism(scores.tolist()) for _ in range(DRAWS)]

    assert same_law(drawn(channel, 2), answers(1.0), 6) > ALARM
    assert same_law(drawn(channel, 2), answers(0.4), 6) < ALARM
