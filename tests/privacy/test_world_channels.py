"""The channels that a run of the built-in world builds, enumerated."""

import pytest

from fedcot.models.sources import builtin_folder
from fedcot.privacy.channels import build_channel
from fedcot.privacy.embedding import world_similarity
from fedcot.privacy.vocabulary import world_vocabulary
from tests.privacy.oracle import keeps, nats_of, token_law, worst_ratio

WORLD = world_vocabulary()
needs_weights = pytest.mark.skipif(
    not (builtin_folder() / "public_lm" / "config.json").is_file(),
    reason="the built-in weights are not in this checkout: run `fedcot pretrain`",
)
MECHANISMS = [
    pytest.param(name, marks=needs_weights if name == "exponential" else ())
    for name in ("exponential", "rank", "none")
    if name != "none"
]


@pytest.mark.parametrize("epsilon", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_enumerated_epsilon_of_the_world(mechanism: str, epsilon: float) -> None:
    channel = build_channel(mechanism, WORLD, epsilon)
    rows = [token_law(channel.weights_row(token)) for token in range(channel.size)]
    ratio = worst_ratio(rows)
    assert keeps(ratio, epsilon)
    assert nats_of(ratio) >= epsilon - 0.02
    assert keeps(ratio, channel.token_epsilon)
    assert channel.hash == build_channel(mechanism, WORLD, epsilon).hash


@needs_weights
def test_the_shipped_model_knows_which_words_are_alike() -> None:
    similarity = world_similarity(WORLD)
    numbers = list(WORLD.numbers.values())
    words = [t for t in range(2, len(WORLD.words)) if t not in set(numbers)]
    among_words = similarity[words][:, words]
    assert (among_words.sum(axis=1) > 1).mean() > 0.9
    assert similarity[numbers][:, numbers].min() > similarity[numbers][:, words].max()
