"""The estimate of a run's peak memory, against closed forms and real allocations."""

import dataclasses
import json
import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from fedcot import memory, memory_needs
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.memory_needs import TUNED
from fedcot.memory_sketch import sketch
from fedcot.memory_trace import (
    ADAPTER,
    CACHE,
    GRADIENTS,
    LOGITS,
    MOMENTS,
    SCORES,
    STEP,
    VECTOR_BYTES,
    VECTORS,
    WEIGHTS,
    generation_peak,
    scoring_peak,
    training_peak,
)
from fedcot.models.loading import LoadedModel
from fedcot.models.tokenizer import build_tokenizer
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.student.base import TrainingSettings
from fedcot.student.examples import Example
from fedcot.student.loss import token_losses
from fedcot.student.noise import ClippedSum
from fedcot.student.training import tokenised, train_adapter
from fedcot.teacher_source import is_local
from fedcot.text_lengths import Lengths, lengths_of

LLAMA = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)
T5 = T5Config(vocab_size=300, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
GPT2 = GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=128)
LENGTHS = ((40, 24), (40, 2))


def lora(model):
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    return LoraConfig(r=4, target_modules="all-linear", task_type=kind)


def drawn(config, **options):
    """Return a sketch as a CPU would load it."""
    stated = {"dtype": torch.float32, "attention": "eager", "lora": lora, **options}
    return sketch(config, **stated)


def passing(parts):
    return sum(v for name, v in parts.items() if name not in (WEIGHTS, ADAPTER))


