"""The noise of private training seen from outside: a lower bound on its mu."""

import numpy as np
import pytest

from fedcot.privacy.black_box import audit_gaussian_step
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.student.noise import ClippedSum

SIZE, NORM, TRIALS = 16, 0.3, 6000
CANARY = np.full(SIZE, 10.0)
OTHERS = np.random.default_rng(0).normal(size=(5, SIZE))


def step_of(noise: float, *, clip: float = NORM):
    """A step's released sum along the canary's direction, all records in it."""
    source = TapeRandomSource(7)
    direction = CANARY / np.linalg.norm(CANARY)

    def step(with_canary: bool, trials: int) -> np.ndarray:
        total = ClippedSum(SIZE, clip)
        for vector in [*OTHERS, CANARY] if with_canary else OTHERS:
            total.add(vector)
        # One sum, noised afresh in every trial.
        return np.array(
            [total.noised(noise, source) @ direction for _ in range(trials)]
        )

    return step


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_the_sum_that_is_released_keeps_its_mu_and_no_more(noise):
    found = audit_gaussian_step(step_of(noise), noise_multiplier=noise, trials=TRIALS)
    assert found.verdict == "holds"
    # The audit has power: it finds most of what is there.
    assert found.lower_bound >= 0.8 / noise


@pytest.mark.parametrize("wrong", [step_of(0.5), step_of(1.0 / 3, clip=3 * NORM)])
def test_half_the_noise_or_a_larger_norm_is_found(wrong):
    found = audit_gaussian_step(wrong, noise_multiplier=1.0, trials=TRIALS)
    assert found.verdict == "violated"
