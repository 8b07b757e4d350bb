"""Variations keep a beginning and let the public model write the rest."""

import numpy as np

from fedcot.data.variations import vary
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.vocabulary import PAD_ID, Vocabulary

WORDS = Vocabulary.of(["fox", "hen", "runs", "sleeps"], 4)
TEXTS = ["fox runs", "hen sleeps", "fox sleeps", "hen runs fox"]
MODEL = BigramModel(WORDS, [WORDS.encode(text) for text in TEXTS])


class Chain:
    """A model that is sure: each word is followed by the next id."""

    hash = "chain"

    def next_probabilities(self, prefixes: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(prefixes), len(WORDS.words)))
        rows[np.arange(len(prefixes)), (prefixes[:, -1] + 1) % len(WORDS.words)] = 1
        return rows


def test_a_variation_begins_like_its_parent_and_goes_on_as_the_model_says():
    parents = np.array([[2, 2, 2, 2], [4, 4, PAD_ID, PAD_ID]])
    varied = vary(parents, Chain(), 400, np.random.default_rng(0))
    for index, row in enumerate(varied):
        parent = parents[index % 2]
        # What the model wrote rises by one; before it stands the parent's beginning.
        ends = [
            cut
            for cut in range(1, 5)
            if (row[:cut] == parent[:cut]).all()
            and (np.diff(row[cut - 1 :]) % len(WORDS.words) == 1).all()
        ]
        assert ends, (parent, row)
    kept_all = (varied[::2] == parents[0]).all(axis=1).mean()
    # A quarter of the cuts lies behind the last of four words.
    assert 0.15 < kept_all < 0.35


def test_the_first_word_is_never_changed_and_one_seed_gives_one_bank():
    parents = np.stack([WORDS.encode(text) for text in TEXTS])
    first = vary(parents, MODEL, 50, np.random.default_rng(3))
    again = vary(parents, MODEL, 50, np.random.default_rng(3))
    assert (first == again).all()
    assert (first[:, 0] == parents[np.arange(50) % 4, 0]).all()
    assert len(np.unique(first, axis=0)) > len(parents)
