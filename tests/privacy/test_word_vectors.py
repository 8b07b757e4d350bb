import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.privacy.word_vectors import (
    CONTEXT_SMOOTHING,
    build_artefact,
    count_words,
    question_texts,
    word_vectors,
)

ANIMALS = ("cat", "dog", "fox")
TOOLS = ("saw", "axe", "drill")


def corpus() -> list[str]:
    """Animals eat and sleep, tools cut and rust; numbers count both."""
    texts = []
    for place, (animal, tool) in enumerate(zip(ANIMALS, TOOLS, strict=True)):
        for verb, end in (("eats", "food"), ("sleeps", "long"), ("runs", "home")):
            texts.append(f"The {animal} {verb} {end} and {place + 2} {animal} more")
        for verb, end in (("cuts", "wood"), ("rusts", "quickly"), ("lies", "there")):
            texts.append(f"A {tool} {verb} {end} beside {place + 12} {tool} of iron")
    return texts


def naive_scores(
    texts: list[str], words: list[str], window: int
) -> tuple[np.ndarray, list[str]]:
    """Positive mutual information by the definition, pair by pair."""
    contexts = [word for word in words if not word.isdecimal()] + ["#"]
    counts = np.zeros((len(words), len(contexts)))
    for text in texts:
        tokens = text.lower().split()
        for place, word in enumerate(tokens):
            for other in range(place - window, place + window + 1):
                if other == place or not 0 <= other < len(tokens):
                    continue
                near = "#" if tokens[other].isdecimal() else tokens[other]
                if word in words and near in contexts:
                    counts[words.index(word), contexts.index(near)] += 1
    by_context = counts.sum(axis=0) ** CONTEXT_SMOOTHING
    scores = np.zeros_like(counts)
    for row, column in np.argwhere(counts > 0):
        given_word = counts[row, column] / counts[row].sum()
        share = by_context[column] / by_context.sum()
        scores[row, column] = max(0.0, math.log(given_word / share))
    return scores, contexts


def random_texts() -> list[str]:
    """Every word beside every other, also less often than chance has it."""
    generator = np.random.default_rng(8)
    return [" ".join(generator.choice(list("abcdefgh"), size=6)) for _ in range(60)]


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("texts", [corpus(), random_texts()])
def test_vectors_are_the_decomposition_of_mutual_information(
    texts: list[str], window: int
) -> None:
    words = sorted(count_words(texts))
    found = word_vectors(texts, words, dimensions=5, window=window)
    scores, _ = naive_scores(texts, words, window)
    left, strengths, _ = np.linalg.svd(scores)
    expected = left[:, :5] * np.sqrt(strengths[:5])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    # The sign of an axis is free, the angle between two words is not.
    assert found @ found.T == pytest.approx(expected @ expected.T, abs=1e-8)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)


def test_a_rarer_word_lies_where_its_neighbours_put_it() -> None:
    """A word with the contexts of another has its vector, and moves no other."""
    texts = corpus()
    words = sorted(count_words(texts))
    alike = [text.replace("cat", "lynx") for text in texts if "cat" in text]
    without = word_vectors(texts, words, dimensions=6)
    both = word_vectors([*texts, *alike], words, ["lynx", "yeti"], dimensions=6)
    cat, lynx = both[words.index("cat")], both[len(words)]
    assert without.shape == (len(words), 6)
    assert both.shape == (len(words) + 2, 6)
    assert cat @ lynx > 0.99
    assert not both[len(words) + 1].any()
    assert word_vectors(texts, words, ["yeti"], dimensions=6)[:-1] == pytest.approx(
        without
    )


def test_no_window_reaches_into_the_next_text() -> None:
    """Otherwise the order of the texts would show."""
    texts = corpus()
    words = sorted(count_words(texts))
    vectors = word_vectors(texts, words, dimensions=5)
    assert word_vectors(texts[::-1], words, dimensions=5) == pytest.approx(vectors)
    joined = word_vectors([" ".join(texts)], words, dimensions=5)
    assert joined @ joined.T != pytest.approx(vectors @ vectors.T, abs=0.1)


def test_an_axis_without_strength_places_nobody() -> None:
    """p, q and r are alike, so their differences are no direction, not even for x."""
    texts = ["p c", "q c", "r c", "x p"] * 3
    vectors = word_vectors(texts, ["p", "q", "r", "c"], ["x"], dimensions=3)
    assert np.isfinite(vectors).all()
    assert vectors[4] @ vectors[3] > 0.99
    assert vectors[0] @ vectors[1] > 0.9


