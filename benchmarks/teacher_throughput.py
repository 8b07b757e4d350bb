"""Prompts per second of the built-in teacher: in batches against one at a time.

Every repeat measures each way once, in turn, so that whatever else the machine does
slows all of them; a ratio is formed inside a repeat, and the median is printed. The
reference is a plain call of the model's own `generate` for each prompt.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from unittest.mock import patch

import torch

from fedcot.data.prompts import explain_prompt
from fedcot.models.generation import generate
from fedcot.models.loading import LoadedModel, load_model
from fedcot.models.prefix import SharedPrefix
from fedcot.models.sequences import token_ids
from fedcot.world import FAMILIES, draw_problems

BATCH_SIZES = (1, 8, 16, 32, 64, 128, 256)
PREFIX_TOKENS = 300
PREFIX_BATCH = 64
NEW_TOKENS = 80

Write = Callable[[Sequence[list[int]]], list[str]]


def main() -> int:
    """Measure, then print a table or JSON; 1 if a completion or a ratio is off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--at-least", type=float, default=0.0, help="fail below this best ratio"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load_model("builtin", "teacher")
    prompts = _questions(teacher, "test", options.prompts)
    rows = batch_rows(teacher, prompts, options.repeats)
    prefix = prefix_row(teacher, prompts[:PREFIX_BATCH], options.repeats)
    best = max(rows, key=lambda row: row["ratio"])
    if options.json:
        print(json.dumps({"batches": rows, "best": best, "prefix": prefix}, indent=2))
    else:
        _print(rows, best, prefix)
    differing = prefix["differing"] + sum(row["differing"] for row in rows)
    return int(differing > 0 or best["ratio"] < options.at_least)


def _questions(teacher: LoadedModel, split: str, count: int) -> list[list[int]]:
    problems = draw_problems(split, tuple(FAMILIES), count, seed=0)
    return [
        token_ids(teacher.tokenizer, explain_prompt(problem.question))
        for problem in problems
    ]


def batch_rows(
    teacher: LoadedModel, prompts: list[list[int]], repeats: int
) -> list[dict[str, float]]:
    """Return a row for each batch size."""
    ways: dict[int, Write] = {0: lambda ids: _one_by_one(teacher, ids)}
    for size in BATCH_SIZES:
        ways[size] = lambda ids, size=size: _batched(teacher, ids, size)
    seconds, texts = _measured(ways, prompts, repeats)
    return [
        {
            "batch_size": size,
            "prompts_per_second": len(prompts) / statistics.median(seconds[size]),
            "ratio": _ratio(seconds[0], seconds[size]),
            "differing": _differing(texts[0], texts[size]),
        }
        for size in BATCH_SIZES
    ]


def prefix_row(
    teacher: LoadedModel, prompts: list[list[int]], repeats: int
) -> dict[str, float]:
    """Return what computing a long common beginning once is worth."""
    shown = [token for ids in _questions(teacher, "train", 40) for token in ids]
    longer = [shown[:PREFIX_TOKENS] + ids for ids in prompts]

    def without(ids: Sequence[list[int]]) -> list[str]:
        with patch.object(SharedPrefix, "of", return_value=None):
            return _batched(teacher, ids, PREFIX_BATCH)

    def shared(ids: Sequence[list[int]]) -> list[str]:
        return _batched(teacher, ids, PREFIX_BATCH)

    seconds, texts = _measured({0: without, 1: shared}, longer, repeats)
    return {
        "prefix_tokens": PREFIX_TOKENS,
        "prompts_per_second": len(longer) / statistics.median(seconds[1]),
        "ratio": _ratio(seconds[0], seconds[1]),
        "differing": _differing(texts[0], texts[1]),
    }


def _measured(
    ways: dict[int, Write], prompts: Sequence[list[int]], repeats: int
) -> tuple[dict[int, list[float]], dict[int, list[str]]]:
    """Return seconds and completions of each way, measured in turn."""
    seconds: dict[int, list[float]] = {way: [] for way in ways}
    texts: dict[int, list[str]] = {}
    for write in ways.values():
        write(prompts[:2])
    for _ in range(repeats):
        for way, write in ways.items():
            started = time.perf_counter()
            texts[way] = write(prompts)
            seconds[way].append(time.perf_counter() - started)
    return seconds, texts


def _ratio(reference: list[float], seconds: list[float]) -> float:
    return statistics.median(
        one / other for one, other in zip(reference, seconds, strict=True)
    )


def _differing(one: list[str], other: list[str]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def _batched(
    teacher: LoadedModel, prompts: Sequence[list[int]], batch_size: int
) -> list[str]:
    completions = generate(
        teacher.model,
        teacher,
        prompts,
        batch_size=batch_size,
        max_new_tokens=NEW_TOKENS,
    )
    return [completion.text for completion in completions]


def _one_by_one(teacher: LoadedModel, prompts: Sequence[list[int]]) -> list[str]:
    texts = []
    for ids in prompts:
        inputs = torch.tensor([ids])
        with torch.inference_mode():
            output = teacher.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
        texts.append(
            teacher.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
        )
    return texts


def _print(
    rows: list[dict[str, float]], best: dict[str, float], prefix: dict[str, float]
) -> None:
    print("batch size   prompts/s   x one by one   other completions")
    for row in rows:
        print(
            f"{row['batch_size']:>10} {row['prompts_per_second']:>11.1f}"
            f" {row['ratio']:>14.2f} {row['differing']:>19}"
        )
    print(f"best: {best['batch_size']}, {best['ratio']:.2f} times one by one")
    print(
        f"{prefix['prefix_tokens']} tokens that all prompts begin with: "
        f"{prefix['prompts_per_second']:.1f} prompts/s, {prefix['ratio']:.2f} times "
        f"without computing them once, {prefix['differing']} other completions"
    )


if __name__ == "__main__":
    sys.exit(main())
