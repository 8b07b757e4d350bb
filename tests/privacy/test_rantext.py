"""RANTEXT: the published law, and that its nominal epsilon is really exceeded."""

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import beta, chi2, laplace

from fedcot.errors import ConfigError
from fedcot.privacy.rantext import QUANTILES, RantextChannel, noise_divisor
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.oracle import TINY

# On a line: token 0 far from the four others, which are near to each other.
LINE = np.array([[0.0], [0.875], [0.9375], [0.96875], [1.0]])
WORDS = [first + second for first in "abcdefgh" for second in "uvwxyz"]
CLOUD = Vocabulary.of(WORDS, 4)
POINTS = np.random.default_rng(8).uniform(size=(len(CLOUD.words), 64))


def line_channel(epsilon: float = 1.0) -> RantextChannel:
    return RantextChannel(TINY, epsilon, LINE)


def exact_law(token: int, epsilon: float) -> list[float]:
    """Integrate over the radius, by the formulas of the paper and nothing of ours."""
    scale = 1.0 / epsilon
    distances = np.abs(LINE[:, 0] - LINE[token, 0])

    def joint(radius: float, output: int) -> float:
        listed = distances[distances < radius]
        closeness = (radius - listed) / radius
        if distances[output] >= radius:
            return 0.0
        chosen = math.exp(epsilon / 2 * (radius - distances[output]) / radius)
        density = 2 * laplace.pdf(radius, scale=scale)
        return float(chosen / np.exp(epsilon / 2 * closeness).sum() * density)

    edges = [0.0, *sorted(set(distances.tolist()) - {0.0}), 60.0]
    return [
        sum(
            quad(joint, low, high, args=(output,), limit=200)[0]
            for low, high in pairwise(edges)
        )
        for output in range(5)
    ]


def counts_of(channel: RantextChannel, token: int, draws: int) -> NDArray[np.int64]:
    drawn = channel.sample(np.full(draws, token), TapeRandomSource(100 + token))
    return np.bincount(drawn, minlength=channel.size)


def lower_bound(more: int, fewer: int, draws: int, *, alpha: float = 1e-3) -> float:
    """Clopper and Pearson: with 1 - alpha, the log ratio is at least this."""
    low = beta.ppf(alpha / 2, more, draws - more + 1)
    high = beta.ppf(1 - alpha / 2, fewer + 1, draws - fewer)
    return math.log(low / high)


@pytest.mark.parametrize("token", [0, 1, 4])
def test_samples_follow_the_law_of_the_paper(token: int) -> None:
    draws = 40_000
    law = np.array(exact_law(token, 1.0))
    assert law.sum() == pytest.approx(1.0, abs=1e-6)
    observed = counts_of(line_channel(), token, draws)
    statistic = ((observed - draws * law) ** 2 / (draws * law)).sum()
    assert chi2.sf(statistic, 4) > 1e-6


def test_the_nominal_epsilon_is_exceeded_by_the_exact_law() -> None:
    laws = np.array([exact_law(token, 1.0) for token in range(5)])
    worst = np.log(laws.max(axis=0) / laws.min(axis=0)).max()
    assert worst > 1.2


def test_the_nominal_epsilon_is_exceeded_by_counting() -> None:
    draws = 40_000
    far = counts_of(line_channel(), 0, draws)
    near = counts_of(line_channel(), 4, draws)
    assert lower_bound(int(near[4]), int(far[4]), draws) > 1.0


@pytest.mark.parametrize("epsilon", [3.0, 6.0])
def test_in_many_dimensions_a_release_excludes_other_inputs(epsilon: float) -> None:
    """The radius hardly varies, so some words never come out for some inputs."""
    channel = RantextChannel(CLOUD, epsilon, POINTS * np.linspace(1, 9, 50)[:, None])
    draws = 20_000
    counts = [counts_of(channel, token, draws) for token in (2, 49)]
    bound = max(
        lower_bound(int(counts[a][output]), int(counts[1 - a][output]), draws)
        for output in range(channel.size)
        for a in (0, 1)
        if counts[a][output]
    )
    assert bound > epsilon


def test_no_finite_guarantee_is_claimed() -> None:
    channel = line_channel()
    assert channel.token_epsilon == channel.prompt_epsilon == math.inf
    assert channel.guarantee == "no finite guarantee"
    assert channel.adjacency.startswith("none")
    assert channel.requested_epsilon == 1.0


def test_the_noise_divisor_is_the_one_of_the_authors_code() -> None:
    assert [noise_divisor(epsilon) for epsilon in (0.5, 1.999)] == [0.5, 1.999]
    # ln 76.258896 = 4.334134 and ln 1868.342722 = 7.532807.
    assert noise_divisor(6.0) == pytest.approx(
        9.311084 + 0.0165816 * 4.334134, abs=1e-5
    )
    assert noise_divisor(100.0) == pytest.approx(9.435992, abs=1e-5)
    assert math.isfinite(noise_divisor(2.0))


