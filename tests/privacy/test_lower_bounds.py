"""Lower bounds against closed forms, a second implementation and known mechanisms."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from fedcot.privacy.lower_bounds import (
    clopper_pearson,
    epsilon_lower_bound,
    mu_lower_bound,
    one_run_epsilon,
)


@pytest.mark.parametrize("trials", [1, 10, 997])
@pytest.mark.parametrize("confidence", [0.9, 0.975, 0.9995])
def test_clopper_pearson_agrees_with_the_exact_binomial_interval(trials, confidence):
    counts = np.unique([0, 1, trials // 3, trials - 1, trials])
    lower, upper = clopper_pearson(counts, trials, confidence=confidence)
    two_sided = 1 - 2 * (1 - confidence)
    for place, count in enumerate(counts):
        oracle = binomtest(int(count), trials).proportion_ci(two_sided)
        assert lower[place] == pytest.approx(oracle.low, abs=1e-9)
        assert upper[place] == pytest.approx(oracle.high, abs=1e-9)


def test_clopper_pearson_without_a_success_has_its_closed_form():
    lower, upper = clopper_pearson(0, 1000, confidence=0.95)
    assert lower == 0
    assert upper == pytest.approx(1 - 0.05 ** (1 / 1000))


@pytest.mark.parametrize("share", [0.001, 0.2, 0.97])
def test_clopper_pearson_covers_the_truth_as_often_as_it_says(share):
    """Exact: the probability of all counts whose bound misses the truth."""
    counts = np.arange(201)
    lower, upper = clopper_pearson(counts, 200, confidence=0.95)
    weight = binom.pmf(counts, 200, share)
    assert weight[lower > share].sum() <= 0.05
    assert weight[upper < share].sum() <= 0.05


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="Successes must lie"):
        clopper_pearson(successes, trials, confidence=0.95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_an_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="`confidence`"):
        clopper_pearson(1, 2, confidence=confidence)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_randomised_response_gives_back_its_own_epsilon(epsilon, delta):
    """With probability delta the bit is shown, else told truly with e^eps odds."""
    error = (1 - delta) / (1 + math.exp(epsilon))
    assert epsilon_lower_bound(error, error, delta=delta) == pytest.approx(epsilon)


def test_either_error_alone_can_prove_the_epsilon():
    """An output that only one input gives often: one direction reaches epsilon."""
    rare = 0.001
    assert epsilon_lower_bound(rare, 1 - rare * math.e**3) == pytest.approx(3)
    assert epsilon_lower_bound(1 - rare * math.e**3, rare) == pytest.approx(3)


def test_guessing_proves_nothing_and_certainty_everything():
    assert epsilon_lower_bound(0.3, 0.7) == pytest.approx(0.0, abs=1e-12)
    assert epsilon_lower_bound(0.9, 0.9) == 0
    assert epsilon_lower_bound(0.0, 0.5) == math.inf
    assert mu_lower_bound(0.3, 0.7) == pytest.approx(0.0, abs=1e-12)
    assert mu_lower_bound(1.0, 1.0) == 0
    assert mu_lower_bound(0.0, 0.5) == math.inf


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("threshold", [-0.3, 0.2, 1.0])
def test_a_gaussian_gives_back_one_over_sigma_at_every_threshold(sigma, threshold):
    positive = norm.sf(threshold / sigma)
    negative = norm.cdf((threshold - 1) / sigma)
    assert mu_lower_bound(positive, negative) == pytest.approx(1 / sigma)


def test_bounds_take_arrays():
    rates = np.array([0.1, 0.2, 1.0])
    epsilons = epsilon_lower_bound(rates, rates[::-1].copy())
    mus = mu_lower_bound(rates, rates)
    assert epsilons.shape == mus.shape == (3,)
    assert mus[0] == pytest.approx(2 * norm.ppf(0.9))


def test_one_run_gives_the_published_reference_value():
    found = one_run_epsilon(
        canaries=1000, guesses=100, correct=75, delta=1e-4, confidence=0.95
    )
    assert found == pytest.approx(0.673, abs=5e-4)


def test_one_run_without_delta_is_the_quantile_of_the_binomial():
    """At the bound, 90 or more of 100 right guesses have probability 5 %."""
    found = one_run_epsilon(
        canaries=100, guesses=100, correct=90, delta=0.0, confidence=0.95
    )
    share = 1 / (1 + math.exp(-found))
    assert binom.sf(89, 100, share) == pytest.approx(0.05, abs=1e-9)
    share_bound, _ = clopper_pearson(90, 100, confidence=0.95)
    assert share == pytest.approx(float(share_bound))


def test_one_run_counts_delta_against_every_canary():
    def found(**changed):
        given = {"canaries": 1000, "guesses": 100, "correct": 75, "delta": 1e-4}
        return one_run_epsilon(**{**given, **changed}, confidence=0.95)

    assert found(delta=0.0) > found() > found(canaries=2000) > found(delta=1e-3)
    assert found(delta=2e-4) == pytest.approx(found(canaries=2000))
    assert found(correct=50) == 0
    assert found(correct=0) == 0
    assert found(correct=80) > found()


@pytest.mark.parametrize(
    "changed", [{"correct": 6}, {"guesses": 11}, {"guesses": 0}, {"delta": 1.0}]
)
def test_one_run_refuses_impossible_numbers(changed):
    given = {"canaries": 10, "guesses": 5, "correct": 3, "delta": 0.0, **changed}
    with pytest.raises(ValueError, match="Needs 0 <= correct"):
        one_run_epsilon(**given, confidence=0.95)
