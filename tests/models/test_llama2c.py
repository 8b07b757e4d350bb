"""Somebody else's weights: converted they compute the same and read the same."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from fedcot.errors import ConfigError
from fedcot.models.llama2c import convert, half_split
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.sentencepiece_bpe import fast_tokenizer
from tests.models.llama2c_files import Plain, train_pieces, write_checkpoint

PROMPTS = (
    "Once upon a time",
    "Lily said: \u201cI am 12 years old!\u201d\n\nThen she left.",
    "a</s>b \U0001f600 \u05e9\u05dc\u05d5\u05dd  two  blanks \x00 and tabs\t",
    "zzz " * 60,
)
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "Tom saw a big red ball in the park. He wanted to play with it.",
    "The dog was very happy. It ran to its mom and gave her a big hug.",
)


def read(path: Path) -> LoadedModel:
    return load_model(str(path), "student")


def logits(loaded: LoadedModel, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids])).logits[0].numpy()


def check_same(loaded: LoadedModel, checkpoint: Path, pieces: Path) -> None:
    plain = Plain(checkpoint)
    reference = SentencePieceProcessor(model_file=str(pieces))
    for prompt in PROMPTS:
        ids = loaded.tokenizer(prompt)["input_ids"]
        assert ids == [1, *reference.encode(prompt)]
        ids = ids[: plain.sequence]
        np.testing.assert_allclose(
            logits(loaded, ids), plain.logits(ids), rtol=0, atol=1e-4
        )


@pytest.fixture(scope="module")
def real(data_folder: Path) -> Path:
    return data_folder / "stories260K"


@pytest.fixture(scope="module")
def stories(real: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("converted") / "stories260K"
    convert(real, folder)
    return read(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random checkpoint, its tokenizer and a licence."""
    folder = tmp_path_factory.mktemp("small")
    train_pieces(folder)
    write_checkpoint(folder / "small.bin", vocabulary=300, tied=True)
    (folder / "LICENSE").write_text("Anyone may.")
    (folder / "tokenizer.bin").write_bytes(b"\x01\x00\x00\x00" * 40)
    return folder


def test_real_weights_compute_the_same_as_in_their_own_format(stories, real) -> None:
    check_same(stories, real / "stories260K.bin", real / "tok512.model")
    assert stories.model.num_parameters() == 260_032


def test_real_weights_know_stories_from_shuffled_words(stories) -> None:
    """A wrong rotation or a wrong order of layers makes both equally unlikely."""

    def nats_per_token(text: str) -> float:
        ids = stories.tokenizer(text)["input_ids"]
        shares = torch.tensor(logits(stories, ids)).log_softmax(-1)
        return -float(shares[range(len(ids) - 1), ids[1:]].mean())

    generator = np.random.default_rng(0)
    for text in STORY:
        shuffled = " ".join(generator.permutation(text.split()))
        assert nats_per_token(text) < 2.0
        assert nats_per_token(shuffled) > nats_per_token(text) + 1.0


def test_real_weights_write_a_story(stories) -> None:
    tokenizer = stories.tokenizer
    inputs = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    with torch.inference_mode():
        written = stories.model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=40,
            do_sample=False,
        )
    text = tokenizer.decode(written[0], skip_special_tokens=True)
    assert text.startswith("Once upon a time, there was a little girl named Lily. She")


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_ids_are_those_of_the_real_tokenizer(stories, real, text) -> None:
    reference = SentencePieceProcessor(model_file=str(real / "tok512.model"))
    ids = stories.tokenizer(text)["input_ids"]
    assert ids == [1, *reference.encode(text)]
    back = stories.tokenizer.decode(ids, skip_special_tokens=True)
    assert back == reference.decode(reference.encode(text))
    # All that is lost are blanks that the model does not tell apart.
    if "\u2581" not in text:
        assert back == " ".join(part for part in text.split(" ") if part)


def test_a_text_that_spells_a_special_token_stays_text(stories) -> None:
    text = "a</s> b<s><unk>"
    ids = stories.tokenizer(text)["input_ids"]
    assert ids[0] == 1
    assert not {0, 1, 2} & set(ids[1:])
    assert stories.tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("tied", [True, False])
def test_random_weights_compute_the_same(tmp_path, tied) -> None:
    """A head of its own, and fewer key-value heads than heads."""
    pieces = train_pieces(tmp_path)
    checkpoint = write_checkpoint(tmp_path / "m.bin", vocabulary=300, tied=tied)
    convert(checkpoint, tmp_path / "out", pieces)
    loaded = read(tmp_path / "out")
    check_same(loaded, checkpoint, pieces)
    assert loaded.model.config.tie_word_embeddings is tied


