import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.errors import ConfigError
from fedcot.privacy.vocabulary import PAD_ID, UNKNOWN_ID, Vocabulary, world_vocabulary
from fedcot.world.vocabulary import PUBLIC_LENGTH, question_words

WORDS = ("a", "book", "shelf", "0", "3", "10", "40")
SMALL = Vocabulary.of(WORDS, 4)


def ids(*words: str) -> list[int]:
    known = [SMALL.words.index(word) for word in words]
    return known + [PAD_ID] * (4 - len(known))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text())
def test_any_text_becomes_the_public_number_of_public_ids(text: str) -> None:
    encoded = SMALL.encode(text)
    assert encoded.shape == (4,)
    assert encoded.dtype == np.int64
    assert ((encoded >= 0) & (encoded < len(SMALL.words))).all()
    assert set(SMALL.decode(encoded).split()) <= set(SMALL.words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A  book,\nSHELF!", ids("a", "book", "shelf")),
        ("", ids()),
        ("a a a a book", ids("a", "a", "a", "a")),
        ("zebra book", ids("<unk>", "book")),
        ("<unk> <pad>", ids("<unk>", "<unk>")),
        ("1 2 6 7", ids("0", "3", "3", "10")),
        ("25 24 26 007", ids("10", "10", "40", "10")),
        ("000 99 " + "9" * 6000, ids("0", "40", "40")),
        ("\u0663 \uff13 3", ids("3", "3", "3")),  # Arabic-Indic and full-width three
    ],
)
def test_words_and_numbers_map_publicly(text: str, expected: list[int]) -> None:
    assert SMALL.encode(text).tolist() == expected


def test_numbers_are_unknown_words_where_the_vocabulary_has_none() -> None:
    words = Vocabulary.of(["a"], 2)
    assert words.encode("7 a").tolist() == [UNKNOWN_ID, 2]


def test_rarer_words_map_to_the_word_that_stands_for_them() -> None:
    synonyms = {"novel": "book", "rack": "shelf", "seven": "10", "uh": "<unk>"}
    words = Vocabulary.of(WORDS, 4, synonyms)
    assert words.encode("NOVEL rack seven uh").tolist() == ids(
        "book", "shelf", "10", "<unk>"
    )
    assert words.encode("novel 7 zebra book").tolist() == ids(
        "book", "10", "<unk>", "book"
    )
    assert words.decode(words.encode("a novel")) == "a book"


def test_synonyms_are_part_of_the_vocabulary() -> None:
    given = {"novel": "book"}
    words = Vocabulary.of(WORDS, 4, given)
    before = words.hash
    given["novel"] = "shelf"
    assert words.encode("novel").tolist() == ids("book")
    assert words == Vocabulary.of(WORDS, 4, {"novel": "book"})
    assert words != SMALL
    hashes = {
        before,
        SMALL.hash,
        Vocabulary.of(WORDS, 4, given).hash,
        Vocabulary.of(WORDS, 4, {"novels": "book"}).hash,
    }
    assert len(hashes) == 4
    assert hash(words) == hash(Vocabulary.of(WORDS, 4, {"novel": "book"}))


@pytest.mark.parametrize(
    ("synonyms", "rule"),
    [
        ({"book": "shelf"}, "not in the vocabulary, found 'book'"),
        ({"<unk>": "book"}, "single normalised words"),
        ({"Novel": "book"}, "single normalised words"),
        ({"no vel": "book"}, "single normalised words"),
        ({"": "book"}, "single normalised words"),
        ({"7": "book"}, "no numbers"),
        ({"\u0663": "book"}, "no numbers"),
        ({"novel": ""}, "must map to words of the vocabulary, found ''"),
        ({"novel": "tome"}, "must map to words of the vocabulary, found 'tome'"),
    ],
)
def test_bad_synonyms_are_refused(synonyms: dict[str, str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        Vocabulary.of(WORDS, 4, synonyms)


def test_decode_drops_padding_only_and_refuses_foreign_ids() -> None:
    assert SMALL.decode([2, PAD_ID, UNKNOWN_ID, 5]) == "a <unk> 0"
    with pytest.raises(ValueError, match="must lie in"):
        SMALL.decode([len(SMALL.words)])


def test_the_hash_covers_words_order_and_length() -> None:
    others = [
        Vocabulary.of(WORDS, 5),
        Vocabulary.of((*WORDS, "b"), 4),
        Vocabulary.of(WORDS[::-1], 4),
    ]
    assert len({SMALL.hash, *(other.hash for other in others)}) == 4
    assert Vocabulary.of(list(WORDS), 4).hash == SMALL.hash


@pytest.mark.parametrize(
    ("words", "length", "rule"),
    [
        (("a", "b"), 3, "must begin with"),
        (("", "<unk>", "a", "a"), 3, "must be distinct"),
        (("", "<unk>", "a b"), 3, "must not hold blanks"),
        (("", "<unk>", "a"), 0, "must be >= 1, found 0"),
        (("", "<unk>", "a"), 2.5, "must be >= 1, found 2.5"),
    ],
)
def test_a_bad_vocabulary_is_refused(
    words: tuple[str, ...], length: int, rule: str
) -> None:
    with pytest.raises(ConfigError, match=rule):
        Vocabulary(words, length)


def test_the_world_vocabulary_holds_every_question_word() -> None:
    vocabulary = world_vocabulary()
    assert vocabulary.length == PUBLIC_LENGTH
    for token, word in enumerate(question_words(), start=2):
        encoded = vocabulary.encode(word)
        assert encoded.tolist() == [token] + [PAD_ID] * (PUBLIC_LENGTH - 1)
