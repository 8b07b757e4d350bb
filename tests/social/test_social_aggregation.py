"""Aggregators: laws, ties, private votes, a biased model with and without balance."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.errors import ConfigError, FedcotError
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
from fedcot.social import aggregation
from fedcot.social.aggregation import (
    Aggregator,
    PrivateVotingAggregator,
    RandomAggregator,
    VotingAggregator,
    pool_candidates,
)
from fedcot.social.balance import class_balance
from fedcot.social.ballots import (
    ANY_LABEL,
    Ballot,
    balanced_turns,
    cast_ballot,
    cast_vote,
    open_turns,
)
from fedcot.social.demonstrations import Demonstration
from fedcot.social.votes import vote_epsilon

SPAM, OTHER = "spam", "not spam"
LABELS = (SPAM, OTHER)
OPEN = [ANY_LABEL] * 5
NOBODY: Mapping[int, Ballot] = {}


def demonstration(question: str, answer: str = SPAM) -> Demonstration:
    return Demonstration(question, answer)


def test_the_random_aggregator_draws_uniformly_without_replacement() -> None:
    """Chi-square over all ordered pairs of 4, at a level of one in a million."""
    drawn = Counter(
        RandomAggregator(seed).choose(["x"] * 4, open_turns(2), NOBODY).indices
        for seed in range(3000)
    )
    pairs = list(permutations(range(4), 2))
    assert set(drawn) <= set(pairs)
    assert stats.chisquare([drawn[pair] for pair in pairs]).pvalue > 1e-6
    chosen = RandomAggregator(1).choose(["x"] * 4, open_turns(4), NOBODY)
    assert sorted(chosen.indices) == [0, 1, 2, 3]
    assert (chosen.epsilon, chosen.claims, chosen.tallies) == (0.0, None, ())
    assert RandomAggregator(1).choose(["x"] * 4, open_turns(4), NOBODY) == chosen


def winners_message_by_message(
    scores: Sequence[Sequence[float]], num_choices: int
) -> list[set[int]]:
    """Return all winners that ties allow, with one vote in a message of its own."""
    states: set[tuple[int, ...]] = {()}
    for _ in range(num_choices):
        following = set()
        for taken in states:
            left = [place for place in range(len(scores[0])) if place not in taken]
            cast = Counter(left[cast_vote([row[i] for i in left])] for row in scores)
            most = max(cast[place] for place in left)
            following |= {(*taken, place) for place in left if cast[place] == most}
        states = following
    return [set(state) for state in states] if states else []


@given(
    st.integers(1, 6).flatmap(
        lambda size: st.tuples(
            st.lists(
                st.lists(st.integers(-6, 0), min_size=size, max_size=size),
                min_size=1,
                max_size=5,
            ),
            st.integers(1, size),
        )
    ),
    st.integers(0, 3),
)
def test_one_ballot_gives_the_winners_of_many_messages(
    drawn: tuple[list[list[float]], int], seed: int
) -> None:
    scores, num_choices = drawn
    labels = [ANY_LABEL] * len(scores[0])
    turns = open_turns(num_choices)
    ballots = {p: cast_ballot(row, labels, turns) for p, row in enumerate(scores)}
    assert all(len(ballot) == num_choices for ballot in ballots.values())
    chosen = VotingAggregator(seed).choose(labels, turns, ballots)
    assert set(chosen.indices) in winners_message_by_message(scores, num_choices)
    assert len(set(chosen.indices)) == num_choices
    # Each ballot is one vote at each turn, and none goes to what was taken before.
    assert all(sum(counts) == len(scores) for counts in chosen.tallies)
    for place, counts in enumerate(chosen.tallies):
        assert all(counts[taken] == 0 for taken in chosen.indices[:place])
    assert chosen.epsilon == math.inf


def test_most_votes_win_and_the_winner_is_taken_out() -> None:
    ballots = {0: (2, 0), 1: (2, 1), 2: (1, 2), 7: (2, 1)}
    chosen = VotingAggregator(0).choose(OPEN, open_turns(2), ballots)
    assert chosen.indices == (2, 1)
    assert chosen.tallies == ((0, 1, 3, 0, 0), (1, 3, 0, 0, 0))
    assert chosen.num_ties == 0


def test_ties_are_drawn_from_the_seed_and_counted() -> None:
    ballots = {0: (3,), 1: (1,), 2: (4,)}
    found = [
        VotingAggregator(seed).choose(OPEN, open_turns(1), ballots)
        for seed in range(900)
    ]
    winners = Counter(chosen.indices[0] for chosen in found)
    assert set(winners) == {1, 3, 4}
    assert stats.chisquare(list(winners.values())).pvalue > 1e-6
    assert all(chosen.num_ties == 1 for chosen in found)
    again = VotingAggregator(4).choose(
        OPEN, open_turns(1), dict(reversed(ballots.items()))
    )
    assert again == found[4]


def test_private_votes_cost_what_their_claims_say_and_keep_no_tally() -> None:
    ballots = {p: (p % 2, 2, 3) for p in range(4)}
    make = PrivateVotingAggregator(1.0, num_teachers=4, source=SystemRandomSource())
    chosen = make.choose(OPEN, open_turns(3), ballots)
    assert len(set(chosen.indices)) == 3
    expected = vote_epsilon(1.0, num_candidates=5, num_teachers=4, num_votes=3)
    assert chosen.claims == expected
    assert chosen.epsilon == expected.epsilon <= 3.0
    assert chosen.tallies == ()
    seeded = PrivateVotingAggregator(1.0, num_teachers=4, source=TapeRandomSource(0))
    assert seeded.choose(OPEN, open_turns(3), ballots).epsilon == math.inf


def test_private_votes_draw_from_single_votes_of_the_ballots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counts at each turn move by one vote when one ballot is another."""
    seen: list[list[int]] = []

    def first_winner(counts: list[int], *_: object, num_teachers: int) -> int:
        seen.append(counts)
        return 0

    monkeypatch.setattr(aggregation, "noisy_winner", first_winner)
    make = PrivateVotingAggregator(1.0, num_teachers=3, source=SystemRandomSource())
    turns = open_turns(3)
    make.choose(OPEN, turns, {0: (0, 1, 2), 1: (4, 3, 2), 2: (1, 0, 4)})
    make.choose(OPEN, turns, {0: (0, 1, 2), 1: (4, 3, 2), 2: (2, 3, 4)})
    assert seen[:3] == [[1, 1, 0, 0, 1], [2, 0, 0, 1], [1, 0, 2]]
    for one, other in zip(seen[:3], seen[3:], strict=True):
        moved = np.array(one) - np.array(other)
        assert sorted(moved[moved != 0].tolist()) in ([], [-1, 1])


