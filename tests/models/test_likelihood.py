"""Likelihoods against a sum that is written out token by token."""

import math
from pathlib import Path

import pytest
import torch

from fedcot.models.likelihood import target_likelihoods
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.options import ModelOptions
from fedcot.models.sequences import prompt_ids, target_ids
from tests.tiny import tiny_base
from tests.tiny_architectures import save_architecture

PAIRS = [
    ("predict: tom has 3 marbles answer:", "7"),
    ("explain: ann had 9 books and 2 are lent rationale:", "9 - 2 = 7 answer: 7"),
    ("how many?", "11"),
    ("predict: the two sisters answer:", "5 + 6 = 11"),
]


def one_by_one(loaded: LoadedModel, prompt: str, target: str) -> tuple[float, int]:
    """Ask for one token after the other, with all before it given."""
    read, wanted = prompt_ids(loaded, prompt), target_ids(loaded, target)
    total = 0.0
    written = [getattr(loaded.model.config, "decoder_start_token_id", None)]
    for token in wanted:
        with torch.no_grad():
            if loaded.is_encoder_decoder:
                logits = loaded.model(
                    input_ids=torch.tensor([read]),
                    decoder_input_ids=torch.tensor([written]),
                ).logits
            else:
                logits = loaded.model(input_ids=torch.tensor([read])).logits
        shares = torch.softmax(logits[0, -1].double(), dim=-1)
        total += math.log(shares[token].item())
        (written if loaded.is_encoder_decoder else read).append(token)
    return total, len(wanted)


@pytest.mark.parametrize("name", ["builtin", "gpt2", "qwen2", "t5", "bart"])
def test_it_is_the_sum_over_tokens(name: str, tmp_path: Path) -> None:
    source = name
    if name != "builtin":
        source = save_architecture(name, tmp_path, initializer_range=0.2)
    loaded = load_model(source, "student")
    expected = [one_by_one(loaded, *pair) for pair in PAIRS]
    for batch_size in (1, 3, 64):
        found = target_likelihoods(loaded.model, loaded, PAIRS, batch_size=batch_size)
        assert [count for _, count in found] == [count for _, count in expected]
        assert [total for total, _ in found] == pytest.approx(
            [total for total, _ in expected], rel=1e-4
        )
    assert len({round(total) for total, _ in expected}) > 1


def test_a_model_that_knows_nothing_pays_for_every_token() -> None:
    base = tiny_base()
    with torch.no_grad():
        base.model.get_output_embeddings().weight.zero_()
    words = len(base.tokenizer)
    ((total, count),) = target_likelihoods(
        base.model, base, [("tom has", "12")], batch_size=1
    )
    assert count == 3  # Two digits and the end.
    assert total == pytest.approx(-3 * math.log(words))


def test_a_pair_that_is_too_long_is_cut_as_in_training() -> None:
    base = tiny_base()
    short = LoadedModel(
        "tiny", base.model, base.tokenizer, ModelOptions(max_sequence_tokens=8)
    )
    pairs = [("tom", " ".join(["7"] * 20))]
    ((_, whole),) = target_likelihoods(base.model, base, pairs, batch_size=1)
    ((_, cut),) = target_likelihoods(base.model, short, pairs, batch_size=1)
    assert (whole, cut) == (21, 7)


def test_nothing_gives_nothing() -> None:
    base = tiny_base()
    assert target_likelihoods(base.model, base, [], batch_size=4) == []
