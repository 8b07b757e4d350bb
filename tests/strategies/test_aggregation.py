"""Weighted means against NumPy's, and every adapter that must not be averaged."""

from fractions import Fraction

import numpy as np
import pytest

from strategies.aggregation import weighted_mean


def adapters(count: int = 4) -> dict[int, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        partition: {
            "a": random.normal(size=(3, 2)).astype(np.float32),
            "b": random.normal(size=5).astype(np.float32),
        }
        for partition in range(count)
    }


def test_the_mean_is_numpys():
    given, weights = adapters(), {0: 3.0, 1: 0.0, 2: 1.0, 3: 6.0}
    mean = weighted_mean(given, weights=weights)
    for name, tensor in mean.items():
        stacked = np.stack([given[p][name] for p in range(4)]).astype(np.float64)
        expected = np.average(stacked, axis=0, weights=[weights[p] for p in range(4)])
        np.testing.assert_allclose(tensor, expected, rtol=1e-6)
        assert tensor.dtype == np.float32


def test_the_order_of_arrival_changes_no_byte():
    given, weights = adapters(7), {p: 1.0 + p / 3 for p in range(7)}
    expected = weighted_mean(given, weights=weights)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(7)
        mean = weighted_mean({int(p): given[p] for p in order}, weights=weights)
        assert all(mean[name].tobytes() == expected[name].tobytes() for name in mean)


def changed(partition: int, name: str, tensor: np.ndarray | None):
    given = adapters()
    if tensor is None:
        del given[partition][name]
    else:
        given[partition][name] = tensor
    return given


ONES = dict.fromkeys(range(4), 1.0)


@pytest.mark.parametrize(
    ("given", "weights", "reason"),
    [
        ({}, {}, "at least one adapter"),  # nobody
        (changed(2, "b", None), ONES, "Partition 2 sent other tensors"),  # missing
        (changed(1, "c", np.ones(1, np.float32)), ONES, "Partition 1 sent other"),
        # (3, 1) would broadcast against (3, 2) without a word
        (changed(3, "a", np.ones((3, 1), np.float32)), ONES, "Partition 3.*shape"),
        (changed(3, "a", np.ones((3, 2))), ONES, "Partition 3.*float64"),  # dtype
        (changed(2, "b", np.full(5, np.nan, np.float32)), ONES, "Partition 2.*NaN"),
        (changed(2, "b", np.full(5, np.inf, np.float32)), ONES, "Partition 2.*inf"),
        (adapters(), {0: 1.0, 1: 1.0, 2: 1.0}, "Partition 3 must have a weight"),
        (adapters(), {**ONES, 2: -1.0}, "Partition 2 must have a weight"),
        (adapters(), dict.fromkeys(range(4), 0.0), "must not all be 0"),
    ],
)
def test_a_bad_reply_names_its_partition(given, weights, reason):
    with pytest.raises(ValueError, match=reason):
        weighted_mean(given, weights=weights)


def test_the_mean_is_rounded_once():
    """The sum is exact but for double precision and the last step to single."""
    rng = np.random.default_rng(0)
    adapters = {
        partition: {"w": rng.normal(size=500).astype(np.float32)}
        for partition in range(3)
    }
    weights = {0: 1, 1: 3, 2: 7}
    mean = weighted_mean(adapters, weights=weights)["w"]
    exact = sum(
        Fraction(weights[p], 11)
        * np.array([Fraction(float(x)) for x in adapters[p]["w"]], dtype=object)
        for p in adapters
    )
    rounded = np.array([np.float32(float(value)) for value in exact])
    # Rounding twice moves a value that lies near the middle of two; rounding each
    # product to single precision moves a third of them.
    assert (mean != rounded).sum() <= 5
