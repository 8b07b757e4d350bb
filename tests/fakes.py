"""A teacher that follows a script, a tiny student, and a run of both in one process."""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import client_app
import server_app
from fedcot import node, node_runs, node_training
from fedcot.config import RunConfig
from fedcot.data.schema import Partition, Rationale, Record
from fedcot.node_state import Owner
from fedcot.runs import RunDirectory
from fedcot.teacher.teacher import Completion, Usage
from strategies import opening, requests, results
from tests.grid import LocalGrid
from tests.tiny import tiny_base

NAMES = ("quokka", "axolotl", "pangolin", "okapi", "numbat")


class ScriptedTeacher:
    """Writes a true sum that depends on the question alone; every ninth is unreadable.

    `asked` keeps the questions of each call.
    """

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    @property
    def usage(self) -> Usage:
        return Usage(prompts=sum(len(questions) for questions in self.asked))

    def for_released(self) -> "ScriptedTeacher":
        return self

    def describe(self) -> dict[str, str]:
        return {"kind": "scripted"}

    def answer(
        self,
        questions: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        self.asked.append(list(questions))
        return [_completion(question) for question in questions]


def _completion(question: str) -> Completion:
    number = zlib.crc32(question.encode())
    if number % 9 == 0:
        return Completion("no idea", None)
    first, second = number % 20, number // 20 % 20
    text = f"{first} + {second} = {first + second}"
    answer = str(first + second)
    return Completion(f"{text} answer: {answer}", Rationale(text, answer))


def fake_partition(
    config: RunConfig, partition_id: int, num_partitions: int
) -> Partition:
    """Return records whose questions hold a word that stands nowhere else."""

    def records(split: str, count: int) -> tuple[Record, ...]:
        return tuple(
            Record(
                f"{secret_word(partition_id, split, index)} has {index % 9} books 2 "
                "come back how many books remain",
                str(index % 9 + 2),
                "library",
            )
            for index in range(count)
        )

    return Partition(
        train=records("train", config.num_records // num_partitions),
        test=records("test", config.test_records),
        deep_test=records("deep", config.test_records),
    )


def secret_word(partition_id: int, split: str, index: int) -> str:
    """Return a word that no vocabulary and no other record holds."""
    number = "".join("abcdefghij"[int(digit)] for digit in f"{index:03d}")
    return f"{NAMES[partition_id]}{split}{number}"


def fake_bank(config: RunConfig, size: int) -> tuple[Record, ...]:
    return tuple(
        Record(f"{index % 40} books {index // 40} get borrowed", "1", "public")
        for index in range(size)
    )


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put tiny records and a tiny student where the real ones would be loaded."""
    base = tiny_base()
    for module in (node, node_runs, requests, opening):
        monkeypatch.setattr(module, "artefact_hash", lambda source, role: "ab" * 32)
    monkeypatch.setattr(node_training, "load_base", lambda source, options: base)
    for module in (node, results):
        monkeypatch.setattr(module, "load_partition", fake_partition)
    monkeypatch.setattr(server_app, "load_public_bank", fake_bank)
    node._partition.cache_clear()


def tiny_config(run_dir: Path, **settings: Any) -> RunConfig:
    """Return the smallest settings that train something."""
    tiny = {
        "arms": "zero-shot,standalone,distil,fedcot",
        "num_records": 24,
        "records_per_round": 4,
        "test_records": 4,
        "max_new_tokens": 8,
        "token_epsilon": 8.0,
        "local_epochs": 1,
        "batch_size": 4,
        "lora_r": 2,
        "lora_alpha": 4,
        "num_server_rounds": 2,
        "phase_timeout": 30.0,
        "run_dir": str(run_dir),
        "test_tape": True,
    }
    return RunConfig(**{**tiny, **settings})


def node_configs(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return the node configs of a simulation."""
    return [
        {"partition-id": i, "num-partitions": count, "simulation": True, **more}
        for i in range(count)
    ]


def federate(
    config: RunConfig,
    *,
    count: int = 3,
    seed: int = 0,
    late: int = 0,
    nodes: Sequence[dict[str, Any]] | None = None,
    teacher: ScriptedTeacher | None = None,
) -> tuple[RunDirectory, LocalGrid]:
    """Run the whole strategy against clients in this process."""
    grid = LocalGrid(
        client_app.app,
        nodes or node_configs(count),
        config.to_run_config(),
        seed=seed,
        late=late,
    )
    run = server_app.run(grid, config, teacher or ScriptedTeacher())
    return run, grid


def summary_of(run: RunDirectory) -> dict[str, Any]:
    """Return what a run says of itself."""
    summary: dict[str, Any] = json.loads((run.path / "summary.json").read_text())
    return summary


def rows_of(run: RunDirectory, **wanted: Any) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics that hold all of these values."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [r for r in rows if all(r.get(k) == v for k, v in wanted.items())]


def owner(partition_id: int = 0, **more: Any) -> Owner:
    """Return a simulated node's owner."""
    return Owner.from_node_config(
        {"partition-id": partition_id, "num-partitions": 3, "simulation": True, **more}
    )
