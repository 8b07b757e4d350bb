"""Teacher clients with models that follow a script, and small tasks to teach."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedcot import node_runs
from fedcot.config import RunConfig
from fedcot.data.prompts import HINT
from fedcot.node_state import Owner
from fedcot.social import configured, teacher_silo
from fedcot.social.client_model import Sampled
from fedcot.social.messages import (
    BallotRequest,
    CandidateText,
    ExamplesRequest,
    InstructionRequest,
    PromptsRequest,
)
from fedcot.social.settings import EXAMPLES
from fedcot.social.teacher_client import TeacherClient

RUN = "0123456789abcdef"
QUESTION = re.compile(r"question: (.*?) (?:rationale: .*? )?answer: (\S+)")


def write_new(prompt: str, seed: int) -> str:
    """Return a new example with the last label of a prompt, or a hint."""
    if prompt.endswith(HINT):
        return f" look at the words number {seed % 97}"
    label = [("", "dax"), *QUESTION.findall(prompt)][-1][1]
    return f" new{seed % 9973} thing{seed % 9949} item{seed % 9941} answer: {label}"


@dataclass
class StubModel:
    """A `ClientModel` that writes down what it is asked.

    `room` is the number of characters that fit; None: any.
    """

    name: str
    write: Callable[[str, int], str] = write_new
    value: Callable[[str, str], float] = lambda prompt, text: -1.0
    room: int | None = None
    prompts: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {"client_model": self.name}

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        return self.room is None or len(prompt) <= self.room

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        self.prompts += prompts
        return [
            Sampled(self.write(prompt, seed), -1.0 - seed % 7 / 10, 3)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.pairs += pairs
        return [self.value(*pair) for pair in pairs]


@dataclass
class Models:
    """Every model that was loaded, by its source."""

    made: dict[str, StubModel] = field(default_factory=dict)

    def load(self, config: RunConfig, source: str, key: str) -> StubModel:
        return self[source]

    def __getitem__(self, source: str) -> StubModel:
        return self.made.setdefault(source, StubModel(source))


@pytest.fixture(name="models")
def scripted_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Put models that follow a script where the real ones would be loaded."""
    found = Models()
    monkeypatch.setattr(configured, "_model", found.load)
    monkeypatch.setattr(configured, "model_hash", lambda source: "cd" * 32)
    monkeypatch.setattr(node_runs, "artefact_hash", lambda source, role: "ab" * 32)
    forget()
    yield found
    forget()


def forget() -> None:
    """Make every client read and explain its examples anew, as another process."""
    for cached in (teacher_silo._held, teacher_silo._explained):
        cached.cache_clear()


def social_config(run_dir: Path, **settings: Any) -> RunConfig:
    """Return the settings of three clients with twelve examples each."""
    small = {
        "mode": "social",
        "task": "labels",
        "partitioner": "iid",
        "aggregators": "random",
        "client_model": "stub",
        "prompted_student": "student",
        "num_server_rounds": 1,
        "num_records": 36,
        "hold_out": 7,
        "test_records": 2,
        "example_counts": "0,1,2",
        "examples_per_prompt": 2,
        "samples_per_prompt": 2,
        "instruction_tries": 2,
        "max_new_tokens": 8,
        "token_epsilon": 8.0,
        "phase_timeout": 30.0,
        "run_dir": str(run_dir),
    }
    return RunConfig(**{**small, **settings})


def simulated(partition_id: int = 0) -> Owner:
    """Return the owner of a simulated client."""
    return Owner.from_node_config(
        {"partition-id": partition_id, "num-partitions": 3, "simulation": True}
    )


def deployed(tmp_path: Path, **more: Any) -> Owner:
    """Return the owner of a deployed client who lets it teach."""
    given = {
        "partition-id": 0,
        "num-partitions": 3,
        "state-dir": str(tmp_path / "state"),
        "max-record-epsilon": 250.0,
        "client-model": "own-model",
        "allow-sharing": True,
    }
    return Owner.from_node_config({**given, **more})


def client(run_dir: Path, partition_id: int = 0, **settings: Any) -> TeacherClient:
    """Return a simulated client."""
    return TeacherClient(social_config(run_dir, **settings), simulated(partition_id))


def examples_request(run_dir: Path | str, **changes: Any) -> ExamplesRequest:
    given: dict[str, Any] = {
        "step": 0,
        "server_round": 1,
        "run_key": RUN,
        "run_dir": str(run_dir),
        "per_prompt": 2,
        "keep": 1,
        "num_prompts": 2,
        "samples_per_prompt": 2,
        "temperature": 0.7,
        "max_new_tokens": 8,
    }
    return ExamplesRequest(**{**given, **changes})


def instruction_request(run_dir: Path | str, **changes: Any) -> InstructionRequest:
    given: dict[str, Any] = {
        "step": 1,
        "server_round": 1,
        "run_key": RUN,
        "run_dir": str(run_dir),
        "temperature": 0.7,
        "max_new_tokens": 8,
        "tries": 2,
    }
    return InstructionRequest(**{**given, **changes})


def ballot_request(run_dir: Path | str, **changes: Any) -> BallotRequest:
    given: dict[str, Any] = {
        "step": 1,
        "server_round": 1,
        "run_key": RUN,
        "run_dir": str(run_dir),
        "subject": EXAMPLES,
        "turns": ("", ""),
        "candidates": tuple(
            CandidateText(question=f"candidate {word}", answer=label, reasoning="")
            for word, label in (("one", "dax"), ("two", "fep"), ("three", "dax"))
        ),
    }
    return BallotRequest(**{**given, **changes})


def prompts_request(run_dir: Path | str, **changes: Any) -> PromptsRequest:
    given: dict[str, Any] = {
        "step": 0,
        "server_round": 1,
        "run_key": RUN,
        "run_dir": str(run_dir),
        "students": (),
    }
    return PromptsRequest(**{**given, **changes})
