"""Students that are tuned in full: all weights learn, and the base gets its own."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedcot.config import RunConfig
from fedcot.data.schema import Record
from fedcot.errors import ConfigError
from fedcot.evaluation.evaluate import evaluate_student
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.options import ModelOptions
from fedcot.node_adapters import AdapterStore, publish
from fedcot.node_training import training_settings
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.student.base import TrainingSettings, adapted, adapter_state, new_adapter
from fedcot.student.dp import train_adapter_privately
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example, label_examples
from fedcot.student.files import config_of, is_model, weights_of
from fedcot.student.training import (
    load_adapter,
    save_adapter,
    tokenised,
    train_adapter,
)
from fedcot.tasks.world import WorldTask
from tests.tiny import tiny_base
from tests.tiny_architectures import save_architecture

FULL = TrainingSettings(
    tuning="full", learning_rate=3e-3, local_epochs=20, batch_size=4
)
FEW = TrainingSettings(tuning="full", learning_rate=1e-3, local_epochs=2, batch_size=4)
EXAMPLES = [
    Example(f"explain: tom has {n} marbles rationale:", f"{n} answer: {n}", "explain")
    for n in range(2, 9)
] + [Example(f"predict: tom has {n} answer:", str(n), "predict") for n in range(2, 7)]
ARCHITECTURES = ("llama", "gpt2", "t5", "bart")


def architecture(name: str, folder: Path) -> LoadedModel:
    return load_model(save_architecture(name, folder, initializer_range=0.2), "student")


def frozen_copy(base: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in base.model.state_dict().items()}


def assert_untouched(base: LoadedModel, before: dict[str, torch.Tensor]) -> None:
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor.view(torch.uint8), after[name].view(torch.uint8))
    assert not base.model.training
    for parameter in base.model.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


def inputs_of(base: LoadedModel) -> dict[str, torch.Tensor]:
    ids = torch.arange(3, 33).reshape(2, 15)
    given = {"input_ids": ids}
    if base.is_encoder_decoder:
        given["decoder_input_ids"] = ids.flip(1)
    return given


def logits(model: Any, base: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs_of(base), use_cache=False).logits
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_weights_learn_and_are_saved_as_a_model(name: str, tmp_path: Path) -> None:
    base = architecture(name, tmp_path / "base")
    before, configuration = frozen_copy(base), base.model.config.to_dict()
    places = [parameter.data_ptr() for parameter in base.model.parameters()]
    start = new_adapter(base, FULL, seed=0)

    outcome = train_adapter(base, EXAMPLES, FULL, seed=0)
    assert outcome.label_loss[-1] < 0.6 * outcome.label_loss[0]
    assert outcome.rationale_loss[-1] < 0.6 * outcome.rationale_loss[0]
    names = [name for name, _ in base.model.named_parameters()]
    assert list(outcome.adapter) == list(start) == sorted(names)
    for key, tensor in outcome.adapter.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(start[key], before[key])
        # Positions beyond the longest text have no gradient, so not all of a tensor.
        assert not torch.equal(tensor, start[key]), key

    save_adapter(base, outcome.adapter, FULL, tmp_path / "saved")
    loaded = load_adapter(tmp_path / "saved")
    assert loaded.keys() == outcome.adapter.keys()
    assert all(torch.equal(loaded[key], outcome.adapter[key]) for key in loaded)
    with adapted(base, FULL, seed=0, adapter=loaded) as model:
        ours = logits(model, base)
    assert float((ours - logits(base.model, base)).abs().max()) > 0.1
    auto = AutoModelForSeq2SeqLM if base.is_encoder_decoder else AutoModelForCausalLM
    plain, report = auto.from_pretrained(
        tmp_path / "saved", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    assert torch.equal(ours, logits(plain, base))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = EXAMPLES[0].prompt
    assert tokenizer(text)["input_ids"] == base.tokenizer(text)["input_ids"]
    again = load_model(str(tmp_path / "saved"), "student")
    assert again.is_encoder_decoder == base.is_encoder_decoder
    assert torch.equal(ours, logits(again.model, base))

    assert_untouched(base, before)
    assert places == [parameter.data_ptr() for parameter in base.model.parameters()]
    assert base.model.config.to_dict() == configuration
    # Nothing names a folder of this machine.
    for file in (tmp_path / "saved").rglob("*"):
        assert str(tmp_path).encode() not in file.read_bytes()


def test_tied_matrices_stay_one_matrix(tmp_path: Path) -> None:
    base = architecture("gpt2", tmp_path / "base")
    outcome = train_adapter(base, EXAMPLES, FEW, seed=0)
    assert "lm_head.weight" not in outcome.adapter
    with adapted(base, FEW, seed=0, adapter=outcome.adapter) as model:
        assert model.lm_head.weight is model.transformer.wte.weight
        trained = outcome.adapter["transformer.wte.weight"]
        assert torch.equal(model.lm_head.weight, trained)
        assert adapter_state(model).keys() == outcome.adapter.keys()


def hand_written(
    base: LoadedModel, examples: list[Example], settings: TrainingSettings
) -> dict[str, torch.Tensor]:
    """Train on one example a task in each step, with the losses of transformers.

    Adam is PyTorch's: some weights, as the bias of keys, have gradients of rounding
    errors alone, which it makes as large as all others.
    """
    model = copy.deepcopy(base.model).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    steps = settings.local_epochs
    for step in range(steps):
        total: Any = 0.0
        for example in examples:
            ids = tokenised(base, example)
            if base.is_encoder_decoder:
                row = {"input_ids": torch.tensor([ids.prompt])}
                row["labels"] = torch.tensor([ids.target])
            else:
                row = {"input_ids": torch.tensor([ids.prompt + ids.target])}
                masked = [-100] * len(ids.prompt) + ids.target
                row["labels"] = torch.tensor([masked])
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**row).loss
            weight = settings.rationale_weight if example.task == "explain" else 1.0
            total = total + weight * loss
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # One step of warm-up, then from the peak down to a tenth of it.
        share = max(0, step - 1) / (steps - 1)
        rate = settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * share))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_training_is_what_a_loop_by_hand_gives(name: str, tmp_path: Path) -> None:
    changes = (
        {"dropout_rate": 0.0}
        if name == "t5"
        else {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    )
    folder = save_architecture(name, tmp_path, initializer_range=0.2, **changes)
    base = load_model(folder, "student")
    settings = TrainingSettings(
        tuning="full", learning_rate=1e-3, local_epochs=5, rationale_weight=0.7
    )
    pair = [EXAMPLES[-1], EXAMPLES[0]]
    expected = hand_written(base, pair, settings)
    found = train_adapter(base, pair, settings, seed=0).adapter
    start = new_adapter(base, settings, seed=0)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert float((tensor - start[key]).abs().max()) > 1e-4
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-6)


def test_two_calls_in_a_row_give_the_same_and_goes_on_from_what_is_given() -> None:
    base = tiny_base()
    first = train_adapter(base, EXAMPLES, FEW, seed=1)
    again = train_adapter(base, EXAMPLES, FEW, seed=1)
    fresh = train_adapter(tiny_base(), EXAMPLES, FEW, seed=1)
    for name, tensor in first.adapter.items():
        assert torch.equal(tensor, again.adapter[name])
        assert torch.equal(tensor, fresh.adapter[name])
    given = {name: tensor.clone() for name, tensor in first.adapter.items()}
    on = train_adapter(base, EXAMPLES, FEW, seed=2, adapter=given)
    assert on.rationale_loss[0] < first.rationale_loss[0]
    # What was given is copied, never trained itself.
    assert all(torch.equal(given[name], first.adapter[name]) for name in given)


def interrupted(base: LoadedModel) -> None:
    with adapted(base, FEW, seed=0) as model:
        model.train()
        model.model.norm.weight.data.fill_(7.0)
        model(input_ids=torch.tensor([[3, 4]])).logits.sum().backward()
        raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["before", "training", "generation"])
def test_the_base_is_restored_after_an_error(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base()
    before = frozen_copy(base)
    if moment == "training":
        steps = []

        def failing(self: Any, *_: Any, **__: Any) -> None:
            steps.append(1)
            if len(steps) == 2:
                raise torch.OutOfMemoryError("no memory")
            step(self)

        step = torch.optim.AdamW.step
        monkeypatch.setattr(torch.optim.AdamW, "step", failing)
        with pytest.raises(torch.OutOfMemoryError):
            train_adapter(base, EXAMPLES, FEW, seed=0)
        assert len(steps) == 2
    elif moment == "generation":
        with pytest.raises(KeyboardInterrupt):
            interrupted(base)
    else:
        given = new_adapter(base, FEW, seed=0)
        last = list(dict(base.model.named_parameters()))[-1]
        # What cannot be put on comes after much that has been put on.
        given[last] = torch.ones(given[last].shape, device="meta")
        with (
            pytest.raises(NotImplementedError),
            adapted(base, FEW, seed=0, adapter=given),
        ):
            pass
    assert_untouched(base, before)


def test_weights_of_another_model_are_refused() -> None:
    base = tiny_base()
    before = frozen_copy(base)
    good = new_adapter(base, FEW, seed=0)
    name = "model.norm.weight"
    missing = {key: tensor for key, tensor in good.items() if key != name}
    for bad, word in (
        (missing, "must fit the base and `tuning`"),
        (good | {"other": torch.ones(1)}, "must fit the base and `tuning`"),
        (good | {name: torch.ones(1)}, "must fit the base"),
        (new_adapter(base, TrainingSettings(lora_r=2), seed=0), "must fit"),
    ):
        with (
            pytest.raises(ValueError, match=word),
            adapted(base, FEW, seed=0, adapter=bad),
        ):
            pass
    assert_untouched(base, before)


def test_a_base_in_few_bits_is_refused_in_one_line() -> None:
    base = tiny_base()
    base.model.to(torch.bfloat16)
    with (
        pytest.raises(ConfigError, match="`student-dtype` must be float32") as caught,
        adapted(base, FEW, seed=0),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert "in bfloat16" in str(caught.value)


def test_checkpointing_changes_no_number(tmp_path: Path) -> None:
    folder = save_architecture("llama", tmp_path, initializer_range=0.2)
    plain, checked = (
        train_adapter(
            load_model(folder, "student", ModelOptions(gradient_checkpointing=on)),
            EXAMPLES,
            FEW,
            seed=0,
        )
        for on in (False, True)
    )
    assert plain.rationale_loss == pytest.approx(checked.rationale_loss, rel=1e-5)
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(checked.adapter[name], tensor, rtol=0, atol=1e-5)


def test_a_tuned_student_is_scored_and_an_untrained_one_is_the_base() -> None:
    base = tiny_base()
    # Answers that it has learnt; the base gets none of them.
    records = [Record(f"tom has {n}", str(n), "library") for n in range(2, 7)]
    settings = TrainingSettings(
        tuning="full", learning_rate=3e-3, local_epochs=60, batch_size=8
    )
    examples = label_examples(records, WorldTask())
    trained = train_adapter(base, examples, settings, seed=0).adapter

    def hits(adapter: Any) -> int:
        score = evaluate_student(
            base,
            records,
            adapter=adapter,
            settings=settings,
            prompt="predict",
            task=WorldTask(),
            batch_size=8,
        )
        return sum(score.correct)

    assert hits(trained) == 5
    assert hits(None) == hits(new_adapter(base, settings, seed=0)) == 0


def test_a_store_keeps_models_as_it_keeps_adapters(tmp_path: Path) -> None:
    base = tiny_base()
    store = AdapterStore(tmp_path / "node", "fedcot", is_shared=True)
    weights = train_adapter(base, EXAMPLES, FEW, seed=0).adapter
    assert store.newest(before=9) is None
    store.commit(1, {"loss": 1.0}, base=base, adapter=weights, settings=FEW)
    store.commit(2, {"loss": 2.0}, base=base, adapter=None, settings=FEW)
    assert store.load(2) is None
    found = store.newest(before=3)
    assert found is not None
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    folder = store.round_folder(1)
    (folder / "templates").mkdir()
    (folder / "templates" / "one.jinja").write_text("one")
    publish(folder, tmp_path / "shown")
    assert is_model(tmp_path / "shown")
    assert (tmp_path / "shown" / "templates" / "one.jinja").read_text() == "one"
    assert not (tmp_path / "shown" / "outcome.json").exists()
    assert load_adapter(tmp_path / "shown").keys() == weights.keys()
    publish(store.round_folder(2), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_an_adapter_and_a_model_are_told_apart(tmp_path: Path) -> None:
    base, lora = tiny_base(), TrainingSettings(lora_r=2)
    assert weights_of(tmp_path) is config_of(tmp_path) is None
    assert not is_model(tmp_path)
    save_adapter(base, new_adapter(base, lora, seed=0), lora, tmp_path / "a")
    save_adapter(base, new_adapter(base, FEW, seed=0), FEW, tmp_path / "b")
    assert not is_model(tmp_path / "a")
    assert config_of(tmp_path / "a") == tmp_path / "a" / "adapter_config.json"
    assert weights_of(tmp_path / "a") == tmp_path / "a" / "adapter_model.safetensors"
    assert is_model(tmp_path / "b")
    assert config_of(tmp_path / "b") == tmp_path / "b" / "config.json"
    assert weights_of(tmp_path / "b") == tmp_path / "b" / "model.safetensors"


def test_a_setting_says_how_students_are_tuned() -> None:
    assert not training_settings(RunConfig(token_epsilon=8.0)).is_full
    config = RunConfig(token_epsilon=8.0, tuning="full", student_dtype="auto")
    assert training_settings(config).is_full


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"noise_multiplier": 1.0, "aggregation": "fedavg"}, "noise-multiplier"),
        ({"freeze_lora_a": True, "aggregation": "fedavg"}, "freeze-lora-a"),
        ({"student_quantization": "4bit"}, "student-quantization"),
        ({"student_dtype": "bfloat16"}, "student-dtype"),
        (
            {
                "mode": "community",
                "communities": "library",
                "coalitions": "alone",
                "noise_multiplier": 1.0,
            },
            "noise-multiplier",
        ),
    ],
)
def test_what_only_an_adapter_can_have_is_refused(
    settings: dict[str, Any], named: str
) -> None:
    RunConfig(token_epsilon=8.0, **settings)
    with pytest.raises(ConfigError, match=f"^`{named}` must be ") as caught:
        RunConfig(token_epsilon=8.0, tuning="full", **settings)
    assert "`tuning=full`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dp_sgd_on_all_weights_is_refused() -> None:
    base = tiny_base()
    privacy = DpSettings(
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch=1,
        steps=1,
        num_records=1,
    )
    with pytest.raises(ConfigError, match="`tuning` must be lora under DP-SGD"):
        train_adapter_privately(
            base,
            [EXAMPLES[:1]],
            FEW,
            privacy=privacy,
            source=TapeRandomSource(0),
            seed=0,
        )
