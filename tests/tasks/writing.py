"""Mapping files and data for tests, written where a test wants them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedcot.config import RunConfig

SUMS = """
name = "sums"
[source]
train = "train.jsonl"
test = "test.jsonl"
[fields]
question = "q"
answer = "a"
[answer]
kind = "numeric"
[slots]
question = 12
"""

CHOICES = """
name = "pick"
[source]
train = "train.jsonl"
test = "test.jsonl"
[fields]
question = "q"
choices = "c"
answer = "a"
[answer]
kind = "multiple-choice"
[slots]
question = 8
choices = { count = 4, slots = 2 }
"""


def write_mapping(folder: Path, text: str, name: str = "mapping.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Lone surrogates stay escapes, as other programs write them.
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sums(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"q": f"What is {n} plus {n}?", "a": str(2 * n)}
        for n in range(start, start + count)
    ]


def config_for(dataset: str, data_dir: Path, **more: Any) -> RunConfig:
    settings = {"arms": "zero-shot", "partitioner": "iid", "token_epsilon": 8.0}
    named = {"dataset": dataset, "data_dir": str(data_dir)}
    return RunConfig(**{**settings, **named, **more})