def test_from_epsilon_2_on_the_noise_is_nearly_the_same() -> None:
    three, six = (RantextChannel(CLOUD, epsilon, POINTS) for epsilon in (3.0, 6.0))
    assert three.scales == pytest.approx(six.scales, rel=0.01)
    assert three.scales == pytest.approx(np.ptp(POINTS, axis=0) / noise_divisor(3.0))


def test_radii_are_lengths_of_laplace_noise() -> None:
    """Squared Laplace noise has mean 2 b**2; on a line the median is b ln 2."""
    channel = RantextChannel(CLOUD, 1.0, POINTS)
    radii = channel.radii(4000, TapeRandomSource(4))
    mean = 2 * (channel.scales**2).sum()
    # The variance of a squared Laplace variable is 20 b**4.
    spread = math.sqrt(20 * (channel.scales**4).sum() / 4000)
    assert (radii**2).mean() == pytest.approx(mean, abs=5 * spread)
    line = line_channel(0.5).radii(4001, TapeRandomSource(5))
    assert np.median(line) == pytest.approx(2 * math.log(2), rel=0.1)


class Fixed:
    """A source whose noise is the median and whose choice is the last, or as given."""

    private = True

    def __init__(self, draw: int | None = None) -> None:
        self.draw = draw

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        last = np.asarray(bounds) - 1
        choice = last if self.draw is None else np.full_like(last, self.draw)
        return np.where(last == QUANTILES - 1, QUANTILES // 2, choice)


def test_every_draw_belongs_to_the_interval_of_its_weight() -> None:
    channel = line_channel()
    radius = channel.radii(1, Fixed())
    edge = int(channel.list_weights(np.array([3]), radius)[0, :2].sum())
    drawn = [channel.sample(np.array([3]), Fixed(draw))[0] for draw in (edge - 1, edge)]
    assert drawn == [1, 2]


def test_only_words_nearer_than_the_radius_come_out() -> None:
    """The median radius at epsilon 1 is ln 2 = 0.69: all but the far word."""
    channel = line_channel()
    assert channel.radii(1, Fixed()).tolist() == pytest.approx([math.log(2)])
    assert channel.sample(np.arange(5), Fixed()).tolist() == [0, 4, 4, 4, 4]


def test_the_weights_are_those_of_the_paper() -> None:
    weights = line_channel(3.0).list_weights(
        np.array([4, 4]), np.array([0.125, 0.0625])
    )
    # Tokens 1, 2 and 3 are at distances 4, 2 and 1 of 32 parts, the radius is 4 or 2.
    expected = np.exp(3.0 / 2 * np.array([2 / 4, 3 / 4, 1]))
    assert weights[0, 2:] / 2**20 == pytest.approx(expected, rel=1e-5)
    # A word exactly at the radius is not nearer than it.
    assert weights[0, :2].tolist() == [0, 0]
    assert weights[1, :3].tolist() == [0, 0, 0]
    exact = line_channel(3.0).list_weights(np.array([0]), np.array([1.0]))
    assert exact[0, 4] == 0 < exact[0, 3]


def test_a_large_batch_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcot.privacy.rantext.CHUNK", 60)
    drawn = line_channel().sample(np.tile(np.arange(5), (20, 1)), Fixed())
    assert (drawn == [0, 4, 4, 4, 4]).all()
    assert line_channel().sample(np.empty((0, 3), dtype=int), Fixed()).shape == (0, 3)


def test_the_hash_names_what_decides_a_release() -> None:
    channels = [
        line_channel(),
        line_channel(1.5),
        RantextChannel(TINY, 1.0, LINE * 2),
        RantextChannel(Vocabulary(TINY.words, 4), 1.0, LINE),
    ]
    hashes = [channel.hash for channel in channels]
    assert len(set(hashes)) == len(hashes)
    assert line_channel().hash == hashes[0]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1000.0])
def test_an_impossible_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match=r"`token-epsilon` must .* found"):
        line_channel(epsilon)


def test_weights_fit_in_62_bits_up_to_the_largest_epsilon() -> None:
    channel = line_channel(78.0)
    full = channel.list_weights(np.arange(5), np.full(5, 1e9))
    assert 0 < full.sum(axis=1, dtype=float).max() < 2**62
    assert (full > 0).all()


@pytest.mark.parametrize(
    "vectors", [LINE[:4], LINE[:, 0], np.ones((5, 3)), np.full((5, 1), np.nan)]
)
def test_impossible_vectors_are_refused(vectors: NDArray[np.float64]) -> None:
    with pytest.raises(ConfigError, match="`vectors` must"):
        RantextChannel(TINY, 1.0, vectors)


@pytest.mark.parametrize("ids", [[-1], [5], [0.5]])
def test_ids_outside_the_vocabulary_never_pass(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="Token ids must be integers"):
        line_channel().sample(np.array(ids), TapeRandomSource(0))
