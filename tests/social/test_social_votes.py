"""Private votes: exact laws on the path that draws, enumerated epsilon, mutants."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from fedcot.errors import ConfigError
from fedcot.privacy.choices import ChoiceTree
from fedcot.privacy.sampler import (
    SEEDED_GUARANTEE,
    RandomSource,
    SystemRandomSource,
    TapeRandomSource,
)
from fedcot.social import votes
from fedcot.social.vote_weights import (
    BITS,
    calibrated_weights,
    enumerated_epsilon,
    rate_weights,
)
from fedcot.social.votes import (
    GUARANTEE,
    VoteMechanism,
    composed_claims,
    noisy_winner,
    vote_epsilon,
)
from tests.privacy.oracle import keeps, nats_of

Tally = tuple[int, ...]
Law = dict[int, Fraction]


def tallies(num_candidates: int, num_teachers: int) -> list[Tally]:
    """Every tally of at most so many votes."""
    counts = product(range(num_teachers + 1), repeat=num_candidates)
    return [tally for tally in counts if sum(tally) <= num_teachers]


def neighbours(tally: Tally, *, removal_only: bool = False) -> Iterator[Tally]:
    """One vote moved to another candidate, or left out."""
    for left, count in enumerate(tally):
        if not count:
            continue
        fewer = [c - (place == left) for place, c in enumerate(tally)]
        yield tuple(fewer)
        if not removal_only:
            for reached in range(len(tally)):
                yield tuple(c + (place == reached) for place, c in enumerate(fewer))


def law_of(weights: Sequence[int]) -> Law:
    return {place: Fraction(w, sum(weights)) for place, w in enumerate(weights)}


def worst(laws: dict[Tally, Law], *, removal_only: bool = False) -> Fraction:
    """The largest ratio of one winner's probabilities over all neighbours."""
    found = Fraction(1)
    for tally, law in laws.items():
        for other in neighbours(tally, removal_only=removal_only):
            for winner in law:
                ratio = law[winner] / laws[other][winner]
                found = max(found, ratio, 1 / ratio)
    return found


def laws_by_table(weights: Sequence[int], num_candidates: int) -> dict[Tally, Law]:
    return {
        tally: law_of([weights[count] for count in tally])
        for tally in tallies(num_candidates, len(weights) - 1)
    }


SIZES = [(2, 1), (2, 4), (3, 3), (4, 3), (5, 2), (2, 8)]


@pytest.mark.parametrize(("num_candidates", "num_teachers"), SIZES)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_the_epsilon_is_the_largest_ratio_over_all_tallies(
    num_candidates: int, num_teachers: int, epsilon: float
) -> None:
    mechanism = VoteMechanism(
        epsilon, num_candidates=num_candidates, num_teachers=num_teachers
    )
    laws = {
        tally: law_of(mechanism.weights_of(tally))
        for tally in tallies(num_candidates, num_teachers)
    }
    ratio = worst(laws)
    assert keeps(ratio, epsilon)
    assert keeps(ratio, mechanism.epsilon)
    assert mechanism.epsilon == pytest.approx(nats_of(ratio), abs=1e-12)
    removal = worst(laws, removal_only=True)
    assert keeps(removal, mechanism.removal_epsilon)
    assert mechanism.removal_epsilon == pytest.approx(nats_of(removal), abs=1e-12)
    # The calibration wastes nothing, and leaving out costs less than moving.
    assert mechanism.epsilon >= epsilon * (1 - 1e-6)
    assert mechanism.removal_epsilon < mechanism.epsilon


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(1, 60),
    st.integers(1, 4),
    st.booleans(),
)
def test_the_enumeration_holds_for_any_convex_weights(
    second_steps: list[int], first: int, num_candidates: int, removal_only: bool
) -> None:
    weights, step = [first], 0
    for growth in second_steps:
        step += growth
        weights.append(weights[-1] + step)
    expected = worst(laws_by_table(weights, num_candidates), removal_only=removal_only)
    found = enumerated_epsilon(weights, num_candidates, removal_only=removal_only)
    assert found == pytest.approx(nats_of(expected), abs=1e-12)
    assert keeps(expected, found)


@pytest.mark.parametrize("weights", [[0, 1, 2], [4, 2, 1], [1, 5, 6]])
def test_weights_that_do_not_rise_convexly_are_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="convexly"):
        enumerated_epsilon(weights, 3)


def release(names: Sequence[str], source: RandomSource) -> list[int]:
    return [
        noisy_winner([int(c) for c in name.split(",")], 1.5, source, num_teachers=3)
        for name in names
    ]