def allocated(step, folder) -> int:
    """Return the most bytes that a step really held, as torch's profiler saw it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            step()
        path = folder / "trace.json"
        seen.export_chrome_trace(str(path))
    events = [
        event
        for event in json.loads(path.read_text())["traceEvents"]
        if event.get("name") == "[memory]"
    ]
    events.sort(key=lambda event: event["ts"])
    first = events[0]["args"]
    before = first["Total Allocated"] - first["Bytes"]
    return max(event["args"]["Total Allocated"] for event in events) - before


@pytest.mark.parametrize(
    ("config", "kind", "checkpointing"),
    [
        (LLAMA, LlamaForCausalLM, False),
        (LLAMA, LlamaForCausalLM, True),
        (T5, T5ForConditionalGeneration, False),
    ],
    ids=["causal", "checkpointing", "encoder-decoder"],
)
def test_a_training_step_holds_what_the_sketch_says(
    config, kind, checkpointing, tmp_path
):
    peak = training_peak(
        drawn(config, checkpointing=checkpointing), batch_size=8, lengths=LENGTHS
    )
    model = kind._from_config(config, attn_implementation="eager")
    model.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    adapted = get_peft_model(model, lora(model)).train()

    def step():
        losses = []
        for prompt, target in LENGTHS:
            ids = torch.zeros(8, prompt + target, dtype=torch.long)
            inputs, labels = {"input_ids": ids}, ids
            if config.is_encoder_decoder:
                labels = ids[:, :target]
                inputs = {"input_ids": ids[:, target:], "decoder_input_ids": labels}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            with torch.autocast("cpu", torch.bfloat16):
                logits = adapted(**inputs, use_cache=False).logits
            shift = not config.is_encoder_decoder
            losses.append(token_losses(logits, labels, shift=shift)[0].mean())
            del logits
        torch.stack(losses).sum().backward()

    real = allocated(step, tmp_path)
    # Kernels take some scratch memory that no tensor shows.
    assert 0.9 * real <= passing(peak) <= 1.05 * real


def test_weights_and_adapter_are_those_of_the_real_model():
    found = drawn(LLAMA)
    model = LlamaForCausalLM(LLAMA)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == 4 * found.parameters
    model.requires_grad_(False)
    adapted = get_peft_model(model, lora(model))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert found.adapter_parameters == trained
    peak = training_peak(found, batch_size=1, lengths=((3, 2),))
    # Weight, gradient and two moments of four bytes each.
    assert peak[ADAPTER] == 16 * trained
    half = drawn(LLAMA, dtype=torch.bfloat16)
    assert half.weight_bytes == 2 * found.parameters


@pytest.mark.parametrize(
    ("config", "batch_size"), [(LLAMA, 1), (LLAMA, 16), (GPT2, 2), (T5, 4)]
)
def test_tuning_in_full_holds_what_the_sketch_says(config, batch_size, tmp_path):
    """From the first allocation of `train_adapter` to its end, small batch or large."""
    prompt, target = 40, 24
    base = whole_base(config)
    peak = training_peak(
        drawn(base.model.config, lora=None, full=True),
        batch_size=batch_size,
        lengths=((prompt, target),),
    )
    size = sum(p.numel() for p in base.model.parameters())
    words = " ".join(["tom"] * prompt)
    examples = [
        Example(words, " ".join(["tom"] * (target - 1)), "explain")
        for _ in range(batch_size)
    ]
    ids = tokenised(base, examples[0])
    assert (len(ids.prompt), len(ids.target)) == (prompt, target)
    settings = TrainingSettings(tuning="full", local_epochs=2, batch_size=batch_size)
    real = allocated(lambda: train_adapter(base, examples, settings, seed=0), tmp_path)
    assert peak[WEIGHTS] == peak[TUNED] == 4 * size
    assert peak[MOMENTS] == 8 * size
    assert ADAPTER not in peak
    estimated = sum(peak.values()) - peak[WEIGHTS]
    # Of prompts the real step computes no logits.
    assert 0.97 * real <= estimated <= 1.1 * real
    assert memory.passing(peak) == estimated - 12 * size


def whole_base(config):
    tokenizer = build_tokenizer()
    config = type(config)(**{**config.to_dict(), "vocab_size": len(tokenizer)})
    is_pair = config.is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if is_pair else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.requires_grad_(False)
    return LoadedModel("tiny", model.eval(), tokenizer, is_encoder_decoder=is_pair)


def test_a_tuned_student_is_read_with_its_base_beside_it():
    found = drawn(GPT2, lora=None, full=True)
    size = sum(p.numel() for p in GPT2LMHeadModel(GPT2).parameters())
    assert found.parameters == found.adapter_parameters == size
    for peak in (
        generation_peak(found, batch_size=2, prompt_tokens=9, new_tokens=3),
        scoring_peak(found, batch_size=2, prompt=9, target=3),
    ):
        assert peak[WEIGHTS] == peak[TUNED] == 4 * size
        assert not {ADAPTER, MOMENTS, GRADIENTS} & peak.keys()
    # Adam's own step needs more than the backward pass of one short row.
    found = drawn(LLAMA, lora=None, full=True)
    sizes = [p.numel() for p in LlamaForCausalLM(LLAMA).parameters()]
    one, many = (
        training_peak(found, batch_size=1, lengths=((3, 2),), fused=fused)
        for fused in (False, True)
    )
    assert one[GRADIENTS] == many[GRADIENTS] == 4 * sum(sizes)
    assert one[STEP] == 8 * max(sizes)
    assert many[STEP] == 4 * sum(sizes)


def test_a_run_in_full_counts_whole_models(monkeypatch):
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 2)
    whole = dataclasses.replace(
        CONFIG,
        tuning="full",
        arms="zero-shot,standalone,fedcot",
        teacher="http://localhost:8000/v1",
        evaluation_batch_size=1,
    )
    server, client = memory.estimate(whole, num_supernodes=4).needs
    size = client.host[TUNED]
    kind = memory._kind("builtin", "student", [])
    assert size == memory.model_bytes(whole, kind) == 4 * drawn(kind.config).parameters
    assert client.phase == "training"
    assert client.host[MOMENTS] == 2 * size
    assert client.host[memory.TRAVELLING] == 2 * size
    assert server.host.get(memory.TRAVELLING, 0) == 0
    averaged = dataclasses.replace(whole, aggregation="fedavg")
    server, _ = memory.estimate(averaged, num_supernodes=4).needs
    # Of the arm fedcot alone: four models that came, and their mean.
    assert server.host[memory.TRAVELLING] == 5 * size
    adapters = dataclasses.replace(averaged, tuning="lora")
    for need in memory.estimate(adapters, num_supernodes=4).needs:
        assert not {TUNED, MOMENTS, memory.TRAVELLING} & need.host.keys()
    together = dataclasses.replace(
        whole,
        mode="community",
        communities="library,bakery",
        coalitions="all",
        sharing="pooled,federated",
    )
    # Three coalitions with three arms and a control, and three models of each member.
    assert memory.models_of_server(together, 4) == 3 * 3 + 1 + 3 * 4
    remedy = memory.estimate(whole, num_supernodes=4).remedy()
    assert "tuning=lora" in remedy
    assert "student-dtype" not in remedy


def test_tuning_in_full_of_a_student_in_bfloat16_is_refused_before_it_starts():
    kind = memory._kind("builtin", "student", [])
    config = dataclasses.replace(CONFIG, tuning="full", student_dtype="auto")
    half = dataclasses.replace(kind, config=LlamaConfig(dtype="bfloat16"))
    with pytest.raises(ConfigError, match="`student-dtype` must be float32"):
        memory.student_phases(config, half, Lengths(9, 9, 3, 9), "cpu")


def test_whole_models_on_their_way_are_in_the_machine_s_memory():
    parts = {WEIGHTS: 4, TUNED: 4, MOMENTS: 8, memory.TRAVELLING: 12, GRADIENTS: 4}
    need = memory._need("client", {"training": parts}, "cuda")
    assert need.host[memory.TRAVELLING] == 12
    assert need.device[TUNED] == 4
    assert memory.TRAVELLING not in need.device


def test_quantised_linear_layers_shrink_and_the_rest_stays():
    whole = drawn(LLAMA, dtype=torch.bfloat16, lora=None)
    # Per layer: queries and output 64 x 64, keys and values 64 x 32, three of 64 x 96.
    linear = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    rest = whole.weight_bytes - 2 * linear
    for bits, size in (("8bit", 1.01), ("4bit", 0.5625)):
        small = drawn(LLAMA, dtype=torch.bfloat16, lora=None, quantization=bits)
        assert small.weight_bytes == pytest.approx(rest + size * linear, abs=1)
        assert small.parameters == whole.parameters


def test_the_cache_holds_keys_and_values_of_every_token():
    found = drawn(LLAMA, lora=None)
    peak = generation_peak(found, batch_size=5, prompt_tokens=30, new_tokens=12)
    # Keys and values, 3 layers, 2 heads of 16 numbers of 4 bytes.
    assert peak[CACHE] == 2 * 3 * 2 * 16 * 4 * 5 * (30 + 12)
    assert ADAPTER not in peak
    encoder = generation_peak(
        drawn(T5, lora=None), batch_size=5, prompt_tokens=30, new_tokens=12
    )
    # The decoder keeps both, of the prompt and of what it wrote.
    assert encoder[CACHE] == 2 * 2 * 4 * 16 * 4 * 5 * (30 + 12)


def test_logits_and_attention_scores_are_told_apart():
    wide = LlamaConfig(**{**LLAMA.to_dict(), "vocab_size": 9000})
    peak = scoring_peak(drawn(wide, lora=None), batch_size=4, prompt=20, target=10)
    one = 4 * 29 * 9000 * 4
    # Of shifted logits cross-entropy takes logarithms; a copy may be in another format.
    assert 2 * one <= peak[LOGITS] <= 4 * one
    short = training_peak(drawn(LLAMA), batch_size=4, lengths=((20, 12),))
    long = training_peak(drawn(LLAMA), batch_size=4, lengths=((40, 24),))
    assert long[SCORES] == 4 * short[SCORES]
    fused = training_peak(
        drawn(LLAMA, attention="sdpa"), batch_size=4, lengths=((40, 24),)
    )
    assert fused.get(SCORES, 0) < long[SCORES] / 4


def test_checkpointing_and_smaller_batches_need_less():
    plain = passing(training_peak(drawn(LLAMA), batch_size=8, lengths=LENGTHS))
    twice = training_peak(
        drawn(LLAMA, checkpointing=True), batch_size=8, lengths=LENGTHS
    )
    assert passing(twice) < 0.5 * plain
    half = training_peak(drawn(LLAMA), batch_size=4, lengths=LENGTHS)
    assert 0.45 * plain < passing(half) < 0.6 * plain


def test_published_sizes_come_out():
    """Qwen2.5-0.5B has 494,032,768 parameters by its model card's 0.49 billion."""
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    attention = 896 * 896 * 2 + 896 * 128 * 2 + 896 + 2 * 128
    layer = attention + 3 * 896 * 4864 + 2 * 896
    expected = 151936 * 896 + 24 * layer + 896
    found = drawn(config, lora=None, dtype=torch.bfloat16)
    assert found.parameters == expected == 494_032_768


