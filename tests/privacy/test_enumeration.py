"""The whole path from text to stored release, every draw enumerated exactly."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcot.privacy.channels import Channel
from fedcot.privacy.exponential import ExponentialChannel
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.vocabulary import UNKNOWN_ID, Vocabulary
from tests.privacy.oracle import (
    TINY,
    ChoiceTape,
    Law,
    enumerated_law,
    keeps,
    nats_of,
    worst_ratio,
)

# Empty, short, full and too long; known and unknown words, a number out of range.
WORDS = ("fox", "zebra", "77")
TEXTS = [" ".join(words) for n in range(4) for words in product(WORDS, repeat=n)]
TEXTS.append("fox fox fox fox")
FEW_TEXTS = ["", "fox", "hen", "zebra", "hen fox", "zebra 77 fox"]


def rank_channel() -> RankChannel:
    """Weights 5 for the true token and 1 for the four others: 9**3 draws a prompt."""
    return RankChannel(TINY, math.log(5.5), bits=0)


def exponential_channel() -> ExponentialChannel:
    """Weights 3, 2, 1 by level, with row totals that differ."""
    levels = np.zeros((5, 5), dtype=np.uint16)
    np.fill_diagonal(levels, 2)
    levels[2, 3] = levels[3, 2] = levels[1, 4] = 1
    return ExponentialChannel(
        TINY, levels=levels, table=np.array([1, 2, 3]), requested_epsilon=2.0
    )


def laws_of(
    folder: Path, texts: Sequence[str], channel: Channel, vocabulary: Vocabulary = TINY
) -> dict[str, Law]:
    """The law of the stored release of each text, by the code that clients run."""
    ledger = Ledger(folder, record_epsilon=1000.0)

    def release(text: str, copies: int, tape: ChoiceTape) -> list[tuple[int, ...]]:
        keys = ledger.record_keys([text] * copies)
        ids = vocabulary.encode(text)
        prompts = [(key, ids) for key in keys]
        releases = ledger.release(prompts, channel, source=tape)
        assert tape.calls == 1
        return [made.ids for made in releases]

    with ledger:
        return {
            text: enumerated_law(text, row_totals(text, channel), release)
            for text in texts
        }


def row_totals(text: str, channel: Channel) -> list[int]:
    return [sum(channel.weights_row(int(token))) for token in TINY.encode(text)]


def check_laws(laws: dict[str, Law], token_epsilon: float) -> None:
    """What is claimed: the token epsilon for each slot in which two prompts differ."""
    encodings = {text: tuple(TINY.encode(text).tolist()) for text in laws}
    for left, right in product(laws, repeat=2):
        pairs = zip(encodings[left], encodings[right], strict=True)
        changed = sum(first != second for first, second in pairs)
        ratio = worst_ratio([laws[left], laws[right]])
        assert keeps(ratio, changed * token_epsilon + 1e-9), (left, right)


@pytest.mark.parametrize("make", [rank_channel, exponential_channel])
def test_token_and_prompt_epsilon_hold_on_the_path_that_runs(
    tmp_path: Path, make: Callable[[], Channel]
) -> None:
    channel = make()
    texts = TEXTS if make is rank_channel else FEW_TEXTS
    laws = laws_of(tmp_path, texts, channel)
    assert all(sum(law.values()) == 1 for law in laws.values())
    assert all(len(law) == channel.size**TINY.length for law in laws.values())
    check_laws(laws, channel.token_epsilon)


def test_the_claims_are_reached_and_not_merely_kept(tmp_path: Path) -> None:
    """One slot costs exactly ln 5, three slots exactly 3 ln 5."""
    laws = laws_of(tmp_path, ["", "fox", "fox fox fox"], rank_channel())
    assert worst_ratio([laws[""], laws["fox"]]) == 5
    assert worst_ratio([laws[""], laws["fox fox fox"]]) == 125


def test_the_law_is_the_product_of_the_rows(tmp_path: Path) -> None:
    channel = exponential_channel()
    text = "hen zebra"
    law = laws_of(tmp_path, [text], channel)[text]
    rows = [channel.weights_row(int(token)) for token in TINY.encode(text)]
    for output, share in law.items():
        shares = [
            Fraction(row[token], sum(row))
            for row, token in zip(rows, output, strict=True)
        ]
        assert share == math.prod(shares)


def test_unknown_words_and_length_do_not_show(tmp_path: Path) -> None:
    texts = ["zebra", "quokka", "fox fox fox", "fox fox fox hen"]
    laws = laws_of(tmp_path, texts, rank_channel())
    assert laws["zebra"] == laws["quokka"]
    assert laws["fox fox fox"] == laws["fox fox fox hen"]


@dataclass
class SavingChannel:
    """A mutant that leaves some tokens as they are."""

    channel: RankChannel
    saved: tuple[int, ...]

    def __getattr__(self, name: str) -> object:
        return getattr(self.channel, name)

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        drawn = self.channel.sample(ids, source)
        return np.where(np.isin(ids, self.saved), ids, drawn)


class UnpaddedVocabulary(Vocabulary):
    """A mutant that lets the number of words show."""

    def encode(self, text: str) -> NDArray[np.int64]:
        return super().encode(text)[: max(1, len(text.split()))]


@pytest.mark.parametrize("saved", [(UNKNOWN_ID,), (2,), (0,)])
def test_a_mutant_that_saves_a_token_fails(
    tmp_path: Path, saved: tuple[int, ...]
) -> None:
    """Unknown words, a stop word or padding released as they are."""
    mutant = SavingChannel(rank_channel(), saved)
    laws = laws_of(tmp_path, FEW_TEXTS, mutant)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        check_laws(laws, mutant.channel.token_epsilon)


def test_a_mutant_with_a_larger_exponent_fails(tmp_path: Path) -> None:
    """Claims ln 5 with the weights of 1.2 times that exponent."""
    mutant = RankChannel(TINY, 1.2 * math.log(5.5), bits=0)
    assert nats_of(Fraction(mutant.weights_row(2)[2])) > math.log(5.5)
    laws = laws_of(tmp_path, FEW_TEXTS, mutant)
    with pytest.raises(AssertionError):
        check_laws(laws, math.log(5.5))


def test_a_mutant_that_does_not_pad_is_stopped(tmp_path: Path) -> None:
    mutant = UnpaddedVocabulary(TINY.words, TINY.length)
    with pytest.raises(ValueError, match="public length of 3 slots"):
        laws_of(tmp_path, ["fox"], rank_channel(), mutant)


def test_a_mutant_that_does_not_pad_would_fail(tmp_path: Path) -> None:
    """The same without the ledger's check: outputs of other lengths tell inputs."""
    channel = rank_channel()
    laws = [
        {ids[:length]: share for ids, share in law.items()}
        for length, law in enumerate(
            laws_of(tmp_path, ["fox", "fox hen"], channel).values(), start=1
        )
    ]
    assert not keeps(worst_ratio(laws), 100.0)
