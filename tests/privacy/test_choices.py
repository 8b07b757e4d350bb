"""The law of code that draws, against laws that are known in closed form."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from fedcot.privacy.choices import ChoiceTree, EnumerationError, ScriptedSource
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.saliency import SaliencyChannel
from fedcot.privacy.sampler import SystemRandomSource, TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary

WORDS = Vocabulary.of(["fox", "hen", "3"], 2)


def tree(**options):
    return ChoiceTree(SystemRandomSource(), **options)


def law_of(code, **options):
    """The law of code for one run: runs beside each other draw one after another."""

    def release(names, source):
        if len(names) > 1:
            # Not what a channel does, which asks for all in one call.
            source.below(np.ones(len(names) + 1, dtype=np.int64))
        return [code(source)]

    return tree(**options).laws(release, ["only"])["only"]


def one(source, bound):
    return int(source.below(np.array([bound]))[0])


def laws_of(channel, prompts, **options):
    """The law of what a channel makes of each prompt."""
    by_name = {str(prompt): prompt for prompt in prompts}

    def release(names, source):
        ids = np.array([by_name[name] for name in names])
        return [tuple(row) for row in channel.sample(ids, source).tolist()]

    found = tree(**options).laws(release, list(by_name))
    return [found[name] for name in by_name]


def product_law(rows):
    law = {}
    for output in product(range(len(rows[0])), repeat=len(rows)):
        shares = [
            Fraction(row[word], sum(row))
            for row, word in zip(rows, output, strict=True)
        ]
        law[output] = math.prod(shares)
    return law


@pytest.mark.parametrize("epsilon", [0.5, 8.0, 25.0])
@pytest.mark.parametrize("ids", [[2, 3], [4, 0], [1, 1]])
def test_weights_of_thirty_bits_are_found_to_the_last_one(epsilon, ids):
    channel = RankChannel(WORDS, epsilon)
    (found,) = laws_of(channel, [ids])
    assert found == product_law([channel.weights_row(word) for word in ids])


def test_bisection_and_trying_every_draw_agree():
    channel = RankChannel(WORDS, math.log(40.5), bits=0)
    prompts = [[2, 4], [1, 0]]
    assert laws_of(channel, prompts) == laws_of(channel, prompts, exhaustive=100)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_an_output_with_two_intervals_is_found_once_others_have_been_seen(epsilon):
    """The saliency sampler draws the true word from two places of the range."""
    channel = SaliencyChannel(WORDS, epsilon)
    prompts = list(product(range(channel.size), repeat=2))
    for ids, law in zip(prompts, laws_of(channel, prompts), strict=True):
        assert law == product_law(channel.weights(np.array(ids)).tolist())


def test_a_bound_may_depend_on_what_was_drawn_before():
    def code(source):
        first = one(source, 3)
        return first, one(source, 1000 * (first + 1)) < 250

    law = law_of(code)
    assert law == {
        (first, small): Fraction(1, 3)
        * (Fraction(1, 4 * (first + 1)) if small else 1 - Fraction(1, 4 * (first + 1)))
        for first in range(3)
        for small in (True, False)
    }


def test_copies_may_draw_unlike_numbers_of_times():
    def code(source):
        heads = 0
        while heads < 4 and one(source, 2):
            heads += 1
        return heads

    law = law_of(code)
    assert law == {n: Fraction(1, 2 ** min(n + 1, 4)) for n in range(5)}


def test_a_draw_that_shows_only_in_later_ones_is_found():
    """The first draw only decides which bound comes next."""

    def code(source):
        return one(source, 20 if one(source, 10**6) < 123_456 else 40) < 20

    share = Fraction(123_456, 10**6)
    law = law_of(code)
    assert law == {True: share + (1 - share) / 2, False: (1 - share) / 2}


def only(release, **options):
    return tree(**options).laws(release, ["only"])["only"]


def test_code_without_a_draw_is_certain():
    assert only(lambda names, source: ["same"] * len(names)) == {"same": 1}


def test_draws_that_are_not_looked_up_in_intervals_are_refused():
    with pytest.raises(EnumerationError, match="intervals"):
        law_of(lambda source: one(source, 10**6) % 3 == 0)


def test_code_that_does_not_repeat_itself_is_refused():
    calls = []

    def code(source):
        calls.append(1)
        return one(source, 2 if len(calls) > 3 else 9)

    with pytest.raises(EnumerationError, match="other bounds when run again"):
        law_of(code)


def test_runs_that_share_a_draw_are_refused():
    def release(names, source):
        drawn = source.below(np.full(len(names), 4))
        return [int(drawn.sum())] * len(names)

    with pytest.raises(EnumerationError):
        only(release)


def test_a_run_that_shows_nothing_is_refused():
    def release(names, source):
        return source.below(np.full(len(names), 4)).tolist()[1:]

    with pytest.raises(EnumerationError, match="Every copy"):
        only(release)


def test_too_many_choices_are_refused():
    channel = RankChannel(WORDS, 3.0, bits=0)
    with pytest.raises(EnumerationError, match="More than 50 choices"):
        laws_of(channel, [[2, 3]], exhaustive=100, largest_tree=50)
    with pytest.raises(EnumerationError, match="More than 50 choices"):
        law_of(lambda source: one(source, 10**6), largest_tree=50)


def test_a_law_belongs_to_its_own_input():
    """Inputs that run beside each other under other bounds do not mix."""

    def release(names, source):
        bounds = np.array([len(name) for name in names])
        return list(zip(names, source.below(bounds).tolist(), strict=True))

    laws = tree().laws(release, ["ab", "abc"])
    assert laws == {
        name: {(name, draw): Fraction(1, len(name)) for draw in range(len(name))}
        for name in ("ab", "abc")
    }


def test_a_script_is_followed_and_what_comes_after_is_recorded():
    script = np.array([[3], [5]])
    source = ScriptedSource(script)
    assert not source.private
    assert source.below(np.array([9, 9])).tolist() == [3, 5]
    assert source.below(np.array([[7, 8], [7, 6]])).tolist() == [[0, 0], [0, 0]]
    assert source.bounds(0) == (7, 8)
    assert source.bounds(1) == (7, 6)
    last = ScriptedSource(script, to_last=True)
    last.below(np.array([9, 9]))
    assert last.below(np.array([7, 8])).tolist() == [6, 7]


def test_the_points_that_are_checked_come_from_the_source():
    class Counting(TapeRandomSource):
        asked = 0

        def below(self, bounds):
            self.asked += np.size(bounds)
            return super().below(bounds)

    source = Counting(3)
    channel = RankChannel(WORDS, 3.0)

    def release(names, tape):
        ids = np.tile([2, 3], (len(names), 1))
        return [tuple(row) for row in channel.sample(ids, tape).tolist()]

    law = ChoiceTree(source).laws(release, ["only"])["only"]
    assert sum(law.values()) == 1
    # A scale, a distance and a side for each of two draws of each choice.
    assert source.asked == 3 * 2 * len(law)
