"""Held-out sets, votes, ballots and turns."""

import math
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcot.errors import ConfigError, FedcotError
from fedcot.evaluation.copying import plain
from fedcot.social.ballots import (
    ANY_LABEL,
    balanced_turns,
    cast_ballot,
    cast_vote,
    check_ballots,
    eligible_candidates,
    held_out_split,
    open_turns,
    tally,
    vote_pairs,
)
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat

SPAM, OTHER = "spam", "not spam"
LABELS = (SPAM, OTHER)
OPEN = [ANY_LABEL] * 5


def demonstration(question: str, answer: str = SPAM) -> Demonstration:
    return Demonstration(question, answer)


def test_a_vote_is_for_the_first_of_the_best() -> None:
    assert cast_vote([-2.0, -0.5, -math.inf, -0.5]) == 1
    assert cast_vote([-math.inf, -math.inf]) == 0


@pytest.mark.parametrize("scores", [[], [-1.0, math.nan], [0.5, -1.0]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"`scores`|`num_choices`"):
        cast_vote(scores)


def test_a_ballot_needs_a_score_for_each_candidate() -> None:
    with pytest.raises(ConfigError, match="`scores`"):
        cast_ballot([-1.0], OPEN, open_turns(1))


def test_a_ballot_has_the_best_of_each_label() -> None:
    labels = [OTHER, OTHER, SPAM, OTHER, SPAM]
    scores = [-1.0, -2.0, -9.0, -3.0, -8.0]
    assert cast_ballot(scores, labels, (SPAM, OTHER, OTHER)) == (0, 1, 4)
    assert cast_ballot(scores, labels, open_turns(3)) == (0, 1, 3)


@given(st.data())
def test_a_balanced_ballot_is_long_enough_for_any_winners(data: st.DataObject) -> None:
    """Whatever wins, even what nobody named, a ballot has its best one left to name."""
    labels = [SPAM] * 4 + [OTHER] * 4
    turns = balanced_turns(LABELS, data.draw(st.integers(1, 8)), seed=1)
    scores = data.draw(st.lists(st.integers(-9, 0), min_size=8, max_size=8))
    ballot = cast_ballot(scores, labels, turns)
    taken: list[int] = []
    for turn in turns:
        eligible = eligible_candidates(labels, turn, taken)
        counts = tally({0: ballot}, eligible, len(labels))
        best = eligible[cast_vote([scores[index] for index in eligible])]
        assert counts == tuple(int(index == best) for index in range(8))
        taken.append(data.draw(st.sampled_from(eligible)))


def test_a_ballot_that_ran_out_is_refused() -> None:
    with pytest.raises(FedcotError, match="partition 4"):
        tally({4: (0,)}, [1, 2], 3)
    check_ballots({4: (0,)}, 3)


def test_turns_share_labels_evenly_and_differ_by_one_at_most() -> None:
    for count in (1, 2, 5, 8):
        for seed in range(20):
            turns = balanced_turns(("a", "b", "c"), count, seed)
            shares = [turns.count(label) for label in ("a", "b", "c")]
            assert sum(shares) == len(turns) == count
            assert max(shares) - min(shares) <= 1
    firsts = Counter(balanced_turns(("a", "b", "c"), 1, seed)[0] for seed in range(900))
    assert stats.chisquare([firsts[label] for label in "abc"]).pvalue > 1e-6
    assert open_turns(3) == (ANY_LABEL,) * 3


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "a"), ("a", "")])
def test_only_closed_sets_of_labels_can_be_balanced(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="`balanced`"):
        balanced_turns(labels, 2, 0)


def test_nothing_is_not_chosen() -> None:
    for make in (lambda: open_turns(0), lambda: balanced_turns(LABELS, 0, 0)):
        with pytest.raises(ConfigError, match="`num_choices`"):
            make()


@given(
    st.lists(
        st.sampled_from(["a", "A", " a ", "b", "c d", "C  D", "e", "f"]), max_size=20
    ),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_no_question_stands_on_both_sides(
    questions: list[str], share: float, seed: int
) -> None:
    given_ones = [demonstration(q, str(place)) for place, q in enumerate(questions)]
    if len({plain(question) for question in questions}) < 2:
        with pytest.raises(ConfigError, match="`held-out-share`"):
            held_out_split(given_ones, share, seed)
        return
    generation, held_out = held_out_split(given_ones, share, seed)
    assert generation
    assert held_out
    sides = [{plain(one.question) for one in side} for side in (generation, held_out)]
    assert not sides[0] & sides[1]
    both = [*generation, *held_out]
    assert sorted(int(one.answer) for one in both) == list(range(len(questions)))
    assert (generation, held_out) == held_out_split(given_ones, share, seed)


def test_the_share_is_held_out_and_the_seed_says_which() -> None:
    distinct = [demonstration(f"question {place}") for place in range(40)]
    for share, wanted in [(0.25, 10), (0.5, 20), (0.001, 1), (0.999, 39)]:
        generation, held_out = held_out_split(distinct, share, 0)
        assert (len(generation), len(held_out)) == (40 - wanted, wanted)
    chosen = Counter(
        one.question
        for seed in range(600)
        for one in held_out_split(distinct, 0.25, seed)[1]
    )
    # Each is held out in a quarter of the seeds: five standard errors.
    assert all(abs(chosen[one.question] - 150) < 53 for one in distinct)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="`held-out-share`"):
        held_out_split([demonstration("a"), demonstration("b")], share, 0)


@dataclass
class SpamFormat:
    name: str = "spam"
    labels: tuple[str, ...] = LABELS
    has_reasoning: bool = False
    stop: tuple[str, ...] = ("\n\n",)
    separator: str = "\n\n"
    opening: str = "Text:"

    def write(self, one: Demonstration) -> str:
        return f"Text: {one.question}\nClass: {one.answer}"

    def ask(self, question: str) -> str:
        return f"Text: {question}\nClass:"

    def read(self, text: str) -> Demonstration | None:
        return None

    def read_answer(self, text: str) -> str | None:
        return None

    def is_right(self, answer: str, gold: str) -> bool:
        return answer == gold


def test_candidates_go_on_from_the_held_out_demonstrations() -> None:
    form: DemonstrationFormat = SpamFormat()
    held_out = [demonstration("win", SPAM), demonstration("hi", OTHER)]
    pairs = vote_pairs(
        form, held_out, [demonstration("buy"), demonstration("bye", OTHER)]
    )
    prompt = "Text: win\nClass: spam\n\nText: hi\nClass: not spam\n\nText:"
    assert pairs == [
        (prompt, " buy\nClass: spam"),
        (prompt, " bye\nClass: not spam"),
    ]
    # Prompt and continuation are the few-shot text with the candidate as its last.
    assert prompt + pairs[0][1] == "\n\n".join(
        form.write(one) for one in [*held_out, demonstration("buy")]
    )
    with pytest.raises(ConfigError, match="`held_out`"):
        vote_pairs(form, [], [demonstration("buy")])
    with pytest.raises(ConfigError, match="`format`"):
        vote_pairs(SpamFormat(opening="Mail:"), held_out, [demonstration("buy")])
