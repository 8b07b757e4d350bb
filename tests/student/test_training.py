"""Adapters learn, the base does not move, and the same seed gives the same adapter."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from fedcot.evaluation.evaluate import evaluate_student
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.options import ModelOptions
from fedcot.student.base import TrainingSettings, adapted, new_adapter
from fedcot.student.examples import Example
from fedcot.student.training import (
    TrainingOutcome,
    load_adapter,
    save_adapter,
    tokenised,
    train_adapter,
)
from fedcot.tasks.world import WorldTask
from fedcot.world import draw_problems
from tests.tiny import tiny_base
from tests.tiny_architectures import save_architecture

SETTINGS = TrainingSettings(lora_r=4, lora_alpha=8, local_epochs=3, batch_size=4)
EXAMPLES = [
    Example(f"explain: tom has {n} marbles rationale:", f"{n} answer: {n}", "explain")
    for n in range(2, 9)
] + [Example(f"predict: tom has {n} answer:", str(n), "predict") for n in range(2, 7)]


def test_training_moves_the_adapter_and_not_the_base() -> None:
    base = tiny_base()
    before = {name: p.clone() for name, p in base.model.state_dict().items()}
    outcome = train_adapter(base, EXAMPLES, SETTINGS, seed=0)
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    halves = [t for name, t in outcome.adapter.items() if "lora_B" in name]
    assert halves
    assert all(bool(half.abs().max() > 0) for half in halves)
    assert all(tensor.dtype == torch.float32 for tensor in outcome.adapter.values())


def test_the_losses_fall_on_examples_seen_often() -> None:
    settings = TrainingSettings(local_epochs=40, batch_size=8, learning_rate=1e-2)
    outcome = train_adapter(tiny_base(), EXAMPLES, settings, seed=0)
    assert len(outcome.rationale_loss) == len(outcome.label_loss) == 40
    assert outcome.rationale_loss[-1] < 0.6 * outcome.rationale_loss[0]
    assert outcome.label_loss[-1] < 0.6 * outcome.label_loss[0]


def test_the_same_seed_gives_the_same_adapter_and_another_another() -> None:
    first, again, other = (
        train_adapter(tiny_base(), EXAMPLES, SETTINGS, seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first.adapter[n], again.adapter[n]) for n in first.adapter)
    assert first.rationale_loss == again.rationale_loss
    assert any(
        not torch.equal(first.adapter[n], other.adapter[n]) for n in first.adapter
    )


def test_a_base_that_was_used_before_gives_the_same_adapter() -> None:
    """Failure would mean that clients of one actor influence each other."""
    used = tiny_base()
    train_adapter(used, EXAMPLES[:3], SETTINGS, seed=9)
    first = train_adapter(used, EXAMPLES, SETTINGS, seed=1)
    fresh = train_adapter(tiny_base(), EXAMPLES, SETTINGS, seed=1)
    assert all(torch.equal(first.adapter[n], fresh.adapter[n]) for n in first.adapter)


def test_rationale_weight_zero_equals_labels_alone() -> None:
    labels = [example for example in EXAMPLES if example.task == "predict"]
    rationales = [example for example in EXAMPLES if example.task == "explain"][:5]
    assert len(labels) == len(rationales)
    settings = TrainingSettings(
        lora_r=4, local_epochs=2, batch_size=5, rationale_weight=0.0
    )
    both = train_adapter(tiny_base(), labels + rationales, settings, seed=3)
    alone = train_adapter(tiny_base(), labels, settings, seed=3)
    for name, tensor in alone.adapter.items():
        torch.testing.assert_close(both.adapter[name], tensor)


def test_training_goes_on_from_an_adapter() -> None:
    base = tiny_base()
    settings = TrainingSettings(local_epochs=30, batch_size=8, learning_rate=1e-2)
    first = train_adapter(base, EXAMPLES, settings, seed=0)
    second = train_adapter(base, EXAMPLES, settings, seed=1, adapter=first.adapter)
    assert second.rationale_loss[0] < 0.7 * first.rationale_loss[0]


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        train_adapter(tiny_base(), [], SETTINGS, seed=0)


def test_an_adapter_of_another_shape_is_refused_and_the_base_restored() -> None:
    base = tiny_base()
    with (
        pytest.raises(ValueError, match="adapter must fit"),
        adapted(
            base, SETTINGS, seed=0, adapter={"nonsense.lora_A.weight": torch.ones(1)}
        ),
    ):
        pass
    assert type(base.model).__name__ == "LlamaForCausalLM"
    assert not any("lora" in name for name, _ in base.model.named_parameters())


def test_saved_adapters_load_with_peft_and_write_the_same(tmp_path: Path) -> None:
    base = tiny_base()
    records = [p.record() for p in draw_problems("test", ("library",), 6, seed=0)]
    outcome = train_adapter(base, EXAMPLES, SETTINGS, seed=0)
    save_adapter(base, outcome.adapter, SETTINGS, tmp_path)
    loaded = load_adapter(tmp_path)
    assert loaded.keys() == outcome.adapter.keys()
    assert all(torch.equal(loaded[name], outcome.adapter[name]) for name in loaded)
    ids = base.tokenizer(EXAMPLES[0].prompt, return_tensors="pt")["input_ids"]
    with adapted(base, SETTINGS, seed=5, adapter=loaded) as model:
        ours = model(input_ids=ids).logits
    theirs = PeftModel.from_pretrained(tiny_base().model, tmp_path)(input_ids=ids)
    torch.testing.assert_close(ours, theirs.logits)
    assert "tiny" in (tmp_path / "adapter_config.json").read_text()
    score = evaluate_student(
        base,
        records,
        adapter=loaded,
        settings=SETTINGS,
        prompt="predict",
        task=WorldTask(),
        batch_size=8,
    )
    assert score.n == len(score.correct) == 6


def long_example(words: int) -> Example:
    return Example(
        "explain: " + "tom " * words + "rationale:", "7 answer: 7", "explain"
    )


def test_examples_that_are_too_long_are_cut_and_counted() -> None:
    base = dataclasses.replace(
        tiny_base(), options=ModelOptions(max_sequence_tokens=24)
    )
    ids = tokenised(base, long_example(40))
    assert ids.is_cut
    assert len(ids.prompt) + len(ids.target) == 24
    assert ids.target == tokenised(base, long_example(2)).target
    assert not tokenised(base, long_example(2)).is_cut
    outcome = train_adapter(
        base, [*EXAMPLES, long_example(40), long_example(60)], SETTINGS, seed=0
    )
    assert outcome.num_truncated == 2
    assert outcome.num_examples == len(EXAMPLES) + 2


def trained_with_counts(base: LoadedModel) -> tuple[TrainingOutcome, int]:
    """Train, and count how often the inside of a layer was computed."""
    calls: list[int] = []
    inside = base.model.model.layers[0].mlp.up_proj
    handle = inside.register_forward_hook(lambda *_: calls.append(1))
    outcome = train_adapter(base, EXAMPLES, SETTINGS, seed=0)
    handle.remove()
    return outcome, len(calls)


def test_gradient_checkpointing_computes_twice_and_changes_no_number() -> None:
    plain, once = trained_with_counts(tiny_base())
    base = dataclasses.replace(
        tiny_base(), options=ModelOptions(gradient_checkpointing=True)
    )
    checked, twice = trained_with_counts(base)
    assert twice == 2 * once
    assert checked.rationale_loss == plain.rationale_loss
    assert checked.label_loss == plain.label_loss
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(checked.adapter[name], tensor)
    assert not base.model.is_activation_checkpointing


def test_a_base_in_bfloat16_trains_adapters_in_single_precision() -> None:
    base = tiny_base()
    base.model.to(torch.bfloat16)
    before = {name: p.clone() for name, p in base.model.state_dict().items()}
    settings = TrainingSettings(local_epochs=30, batch_size=8, learning_rate=1e-2)
    outcome = train_adapter(base, EXAMPLES, settings, seed=0)
    assert outcome.rationale_loss[-1] < 0.7 * outcome.rationale_loss[0]
    assert all(tensor.dtype == torch.float32 for tensor in outcome.adapter.values())
    after = base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}


def test_dropout_follows_the_seed_and_leaves_the_global_generator_alone() -> None:
    base = tiny_base()
    for layer in base.model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    state = torch.get_rng_state()
    first = train_adapter(base, EXAMPLES, SETTINGS, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = train_adapter(base, EXAMPLES, SETTINGS, seed=1)
    still = train_adapter(tiny_base(), EXAMPLES, SETTINGS, seed=1)
    assert first.rationale_loss == again.rationale_loss
    assert first.rationale_loss != still.rationale_loss


@pytest.mark.parametrize(
    ("source", "name", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name@v1", "owner/name", "v1"),
        ("builtin", "builtin", None),
        ("/folder/a@b", "a@b", None),
    ],
)
def test_a_saved_adapter_names_its_base_as_peft_does(
    tmp_path: Path, source: str, name: str, revision: str | None
) -> None:
    base = dataclasses.replace(tiny_base(), source=source)
    save_adapter(base, new_adapter(base, SETTINGS, seed=0), SETTINGS, tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == name
    assert saved["revision"] == revision
    assert saved["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("name", ["gpt2", "t5", "gemma3"])
def test_gradient_checkpointing_fits_other_architectures(
    tmp_path: Path, name: str
) -> None:
    folder = save_architecture(name, tmp_path)
    losses = [
        train_adapter(
            load_model(folder, "student", ModelOptions(gradient_checkpointing=on)),
            EXAMPLES,
            SETTINGS,
            seed=0,
        ).rationale_loss
        for on in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