def test_text_without_neighbours_is_refused() -> None:
    with pytest.raises(ConfigError, match="stand near each other"):
        word_vectors(["a", "b", "c"], ["a", "b", "c"], dimensions=1)


def test_words_are_counted_as_they_are_encoded() -> None:
    counts = count_words(["The cat, the CAT!", "3 cats; 3.5"])
    assert counts == {"the": 2, "cat": 2, "3": 2, "cats": 1, "5": 1}


def test_frequent_words_make_the_vocabulary_and_rarer_ones_map_to_it() -> None:
    texts = corpus() * 3 + ["the lynx eats food", "the lynx runs home", "yeti"]
    texts += ["99 saw 7 once", "drill 99 saw 7"]
    counts = count_words(texts)
    artefact = build_artefact(texts, words=30, dimensions=6, length=9)
    words = list(artefact.vocabulary.words[2:])
    assert words == sorted(counts, key=lambda word: (-counts[word], word))[:30]
    assert artefact.vocabulary.length == 9
    assert artefact.vectors.shape == (32, 6)
    assert not artefact.vectors[:2].any()
    assert artefact.vocabulary.synonyms["lynx"] in {*ANIMALS, "eats", "runs", "sleeps"}
    assert not {"yeti", "once"} & set(artefact.vocabulary.synonyms)
    wider = build_artefact(texts, words=30, dimensions=6, rarest=1)
    assert wider.vocabulary.synonyms.keys() - artefact.vocabulary.synonyms == {"once"}
    assert not {"99", "7"} & set(words)
    assert not any(word.isdecimal() for word in artefact.vocabulary.synonyms)
    assert artefact.provenance["texts"] == len(texts)
    assert artefact.provenance["words_read"] == counts.total()
    assert artefact.provenance["share_kept"] == pytest.approx(
        sum(counts[word] for word in words) / counts.total(), abs=1e-6
    )


def test_words_in_the_same_surroundings_are_alike() -> None:
    artefact = build_artefact(corpus(), words=40, dimensions=6, length=9)
    place = artefact.vocabulary.words.index
    animals = [place(word) for word in ANIMALS]
    tools = [place(word) for word in TOOLS]
    similarity = artefact.similarity
    among = similarity[np.ix_(animals, animals)].min()
    assert among > similarity[np.ix_(animals, tools)].max() + 0.3


def test_the_same_text_makes_the_same_artefact() -> None:
    first = build_artefact(corpus(), words=40, dimensions=6)
    again = build_artefact(iter(corpus()), words=40, dimensions=6)
    assert first.hash == again.hash
    assert first.hash != build_artefact(corpus()[1:], words=40, dimensions=6).hash


def test_only_one_spelling_of_a_number_is_kept() -> None:
    long = "9" * 5000
    texts = [f"{text} 007 7 \u0663 \uff15 {long}" for text in corpus()]
    words = build_artefact(texts, words=60, dimensions=6).vocabulary.words
    assert {"7", "5"} <= set(words)
    assert not {"007", "\u0663", long} & set(words)


@pytest.mark.parametrize("dimensions", [0, 3, 10])
def test_too_few_words_for_the_dimensions_are_refused(dimensions: int) -> None:
    with pytest.raises(ConfigError, match="`dimensions` must lie in"):
        word_vectors(["a b c"], ["a", "b", "c"], dimensions=dimensions)


def test_questions_are_read_from_lists_and_from_lines(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "strategyqa").mkdir()
    rows = [{"question": "How many?", "answer": "no"}, {"question": "Why?"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "gsm8k" / "train.jsonl").write_text(lines + "\n")
    facts = [{"question": "Is it?", "facts": ["It is.", "So."], "answer": True}]
    (tmp_path / "strategyqa" / "train.json").write_text(json.dumps(facts))
    assert question_texts(tmp_path) == ["How many?", "Why?", "Is it? It is. So."]


def test_a_folder_without_questions_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold gsm8k.*found none of them"):
        question_texts(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"other": 1}', "[3]", '{"question": 3}'])
def test_a_broken_file_of_questions_is_one_clear_error(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text(content)
    with pytest.raises(ConfigError, match="must hold JSON rows"):
        question_texts(tmp_path)
