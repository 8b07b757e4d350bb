"""Gaussian steps against closed forms and a second way to compute them."""

import math

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation

from strategies.composition import best_order, gaussian_epsilon

DELTA = 1e-6


def test_without_sampling_it_is_the_closed_form():
    # k Gaussians have Renyi divergence k a / (2 s^2); the conversion is that of
    # Canonne, Kamath and Steinke (https://arxiv.org/abs/2004.00010), proposition 12.
    for noise, steps, order in ((2.0, 1, 8.0), (5.0, 30, 12.0), (1.0, 3, 3.0)):
        divergence = steps * order / (2 * noise**2)
        expected = (
            divergence
            + math.log1p(-1 / order)
            - (math.log(DELTA) + math.log(order)) / (order - 1)
        )
        found = gaussian_epsilon({(noise, 1.0): steps}, delta=DELTA, order=order)
        assert found == pytest.approx(expected, rel=1e-9)


def test_it_is_above_the_privacy_loss_distribution_and_near_it_at_the_best_order():
    planned = {(1.5, 0.25): 40, (1.2, 0.1): 20}
    exact = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL)
    for (noise, rate), steps in planned.items():
        gaussian = dp_event.GaussianDpEvent(noise)
        exact.compose(dp_event.PoissonSampledDpEvent(rate, gaussian), steps)
    truth = exact.get_epsilon(DELTA)
    best = best_order(planned, delta=DELTA)
    at_best = gaussian_epsilon(planned, delta=DELTA, order=best)
    assert truth < at_best < 1.2 * truth
    for other in (2.0, 3.0, best + 3, 60.0):
        assert gaussian_epsilon(planned, delta=DELTA, order=other) >= at_best


def test_more_steps_less_noise_and_a_smaller_delta_cost_more():
    def epsilon(noise=2.0, rate=0.5, steps=4, delta=DELTA):
        return gaussian_epsilon({(noise, rate): steps}, delta=delta, order=8.0)

    base = epsilon()
    assert base < epsilon(steps=5)
    assert base < epsilon(noise=1.9)
    assert base < epsilon(rate=0.6)
    assert base < epsilon(delta=1e-7)


def test_nothing_costs_nothing_and_no_noise_has_no_bound():
    assert gaussian_epsilon({}, delta=DELTA, order=8.0) == 0.0
    assert gaussian_epsilon({(1.0, 0.5): 0}, delta=DELTA, order=8.0) == 0.0
    assert gaussian_epsilon({(0.0, 0.5): 1}, delta=DELTA, order=8.0) == math.inf
    assert gaussian_epsilon({(1.0, 0.5): 1}, delta=0.0, order=8.0) == math.inf
    assert best_order({}, delta=DELTA) > 1
