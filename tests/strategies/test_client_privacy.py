"""The noised mean against Flower's own functions and against closed forms."""

import math

import numpy as np
import pytest
from flwr.serverapp.strategy.dp_fixed_clipping import (
    compute_clip_model_update,
    compute_stdv,
)
from scipy import optimize, stats

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.node_training import first_adapter
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
from fedcot.student.base import is_random_half
from fedcot.student.noise import SLACK
from strategies import client_privacy
from strategies.client_privacy import (
    PrivateMean,
    client_epsilon,
    configured_mean,
    starting_adapter,
)
from tests.tiny import tiny_base

NAMES = ("x.lora_A.weight", "x.lora_B.weight", "e.lora_embedding_B")
SHAPES = ((3, 40), (50, 3), (7, 3))


def adapter(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: (scale * random.normal(size=shape)).astype(np.float32)
        for name, shape in zip(NAMES, SHAPES, strict=True)
    }


def moved(start, seed: int, scale: float) -> dict[str, np.ndarray]:
    step = adapter(seed, scale)
    return {name: start[name] + step[name] for name in start}


def mean_of(noise=1e-9, clip=1.0, tape=0, **given) -> PrivateMean:
    source = TapeRandomSource(tape)
    return PrivateMean(
        noise_multiplier=noise, clipping_norm=clip, source=source, **given
    )


def norm(first, second) -> float:
    return math.sqrt(
        sum(
            float(((first[name].astype(float) - second[name]) ** 2).sum())
            for name in first
        )
    )


@pytest.mark.parametrize("clip", [0.5, 5.0, 1e3])
def test_without_noise_the_mean_is_flowers(clip):
    start = adapter(0)
    # Some updates are shorter than the norm and some longer.
    sent = {p: moved(start, p + 1, 0.2 * (p + 1)) for p in range(4)}
    ours = mean_of(clip=clip / (1 - SLACK)).of(sent, reference=start, num_sampled=4)
    theirs = []
    for partition in range(4):
        arrays = [sent[partition][name] for name in start]
        compute_clip_model_update(arrays, list(start.values()), clip)
        theirs.append(arrays)
    for index, name in enumerate(start):
        expected = np.mean([arrays[index] for arrays in theirs], axis=0)
        np.testing.assert_allclose(ours[name], expected, atol=2e-6)
        assert ours[name].dtype == np.float32


def test_the_noise_has_flowers_size_and_is_normal():
    size = 120_000
    start = {"b": np.zeros(size, dtype=np.float32)}
    noise = mean_of(noise=1.7, clip=0.3).of({}, reference=start, num_sampled=8)["b"]
    expected = compute_stdv(1.7, 0.3, 8)
    assert abs(noise.std() / expected - 1) < 0.01
    assert stats.kstest(noise / expected, "norm").pvalue > 1e-3


def test_one_client_moves_the_mean_by_at_most_its_share_of_the_norm():
    start = adapter(0)
    sent = {p: moved(start, p + 1, 3.0) for p in range(5)}
    whole = mean_of(tape=3).of(sent, reference=start, num_sampled=5)
    for partition in sent:
        zero = {**sent, partition: start}
        absent = {p: a for p, a in sent.items() if p != partition}
        for neighbour in (zero, absent):
            mean = mean_of(tape=3).of(neighbour, reference=start, num_sampled=5)
            distance = norm(whole, mean)
            assert distance <= 1 / 5 + 1e-6
            assert distance > 0.99 / 5


def test_the_divisor_is_the_number_asked_not_the_number_that_came():
    start = adapter(0)
    sent = {0: moved(start, 1, 1e-3)}
    for asked in (1, 4, 10):
        mean = mean_of().of(sent, reference=start, num_sampled=asked)
        for name in start:
            expected = start[name] + (sent[0][name] - start[name]) / asked
            np.testing.assert_allclose(mean[name], expected, atol=1e-6)


def test_every_client_counts_the_same_in_any_order():
    start = adapter(0)
    sent = {p: moved(start, p + 1, 1.0) for p in range(4)}
    first = mean_of(noise=1.0).of(sent, reference=start, num_sampled=4)
    turned = dict(reversed(list(sent.items())))
    again = mean_of(noise=1.0).of(turned, reference=start, num_sampled=4)
    swapped = {0: sent[1], 1: sent[0], 2: sent[2], 3: sent[3]}
    other = mean_of(noise=1.0).of(swapped, reference=start, num_sampled=4)
    for name in start:
        assert first[name].tobytes() == again[name].tobytes() == other[name].tobytes()


def test_tensors_that_are_not_trained_get_no_noise():
    start = adapter(0)
    sent = {0: moved(start, 1, 1.0)}
    mean = mean_of(noise=1.0, is_trained=lambda name: not is_random_half(name)).of(
        sent, reference=start, num_sampled=1
    )
    for name in start:
        assert np.array_equal(mean[name], start[name]) == is_random_half(name)
        assert mean[name] is not start[name]


def test_the_tape_repeats_and_the_system_does_not():
    start = adapter(0)

    def drawn(source):
        private = PrivateMean(noise_multiplier=1.0, clipping_norm=1.0, source=source)
        return private.of({}, reference=start, num_sampled=2)[NAMES[1]]

    assert np.array_equal(drawn(TapeRandomSource(1)), drawn(TapeRandomSource(1)))
    assert not (drawn(TapeRandomSource(1)) == drawn(TapeRandomSource(2))).any()
    assert not (drawn(SystemRandomSource()) == drawn(SystemRandomSource())).any()


