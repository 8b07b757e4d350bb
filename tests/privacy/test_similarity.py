import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedcot.errors import ConfigError
from fedcot.privacy.embedding import (
    EMBEDDING_NAME,
    STEPS,
    blend_similarity,
    model_vectors,
)
from fedcot.privacy.vocabulary import Vocabulary

WORDS = Vocabulary.of(["cat", "dog", "ship", "2", "3", "9"], 4)
VECTORS = np.zeros((8, 2))
VECTORS[2:5] = [[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]


def at(left: str, right: str, similarity: np.ndarray) -> float:
    return float(similarity[WORDS.words.index(left), WORDS.words.index(right)])


def test_numbers_are_ranked_by_distance_and_apart_from_words() -> None:
    similarity = blend_similarity(WORDS, VECTORS)
    assert at("2", "3", similarity) == 1 / 2
    assert at("2", "9", similarity) == 1 / 8
    assert at("2", "cat", similarity) == at("2", "<unk>", similarity) == 0
    assert at("cat", "dog", similarity) > 0.9
    assert at("cat", "ship", similarity) == 0
    assert at("", "cat", similarity) == at("", "2", similarity) == 0
    assert (np.diag(similarity) == 1).all()
    assert (similarity == similarity.T).all()


def test_the_similarity_does_not_depend_on_the_scale_of_the_vectors() -> None:
    doubled = blend_similarity(WORDS, 2 * VECTORS)
    assert doubled.tobytes() == blend_similarity(WORDS, VECTORS).tobytes()


@pytest.mark.parametrize("bad", [VECTORS[:3], np.full((8, 2), np.nan)])
def test_vectors_must_fit_the_vocabulary(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one finite row"):
        blend_similarity(WORDS, bad)


def test_vectors_come_from_the_model_by_token(tmp_path: Path) -> None:
    table = torch.arange(10.0).reshape(5, 2).to(torch.bfloat16)
    save_file({EMBEDDING_NAME: table}, tmp_path / "model.safetensors")
    tokens = {"<unk>": 0, "\u2581cat": 1, "dog": 2, "3": 4}
    content = json.dumps({"model": {"vocab": tokens}})
    (tmp_path / "tokenizer.json").write_text(content)
    vectors = model_vectors(WORDS, tmp_path)
    assert vectors[:4].tolist() == [[0, 0], [0, 1], [2, 3], [4, 5]]
    assert vectors[WORDS.words.index("3")].tolist() == [8, 9]
    assert not vectors[WORDS.words.index("ship")].any()


def test_the_similarity_is_that_of_whole_numbers() -> None:
    """Float products of the rounded vectors are exact, so every machine agrees."""
    words = Vocabulary.of([f"w{chr(97 + place)}" for place in range(20)], 4)
    vectors = np.random.default_rng(4).normal(size=(22, 70))
    steps = np.rint(vectors[1:] / np.abs(vectors[1:]).max() * STEPS).astype(np.int64)
    centred = (steps - steps.sum(axis=0) // len(steps)).tolist()
    similarity = blend_similarity(words, vectors)
    for left, right in ((0, 1), (3, 17), (20, 5)):
        dots = [
            sum(a * b for a, b in zip(centred[first], centred[second], strict=True))
            for first, second in ((left, right), (left, left), (right, right))
        ]
        first, second = math.sqrt(dots[1]), math.sqrt(dots[2])
        mean = (dots[0] / first / second + dots[0] / second / first) / 2
        assert similarity[left + 1, right + 1] == max(0.0, mean)


def test_a_broken_model_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="public language model needs"):
        model_vectors(WORDS, tmp_path)


def test_a_folder_without_the_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="public language model needs"):
        model_vectors(WORDS, tmp_path)
