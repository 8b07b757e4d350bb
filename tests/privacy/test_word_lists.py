"""A vocabulary from words and a model: vectors, map, and an epsilon that holds."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedcot.cli import main
from fedcot.config import load_config
from fedcot.errors import ConfigError
from fedcot.models.word_embeddings import WordEmbedding
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.channels import build_channel
from fedcot.privacy.dataset_vocabulary import dataset_vocabulary
from fedcot.privacy.verification import verify_channel
from fedcot.privacy.word_lists import WordList, embedded_artefact
from tests.models.word_models import TEXTS, word_model

KINDS = ("byte-level", "wordpiece", "sentencepiece", "t5")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: word_model(root / kind, kind) for kind in KINDS}


class Table:
    """Vectors by word, drawn from a seed."""

    name, hash = "table", "0" * 64

    def __init__(self, dimensions: int = 7, unknown: tuple[str, ...] = ()) -> None:
        self.dimensions, self.unknown = dimensions, unknown

    def vectors(self, words: list[str]) -> np.ndarray:
        found = np.zeros((len(words), self.dimensions))
        for row, word in enumerate(words):
            seed = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)
            if word not in self.unknown:
                # All share a large part, as the vectors of models do.
                found[row] = np.random.default_rng(seed).normal(size=self.dimensions)
                found[row] += 5.0
        return found


def listed(count: int) -> list[str]:
    letters = "abcdefghij"
    return ["".join(letters[int(d)] for d in str(100 + n)) for n in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_words_vector_is_the_mean_of_its_tokens_rows(models, kind) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = models[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach()
    embedding = WordEmbedding.of_model(str(folder))
    assert embedding.name == kind
    words = ["girl", "lily", "unbelievable", "12", "played"]
    found = embedding.vectors(words)
    several = 0
    for word, vector in zip(words, found, strict=True):
        # As the tokenizer reads it inside a text, by what stands before and after.
        whole = tokenizer(f"she {word}", add_special_tokens=False)["input_ids"]
        start = tokenizer("she", add_special_tokens=False)["input_ids"]
        assert whole[: len(start)] == start
        total = torch.zeros(rows.shape[1], dtype=torch.float64)
        for token in whole[len(start) :]:
            total += rows[token].double()
        several += len(whole) - len(start) > 1
        assert vector == pytest.approx((total / (len(whole) - len(start))).numpy())
    assert several


def test_a_word_of_unknown_tokens_has_no_vector(models) -> None:
    embedding = WordEmbedding.of_model(str(models["wordpiece"]))
    found = embedding.vectors(["girl", "\u05e9\u05dc\u05d5\u05dd"])
    assert found[0].any()
    assert not found[1].any()


def test_a_model_without_an_embedding_is_one_clear_line(models, tmp_path) -> None:
    folder = models["byte-level"]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for content in ({"other.weight": torch.zeros(3, 2)}, None):
        if content:
            save_file(content, tmp_path / "model.safetensors")
        else:
            (tmp_path / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(ConfigError, match="--embedding"):
            WordEmbedding.of_model(str(tmp_path))
    with pytest.raises(ConfigError, match="no such model folder"):
        WordEmbedding.of_model(str(tmp_path / "none"))


def test_rarer_words_map_to_the_kept_word_of_the_highest_cosine() -> None:
    """By the definition, pair by pair, on vectors from the mean of the kept words."""
    words = listed(40)
    rare = ["zebra", "yak", "47", words[3]]
    artefact = embedded_artefact(
        words, Table(), words=35, length=6, rare=rare, largest_number=4
    )
    kept = list(artefact.vocabulary.words[2:])
    assert kept == [*words[:30], "0", "1", "2", "3", "4"]
    table = dict(zip(kept, artefact.vectors[2:].astype(np.float64), strict=True))
    centre = sum(table[word] for word in words[:30]) / 30
    expected = {}
    for word in [*words[30:], "zebra", "yak"]:
        vector = Table().vectors([word])[0] - centre
        best, nearest = -2.0, ""
        for other in words[:30]:
            target = table[other] - centre
            size = math.sqrt(vector @ vector) * math.sqrt(target @ target)
            if vector @ target / size > best:
                best, nearest = vector @ target / size, other
        assert best > 0
        expected[word] = nearest
    assert dict(artefact.vocabulary.synonyms) == expected
    # A map that ignores the large part that all share would give another result.
    plain = {
        word: max(
            words[:30],
            key=lambda other: (
                (vector := Table().vectors([word])[0])
                @ table[other]
                / np.linalg.norm(table[other])
                / np.linalg.norm(vector)
            ),
        )
        for word in expected
    }
    assert plain != expected


def test_a_private_text_becomes_kept_words_and_nothing_else() -> None:
    words = listed(12)
    artefact = embedded_artefact(
        words,
        Table(unknown=("mute",)),
        words=21,
        length=8,
        rare=["zebra", "mute"],
        largest_number=10,
    )
    vocabulary = artefact.vocabulary
    text = f"Zebra, 7.9 and 4000; {words[11]} {words[0].upper()} mute!"
    back = vocabulary.decode(vocabulary.encode(text)).split()
    assert back == [
        vocabulary.synonyms["zebra"],
        "7",
        "9",
        "<unk>",
        "10",
        vocabulary.synonyms[words[11]],
        words[0],
        "<unk>",
    ]


def test_words_without_a_vector_are_left_out_and_counted() -> None:
    words = listed(10)
    artefact = embedded_artefact(
        [*words, "5"], Table(unknown=tuple(words[:3])), words=50, length=4
    )
    assert artefact.vocabulary.words[2:] == (*words[3:], "5")
    assert artefact.provenance["words_without_vector"] == 3
    with pytest.raises(ConfigError, match="at least two of the words"):
        embedded_artefact(words, Table(unknown=tuple(words[1:])), length=4, words=200)
    with pytest.raises(ConfigError, match="--words"):
        embedded_artefact(words, Table(), length=4, words=100)


@pytest.mark.parametrize("mechanism", ["rank", "exponential"])
def test_the_epsilon_over_such_a_vocabulary_is_the_one_asked_for(
    models, mechanism
) -> None:
    """The enumeration of the integer weights, over sub-token means of a real model."""
    words = sorted({w.strip(".,!").lower() for text in TEXTS for w in text.split()})
    artefact = embedded_artefact(
        [word for word in words if word.isalpha()],
        WordEmbedding.of_model(str(models["byte-level"])),
        words=30,
        length=5,
        largest_number=5,
    )
    assert artefact.vocabulary.synonyms
    channel = build_channel(
        mechanism, artefact.vocabulary, 3.0, similarity=artefact.similarity
    )
    found = verify_channel(channel)
    assert found.holds
    assert 2.9 < found.exact_epsilon <= 3.0
    assert found.prompt_epsilon == pytest.approx(5 * channel.token_epsilon)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("dog\ncat\n\nDog\n", ("dog", "cat")),
        ("cat 3\ndog\t9\nant,3\nDOG 1\n", ("dog", "ant", "cat")),
        ("ice-cream\n007\n7\n\ufeff\n", ("ice", "cream", "7")),
        ("\ufeffdog\n", ("dog",)),
    ],
)
def test_a_word_list_is_read_in_its_order_or_by_its_counts(
    tmp_path, content, words
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(content, encoding="utf-8")
    found = WordList.read(path)
    assert found.words == words
    assert found.hash == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "content",
    [b"dog 3\ncat\n", b"dog 3 4\n", b"dog x\n", b"dog -3\n", b"\n", b"!\n", b"\xff"],
)
def test_a_word_list_of_another_form_is_one_clear_line(tmp_path, content) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="--rare-words") as caught:
        WordList.read(path, "--rare-words")
    assert "\n" not in str(caught.value)


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["privacy", "vocabulary", *map(str, arguments)])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_the_command_takes_a_list_rarer_words_and_the_student(
    models, tmp_path, capsys
) -> None:
    (tmp_path / "list.txt").write_text("girl 5\nball 4\nred 3\npark 2\nbig 1\n")
    (tmp_path / "rare.txt").write_text("lily\nhuge\n")
    (tmp_path / "text.txt").write_text("The girl played.\n")
    output = tmp_path / "new" / "v.safetensors"
    code, out, _ = call(
        capsys,
        *("--word-list", tmp_path / "list.txt", "--rare-words", tmp_path / "rare.txt"),
        *("--text", tmp_path / "text.txt", "--student", models["byte-level"]),
        *("--words", 8, "--numbers", 3, "--slots", 9, "--output", output, "--json"),
    )
    assert code == 0
    content = json.loads(out)
    artefact = VocabularyArtefact.load(output)
    words = ("girl", "ball", "red", "park", "0", "1", "2", "3")
    assert artefact.vocabulary.words[2:] == words
    mapped = artefact.vocabulary.synonyms.keys()
    assert mapped <= {"big", "lily", "huge", "the", "played"}
    assert content["mapped"] == len(mapped) > 0
    assert content["hash"] == artefact.hash
    assert artefact.vocabulary.length == 9
    embedding = WordEmbedding.of_model(str(models["byte-level"]))
    assert artefact.provenance["embedding_hash"] == embedding.hash
    assert (
        artefact.provenance["word_list_hash"]
        == hashlib.sha256((tmp_path / "list.txt").read_bytes()).hexdigest()
    )
    assert str(tmp_path) not in json.dumps(dict(artefact.provenance))
    assert artefact.vectors[2:6] == pytest.approx(
        embedding.vectors(words[:4]).astype(np.float32)
    )


def test_the_command_refuses_what_says_nothing(tmp_path, capsys) -> None:
    (tmp_path / "text.txt").write_text("a b\n")
    output = tmp_path / "v.safetensors"
    for arguments, named in (
        ((), "--word-list"),
        (("--text", tmp_path / "text.txt", "--rare-words", "r"), "--embedding"),
        (("--text", tmp_path / "text.txt", "--public-share", 0.2), "--dataset"),
        (("--dataset", tmp_path / "none.toml"), "public-share"),
        (("--word-list", tmp_path / "none.txt"), "--word-list"),
    ):
        code, out, err = call(capsys, *arguments, "--output", output)
        assert (code, out) == (2, "")
        assert named in err
        assert len(err.strip().splitlines()) == 1
        assert not output.exists()


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, Path]:
    """Return a mapping and the folder that its 60 questions lie in."""
    data = tmp_path / "data"
    data.mkdir()
    rows = [
        {"q": f"Tom has {n} red balls and {n + 1} dogs in park {n % 5}?", "a": str(n)}
        for n in range(60)
    ]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = tmp_path / "sums.toml"
    mapping.write_text(
        'name = "sums"\n[source]\ntrain = "rows.jsonl"\ntest-share = 0.1\n'
        '[fields]\nquestion = "q"\nanswer = "a"\n[answer]\nkind = "numeric"\n'
        "[slots]\nquestion = 11\n"
    )
    return mapping, data


def test_a_datasets_vocabulary_is_built_once_from_its_public_share(
    dataset, tmp_path, capsys
) -> None:
    mapping, data = dataset
    given = {
        "dataset": str(mapping),
        "data-dir": str(data),
        "public-share": 0.5,
        "vocabulary": "dataset",
        "bank": "dataset",
    }
    config = load_config(None, given)
    folder = tmp_path / "kept"
    path = dataset_vocabulary(config, folder)
    artefact = VocabularyArtefact.load(path)
    assert artefact.vocabulary.length == 11
    assert {"tom", "balls", "dogs"} <= set(artefact.vocabulary.words)
    # Numbers of private rows are not in it.
    from fedcot.data.loading import load_dataset

    public = {word for r in load_dataset(config).public for word in r.question.split()}
    numbers = {word for word in artefact.vocabulary.words if word.isdecimal()}
    assert 0 < len(numbers) < 61
    assert numbers <= {word.strip("?") for word in public}
    written = path.stat().st_mtime_ns
    assert dataset_vocabulary(config, folder) == path
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"cut short")
    assert dataset_vocabulary(config, folder) == path
    assert VocabularyArtefact.load(path).hash == artefact.hash
    other = dataset_vocabulary(
        load_config(None, {**given, "public-share": 0.6}), folder
    )
    assert other != path
    assert {file.name for file in folder.iterdir()} == {path.name, other.name}
    output = tmp_path / "v.safetensors"
    code, _, _ = call(
        capsys,
        *("--dataset", mapping, "--data-dir", data, "--public-share", 0.5),
        *("--output", output),
    )
    assert code == 0
    assert VocabularyArtefact.load(output).hash == artefact.hash
