"""Communities in one process: a provider that adds, tiny members, stores of owners."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

import strategies.community
import strategies.community_requests
import strategies.community_results
import strategies.opening
import strategies.requests
import strategies.results
from fedcot import node, node_runs, node_training
from fedcot.community import member_traces
from fedcot.community.consent import TraceStore
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale, Record
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.runs import RunDirectory
from fedcot.teacher.teacher import Completion
from tests.fakes import ScriptedTeacher, fake_partition, federate, tiny_config
from tests.grid import LocalGrid
from tests.tiny import tiny_base

NAMES = ("library", "bakery", "harbor")
WRONG, UNREADABLE = 4, 7  # the first number of a question that goes wrong


class AddingProvider(ScriptedTeacher):
    """Adds the two numbers of a question; says something wrong of some of them."""

    name = "adding"

    def for_released(self) -> "AddingProvider":
        return self

    def answer(
        self,
        questions: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        self.asked.append(list(questions))
        return [self._completion(question) for question in questions]

    def _completion(self, question: str) -> Completion:
        first, second = map(int, re.findall(r"\b[0-9]+\b", question)[:2])
        if first == UNREADABLE:
            return Completion("no idea", None)
        total = first + second + (first == WRONG)
        text = f"{first} + {second} = {total}"
        return Completion(f"{text} answer: {total}", Rationale(text, str(total)))


def put_in_place(patched: pytest.MonkeyPatch) -> AddingProvider:
    """Put a scripted provider, tiny records and a tiny student in place."""
    made, base = AddingProvider(), tiny_base()
    patched.setattr(node_training, "load_base", lambda source, options: base)
    patched.setattr(member_traces, "configured_teacher", lambda *a, **k: made)
    hashed = (node, node_runs, strategies.opening, strategies.requests)
    for module in (*hashed, strategies.community_requests):
        patched.setattr(module, "artefact_hash", lambda source, role: "ab" * 32)
    for module in (node, strategies.results, strategies.community_results):
        patched.setattr(module, "load_partition", fake_partition)
    patched.setattr(strategies.community, "load_hold_out", fake_hold_out)
    node._partition.cache_clear()
    return made


@pytest.fixture(name="provider")
def adding_provider(monkeypatch: pytest.MonkeyPatch) -> AddingProvider:
    """Put everything in place for one test."""
    return put_in_place(monkeypatch)


def fake_hold_out(config: RunConfig) -> tuple[Record, ...]:
    return tuple(
        Record(f"holdout {n} books 2 come back how many remain", str(n + 2), "library")
        for n in range(min(config.hold_out, 4))
    )


def community_config(run_dir: Path, **settings: Any) -> RunConfig:
    """Return the smallest settings of three communities with one member each."""
    small = {
        "mode": "community",
        "communities": ",".join(NAMES),
        "coalitions": "alone,grand",
        "hold_out": 0,
        "max_new_tokens": 4,
        "num_server_rounds": 1,
        "num_records": 27,
    }
    return tiny_config(run_dir, **{**small, **settings})


def gather(
    config: RunConfig, provider: AddingProvider, **more: Any
) -> tuple[RunDirectory, LocalGrid]:
    """Run communities against members in this process."""
    return federate(config, teacher=provider, **more)


def secret_trace(
    word: str, scope: Scope, *, answer: str = "", kind: TraceClass = TraceClass.FULL
) -> Trace:
    """Return a trace with a word of its own in each of its texts."""
    return Trace(
        question=f"question{word} has 3 books 2 come back how many books remain",
        reasoning=f"reasoning{word} says 3 + 2 = 5",
        answer=answer or f"answer{word}",
        provider=f"provider{word}",
        model=f"model{word}",
        subject=f"subject{word}",
        trace_class=kind,
        scope=scope,
    )


def words_of(word: str) -> tuple[bytes, ...]:
    """Return what a secret trace must not be found by."""
    parts = ("question", "reasoning", "answer", "provider", "model", "subject")
    return tuple(f"{part}{word}".encode() for part in parts)


def owner_config(folder: Path, partition: int, **more: Any) -> dict[str, Any]:
    """Return the node config of a deployed member that keeps its state in a folder."""
    return {
        "partition-id": partition,
        "num-partitions": len(NAMES),
        "state-dir": str(folder / f"node-{partition}"),
        "max-record-epsilon": 200.0,
        "community": NAMES[partition],
        "partners": ",".join(NAMES),
        **more,
    }


def withdraw(folder: Path, partition: int, keys: Iterable[str]) -> None:
    """Withdraw traces from a deployed member's own store, as its owner does."""
    store = folder / f"node-{partition}" / "traces"
    with TraceStore(store, community=NAMES[partition]) as opened:
        opened.withdraw(keys)


def fill_store(folder: Path, partition: int, traces: Iterable[Trace]) -> None:
    """Add traces to a deployed member's own store, as its owner does."""
    store = folder / f"node-{partition}" / "traces"
    with TraceStore(store, community=NAMES[partition]) as opened:
        opened.add(traces)
