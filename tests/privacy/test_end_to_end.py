"""The audit of the path that runs: claims that hold, and mutants that must not pass."""

import dataclasses
import math

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.audit import HOLDS, NO_CLAIM, VIOLATED
from fedcot.privacy.end_to_end import (
    audit_end_to_end,
    audit_texts,
    check_end_to_end,
    end_to_end_laws,
    production_path,
    reduced_vocabulary,
)
from fedcot.privacy.exponential import calibrated_exponential
from fedcot.privacy.identity import IdentityChannel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.saliency import SaliencyChannel
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary, world_vocabulary

WORDS = Vocabulary.of(["fox", "3"], 2)
LONG = Vocabulary.of(["fox"], 3)
NEAR = 1 / (1 + np.abs(np.subtract.outer(np.arange(4), np.arange(4))))
PROMPTS = np.array([[a, b] for a in range(4) for b in range(a, 4)])
SOURCE = SystemRandomSource()


def adaptive():
    model = BigramModel(WORDS, PROMPTS)
    return AdaptiveChannel(
        WORDS, 4.0, prompt_epsilon=5.0, model=model, calibration=PROMPTS
    )


RIGHT = {
    "rank": lambda: RankChannel(WORDS, 6.0, similarity=NEAR),
    "exponential": lambda: calibrated_exponential(WORDS, 3.0, NEAR),
    "adaptive": adaptive,
    "saliency": lambda: SaliencyChannel(
        WORDS, 3.0, information=np.array([0.0, 1.0, 5.0, 2.0]), resolution=1000
    ),
    "selection": lambda: SelectionChannel(WORDS, 4.0, bank=Bank(WORDS, PROMPTS)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_claims_of_every_mechanism_hold(tmp_path, name):
    report = audit_end_to_end(WORDS, RIGHT[name](), tmp_path, source=SOURCE)
    assert report.verdict == HOLDS, report.violations
    assert report.violations == ()
    found = {check.neighbours: check for check in report.checks}
    equal = found.pop("equal encodings")
    assert equal.epsilon == equal.claimed == 0
    assert equal.pairs > 5
    assert all(0 < check.epsilon <= check.claimed for check in found.values())
    assert {"1 of 2 tokens replaced", "prompt of 2 tokens zeroed out"} <= set(found)
    assert report.texts == len(audit_texts(WORDS))
    assert (report.words, report.slots) == (4, 2)


@pytest.mark.parametrize("name", ["rank", "selection"])
def test_the_claims_are_reached_and_not_merely_kept(tmp_path, name):
    report = audit_end_to_end(WORDS, RIGHT[name](), tmp_path, source=SOURCE)
    check = next(c for c in report.checks if c.neighbours == "2 of 2 tokens replaced")
    assert check.epsilon == pytest.approx(check.claimed, abs=1e-9)


def test_so_many_tokens_cost_so_many_token_epsilons(tmp_path):
    channel = RankChannel(LONG, math.log(5.5), bits=0)
    report = audit_end_to_end(LONG, channel, tmp_path, source=SOURCE)
    for changed in (1, 2, 3):
        name = f"{changed} of 3 tokens replaced"
        found = [check for check in report.checks if check.neighbours == name]
        assert len(found) == (changed < 3) or changed == 3
        for check in found:
            assert check.epsilon == pytest.approx(changed * math.log(5))
            assert check.claimed == pytest.approx(changed * math.log(5))


def test_the_mechanism_none_claims_nothing_and_still_hides_what_is_not_encoded(
    tmp_path,
):
    report = audit_end_to_end(WORDS, IdentityChannel(WORDS), tmp_path, source=SOURCE)
    assert report.verdict == NO_CLAIM
    found = {check.neighbours: check.epsilon for check in report.checks}
    assert found.pop("equal encodings") == 0
    assert set(found.values()) == {math.inf}


def test_removal_may_cost_less_than_replacing(tmp_path):
    channel = RIGHT["saliency"]()
    assert channel.prompt_epsilon == 2 * channel.removal_epsilon
    report = audit_end_to_end(WORDS, channel, tmp_path, source=SOURCE)
    removed = [c for c in report.checks if "zeroed out" in c.neighbours]
    assert removed
    assert all(check.epsilon <= channel.removal_epsilon for check in removed)


class Wrapped:
    """A mutant: everything as the channel has it, but for what is overridden."""

    def __init__(self, channel, **claims):
        self.channel = channel
        self.__dict__.update(claims)

    def __getattr__(self, name):
        return getattr(self.channel, name)


class Saving(Wrapped):
    """Some tokens stay as they are: a stop word, unknown words, padding."""

    saved = 2

    def sample(self, ids, source):
        drawn = self.channel.sample(ids, source)
        return np.where(ids == self.saved, ids, drawn)


class RawContext(Wrapped):
    """The second slot is drawn for another word after some raw first one."""

    def sample(self, ids, source):
        seen = ids.copy()
        seen[:, 1] = np.where(ids[:, 0] == 2, 3, ids[:, 1])
        return self.channel.sample(seen, source)


class OneDraw(Wrapped):
    """All slots use the same draw."""

    def sample(self, ids, source):
        draws = source.below(np.full(len(ids), int(self.channel.rank_weights.sum())))

        class Same:
            def below(self, bounds):
                return np.broadcast_to(draws[:, None], bounds.shape)

        return self.channel.sample(ids, Same())


class Averaging(Wrapped):
    """Draws twice and releases the word that is nearer to the private one."""

    def sample(self, ids, source):
        first = self.channel.sample(ids, source)
        second = self.channel.sample(ids, source)
        return np.where(second == ids, second, first)


def claims(channel):
    return {
        "token_epsilon": channel.token_epsilon,
        "prompt_epsilon": channel.prompt_epsilon,
    }


RANK = RankChannel(WORDS, 3.0, bits=2)
WRONG = {
    "saves a word": Saving(RANK),
    "saves unknown words": Saving(RANK, saved=1),
    "saves padding": Saving(RANK, saved=PAD_ID),
    "reads the raw context": RawContext(RANK),
    "uses a draw again": OneDraw(RANK),
    "draws twice": Averaging(RANK),
    "exponent too large": Wrapped(RankChannel(WORDS, 3.6, bits=2), **claims(RANK)),
    "a token of saliency claimed by itself": Wrapped(
        RIGHT["saliency"](), token_epsilon=3.0
    ),
    "saliency claimed for replacement": Wrapped(
        RIGHT["saliency"](), prompt_epsilon=6.0
    ),
    "a token of selection claimed by itself": Wrapped(
        RIGHT["selection"](), token_epsilon=2.0
    ),
    "a prompt claimed for one token": Wrapped(RANK, prompt_epsilon=RANK.token_epsilon),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mutant_of_the_mechanism_is_found(tmp_path, name):
    report = audit_end_to_end(WORDS, WRONG[name], tmp_path, source=SOURCE)
    assert report.verdict == VIOLATED
    assert report.violations


class KeepsUnknown(Vocabulary):
    """A mutant: unknown words are left out, so their number shows."""

    def encode(self, text):
        known = [word for word in text.split() if word.lower() in self.words]
        return super().encode(" ".join(known))


def test_unknown_words_that_are_dropped_are_found(tmp_path):
    """Against what a vocabulary promises: an unknown word is a word like any other."""
    mutant = KeepsUnknown(WORDS.words, WORDS.length)
    with production_path(mutant, RANK, tmp_path) as path:
        laws = end_to_end_laws(path, audit_texts(WORDS), source=SOURCE)
    # One unknown word changes which slot the next word takes: two tokens move.
    report = check_end_to_end(laws, WORDS, RANK)
    assert report.verdict == VIOLATED


class Unpadded(Vocabulary):
    def encode(self, text):
        return super().encode(text)[: max(1, len(text.split()))]


def test_a_length_that_shows_is_found(tmp_path):
    """A path that cuts the release to the length of the text."""
    with production_path(WORDS, RANK, tmp_path) as path:

        def cut(texts, source):
            shown = zip(texts, path(texts, source), strict=True)
            return [one[0][: len(text.split())] for text, one in shown]

        laws = end_to_end_laws(cut, ["", "fox", "fox 3"], source=SOURCE)
    report = check_end_to_end(laws, WORDS, RANK)
    assert report.verdict == VIOLATED
    assert any("inf nats" in found for found in report.violations)


def test_a_vocabulary_that_does_not_pad_is_stopped_by_the_ledger(tmp_path):
    mutant = Unpadded(WORDS.words, WORDS.length)
    with pytest.raises(ValueError, match="public length"):
        audit_end_to_end(mutant, RANK, tmp_path, source=SOURCE)


def test_a_charge_that_depends_on_the_text_is_found(tmp_path):
    """The release is right; what is stated about it tells the text."""
    with production_path(WORDS, RANK, tmp_path) as path:

        def tells(texts, source):
            shown = zip(texts, path(texts, source), strict=True)
            return [
                (*one[:-1], one[-1] + text.startswith("fox")) for text, one in shown
            ]

        laws = end_to_end_laws(tells, ["", "fox", "3"], source=SOURCE)
    assert check_end_to_end(laws, WORDS, RANK).verdict == VIOLATED


def test_casing_and_punctuation_that_show_are_found(tmp_path):
    with production_path(WORDS, RANK, tmp_path) as path:

        def shouts(texts, source):
            shown = zip(texts, path(texts, source), strict=True)
            return [(one, text.isupper()) for text, one in shown]

        laws = end_to_end_laws(shouts, ["fox", "FOX"], source=SOURCE)
    report = check_end_to_end(laws, WORDS, RANK)
    assert [check.neighbours for check in report.checks] == ["equal encodings"]
    assert report.verdict == VIOLATED


def test_small_weights_may_be_tried_draw_by_draw(tmp_path):
    channel = RankChannel(WORDS, math.log(30.5), bits=0)
    texts = ["", "fox", "fox 3"]
    laws = []
    for exhaustive in (16, 100):
        with production_path(WORDS, channel, tmp_path / str(exhaustive)) as path:
            found = end_to_end_laws(path, texts, source=SOURCE, exhaustive=exhaustive)
        laws.append(found)
    assert laws[0] == laws[1]


def test_the_texts_reach_every_encoding_and_every_way_around_it():
    texts = audit_texts(WORDS)
    encodings = {tuple(WORDS.encode(text).tolist()) for text in texts}
    # Padding never stands before a word.
    assert encodings == {(0, 0), *((a, 0) for a in (1, 2, 3))} | {
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3)
    }
    assert len(set(texts)) == len(texts) > len(encodings)
    assert any(len(text.split()) > WORDS.length for text in texts)
    assert any(text != text.lower() for text in texts)


def test_a_vocabulary_is_reduced_to_its_first_words_and_numbers():
    world = world_vocabulary()
    small = reduced_vocabulary(world, words=2, numbers=2, slots=3)
    assert small.words == (*world.words[:2], world.words[2], world.words[3], "0", "1")
    assert small.length == 3
    assert dataclasses.replace(world, length=3).length == 3
    with pytest.raises(ConfigError, match="`vocabulary` must hold a word"):
        reduced_vocabulary(Vocabulary.of([], 3))