def test_an_update_that_is_not_finite_counts_as_zero():
    """An error, or a mean without a number in it, would tell that it was there."""
    start = adapter(0)
    bad = {name: np.full_like(tensor, np.nan) for name, tensor in start.items()}
    given = {"reference": start, "num_sampled": 2}
    mean = mean_of().of({0: moved(start, 1, 1.0), 1: bad}, **given)
    alone = mean_of().of({0: moved(start, 1, 1.0)}, **given)
    assert all(np.array_equal(mean[name], alone[name]) for name in start)


def test_what_does_not_fit_is_refused():
    start = adapter(0)
    with pytest.raises(ValueError, match="Partition 3 sent other tensors than the ref"):
        mean_of().of({3: {"x": start[NAMES[0]]}}, reference=start, num_sampled=1)
    with pytest.raises(ValueError, match="2 adapters that came, found 1"):
        mean_of().of({0: start, 1: start}, reference=start, num_sampled=1)
    with pytest.raises(ValueError, match="at least 1"):
        mean_of().of({}, reference=start, num_sampled=0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_setting_without_a_guarantee_is_named(value):
    with pytest.raises(ConfigError, match="`server-noise-multiplier` must be > 0"):
        mean_of(noise=value)
    with pytest.raises(ConfigError, match="`server-clipping-norm` must be > 0"):
        mean_of(clip=value)


def closed_form(noise: float, releases: int, delta: float) -> float:
    """Return the exact epsilon (Balle and Wang 2018, theorem 8)."""
    mu = math.sqrt(releases) / noise

    def excess(epsilon: float) -> float:
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        log_second = stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return float(first - math.exp(epsilon + log_second) - delta)

    return float(optimize.brentq(excess, 0.0, 1e4))


@pytest.mark.parametrize("noise", [0.8, 1.0, 4.0])
@pytest.mark.parametrize("releases", [1, 2, 10])
def test_the_epsilon_of_means_is_the_closed_form(noise, releases):
    exact = closed_form(noise, releases, 1e-6)
    found = client_epsilon(noise, num_releases=releases, delta=1e-6)
    assert exact - 1e-9 <= found <= exact * 1.001 + 1e-3


def test_no_mean_costs_nothing_and_no_noise_costs_everything():
    assert client_epsilon(1.0, num_releases=0, delta=1e-6) == 0.0
    assert client_epsilon(0.0, num_releases=1, delta=1e-6) == math.inf
    for noise, releases, delta in ((-1.0, 1, 0.1), (1.0, -1, 0.1), (1.0, 1, 0.0)):
        with pytest.raises(ConfigError):
            client_epsilon(noise, num_releases=releases, delta=delta)


def test_the_lines_name_unit_neighbours_and_who_is_kept_out():
    private = PrivateMean(
        noise_multiplier=2.0, clipping_norm=1.0, source=SystemRandomSource()
    )
    text = "\n".join(private.lines(num_releases=3, delta=1e-5))
    stated = float(text.split("client epsilon")[1].split("nats")[0])
    assert 0 <= stated - client_epsilon(2.0, num_releases=3, delta=1e-5) < 1e-3
    assert "delta 1e-05" in text
    assert "one client" in text
    assert "zero-out" in text
    assert "not the server" in text
    seeded = "\n".join(mean_of(noise=2.0).lines(num_releases=3, delta=1e-5))
    assert "seeded" in seeded
    assert "nats" not in seeded


def run_config(**changes) -> RunConfig:
    given = {"aggregation": "fedavg", "server_noise_multiplier": 2.0}
    return RunConfig(token_epsilon=8.0, **{**given, **changes})


def test_the_settings_of_a_run_make_the_mean():
    off = run_config(server_noise_multiplier=0.0)
    assert configured_mean(off, arm="fedcot", server_round=1) is None
    config = run_config(server_clipping_norm=0.5, test_tape=True, freeze_lora_a=True)
    start = adapter(0)
    means = {}
    for place in (("fedcot", 1), ("fedcot", 2), ("random-bank", 1)):
        arm, server_round = place
        private = configured_mean(config, arm=arm, server_round=server_round)
        assert (private.noise_multiplier, private.clipping_norm) == (2.0, 0.5)
        means[place] = private.of({}, reference=start, num_sampled=1)
        for name in start:
            same = np.array_equal(means[place][name], start[name])
            assert same == is_random_half(name)
    # The same noise twice would cancel out.
    drawn = [mean[NAMES[1]] for mean in means.values()]
    assert not any((drawn[i] == drawn[i - 1]).any() for i in range(3))
    system = configured_mean(run_config(), arm="fedcot", server_round=1)
    assert "nats" in system.lines(num_releases=1, delta=1e-6)[0]


def test_updates_are_told_from_what_the_clients_start_from(monkeypatch):
    base = tiny_base()
    monkeypatch.setattr(client_privacy, "student_base", lambda config: base)
    config = run_config(lora_r=4)
    start, theirs = starting_adapter(config), first_adapter(base, config)
    assert start.keys() == theirs.keys()
    assert all(np.array_equal(start[name], theirs[name].numpy()) for name in start)
    assert all(start[name].any() == is_random_half(name) for name in start)
