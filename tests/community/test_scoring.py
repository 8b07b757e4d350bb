"""Scores of students with an adapter, with a prompt, or with neither."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fedcot.community import scoring
from fedcot.community.scoring import (
    PromptedTask,
    demonstrations,
    score_student,
    student_prompt,
    student_score,
)
from fedcot.data.schema import Rationale, Record
from fedcot.errors import WireError
from fedcot.evaluation.evaluate import Score
from fedcot.tasks.registry import configured_task
from tests.communities import (
    adding_provider,  # noqa: F401
    community_config,
)


@dataclass(frozen=True)
class Shown:
    question: str
    reasoning: str
    answer: str


OWN = (
    Shown("the library lends 3 books then 2 more", "3 + 2 = 5", "5"),
    Shown("a shelf holds 4 rare maps and 4 globes", "4 + 4 = 8", "8"),
)
TEXT = "explain: 1 books 2 come back rationale: 1 + 2 = 3 answer: 3"


def scored(*hits: bool) -> Score:
    return Score(
        exact_match=sum(hits), parsed=len(hits), valid_rationales=1, n=len(hits),
        correct=hits,
    )  # fmt: skip


@pytest.fixture(name="task")
def the_world_s(tmp_path):
    return configured_task(community_config(tmp_path))


# The task with a text before its questions ------------------------------------------

STEPS = Rationale("1 + 2 = 3", "3")
CALLS: dict[str, Callable[[Any], Any]] = {
    "predict_prompt": lambda task: task.predict_prompt("a question"),
    "adapt_prompt": lambda task: task.adapt_prompt("another", STEPS, "a question"),
    "completion": lambda task: task.completion(STEPS),
    "prediction": lambda task: task.prediction("3"),
    "parse_completion": lambda task: task.parse_completion("1 + 2 = 3 answer: 3"),
    "parse_prediction": lambda task: task.parse_prediction("3"),
    "is_right": lambda task: (task.is_right("3", "3"), task.is_right("4", "3")),
    "is_valid": lambda task: (
        task.is_valid(STEPS),
        task.is_valid(Rationale("1 + 2 = 4", "4")),
    ),
    "question": lambda task: task.question(("1 books 2 come back",)),
    "hash": lambda task: task.hash,
    "checks_steps": lambda task: task.checks_steps,
    "stop": lambda task: task.stop,
}


@pytest.mark.parametrize("name", CALLS)
def test_a_prompt_changes_nothing_but_the_explain_prompt(task, name):
    assert CALLS[name](PromptedTask(task, TEXT)) == CALLS[name](task)


def test_a_prompt_stands_before_the_task_s_own(task):
    prompted = PromptedTask(task, TEXT)
    own = task.explain_prompt("3 books 1 come back")
    assert prompted.explain_prompt("3 books 1 come back") == f"{TEXT}\n\n{own}"
    with pytest.raises(AttributeError):
        _ = prompted.no_such_thing


def test_demonstrations_are_what_a_student_would_write(task):
    text = demonstrations((*OWN, Shown("without reasoning", "", "5")), task)
    blocks = text.split("\n\n")
    assert len(blocks) == len(OWN)
    for block, trace in zip(blocks, OWN, strict=True):
        asked = task.explain_prompt(trace.question)
        assert block.startswith(asked)
        assert task.parse_completion(block[len(asked) :]) == Rationale(
            trace.reasoning, trace.answer
        )
    assert demonstrations((), task) == ""


# Which prompt a student is scored with ----------------------------------------------


@pytest.mark.parametrize(
    ("student", "share", "prompt"),
    [
        ("pooled.library", 0.5, "explain"),
        ("pooled.library", 0.0, "explain"),
        ("pooled.library", 1.0, "predict"),
        ("federated.library", 1.0, "predict"),
        ("label-only.library", 0.5, "predict"),
        ("random-label.library", 0.5, "explain"),
        ("zero-shot", 0.5, "explain"),
        # These two learnt nothing, and are never asked for an answer alone.
        ("zero-shot", 1.0, "explain"),
        ("prompt.library", 1.0, "explain"),
        # An arm, not a community of a like name.
        ("pooled.label-only", 0.5, "explain"),
    ],
)
def test_a_student_is_asked_as_it_was_trained(tmp_path, student, share, prompt):
    config = community_config(tmp_path, label_share=share)
    assert student_prompt(student, config) == prompt


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_prompted_student_reads_its_text(tmp_path, provider, monkeypatch, share):
    seen: dict[str, Any] = {}

    def listens(base, records, *, adapter, settings, prompt, task, **more):
        seen.update(adapter=adapter, prompt=prompt, task=task)
        seen["read"] = getattr(task, f"{prompt}_prompt")(records[0].question)
        return scored(True, False)

    monkeypatch.setattr(scoring, "evaluate_student", listens)
    config = community_config(tmp_path, label_share=share)
    records = [Record("1 books 2 come back", "3", "library")] * 2
    found = score_student(config, "prompt.library", records, adapter=None, text=TEXT)
    assert seen["read"].startswith(TEXT)
    assert seen["adapter"] is None
    assert (found.student, found.correct, found.exact_match) == (
        "prompt.library",
        "10",
        1,
    )
    score_student(config, "pooled.library", records, adapter={}, text="")
    assert TEXT not in seen["read"]
    assert not isinstance(seen["task"], PromptedTask)


def test_a_score_counts_its_hits():
    found = student_score("pooled.library", scored(True, False, True))
    assert (found.exact_match, found.num_records, found.correct) == (2, 3, "101")
    assert (found.parsed, found.valid_rationales) == (3, 1)
    with pytest.raises(WireError):
        student_score("../x", scored(True))
