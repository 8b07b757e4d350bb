"""Models of any kind are loaded once, as asked, or refused in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from fedcot.errors import ConfigError, FedcotError
from fedcot.models import loading, weights
from fedcot.models.loading import forget_models, load_model
from fedcot.models.options import PLAIN, ModelOptions
from fedcot.models.weights import CPU_ATTENTION, resolved_device
from fedcot.student.base import TrainingSettings, adapted
from fedcot.student.examples import Example
from fedcot.student.record_gradients import RecordGradients
from fedcot.student.training import train_adapter
from tests.tiny import tiny_base
from tests.tiny_architectures import byte_level, save_architecture


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_architecture("llama", tmp_path_factory.mktemp("llama"))


def one_line(folder: Path | str, options: ModelOptions = PLAIN) -> str:
    with pytest.raises(ConfigError) as caught:
        load_model(str(folder), "student", options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_two_students_of_a_process_share_one_base(llama: str) -> None:
    first, second = load_model(llama, "student"), load_model(llama, "student", PLAIN)
    assert first is second
    places = {n: p.data_ptr() for n, p in first.model.named_parameters()}
    before = {n: p.clone() for n, p in first.model.named_parameters()}
    examples = [Example(f"tom has {n}", str(n), "predict") for n in range(2, 6)]
    settings = TrainingSettings(lora_r=2, local_epochs=2, batch_size=4)
    trained = [train_adapter(first, examples, settings, seed=seed) for seed in (0, 1)]
    assert not torch.equal(*[next(iter(o.adapter.values())) for o in trained])
    for outcome in trained:
        with adapted(second, settings, seed=0, adapter=outcome.adapter) as model:
            base = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
            assert base == set(places.values())
    after = dict(second.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(places[name] == after[name].data_ptr() for name in before)


def test_a_base_that_was_left_half_adapted_is_read_anew(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_model(llama, "student")

    def full(*_given: object) -> None:
        raise torch.OutOfMemoryError

    settings = TrainingSettings(lora_r=2)
    monkeypatch.setattr("fedcot.student.base.get_peft_model", full)
    with pytest.raises(torch.OutOfMemoryError), adapted(first, settings, seed=0):
        pass
    monkeypatch.undo()
    assert load_model(llama, "student") is not first
    second = load_model(llama, "student")
    monkeypatch.setattr("peft.tuners.lora.LoraModel.unload", full)
    with pytest.raises(torch.OutOfMemoryError), adapted(second, settings, seed=0):
        pass
    assert load_model(llama, "student") is not second


def test_a_teacher_and_a_student_from_one_folder_share_it_too(llama: str) -> None:
    assert load_model(llama, "teacher") is load_model(llama, "student")
    # Built-in models have one name and are different.
    assert load_model("builtin", "teacher") is not load_model("builtin", "student")


def test_the_oldest_of_many_models_is_dropped(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "KEPT", 1)
    first = load_model(llama, "student")
    other = load_model(llama, "student", ModelOptions(max_sequence_tokens=64))
    assert load_model(llama, "student", ModelOptions(max_sequence_tokens=64)) is other
    assert load_model(llama, "student") is not first
    forget_models()


def test_the_number_format_is_the_one_asked_for(llama: str, tmp_path: Path) -> None:
    model = load_model(llama, "student").model
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    model.to(torch.float32)
    shutil.copy(Path(llama) / "tokenizer.json", tmp_path)
    shutil.copy(Path(llama) / "tokenizer_config.json", tmp_path)
    for name, dtype in (
        ("auto", torch.bfloat16),
        ("float32", torch.float32),
        ("float16", torch.float16),
    ):
        loaded = load_model(str(tmp_path), "student", ModelOptions(dtype=name))
        assert loaded.model.dtype == dtype
        assert not any(p.requires_grad for p in loaded.model.parameters())
        assert not loaded.model.training
    forget_models()


def test_attention_is_plain_on_a_cpu(llama: str) -> None:
    config = load_model(llama, "student", ModelOptions(device="auto")).model.config
    if resolved_device("auto").type == "cpu":
        assert config._attn_implementation == CPU_ATTENTION
    else:
        assert config._attn_implementation != CPU_ATTENTION


@pytest.mark.parametrize("name", ["cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(llama: str, name: str) -> None:
    message = one_line(llama, ModelOptions(device=name))
    assert f"`device` must name a device of this machine, found '{name}'" in message


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, found in (
        (True, True, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert resolved_device("auto").type == found


ROWS = 320


def saved_with(folder: Path, tokenizer: PreTrainedTokenizerFast, **config) -> Path:
    """Save a model with as many vectors as a tokenizer of `byte_tokenizer` has."""
    given = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    given |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": ROWS}
    torch.manual_seed(0)
    made = LlamaConfig(**{**given, **config})
    AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer(**tokens: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 320 tokens."""
    special = list(dict.fromkeys(tokens.values())) or ["<a>"]
    inner = byte_level(special)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)


