import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from fedcot.errors import ConfigError
from fedcot.privacy.artefact import METADATA, TENSOR, VocabularyArtefact
from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.vocabulary import Vocabulary

WORDS = Vocabulary.of(["cat", "dog", "ship", "2", "30"], 4, {"kitten": "cat"})
VECTORS = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
PROVENANCE = {"source": "a test", "texts": 3, "share_kept": 0.5}
ARTEFACT = VocabularyArtefact(WORDS, VECTORS, PROVENANCE)


def description(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    content: dict[str, Any] = json.loads(header["__metadata__"][METADATA])
    return content


def write(path: Path, content: object, vectors: np.ndarray = VECTORS) -> None:
    path.write_bytes(save({TENSOR: vectors}, metadata={METADATA: json.dumps(content)}))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        VocabularyArtefact.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("`vocabulary`")
    return message


def test_an_artefact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    loaded = VocabularyArtefact.load(path)
    assert loaded.vocabulary == WORDS
    assert loaded.vocabulary.hash == WORDS.hash
    assert loaded.vectors.dtype == np.float32
    assert loaded.vectors.tobytes() == VECTORS.tobytes()
    assert loaded.provenance == PROVENANCE
    assert loaded.hash == ARTEFACT.hash
    assert loaded.vocabulary.encode("a KITTEN, 29").tolist() == [1, 2, 6, 0]
    path.unlink()
    loaded.save(path)
    assert VocabularyArtefact.load(path).hash == ARTEFACT.hash


def test_the_similarity_ranks_numbers_by_distance() -> None:
    assert (ARTEFACT.similarity == blend_similarity(WORDS, VECTORS)).all()
    assert ARTEFACT.similarity[5, 6] == 1 / 29


def test_the_hash_covers_every_part() -> None:
    moved = VECTORS.copy()
    moved[3, 1] = np.nextafter(moved[3, 1], np.float32(9))
    others = [
        VocabularyArtefact(WORDS, moved, PROVENANCE),
        VocabularyArtefact(WORDS, VECTORS, {**PROVENANCE, "texts": 4}),
        VocabularyArtefact(Vocabulary(WORDS.words, 4), VECTORS, PROVENANCE),
        VocabularyArtefact(
            Vocabulary(WORDS.words, 5, WORDS.synonyms), VECTORS, PROVENANCE
        ),
        VocabularyArtefact(
            Vocabulary(WORDS.words, 4, {"kitten": "dog"}), VECTORS, PROVENANCE
        ),
        VocabularyArtefact(
            Vocabulary((*WORDS.words[:-1], "31"), 4, WORDS.synonyms),
            VECTORS,
            PROVENANCE,
        ),
    ]
    assert len({ARTEFACT.hash, *(other.hash for other in others)}) == 7


def test_a_vocabulary_without_synonyms_keeps_the_hash_it_had() -> None:
    """Releases of a ledger are found by it."""
    plain = Vocabulary.of(["cat"], 3)
    content = json.dumps([1, 3, ["", "<unk>", "cat"]])
    assert plain.hash == hashlib.sha256(content.encode()).hexdigest()
    assert plain.hash != Vocabulary.of(["cat"], 3, {"kitten": "cat"}).hash


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda content: content["words"].__setitem__(3, "dogs"),
    lambda content: content.update(length=5),
    lambda content: content["synonyms"].update(kitten="dog"),
    lambda content: content["provenance"].update(source="another"),
    lambda content: content.update(hash="0" * 64),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_description_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    content = description(path)
    write(path, content)
    VocabularyArtefact.load(path)
    change(content)
    write(path, content)
    assert "hash does not match" in refusal(path)


def test_one_changed_bit_of_a_vector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    raw = bytearray(path.read_bytes())
    raw[-4] ^= 1
    path.write_bytes(raw)
    assert "hash does not match" in refusal(path)


@pytest.mark.parametrize("missing", ["words", "length", "synonyms", "provenance"])
def test_a_description_with_a_part_missing_is_refused(
    tmp_path: Path, missing: str
) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    content = description(path)
    del content[missing]
    write(path, content)
    assert "lacks a part" in refusal(path)


@pytest.mark.parametrize("part", ["words", "length", "synonyms", "provenance"])
def test_a_part_of_another_type_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    for wrong in (None, 3.5, [1, 2], {"a": []}):
        write(path, {**description(path), part: wrong})
        refusal(path)
        ARTEFACT.save(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    assert "found" in refusal(path)
    ARTEFACT.save(path)
    whole = path.read_bytes()
    for content in (b"", b"words", pickle.dumps(["cat"]), whole[:-5], whole[:40]):
        path.write_bytes(content)
        assert "no vocabulary artefact" in refusal(path)
    path.write_bytes(save({"other": VECTORS}, metadata={METADATA: "{}"}))
    assert "no vocabulary artefact" in refusal(path)
    path.write_bytes(save({TENSOR: VECTORS}))
    assert "no vocabulary artefact" in refusal(path)
    write(path, {"format": 99})
    assert "its format is not 1" in refusal(path)
    write(path, [1])
    assert "its format is not 1" in refusal(path)


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.safetensors"
    ARTEFACT.save(path)
    content = description(path)
    for wrong in (VECTORS[:3], VECTORS.astype(np.float64), np.zeros(7, np.float32)):
        write(path, content, wrong)
        assert "must be finite float32 with 7 rows" in refusal(path)
    broken = VECTORS.copy()
    broken[2, 2] = np.nan
    with pytest.raises(ConfigError, match="must be finite float32"):
        VocabularyArtefact(WORDS, broken, PROVENANCE)
