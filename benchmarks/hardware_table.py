"""What the configurations for real hardware need.

Memory comes from `fedcot.memory` and the models' published sizes. Work is counted as
2 operations a weight and token forward and 2 backward, since the base is frozen, and
2 more with gradient checkpointing (https://arxiv.org/abs/2001.08361, section 2.1).
Times follow from the rate at which this machine trained a random model of 34 million
parameters, and, for a GPU, from an assumed rate. All of it is an estimate.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig

from fedcot import provenance
from fedcot.arms import SOURCES, UNTRAINED
from fedcot.comparison import write_comparison
from fedcot.config import RunConfig, load_config
from fedcot.memory import client_need, server_need
from fedcot.memory_sketch import Sketch, sketch
from fedcot.models.weights import ModelKind
from fedcot.teacher_source import is_local
from fedcot.text_lengths import Lengths

sys.path.insert(0, str(Path(__file__).parent))
import memory  # the script beside this one

ROOT: Final = Path(__file__).resolve().parents[1]
# Sustained in bfloat16: a sixth of an A100's peak of 312e12. Assumed, not measured.
GPU_RATE: Final = 50e12

# Each model's config.json as published: https://huggingface.co/<id>/blob/main/config.json
PUBLISHED: Final[dict[str, Any]] = {
    "Qwen/Qwen2.5-7B-Instruct": AutoConfig.for_model(
        "qwen2",
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        max_position_embeddings=32768,
    ),
    "Qwen/Qwen2.5-0.5B": AutoConfig.for_model(
        "qwen2",
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=32768,
    ),
    "google/flan-t5-small": AutoConfig.for_model(
        "t5",
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    "google-t5/t5-base": AutoConfig.for_model(
        "t5",
        vocab_size=32128,
        d_model=768,
        d_kv=64,
        d_ff=3072,
        num_layers=12,
        num_heads=12,
    ),
}
# transformers builds a T5 with its head tied; the weights of this one bring their own.
OWN_HEAD: Final = {"google/flan-t5-small": 32128 * 512}
# Mean tokens, beside the longest that memory has to suffice for.
MEAN: Final = {
    "qwen-gsm8k": Lengths(prompt=75, target=130, prediction=4, teacher_prompt=420),
    "t5-commonsense": Lengths(prompt=65, target=75, prediction=3, teacher_prompt=500),
}


@dataclass(frozen=True)
class Row:
    """What one configuration needs; `operations` are of all clients and the teacher."""

    config: str
    student: str
    parameters: int
    clients: int
    client_bytes: int
    teacher_bytes: int
    operations: float


def row(name: str, student: str = "") -> Row:
    """Return what a configuration needs, with another student if one is named."""
    config = load_config(ROOT / "conf" / f"{name}.toml", {"device": "cpu"})
    if student:
        config = dataclasses.replace(config, student=student)
    limit = config.max_sequence_tokens
    target = min(limit // 2, config.max_new_tokens + 1)
    longest = Lengths(limit - target, target, 16, 1024)
    client = client_need(config, _kind(config.student), longest, "cuda")
    teacher_bytes = 0
    teacher_work = 0.0
    if is_local(config.teacher):
        kind = _kind(config.teacher)
        clients = config.num_partitions
        server = server_need(config, kind, longest, "cuda", clients=clients)
        teacher_bytes = server.device_bytes
        read = MEAN[name].teacher_prompt + config.max_new_tokens // 2
        teacher_work = 2.0 * _active(kind) * read * _prompts(config)
    return Row(
        name,
        config.student,
        _sketch(_kind(config.student)).parameters + OWN_HEAD.get(config.student, 0),
        config.num_partitions,
        client.device_bytes,
        teacher_bytes,
        _student_work(config, MEAN[name]) + teacher_work,
    )


def _kind(source: str) -> ModelKind:
    config = PUBLISHED[source]
    return ModelKind(config, bool(config.is_encoder_decoder))


def _sketch(kind: ModelKind) -> Sketch:
    return sketch(kind.config, dtype=torch.bfloat16, attention="sdpa")


def _active(kind: ModelKind) -> int:
    """Return the weights that every token is multiplied with."""
    found = _sketch(kind)
    table = found.model.get_input_embeddings().weight.numel()
    tied = found.model.get_output_embeddings().weight is (
        found.model.get_input_embeddings().weight
    )
    return found.parameters - (0 if tied else table)


def _prompts(config: RunConfig) -> int:
    """Return how many prompts the teacher answers, tests included."""
    sources = {SOURCES[arm] for arm in config.arm_names if arm in SOURCES}
    asked = config.num_server_rounds * config.records_per_round * len(sources)
    return config.num_partitions * (asked + config.test_records)


def _student_work(config: RunConfig, mean: Lengths) -> float:
    """Return the operations of all clients: training, then tests after every round."""
    weights = _active(_kind(config.student))
    rounds, clients = config.num_server_rounds, config.num_partitions
    # Round k trains on the records of the first k rounds.
    trained = config.records_per_round * rounds * (rounds + 1) // 2
    tokens = 2 * mean.prompt + mean.target + mean.prediction
    passes = 6 if config.gradient_checkpointing else 4
    arms = [arm for arm in config.arm_names if arm not in UNTRAINED]
    training = passes * trained * config.local_epochs * tokens * len(arms)
    tests = config.test_records * (mean.prompt + mean.target) * len(config.arm_names)
    return float(weights * clients * (training + 2 * tests * (rounds + 1)))


def measured_rate() -> float:
    """Return the operations a second that training reaches here, on one thread."""
    from fedcot.models.sources import model_folder
    from fedcot.student.training import train_adapter

    torch.set_num_threads(1)
    case = dataclasses.replace(memory.CASES[2], batch_size=8, steps=2)
    with tempfile.TemporaryDirectory() as folder:
        source = str(memory.random_model(case, Path(folder)))
        base, examples, settings = memory.training_of(case, source)
        kind = ModelKind.of_folder(
            model_folder(source, "student"), source=source, role="student"
        )
        outcome = train_adapter(base, examples, settings, seed=0)
    tokens = case.batch_size * case.steps * (2 * case.words + case.target_words + 3)
    return 4.0 * _active(kind) * tokens / outcome.seconds


def main() -> None:
    """Work out every row, then write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/hardware.json"))
    given = parser.parse_args()
    rows = [
        row("qwen-gsm8k"),
        row("t5-commonsense"),
        row("t5-commonsense", "google-t5/t5-base"),
    ]
    result = {
        "rows": [dataclasses.asdict(one) for one in rows],
        "gpu_rate": GPU_RATE,
        "measured_rate": measured_rate(),
        "command": "python -P benchmarks/hardware_table.py",
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
    }
    write_comparison(result, given.output)
    print(f"Result: {given.output}")


if __name__ == "__main__":
    main()