def test_the_path_that_runs_keeps_to_its_epsilon() -> None:
    """Every choice of the source is enumerated; nothing is read off the weights."""
    names = {",".join(map(str, tally)): tally for tally in tallies(3, 3)}
    tree = ChoiceTree(TapeRandomSource(5))
    found = tree.laws(release, list(names))
    laws: dict[Tally, Law] = {}
    for name, law in found.items():
        winners = {int(str(outcome)): share for outcome, share in law.items()}
        assert set(winners) == {0, 1, 2}
        laws[names[name]] = winners
    ratio = worst(laws)
    assert keeps(ratio, 1.5)
    assert nats_of(ratio) == pytest.approx(1.5, abs=1e-6)
    assert nats_of(ratio) <= vote_epsilon(1.5, num_candidates=3, num_teachers=3).epsilon


@pytest.mark.parametrize(("num_candidates", "num_teachers"), [(2, 4), (3, 3), (5, 2)])
@pytest.mark.parametrize("factor", [1.001, 2.0])
def test_less_noise_is_noticed(
    num_candidates: int, num_teachers: int, factor: float
) -> None:
    """Half the noise is twice the rate."""
    honest = calibrated_weights(1.0, num_candidates, num_teachers)
    rate = math.log(honest[1] / honest[0])
    weights = rate_weights(Fraction(rate * factor), num_teachers)
    assert not keeps(worst(laws_by_table(weights, num_candidates)), 1.0)
    assert enumerated_epsilon(weights, num_candidates) > 1.0


def test_a_mechanism_with_half_the_noise_is_noticed_where_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mutant(epsilon: float, size: int, num_teachers: int) -> tuple[int, ...]:
        return calibrated_weights(2 * epsilon, size, num_teachers)

    monkeypatch.setattr(votes, "calibrated_weights", mutant)
    mechanism = VoteMechanism(1.0, num_candidates=3, num_teachers=3)
    laws = {tally: law_of(mechanism.weights_of(tally)) for tally in tallies(3, 3)}
    assert not keeps(worst(laws), 1.0)
    assert mechanism.epsilon > 1.9


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_rate_lies_between_half_of_the_epsilon_and_all_of_it(
    epsilon: float,
) -> None:
    for size, teachers in [(2, 8), (64, 8), (16, 20)]:
        weights = calibrated_weights(epsilon, size, teachers)
        rate = math.log(weights[1] / weights[0])
        assert epsilon / 2 * (1 - 1e-6) <= rate <= epsilon * (1 + 1e-6)
        # The next rate on the grid is refused: this is the largest.
        more = rate_weights(Fraction(rate) * Fraction(1 + 1e-6), teachers)
        assert enumerated_epsilon(more, size) > epsilon
    # One vote among many candidates hardly changes the total.
    alone = calibrated_weights(epsilon, 50, 1)
    assert math.log(alone[1] / alone[0]) == pytest.approx(epsilon, abs=1e-6)


def test_the_law_is_that_of_the_exponential_mechanism() -> None:
    mechanism = VoteMechanism(1.0, num_candidates=4, num_teachers=8)
    rate = math.log(mechanism.weights[8] / mechanism.weights[0]) / 8
    found = mechanism.weights_of([5, 0, 2, 1])
    expected = np.exp(rate * np.array([5, 0, 2, 1]))
    assert np.array(found) / sum(found) == pytest.approx(expected / expected.sum())
    assert mechanism.weights[0] == 2**BITS


def test_draws_have_the_frequencies_of_the_weights() -> None:
    """Chi-square of 20,000 seeded draws, at a level of one in a million."""
    mechanism = VoteMechanism(1.2, num_candidates=4, num_teachers=8)
    counts, source = [4, 1, 0, 3], TapeRandomSource(11)
    drawn = Counter(mechanism.draw(counts, source) for _ in range(20_000))
    weights = np.array(mechanism.weights_of(counts), dtype=np.float64)
    observed = [drawn[place] for place in range(4)]
    expected = 20_000 * weights / weights.sum()
    assert chisquare(observed, expected).pvalue > 1e-6
    # The same test notices the law of half the noise.
    assert chisquare(observed, 20_000 * weights**2 / (weights**2).sum()).pvalue < 1e-6