@pytest.mark.parametrize(
    ("tokens", "stated", "pad", "end"),
    [
        ({"pad_token": "<p>", "eos_token": "<e>"}, None, "<p>", "<e>"),
        ({"eos_token": "<e>"}, None, "<e>", "<e>"),
        ({"pad_token": "<p>"}, None, "<p>", "<p>"),
        # The configuration may name the end token that the tokenizer does not.
        ({"pad_token": "<p>", "unk_token": "<u>"}, 1, "<p>", "<u>"),
        ({"unk_token": "<u>"}, [0, 5], "<u>", "<u>"),
    ],
)
def test_every_tokenizer_can_pad_and_end(tmp_path, tokens, stated, pad, end) -> None:
    saved_with(
        tmp_path, byte_tokenizer(**tokens), eos_token_id=stated, bos_token_id=None
    )
    tokenizer = load_model(str(tmp_path), "student").tokenizer
    assert (tokenizer.pad_token, tokenizer.eos_token) == (pad, end)


def test_a_tokenizer_that_can_do_neither_is_refused(tmp_path: Path) -> None:
    saved_with(tmp_path, byte_tokenizer(), eos_token_id=None, bos_token_id=None)
    message = one_line(tmp_path)
    assert "`student` must have a tokenizer with a padding or an end token" in message


def test_a_token_without_a_vector_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(eos_token="<e>")
    saved_with(tmp_path / "small", tokenizer, vocab_size=ROWS - 1)
    assert f"{ROWS - 1} vectors and token {ROWS - 1}" in one_line(tmp_path / "small")
    tokenizer.add_tokens(["<image>", "<pad>"])
    saved_with(tmp_path / "unused", tokenizer)
    # A marker that no text holds may be there.
    assert len(load_model(str(tmp_path / "unused"), "student").tokenizer) == ROWS + 2
    tokenizer.pad_token = "<pad>"
    saved_with(tmp_path / "pad", tokenizer)
    assert f"{ROWS} vectors and token {ROWS + 1}" in one_line(tmp_path / "pad")


def test_a_model_that_does_not_write_is_refused(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    message = one_line(tmp_path)
    assert "must be a causal language model or an encoder-decoder" in message
    assert "'bert'" in message


def test_a_model_that_brings_code_is_refused(llama: str, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "homemade"
    config["auto_map"] = {
        "AutoConfig": "code.Config",
        "AutoModelForCausalLM": "code.Model",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    assert "no code of a model is run" in one_line(tmp_path)


def test_weights_that_are_pickled_or_incomplete_are_refused(
    llama: str, tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(llama, pickled)
    state = load_model(llama, "student").model.state_dict()
    torch.save(state, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    assert "must have weights in safetensors" in one_line(pickled)
    headless = tmp_path / "headless"
    shutil.copytree(llama, headless)
    config = LlamaConfig.from_pretrained(llama)
    LlamaModel(config).save_pretrained(headless)
    assert "'lm_head.weight'" in one_line(headless)


def test_a_folder_without_tokenizer_is_refused(llama: str, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*token*"):
        path.unlink()
    assert "must come with a tokenizer" in one_line(tmp_path)


def test_bits_need_their_extra(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    message = one_line(llama, ModelOptions(quantization="4bit"))
    assert "`student-quantization`" in message
    assert "fedcot[quantized]" in message


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_base_in_few_bits_learns_and_has_gradients_of_records(
    tmp_path: Path, bits: str
) -> None:
    quantized = pytest.importorskip("bitsandbytes").nn
    folder = save_architecture("llama", tmp_path, initializer_range=0.1)
    base = load_model(folder, "student", ModelOptions(quantization=bits))
    kind = quantized.Linear8bitLt if bits == "8bit" else quantized.Linear4bit
    assert isinstance(base.model.model.layers[0].mlp.up_proj, kind)
    examples = [Example(f"tom has {n}", str(n), "predict") for n in range(2, 6)]
    settings = TrainingSettings(
        lora_r=4, local_epochs=20, batch_size=4, learning_rate=2e-2
    )
    outcome = train_adapter(base, examples, settings, seed=0)
    assert outcome.label_loss[-1] < 0.8 * outcome.label_loss[0]
    with adapted(base, settings, seed=0) as model:
        RecordGradients(model, base).check()
    forget_models()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_model_too_large_is_one_line(
    llama: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_given: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(weights.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(FedcotError, match="does not fit into the memory of cpu") as got:
        load_model(llama, "teacher", ModelOptions(max_sequence_tokens=99))
    assert "teacher-quantization=4bit" in str(got.value)
    assert not isinstance(got.value, ConfigError)


def test_another_error_of_torch_is_not_about_memory(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: object, **_more: object) -> None:
        raise RuntimeError("another reason")

    monkeypatch.setattr(weights.AutoModelForCausalLM, "from_pretrained", broken)
    with pytest.raises(RuntimeError, match="another reason"):
        load_model(llama, "teacher", ModelOptions(max_sequence_tokens=99))


def test_the_tiny_base_of_tests_has_the_options_of_the_built_in_one() -> None:
    assert tiny_base().options == load_model("builtin", "student").options
