"""What is timed: tokens, durable charges, a composition, a student's training step.

Each speed is printed with a ratio to a plain reference measured in the same process,
because absolute speeds say more about a machine than about the code.
"""

import argparse
import dataclasses
import json
import math
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from dp_accounting.pld import privacy_loss_distribution as pld
from transformers import LlamaForCausalLM

from fedcot.models.architectures import student_config
from fedcot.models.loading import CPU_ATTENTION
from fedcot.models.sequences import causal_batch
from fedcot.models.tokenizer import build_tokenizer
from fedcot.privacy.accounting import epsilon_at_delta
from fedcot.privacy.channels import build_channel
from fedcot.privacy.embedding import blend_similarity
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from fedcot.student.loss import example_losses

REPEATS = 5


def main() -> None:
    """Measure, then print lines or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    as_json = parser.parse_args().json
    rows = [*channel_rows(), *large_rows(), ledger_row(), query_row(), *training_rows()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"{row['what']:<42} {row['per_second']:>12,.0f} per second, "
            f"{row['ratio']:.3g} x {row['against']}"
        )


def channel_rows() -> list[dict[str, object]]:
    """Measure tokens per second of the token mechanisms.

    The reference draws from the same distribution with NumPy's generator, which has
    floating-point weights and no cryptographic randomness, so it guarantees nothing.
    """
    vocabulary = world_vocabulary()
    tokens = np.tile(np.arange(len(vocabulary.words)), 60)
    rows: list[dict[str, object]] = []
    for mechanism, epsilon in (("rank", 2.0), ("rank", 8.0), ("exponential", 8.0)):
        channel = build_channel(mechanism, vocabulary, epsilon)
        source = SystemRandomSource()
        seconds = median_seconds(lambda c=channel, s=source: c.sample(tokens, s))
        law = np.array([channel.weights_row(t) for t in range(channel.size)], float)
        law = np.cumsum(law / law.sum(axis=1, keepdims=True), axis=1)
        generator = np.random.default_rng(0)

        def plain(
            law: np.ndarray = law, generator: np.random.Generator = generator
        ) -> None:
            uniform = generator.random(len(tokens))
            np.sum(law[tokens] < uniform[:, None], axis=1)

        rows.append(
            {
                "what": f"{mechanism} channel at {epsilon:g} nats, tokens",
                "per_second": len(tokens) / seconds,
                "ratio": median_seconds(plain) / seconds,
                "against": "the speed of NumPy's generator, without a guarantee",
            }
        )
    return rows


def large_rows() -> list[dict[str, object]]:
    """Measure tokens per second over 4,000 words, and the build before them.

    The words have random vectors: the speed does not depend on what they mean.
    """
    size = 4000
    vocabulary = Vocabulary.of([f"w{number}x" for number in range(size)], 32)
    vectors = np.random.default_rng(0).normal(size=(size + 2, 64))
    started = time.perf_counter()
    similarity = blend_similarity(vocabulary, vectors)
    table = time.perf_counter() - started
    prompts = np.random.default_rng(1).integers(0, size, size=(2048, 32))
    rows: list[dict[str, object]] = []
    for mechanism in ("rank", "exponential"):
        started = time.perf_counter()
        channel = build_channel(
            mechanism, vocabulary, 6.0, similarity=similarity, neighbours=10
        )
        built = time.perf_counter() - started
        source = SystemRandomSource()
        seconds = median_seconds(lambda c=channel, s=source: c.sample(prompts, s))
        rows.append(
            {
                "what": f"{mechanism} channel over {size} words, tokens",
                "per_second": prompts.size / seconds,
                "ratio": built / table,
                "against": "the time of the similarity, to build it",
            }
        )
    return rows


def query_row() -> dict[str, object]:
    """Measure the composition of 30 tokens: an epsilon at delta from a new channel."""
    vocabulary = dataclasses.replace(world_vocabulary(), length=30)
    channels = iter(
        [build_channel("rank", vocabulary, 4 + n / 64) for n in range(2 * REPEATS + 1)]
    )
    seconds = median_seconds(lambda: epsilon_at_delta(next(channels), delta=1e-6))
    pair = {"a": math.log(0.9), "b": math.log(0.1)}
    other = {"a": math.log(0.1), "b": math.log(0.9)}

    def plain() -> None:
        law = pld.from_two_probability_mass_functions(
            log_probability_mass_function_lower=pair,
            log_probability_mass_function_upper=other,
            value_discretization_interval=1e-4,
        )
        law.self_compose(30).get_epsilon_for_delta(1e-6)

    return {
        "what": "epsilon at delta of 30 tokens, queries",
        "per_second": 1 / seconds,
        "ratio": median_seconds(plain) / seconds,
        "against": "the speed of dp-accounting on two outcomes",
    }


def ledger_row() -> dict[str, object]:
    """Measure prompts per second through a ledger: charged, drawn, stored, synced."""
    vocabulary = world_vocabulary()
    channel = build_channel("rank", vocabulary, 2.0)
    ids = np.zeros(vocabulary.length, dtype=np.int64)
    count = 256
    with tempfile.TemporaryDirectory() as folder:
        with Ledger(Path(folder) / "node", record_epsilon=1000.0) as ledger:
            keys = ledger.record_keys([f"question {n}" for n in range(20 * count)])
            times = []
            for start in range(0, len(keys), count):
                batch = [(key, ids) for key in keys[start : start + count]]
                started = time.perf_counter()
                ledger.release(batch, channel, source=SystemRandomSource())
                times.append(time.perf_counter() - started)
            seconds = statistics.median(times)
        plain = plain_inserts(Path(folder) / "plain.sqlite", count)
    return {
        "what": f"ledger, batches of {count} prompts",
        "per_second": count / seconds,
        "ratio": plain / seconds,
        "against": "the speed of two bare SQLite commits of as many rows, not synced",
    }


def plain_inserts(path: Path, count: int) -> float:
    """Return seconds of the same number of rows in a database that promises nothing."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE charges (record TEXT, ids TEXT)")
    started = time.perf_counter()
    for _ in range(2):
        rows = [(str(number), "0 " * 21) for number in range(count)]
        database.executemany("INSERT INTO charges VALUES (?, ?)", rows)
        database.commit()
    seconds = time.perf_counter() - started
    database.close()
    return seconds


def training_rows() -> list[dict[str, object]]:
    """Measure examples per second of one forward and backward pass of the base.

    The settings that fedcot uses on a CPU (plain attention, bfloat16 autocast, one
    thread) against torch's fused attention and against single precision.
    """
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    generator = torch.Generator().manual_seed(0)
    rows = [
        (torch.randint(3, len(tokenizer), (24,), generator=generator).tolist(),) * 2
        for _ in range(32)
    ]
    batch = causal_batch(rows, pad=0)

    def seconds(attention: str, *, bfloat16: bool) -> float:
        torch.manual_seed(0)
        model = LlamaForCausalLM._from_config(
            student_config(len(tokenizer)), attn_implementation=attention
        )

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask
                ).logits
            example_losses(logits, batch.labels).mean().backward()

        return median_seconds(step)

    ours = seconds(CPU_ATTENTION, bfloat16=True)
    references = {
        "the speed with torch's fused attention": seconds("sdpa", bfloat16=True),
        "the speed in single precision": seconds(CPU_ATTENTION, bfloat16=False),
    }
    return [
        {
            "what": "student, forward and backward, examples",
            "per_second": len(rows) / ours,
            "ratio": reference / ours,
            "against": against,
        }
        for against, reference in references.items()
    ]


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