class Limbs:
    """Hands out prescribed draws and keeps what was asked for."""

    private = True

    def __init__(self, *answers: Sequence[int]) -> None:
        self.answers = list(answers)
        self.asked: list[list[int]] = []

    def below(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        self.asked.append(bounds.tolist())
        return np.array(self.answers.pop(0), dtype=np.int64)


def test_totals_of_more_than_62_bits_are_drawn_by_rejection() -> None:
    mechanism = VoteMechanism(8.0, num_candidates=2, num_teachers=40)
    low, high = mechanism.weights_of([0, 40])
    total = low + high
    assert total > 2**120
    bits = (total - 1).bit_length()
    top = 2 ** (bits % 60)

    def limbs(value: int) -> list[int]:
        parts = []
        for bound in reversed(bounds):
            parts.append(value % bound)
            value //= bound
        assert value == 0
        return parts[::-1]

    bounds = [2**60] * (bits // 60) + [top]
    # Uniform below a power of two, so uniform below the total once the rest is refused.
    assert math.prod(bounds) == 2**bits
    for value, winner in [(0, 0), (low - 1, 0), (low, 1), (total - 1, 1)]:
        source = Limbs(limbs(total), limbs(2**bits - 1), limbs(value))
        assert mechanism.draw([0, 40], source) == winner
        assert source.asked == [bounds] * 3
    # A clear majority of so many wins, whatever the system draws.
    assert mechanism.draw([0, 40], SystemRandomSource()) == 1


def test_epsilons_of_several_votes_add_up() -> None:
    claims = vote_epsilon(0.7, num_candidates=6, num_teachers=4, num_votes=3)
    parts = [
        VoteMechanism(0.7, num_candidates=size, num_teachers=4) for size in (6, 5, 4)
    ]
    exact = sum(Fraction(part.epsilon) for part in parts)
    assert exact <= Fraction(claims.epsilon) <= exact + Fraction(1, 10**15)
    assert Fraction(claims.epsilon) <= 3 * Fraction(0.7) + Fraction(1, 10**15)
    assert claims.epsilon == pytest.approx(3 * 0.7, abs=1e-5)
    assert claims.removal_epsilon == pytest.approx(
        sum(part.removal_epsilon for part in parts)
    )
    assert claims.unit == "nats per teacher client (all of its records), 3 votes"
    assert claims.describe()["epsilon"] == claims.epsilon
    assert claims.guarantee == GUARANTEE


def test_the_last_candidate_wins_for_free() -> None:
    alone = vote_epsilon(1.0, num_candidates=1, num_teachers=4)
    assert (alone.epsilon, alone.removal_epsilon) == (0.0, 0.0)
    assert noisy_winner([4], 1.0, SystemRandomSource(), num_teachers=4) == 0


def test_dp_accounting_agrees_on_one_vote_and_on_five() -> None:
    """The second library gets the two laws of the worst pair, not an epsilon."""
    mechanism = VoteMechanism(1.0, num_candidates=3, num_teachers=3)
    laws = laws_by_table(mechanism.weights, 3)
    pairs = [(t, other) for t in laws for other in neighbours(t)]
    upper, lower = max(
        pairs,
        key=lambda pair: max(laws[pair[0]][w] / laws[pair[1]][w] for w in range(3)),
    )
    log_upper, log_lower = (
        {winner: math.log(share) for winner, share in laws[tally].items()}
        for tally in (upper, lower)
    )
    loss = privacy_loss_distribution.from_two_probability_mass_functions(
        log_lower, log_upper, value_discretization_interval=1e-4
    )
    assert loss.get_epsilon_for_delta(0.0) == pytest.approx(mechanism.epsilon, abs=2e-4)
    five = composed_claims(1.0, [3] * 5, num_teachers=3)
    composed = loss.self_compose(5)
    assert composed.get_epsilon_for_delta(0.0) == pytest.approx(five.epsilon, abs=2e-3)
    # With a delta the same votes cost less, so the pure sum is a bound.
    assert composed.get_epsilon_for_delta(1e-3) < five.epsilon


def test_seeded_draws_carry_no_guarantee() -> None:
    claims = composed_claims(1.0, [3], num_teachers=3, source=TapeRandomSource(0))
    assert claims.guarantee == SEEDED_GUARANTEE
    system = composed_claims(1.0, [3], num_teachers=3, source=SystemRandomSource())
    assert system.guarantee == GUARANTEE


@pytest.mark.parametrize(
    ("epsilon", "candidates", "teachers", "named"),
    [
        (0.0, 3, 3, "vote-epsilon"),
        (math.inf, 3, 3, "vote-epsilon"),
        (math.nan, 3, 3, "vote-epsilon"),
        (1.0, 0, 3, "num_candidates"),
        (1.0, 3, 0, "num_teachers"),
        (1.0, 3, 257, "num_teachers"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    epsilon: float, candidates: int, teachers: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=f"`{named}`"):
        VoteMechanism(epsilon, num_candidates=candidates, num_teachers=teachers)


@pytest.mark.parametrize("counts", [[4, 0], [1, 1, 1], [-1, 2]])
def test_what_is_no_tally_of_the_vote_is_refused(counts: list[int]) -> None:
    mechanism = VoteMechanism(1.0, num_candidates=2, num_teachers=3)
    with pytest.raises(ConfigError, match="`counts`"):
        mechanism.draw(counts, SystemRandomSource())


@pytest.mark.parametrize("num_votes", [0, 4])
def test_more_votes_than_candidates_are_refused(num_votes: int) -> None:
    with pytest.raises(ConfigError, match="`num_votes`"):
        vote_epsilon(1.0, num_candidates=3, num_teachers=3, num_votes=num_votes)