CONFIG = RunConfig(token_epsilon=8.0, device="cpu")


@pytest.fixture(scope="module")
def pair() -> memory.Estimate:
    """Return the estimate of a run of the built-in pair on eight clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory.os, "cpu_count", lambda: 3)
        return memory.estimate(CONFIG, num_supernodes=8)


def test_a_run_of_the_built_in_pair_is_estimated_with_its_parts(pair):
    server, client = pair.needs
    assert (server.count, client.count) == (1, 3)
    assert client.phase == "training"
    assert pair.device_bytes == 0
    assert pair.host_bytes == (
        memory_needs.FLOWER_BYTES + server.host_bytes + 3 * client.host_bytes
    )
    assert client.host[memory_needs.PROCESS] == memory.PROCESS_BYTES
    assert VECTORS not in client.host
    lines = list(pair.lines())
    assert any(line.startswith("client, training: 3 x") for line in lines)
    assert pair.as_dict()["host_bytes"] == pair.host_bytes


def test_clients_share_as_many_processes_as_there_are_processors(monkeypatch):
    monkeypatch.setattr(memory.os, "cpu_count", lambda: 3)
    assert [memory.actors_of(nodes) for nodes in (1, 3, 8)] == [1, 3, 3]
    monkeypatch.setattr(memory.os, "cpu_count", lambda: None)
    assert memory.actors_of(8) == 1


def test_training_with_noise_goes_record_by_record():
    """Without a teacher here, since nothing is known of it before it is asked."""
    private = dataclasses.replace(
        CONFIG,
        arms="zero-shot,fedcot",
        teacher="http://localhost:8000/v1",
        noise_multiplier=1.0,
        aggregation="fedavg",
        pairing="original",
        evaluation_batch_size=1,
    )
    server, client = memory.estimate(private, num_supernodes=1).needs
    assert client.phase == "private training"
    assert client.host[VECTORS] == VECTOR_BYTES * client.host[ADAPTER] / 16
    larger = dataclasses.replace(private, batch_size=2 * private.batch_size)
    assert memory.estimate(larger, num_supernodes=1).needs[1] == client
    both = dataclasses.replace(private, arms="distil,fedcot", raw_to_endpoint=True)
    assert memory.estimate(both, num_supernodes=1).needs[1].phase == "training"
    assert not is_local("recorded")
    assert not is_local("http://localhost:8000/v1")
    assert is_local("builtin")
    assert server.host == {memory_needs.PROCESS: memory.PROCESS_BYTES}


def test_the_vectors_of_a_noised_step_take_what_is_stated():
    size = 200_000
    tracemalloc.start()
    try:
        gradient = np.ones(size, dtype=np.float32)
        total = ClippedSum(size, 1.0)
        total.add(gradient)
        total.noised(1.0, TapeRandomSource(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What is left over are words that are drawn again, fewer the larger the vector.
    assert 0.9 * VECTOR_BYTES <= peak / size <= 1.1 * VECTOR_BYTES


def test_a_model_that_is_not_here_is_named_and_not_counted():
    config = dataclasses.replace(CONFIG, student="nobody/no-such-model")
    found = memory.estimate(config, num_supernodes=2)
    assert found.unknown == ("student nobody/no-such-model",)
    assert "nobody/no-such-model" in list(found.lines())[-1]


def test_lengths_come_from_the_data_and_stay_below_the_limit():
    found = lengths_of(CONFIG, 5)
    assert 10 < found.prompt < 100
    assert found.target == CONFIG.max_new_tokens + 1
    tight = dataclasses.replace(CONFIG, max_sequence_tokens=24)
    assert lengths_of(tight, 5) == Lengths(12, 12, 9, found.teacher_prompt)


def test_too_little_memory_is_one_line_with_what_to_change(pair, monkeypatch):
    found = pair
    assert memory.shortage(found) == ""
    monkeypatch.setattr(memory, "machine_bytes", lambda: 1_000_000_000)
    line = memory.shortage(found)
    assert "1.00 GB" in line
    assert memory.gigabytes(found.host_bytes) in line
    assert "batch-size" in line
    assert "\n" not in line


def test_a_container_limit_counts(monkeypatch):
    real = Path.read_text

    def limited(path, *arguments, **options):
        if path.name == "memory.max":
            return "123456789\n"
        return real(path, *arguments, **options)

    assert memory.machine_bytes() > 123456789
    monkeypatch.setattr(Path, "read_text", limited)
    assert memory.machine_bytes() == 123456789


@pytest.mark.slow
def test_the_estimate_is_near_what_training_really_takes():
    """The script exits with an error where a ratio is outside its bounds."""
    root = Path(memory.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "memory.py"), "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert len(rows) == 5
    assert all(0.8 <= row["estimated"] / row["measured"] <= 2 for row in rows), rows


FAILING = """
import resource, sys
import torch
from fedcot.out_of_memory import explain_out_of_memory, is_out_of_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    {statement}
except Exception as error:
    assert is_out_of_memory(error), repr(error)
    print(type(error).__name__)
    sys.exit(0)
sys.exit("nothing failed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept on Linux only")
@pytest.mark.parametrize(
    "statement",
    [
        "torch.nn.Linear(2**15, 2**14)",
        "bytearray(2**31)",
    ],
)
def test_a_real_allocation_that_fails_is_recognised(statement):
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(statement=statement)],
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("RuntimeError", "MemoryError")