def test_every_second_row_goes_into_the_second_half() -> None:
    rows = np.arange(12, dtype=np.float32)[:, None]
    assert half_split(rows, 2)[:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_what_was_read_and_written_is_on_record(small, tmp_path) -> None:
    convert(small, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert record["files"].keys() == files - {"conversion.json"}
    for name, digest in {**record["files"], **record["source"]}.items():
        folder = small if name in record["source"] else tmp_path / "out"
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert (tmp_path / "out" / "LICENSE").read_text() == "Anyone may."
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "`small.bin`" in readme
    assert str(tmp_path) not in readme + json.dumps(record)


def changed(content: bytes, place: int, value: int) -> bytes:
    numbers = np.frombuffer(content[:28], dtype="<i4").copy()
    numbers[place] = value
    return numbers.tobytes() + content[28:]


BROKEN = {
    "empty": lambda content: b"",
    "short header": lambda content: content[:27],
    "truncated": lambda content: content[:-4],
    "longer": lambda content: content + b"\0",
    "no layers": lambda content: changed(content, 2, 0),
    "negative width": lambda content: changed(content, 0, -32),
    "absurd sizes": lambda content: changed(content, 0, 2**31 - 4),
    "heads that do not divide": lambda content: changed(content, 3, 5),
    "key-value heads that do not divide": lambda content: changed(content, 4, 3),
    "most negative vocabulary": lambda content: changed(content, 5, -(2**31)),
    "newer version": lambda content: b"24ka" + content,
    "not finite": lambda content: content[:28] + b"\0\0\xc0\x7f" + content[32:],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_leaves_nothing_behind(small, tmp_path, kind) -> None:
    bad = tmp_path / "bad.bin"
    bad.write_bytes(BROKEN[kind]((small / "small.bin").read_bytes()))
    with pytest.raises(ConfigError, match=r"SOURCE.*bad\.bin") as caught:
        convert(bad, tmp_path / "out", small / "pieces.model")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.bin"]


def test_another_rotation_is_refused(small, tmp_path) -> None:
    bad = write_checkpoint(
        tmp_path / "bad.bin", vocabulary=300, tied=True, base=500000.0
    )
    with pytest.raises(ConfigError, match="rotation"):
        convert(bad, tmp_path / "out", small / "pieces.model")


def test_a_tokenizer_of_another_size_is_refused(small, tmp_path) -> None:
    other = write_checkpoint(tmp_path / "other.bin", vocabulary=301, tied=True)
    with pytest.raises(ConfigError, match=r"301 tokens.*300"):
        convert(other, tmp_path / "out", small / "pieces.model")
    assert [path.name for path in tmp_path.iterdir()] == ["other.bin"]


@pytest.mark.parametrize(
    "settings",
    [
        {"normalization_rule_name": "nmt_nfkc"},
        {"model_type": "unigram", "vocab_size": 296},
        {"byte_fallback": False, "vocab_size": 50},
        {"add_dummy_prefix": False},
        {"user_defined_symbols": ["zz"]},
    ],
)
def test_a_tokenizer_that_splits_in_another_way_is_refused(tmp_path, settings) -> None:
    with pytest.raises(ConfigError, match="--tokenizer"):
        fast_tokenizer(train_pieces(tmp_path, **settings))


@pytest.mark.parametrize("keeps", [True, False])
def test_blanks_count_where_they_count_for_the_model(tmp_path, keeps) -> None:
    path = train_pieces(tmp_path, remove_extra_whitespaces=not keeps)
    tokenizer = fast_tokenizer(path)
    reference = SentencePieceProcessor(model_file=str(path))
    for text in ("  a   b  ", " ", "", "a\n  b", "\u2581 \u2581", "a \u2581"):
        assert tokenizer(text)["input_ids"] == [1, *reference.encode(text)]
    kept = tokenizer.decode(tokenizer("a  b")["input_ids"], skip_special_tokens=True)
    assert kept == ("a  b" if keeps else "a b")


def test_nothing_is_overwritten_and_no_file_is_guessed(small, tmp_path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="OUTPUT"):
        convert(small, tmp_path / "there")
    with pytest.raises(ConfigError, match=r"SOURCE.*found 0"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="SOURCE"):
        convert(tmp_path / "none.bin", tmp_path / "out", small / "pieces.model")
    (tmp_path / "no.model").write_bytes(b"none")
    with pytest.raises(ConfigError, match="--tokenizer"):
        convert(small, tmp_path / "out", tmp_path / "no.model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.model", "there"]


def test_a_failure_while_writing_leaves_nothing_behind(
    small, tmp_path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fedcot.models.llama2c._readme", fail)
    with pytest.raises(OSError, match="No space"):
        convert(small, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
