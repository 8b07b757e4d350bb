"""Scores of spans against one forward pass for each token."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedcot.errors import ConfigError
from fedcot.evaluation.spans import (
    SecretSpan,
    TokenScores,
    model_scores,
    token_scores,
    whole_target,
)
from fedcot.models.likelihood import target_likelihoods
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.options import ModelOptions
from fedcot.models.sequences import prompt_ids, target_ids
from fedcot.student.base import TrainingSettings, adapted, adapter_state
from tests.tiny import tiny_base
from tests.tiny_architectures import save_architecture


def span(prompt: str, target: str, secret: str) -> SecretSpan:
    start = target.index(secret)
    return SecretSpan(prompt, target, start, start + len(secret))


SPANS = [
    span("predict: tom has 3 marbles answer:", "7", "7"),
    span("explain: tom had 9 pens rationale:", "9 - 2 = 7 answer: 7", "2 = 7"),
    span("how many?", "tom has 11 pens", "tom"),
    span("predict: how many pens answer:", "5 + 6 = 11", "11"),
]


def one_by_one(loaded: LoadedModel, prompt: str, target: str) -> list[list[float]]:
    """Ask for one token after the other; own, mean and deviation of each."""
    read, wanted = prompt_ids(loaded, prompt), target_ids(loaded, target)
    written = [getattr(loaded.model.config, "decoder_start_token_id", None)]
    rows = []
    for token in wanted:
        given = {"input_ids": torch.tensor([read])}
        if loaded.is_encoder_decoder:
            given["decoder_input_ids"] = torch.tensor([written])
        with torch.no_grad():
            logits = loaded.model(**given).logits[0, -1].double()
        shares = torch.softmax(logits, dim=-1).numpy()
        logs = np.log(shares)
        mean = float((shares * logs).sum())
        rows.append([logs[token], mean, math.sqrt((shares * logs**2).sum() - mean**2)])
        (written if loaded.is_encoder_decoder else read).append(token)
    return rows


def tokens_of(loaded: LoadedModel, asked: SecretSpan) -> slice:
    """Return the shortest stretch of tokens that spells the secret."""
    ids = target_ids(loaded, asked.target)
    stretches = [
        (stop - start, start)
        for start in range(len(ids))
        for stop in range(start + 1, len(ids) + 1)
        if asked.secret in loaded.tokenizer.decode(ids[start:stop])
    ]
    length, start = min(stretches)
    return slice(start, start + length)


@pytest.mark.parametrize("name", ["builtin", "gpt2", "llama", "qwen2", "t5", "bart"])
def test_only_the_tokens_of_the_secret_are_scored(name: str, tmp_path: Path) -> None:
    source = name
    if name != "builtin":
        source = save_architecture(name, tmp_path, initializer_range=0.2)
    loaded = load_model(source, "student")
    for batch_size in (1, 3):
        found = token_scores(loaded.model, loaded, SPANS, batch_size=batch_size)
        for asked, scores in zip(SPANS, found, strict=True):
            rows = one_by_one(loaded, asked.prompt, asked.target)
            expected = np.array(rows[tokens_of(loaded, asked)]).T
            assert scores.log_probabilities == pytest.approx(
                expected[0], rel=1e-3, abs=1e-4
            )
            assert scores.means == pytest.approx(expected[1], rel=1e-3, abs=1e-4)
            assert scores.deviations == pytest.approx(expected[2], rel=1e-3, abs=1e-4)
            assert scores.mean == pytest.approx(expected[0].mean(), rel=1e-3)


def test_a_whole_target_is_all_but_the_end_token() -> None:
    base = tiny_base()
    pairs = [(asked.prompt, asked.target) for asked in SPANS]
    spans = [whole_target(*pair) for pair in pairs]
    counts = [
        count for _, count in target_likelihoods(base.model, base, pairs, batch_size=2)
    ]
    found = token_scores(base.model, base, spans, batch_size=2)
    assert [len(scores.log_probabilities) + 1 for scores in found] == counts


def test_what_stands_behind_a_secret_does_not_matter() -> None:
    base = tiny_base()
    found = token_scores(
        base.model,
        base,
        [span("tom", target, "4 2") for target in ("7 4 2", "7 4 2 answer: 9 9 9")],
        batch_size=1,
    )
    assert found[0].mean == pytest.approx(found[1].mean, rel=1e-6)


def test_one_digit_and_three_have_a_score() -> None:
    base = tiny_base()
    spans = [span("tom", f"has {code}", code) for code in ("4", "421")]
    found = token_scores(base.model, base, spans, batch_size=2)
    assert [len(scores.log_probabilities) for scores in found] == [1, 3]
    assert all(math.isfinite(score) for score in model_scores(base)(spans))


def merging_model() -> LoadedModel:
    """Return a model whose tokenizer merges letters with the digits beside them."""
    alphabet = [*"abcdefgh:0123456789 "]
    merged = ["c1", "2d", ":a", " a"]
    vocabulary = {
        token: number
        for number, token in enumerate(["<pad>", "</s>", *alphabet, *merged])
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.BPE(vocab=vocabulary, merges=[(m[0], m[1]) for m in merged])
        ),
        pad_token="<pad>",
        eos_token="</s>",
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return LoadedModel("merging", model, tokenizer)


def test_a_token_that_merges_the_secret_with_its_neighbour_is_scored() -> None:
    loaded = merging_model()
    asked = span("gg", "abc12def", "12")
    (found,) = token_scores(loaded.model, loaded, [asked], batch_size=1)
    # The target is " a", "b", "c1", "2d", "e", "f".
    expected = [row[0] for row in one_by_one(loaded, "gg", "abc12def")[2:4]]
    assert found.log_probabilities == pytest.approx(expected, rel=1e-4)


def test_no_token_is_merged_over_the_end_of_the_prompt() -> None:
    """Failure would mean that the first token of a secret hides in the prompt."""
    loaded = merging_model()
    (found,) = token_scores(
        loaded.model, loaded, [span("gg:", "a12", "a12")], batch_size=1
    )
    assert len(found.log_probabilities) == 3
    joined: list[int] = loaded.tokenizer(":a12")["input_ids"]
    assert loaded.tokenizer.convert_ids_to_tokens(joined)[0] == ":a"


def test_a_context_stands_in_front_of_the_prompt() -> None:
    base = tiny_base()
    plain = [span("tom has", "4 2", "4 2"), span("", "4 2", "2")]
    taught = [
        dataclasses.replace(plain[0], prompt="sue eat 4\n\ntom has"),
        dataclasses.replace(plain[1], prompt="sue eat 4"),
    ]
    found = model_scores(base, context="sue eat 4")(plain)
    assert found == pytest.approx(model_scores(base)(taught), rel=1e-6)
    assert found[0] != pytest.approx(model_scores(base)(plain)[0], rel=1e-3)


def test_an_adapter_is_put_on_for_the_scores_alone() -> None:
    base = tiny_base()
    settings = TrainingSettings(lora_r=2)
    with adapted(base, settings, seed=0) as model:
        state = {name: tensor + 0.3 for name, tensor in adapter_state(model).items()}
    with adapted(base, settings, seed=0, adapter=state) as model:
        expected = token_scores(model, base, SPANS, batch_size=4)
    before = model_scores(base)(SPANS)
    found = model_scores(base, adapter=state, settings=settings)(SPANS)
    assert found == pytest.approx([scores.mean for scores in expected], rel=1e-5)
    assert found != pytest.approx(before, rel=1e-2)
    assert model_scores(base)(SPANS) == before
    with pytest.raises(ConfigError, match="`settings` must be given"):
        model_scores(base, adapter=state)


def test_a_secret_that_is_cut_off_is_refused_unless_that_is_allowed() -> None:
    base = dataclasses.replace(tiny_base(), options=ModelOptions(max_sequence_tokens=8))
    # The prompt leaves room for seven tokens of the target.
    asked = span("tom", "1 2 3 4 5 6 7 8 9", "6 7 8 9")
    with pytest.raises(ConfigError, match="7 of 9 tokens"):
        token_scores(base.model, base, [asked], batch_size=1)
    (found,) = token_scores(base.model, base, [asked], batch_size=1, may_be_cut=True)
    assert len(found.log_probabilities) == 2
    gone = span("tom", "1 2 3 4 5 6 7 8 9", "8 9")
    with pytest.raises(ConfigError, match="must leave room for the secret"):
        token_scores(base.model, base, [gone], batch_size=1, may_be_cut=True)


def test_a_word_that_cannot_come_has_no_part_in_the_deviation() -> None:
    base = tiny_base()

    def forbid(_module: object, _given: object, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([2]), -math.inf)

    handle = base.model.get_output_embeddings().register_forward_hook(forbid)
    found: list[TokenScores] = token_scores(base.model, base, SPANS[:1], batch_size=1)
    handle.remove()
    assert np.isfinite(found[0].means).all()
    assert np.isfinite(found[0].deviations).all()


def test_nothing_has_no_scores() -> None:
    base = tiny_base()
    assert token_scores(base.model, base, [], batch_size=4) == []
