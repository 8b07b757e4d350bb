"""A model that knows a hidden rule, in place of the built-in in-context pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import client_app
from fedcot.config import RunConfig
from fedcot.launch import read_summary
from fedcot.runs import RunDirectory
from fedcot.seeding import numpy_generator
from fedcot.social import configured
from fedcot.social.client_model import Sampled
from fedcot.world.hidden_rules import Kind, Rule, draw_rule
from strategies.social_run import run_social
from tests.fakes import node_configs, tiny_config
from tests.grid import LocalGrid

QUESTION, ANSWER, HINT = "question:", "answer:", "hint:"


def rule_of(kind: Kind, seed: int) -> Rule:
    """Return the rule of `hidden_rule_data`."""
    return draw_rule("held-out", kind, numpy_generator(seed, "hidden-rule", kind))


class RuleModel:
    """Writes examples of its rule; answers rightly where an example or hint stands.

    Attributes
    ----------
    read, scored : list of str
        Every prompt that it wrote behind, and that it scored a text behind.
    """

    name = "rule"

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.read: list[str] = []
        self.scored: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"client_model": "rule", "model": self.name}

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        return True

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        self.read += prompts
        return [self._one(p, s) for p, s in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> Sampled:
        if prompt.endswith(HINT):
            text = f" {self.rule.hint}"
        elif prompt.endswith(QUESTION):
            rng = numpy_generator(seed, "new")
            question = self.rule.question(rng)
            text = f" {question} {ANSWER} {self.rule.rationale(question).answer}"
        else:
            asked = prompt.rpartition(QUESTION)[2].strip()
            knows = ANSWER in prompt or HINT in prompt
            text = f" {ANSWER} {self.rule.rationale(asked).answer if knows else 'no'}"
        return Sampled(text, -1.0 - seed % 7, len(text.split()))

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.scored += [prompt for prompt, _ in pairs]
        return [-1.0 - len(continuation) % 5 for _, continuation in pairs]


def social_config(run_dir: Path, **settings: Any) -> RunConfig:
    """Return the smallest settings of a conversation about an invented operator."""
    small = {
        "mode": "social",
        "task": "operator",
        "partitioner": "iid",
        "num_server_rounds": 1,
        "num_records": 60,
        "hold_out": 12,
        "example_counts": "0,1,4",
        "examples_per_prompt": 4,
        "samples_per_prompt": 2,
        "gate_distance": 0.0,
    }
    return tiny_config(run_dir, **{**small, **settings})


def put_in_place(
    patched: pytest.MonkeyPatch, config: RunConfig, model: Any = None
) -> Any:
    """Put a model in the place of every one that settings name."""
    made = model or RuleModel(rule_of(config.task, config.seed))
    patched.setattr(configured, "_model", lambda *given: made)
    patched.setattr(configured, "artefact_hash", lambda *given: "ab" * 32)
    return made


def converse(
    config: RunConfig, *, count: int = 3, app: Any = client_app.app
) -> tuple[RunDirectory, dict[str, Any]]:
    """Run the whole strategy against clients in this process."""
    grid = LocalGrid(app, node_configs(count), config.to_run_config(), seed=0)
    run = run_social(grid, config)
    return run, read_summary(run.path)