def test_more_ballots_than_teachers_void_the_bound() -> None:
    make = PrivateVotingAggregator(1.0, num_teachers=1, source=SystemRandomSource())
    with pytest.raises(ConfigError, match="`counts`"):
        make.choose(OPEN, open_turns(1), {0: (0,), 1: (0,)})


def test_a_clear_majority_wins_private_votes() -> None:
    make = PrivateVotingAggregator(20.0, num_teachers=8, source=SystemRandomSource())
    chosen = make.choose(OPEN, open_turns(1), dict.fromkeys(range(8), (3,)))
    assert chosen.indices == (3,)


@pytest.mark.parametrize(
    "ballots", [{}, {0: (0, 0)}, {0: (5,)}, {0: (-1,)}, {0: (1,), 3: ()}]
)
@pytest.mark.parametrize(
    "aggregator",
    [
        VotingAggregator(0),
        PrivateVotingAggregator(1.0, num_teachers=4, source=SystemRandomSource()),
    ],
)
def test_what_is_no_ballot_is_refused(
    ballots: dict[int, Ballot], aggregator: Aggregator
) -> None:
    assert aggregator.needs_votes
    with pytest.raises(FedcotError, match="ballot"):
        aggregator.choose(OPEN, open_turns(1), ballots)


@pytest.mark.parametrize("turns", [open_turns(6), (SPAM,), (SPAM, ANY_LABEL)])
def test_turns_without_a_candidate_are_refused(turns: tuple[str, ...]) -> None:
    for aggregator in (RandomAggregator(0), VotingAggregator(0)):
        with pytest.raises(ConfigError, match=r"`num_choices`|`turns`"):
            aggregator.choose(OPEN, turns, {0: (0,)})


def test_candidates_stand_in_the_order_of_partitions_and_once() -> None:
    pool = pool_candidates(
        {
            10: [demonstration("c"), demonstration("A  b")],
            2: [demonstration("a B"), demonstration("a b", OTHER)],
        }
    )
    assert [one.question for one in pool.demonstrations] == ["a B", "a b", "c"]
    assert pool.partition_ids == (2, 2, 10)
    assert pool.labels == (SPAM, OTHER, SPAM)
    assert pool.num_repeated == 1
    assert "a B" not in repr(pool)


class BiasedModel:
    """Finds everything that is not spam likelier, as the paper saw."""

    def score(self, labels: Sequence[str], seed: int) -> list[float]:
        noise = np.random.default_rng(seed).uniform(-1, 0, size=len(labels))
        bias = np.array([0.0 if label == OTHER else -0.9 for label in labels])
        return [float(score) for score in noise + bias]


@pytest.mark.parametrize("is_private", [False, True])
def test_a_biased_vote_is_noticed_and_balance_restores_the_ratio(
    is_private: bool,
) -> None:
    labels = [SPAM, OTHER] * 20
    model = BiasedModel()
    source = TapeRandomSource(2)
    aggregator: Aggregator = (
        PrivateVotingAggregator(16.0, num_teachers=8, source=source)
        if is_private
        else VotingAggregator(0)
    )

    def chosen(turns: tuple[str, ...]) -> list[str]:
        ballots = {
            partition: cast_ballot(model.score(labels, partition), labels, turns)
            for partition in range(8)
        }
        found = aggregator.choose(labels, turns, ballots)
        assert len(set(found.indices)) == 16
        return [labels[index] for index in found.indices]

    skewed = class_balance(chosen(open_turns(16)), LABELS, pool=labels)
    assert skewed.favoured == OTHER
    assert skewed.p_value < 0.01
    assert skewed.skew > 0.25
    restored = class_balance(chosen(balanced_turns(LABELS, 16, 3)), LABELS, pool=labels)
    assert restored.counts == {SPAM: 8, OTHER: 8}
    assert (restored.skew, restored.favoured) == (0.0, "")
    assert restored.p_value == pytest.approx(1.0)


def test_balance_holds_for_the_random_aggregator_too() -> None:
    labels = [SPAM] * 4 + [OTHER] * 36
    turns = balanced_turns(LABELS, 8, 0)
    drawn: Counter[int] = Counter()
    for seed in range(400):
        chosen = RandomAggregator(seed).choose(labels, turns, NOBODY).indices
        assert Counter(labels[index] for index in chosen) == {SPAM: 4, OTHER: 4}
        drawn.update(chosen)
    others = [drawn[index] for index in range(4, 40)]
    assert stats.chisquare(others).pvalue > 1e-6
