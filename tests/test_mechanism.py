"""The mechanism that settings name is built with the public artefacts that it needs."""

from pathlib import Path

import numpy as np
import pytest

from fedcot import mechanism
from fedcot.config import RunConfig
from fedcot.data.banks import load_bank
from fedcot.errors import ConfigError
from fedcot.mechanism import (
    CALIBRATION_PROMPTS,
    NEIGHBOURS,
    configured_channel,
    configured_vocabulary,
    vocabulary_hash,
)
from fedcot.models.public_predictor import builtin_public_model
from fedcot.privacy.adaptive import AdaptiveChannel
from fedcot.privacy.artefact import VocabularyArtefact
from fedcot.privacy.channels import build_channel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.selection import SelectionChannel
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary

WORDS = Vocabulary.of([*"abcdefghijklmnop", *map(str, range(5))], 4)
LINES = ["a b c", "a b d", "b c 3", "a c 4", "d e f", "a b 2", "c d e f"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(WORDS.words), 6))
    path = tmp_path / "words.safetensors"
    VocabularyArtefact(WORDS, vectors.astype(np.float32), {"from": "a test"}).save(path)
    return path


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "bank.txt"
    path.write_text("\n".join(LINES))
    return path


@pytest.mark.parametrize("name", ["exponential", "rank", "custext", "rantext", "none"])
def test_token_mechanisms_are_those_of_the_world(name: str) -> None:
    channel = configured_channel(RunConfig(mechanism=name, token_epsilon=4.0))
    assert channel.name == name
    assert channel.hash == build_channel(name, world_vocabulary(), 4.0).hash
    assert channel.slots == world_vocabulary().length


def test_adaptive_gets_the_shipped_model_and_public_prompts() -> None:
    config = RunConfig(
        mechanism="adaptive", token_epsilon=4.0, prompt_epsilon=9.0, bank_size=12
    )
    channel = configured_channel(config, slots=4)
    assert isinstance(channel, AdaptiveChannel)
    assert (channel.slots, channel.prompt_epsilon) == (4, 9.0)
    vocabulary = Vocabulary(world_vocabulary().words, 4)
    bank = load_bank(vocabulary, "world", 12)
    assert (channel.calibration == bank.prompts).all()
    by_hand = AdaptiveChannel(
        vocabulary,
        4.0,
        prompt_epsilon=9.0,
        model=builtin_public_model(vocabulary),
        calibration=bank.prompts,
    )
    assert channel.hash == by_hand.hash
    private = load_bank(vocabulary, "world", 40).prompts[-8:]
    released = channel.sample(private, TapeRandomSource(1))
    assert (released == by_hand.sample(private, TapeRandomSource(1))).all()
    # Server and client build it once per process.
    assert configured_channel(config, slots=4) is channel


def test_calibration_never_takes_more_than_its_number_of_prompts() -> None:
    config = RunConfig(mechanism="adaptive", token_epsilon=4.0)
    channel = configured_channel(config, slots=1)
    assert isinstance(channel, AdaptiveChannel)
    assert channel.calibration.shape[0] <= CALIBRATION_PROMPTS
    assert channel.calibration.shape[1] == 1


def test_selection_gets_the_whole_bank_and_the_prompt_s_epsilon() -> None:
    config = RunConfig(
        mechanism="selection", token_epsilon=1.0, prompt_epsilon=6.0, bank_size=90
    )
    channel = configured_channel(config)
    assert isinstance(channel, SelectionChannel)
    assert channel.requested_epsilon == 6.0
    bank = load_bank(world_vocabulary(), "world", 90)
    assert channel.bank.hash == bank.hash
    assert channel.hash == SelectionChannel(world_vocabulary(), 6.0, bank=bank).hash
    # A run's seed changes nothing that is public.
    other = RunConfig(
        mechanism="selection", token_epsilon=1.0, prompt_epsilon=6.0, bank_size=90,
        seed=99,
    )  # fmt: skip
    assert configured_channel(other).hash == channel.hash


def test_a_vocabulary_of_its_own_has_its_own_model_bank_and_likeness(
    words: Path, lines: Path
) -> None:
    config = RunConfig(
        mechanism="adaptive", token_epsilon=2.0, prompt_epsilon=5.0,
        vocabulary=str(words), bank=str(lines),
    )  # fmt: skip
    artefact = VocabularyArtefact.load(words)
    assert configured_vocabulary(config).hash == WORDS.hash
    assert vocabulary_hash(config) == artefact.hash != WORDS.hash
    encoded = [WORDS.encode(line) for line in LINES]
    by_hand = AdaptiveChannel(
        WORDS,
        2.0,
        prompt_epsilon=5.0,
        model=BigramModel(WORDS, encoded),
        calibration=np.stack(encoded),
        similarity=artefact.similarity,
        neighbours=NEIGHBOURS,
    )
    assert configured_channel(config).hash == by_hand.hash


def test_a_bank_of_a_file_serves_selection(words: Path, lines: Path) -> None:
    config = RunConfig(
        mechanism="selection", token_epsilon=2.0, prompt_epsilon=5.0,
        vocabulary=str(words), bank=str(lines), bank_size=5,
    )  # fmt: skip
    channel = configured_channel(config)
    assert isinstance(channel, SelectionChannel)
    assert channel.bank.prompts.tolist() == [
        WORDS.encode(line).tolist() for line in LINES[:5]
    ]


def test_adaptive_on_own_words_needs_public_texts_in_them(words: Path) -> None:
    config = RunConfig(mechanism="adaptive", token_epsilon=2.0, vocabulary=str(words))
    with pytest.raises(ConfigError, match="`bank` must be a file") as raised:
        configured_channel(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["adaptive", "selection"])
def test_a_bank_that_is_missing_is_refused_in_one_line(
    name: str, words: Path, tmp_path: Path
) -> None:
    config = RunConfig(
        mechanism=name, token_epsilon=2.0, prompt_epsilon=5.0,
        vocabulary=str(words), bank=str(tmp_path / "nothing.txt"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="`bank` must be a readable") as raised:
        configured_channel(config)
    assert "\n" not in str(raised.value)


def test_selection_needs_a_prompt_s_epsilon() -> None:
    config = RunConfig(mechanism="selection", token_epsilon=8.0, bank_size=20)
    with pytest.raises(ConfigError, match="`prompt-epsilon` must be > 0"):
        configured_channel(config)


def test_without_own_words_the_world_s_stand() -> None:
    config = RunConfig(token_epsilon=8.0)
    assert configured_vocabulary(config).hash == world_vocabulary().hash
    assert vocabulary_hash(config) == world_vocabulary().hash
    assert mechanism.WORLD == config.vocabulary == config.bank
