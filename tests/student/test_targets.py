"""Which modules an adapter is put on, by the names that PEFT matches."""

import pytest
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from fedcot.errors import ConfigError
from fedcot.models.loading import load_model
from fedcot.student.base import TrainingSettings, adapted
from fedcot.student.targets import is_transposed, target_modules
from tests.tiny import tiny_base
from tests.tiny_architectures import save_architecture

BASE = tiny_base().model
LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    names = ("gpt2", "opt", "t5", "bart", "phi")
    return {name: save_architecture(name, root / name) for name in names}


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("all-linear", LLAMA),
        ("embeddings", ["embed_tokens"]),
        ("auto", ["q_proj", "v_proj"]),
        (" q_proj, k_proj ,q_proj", ["k_proj", "q_proj"]),
        ("auto,embeddings", ["embed_tokens", "q_proj", "v_proj"]),
        ("all-linear,embeddings", sorted([*LLAMA, "embed_tokens"])),
        ("layers.1.self_attn.q_proj", ["model.layers.1.self_attn.q_proj"]),
        ("self_attn.q_proj", ["q_proj"]),
    ],
)
def test_a_setting_names_modules(setting: str, found: list[str]) -> None:
    assert target_modules(BASE, setting) == found


@pytest.mark.parametrize(
    ("name", "auto", "embeddings", "linear"),
    [
        ("gpt2", ["c_attn"], ["wte"], ["c_attn", "c_fc", "c_proj"]),
        (
            "t5",
            ["q", "v"],
            ["embed_tokens"],
            ["k", "o", "q", "v", "wi_0", "wi_1", "wo"],
        ),
        (
            "bart",
            ["q_proj", "v_proj"],
            ["embed_tokens"],
            ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"],
        ),
        (
            "opt",
            ["q_proj", "v_proj"],
            ["embed_tokens"],
            ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"],
        ),
    ],
)
def test_each_architecture_has_names_of_its_own(
    models, name, auto, embeddings, linear
) -> None:
    model = load_model(models[name], "student").model
    assert target_modules(model, "auto") == auto
    assert target_modules(model, "embeddings") == embeddings
    assert target_modules(model, "all-linear") == linear
    assert is_transposed(model) == (name == "gpt2")


def test_encoder_and_decoder_both_adapt_what_they_read(models) -> None:
    base = load_model(models["t5"], "student")
    settings = TrainingSettings(lora_r=2, target_modules="embeddings")
    with adapted(base, settings, seed=0) as model:
        places = [n for n, _ in model.named_parameters() if "lora_embedding_A" in n]
    assert ["encoder" in place for place in places] == [True, False]
    assert ["decoder" in place for place in places] == [False, True]


def test_an_architecture_that_peft_does_not_know_gets_all_linear_layers() -> None:
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "olmo",
            vocab_size=64,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    assert target_modules(model, "auto") == target_modules(model, "all-linear") == LLAMA


@pytest.mark.parametrize(
    "name", ["c_attn", "", "self_attn", "norm", "q_proj,", "q_pro", "layers.1"]
)
def test_a_name_that_cannot_be_adapted_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="`target-modules` must name") as caught:
        target_modules(BASE, name)
    message = str(caught.value)
    assert "down_proj, gate_proj" in message
    assert "all-linear" in message
    assert "\n" not in message


def test_a_name_that_others_share_is_written_out() -> None:
    """Failure would put an adapter where none was asked for, or fail in PEFT."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.q_proj = nn.LayerNorm(16)
    found = target_modules(model, "all-linear")
    assert "q_proj" not in found
    assert "model.layers.0.self_attn.q_proj" in found
    assert "k_proj" in found


def test_a_transposed_matrix_gets_an_adapter_of_the_right_shape(models) -> None:
    base = load_model(models["gpt2"], "student")
    settings = TrainingSettings(lora_r=2, target_modules="c_fc")
    with adapted(base, settings, seed=0) as model:
        assert model.peft_config["default"].fan_in_fan_out
        shapes = [tuple(p.shape) for p in model.parameters() if p.requires_grad]
    # 32 numbers in, four times as many out, in each of two layers.
    assert shapes == [(2, 32), (128, 2)] * 2
