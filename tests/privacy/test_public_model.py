"""The public bigram model: counts by hand, sums, prefixes and hash."""

from fractions import Fraction

import numpy as np
import pytest

from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.vocabulary import Vocabulary
from tests.privacy.public_models import TEXTS, TINY

NOTHING = np.zeros((2, 0), dtype=np.int64)


def counted(before: int | None, word: int, weight: Fraction) -> Fraction:
    """Pairs and single words of `TEXTS`, counted by a loop."""
    texts = TEXTS.tolist()
    pairs = [
        (None if place == 0 else text[place - 1], text[place])
        for text in texts
        for place in range(3)
    ]
    words = [after for _, after in pairs]
    single = Fraction(words.count(word) + 1, len(words) + 5)
    follow = [after for first, after in pairs if first == before]
    pair = Fraction(follow.count(word), len(follow)) if follow else single
    return weight * pair + (1 - weight) * single


@pytest.mark.parametrize("weight", [Fraction(4, 5), Fraction(1, 2)])
def test_probabilities_are_the_interpolated_counts(weight: Fraction) -> None:
    model = BigramModel(TINY, list(TEXTS), weight=float(weight))
    for before in (None, *range(5)):
        prefix = NOTHING[:1] if before is None else np.array([[3, before]])
        expected = [float(counted(before, word, weight)) for word in range(5)]
        found = model.next_probabilities(prefix)
        assert found.shape == (1, 5)
        assert found[0] == pytest.approx(expected, abs=1e-12)


def test_rows_sum_to_one_and_no_word_is_impossible() -> None:
    model = BigramModel(TINY, list(TEXTS))
    for prefixes in (NOTHING, np.array([[0], [1], [2], [3], [4]]), TEXTS):
        found = model.next_probabilities(prefixes)
        assert found.shape == (len(prefixes), 5)
        assert found.sum(axis=1) == pytest.approx(np.ones(len(prefixes)), abs=1e-12)
        assert (found > 0).all()


def test_only_the_last_released_word_counts_and_rows_are_their_own() -> None:
    model = BigramModel(TINY, list(TEXTS))
    found = model.next_probabilities(np.array([[2, 3], [4, 3], [3, 4]]))
    assert (found[0] == found[1]).all()
    assert (found[2] == model.next_probabilities(np.array([[4]]))[0]).all()
    assert (found[2] != found[0]).any()


def test_the_hash_tells_texts_weight_and_words_apart() -> None:
    other = Vocabulary.of(["fox", "cat", "3"], 3)
    hashes = [
        BigramModel(TINY, list(TEXTS)).hash,
        BigramModel(TINY, list(TEXTS[:3])).hash,
        BigramModel(TINY, list(TEXTS), weight=0.7).hash,
        BigramModel(other, list(TEXTS)).hash,
    ]
    assert len(set(hashes)) == 4
    # The order of the texts decides nothing.
    assert BigramModel(TINY, list(TEXTS[::-1])).hash == hashes[0]
