"""Canaries stand where they are learnt, are distinct, and follow their seed."""

import math
from collections import Counter

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import (
    PATTERNS,
    CanaryPattern,
    canary_holders,
    draw_trials,
)
from fedcot.evaluation.spans import SecretSpan, token_scores
from fedcot.models.sequences import IGNORE_INDEX, token_ids, training_batch
from fedcot.student.examples import Example
from fedcot.student.training import tokenised
from fedcot.tasks.mapped import MappedTask
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.task import Task
from fedcot.tasks.world import WorldTask
from tests.tiny import tiny_base

WORLD = ("world-codes", "world-names")


def task_of(name: str) -> Task:
    return WorldTask() if name in WORLD else MappedTask(load_mapping("gsm8k"))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_thousand_distinct_secrets_share_one_prompt(name: str) -> None:
    (trial,) = draw_trials(PATTERNS[name], task_of(name), trials=1, size=1000, seed=3)
    everything = [trial.canary, *trial.references]
    assert trial.size == len(everything) == 1000
    assert len({canary.secret for canary in everything}) == 1000
    assert {canary.prompt for canary in everything} == {trial.canary.prompt}
    assert trial.spans == [canary.span for canary in everything]
    for canary in everything:
        assert canary.secret in canary.reasoning
        assert canary.secret not in canary.prompt
        assert canary.target[canary.span.start : canary.span.stop] == canary.secret


@pytest.mark.parametrize("name", PATTERNS)
def test_no_canary_is_a_reference_and_each_has_its_own_prompt(name: str) -> None:
    trials = draw_trials(PATTERNS[name], task_of(name), trials=60, size=40, seed=0)
    canaries = {trial.canary.secret for trial in trials}
    others = {other.secret for trial in trials for other in trial.references}
    assert len(canaries) == 60
    assert not canaries & others
    assert len({trial.canary.prompt for trial in trials}) == 60


def test_the_seed_decides() -> None:
    pattern, task = PATTERNS["world-codes"], WorldTask()
    first, again, other = (
        draw_trials(pattern, task, trials=3, size=9, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0].canary.secret != other[0].canary.secret


def test_every_secret_of_a_pattern_can_be_drawn() -> None:
    pattern = CanaryPattern(
        "x", "a {carrier}", "b {secret}", "c", (("p", "q"), ("r", "s", "t")), "-"
    )
    secrets = {pattern.secret(number) for number in range(pattern.num_secrets)}
    assert secrets == {"p-r", "p-s", "p-t", "q-r", "q-s", "q-t"}
    drawn = Counter(
        draw_trials(pattern, WorldTask(), trials=1, size=2, seed=seed)[0].canary.secret
        for seed in range(300)
    )
    # Each of the six has probability 1/6: 50 of 300, standard deviation 6.5.
    assert set(drawn) == secrets
    assert all(20 < count < 80 for count in drawn.values())


@pytest.mark.parametrize("name", WORLD)
def test_the_builtin_pair_knows_every_token_of_its_canaries(name: str) -> None:
    base, task = tiny_base(), WorldTask()
    (trial,) = draw_trials(PATTERNS[name], task, trials=1, size=200, seed=0)
    for canary in (trial.canary, *trial.references):
        ids = token_ids(base.tokenizer, f"{canary.prompt} {canary.target}")
        assert base.tokenizer.unk_token_id not in ids
    assert len(token_scores(base.model, base, trial.spans, batch_size=64)) == 200


@pytest.mark.parametrize("name", WORLD)
def test_a_filter_on_steps_keeps_the_canaries(name: str) -> None:
    task = WorldTask()
    (trial,) = draw_trials(PATTERNS[name], task, trials=1, size=50, seed=0)
    for canary in (trial.canary, *trial.references):
        rationale = task.parse_completion(canary.target)
        assert rationale is not None
        assert (rationale.text, rationale.answer) == (canary.reasoning, canary.answer)
        assert task.is_valid(rationale)


def test_names_that_the_builtin_pair_does_not_know_are_refused() -> None:
    """Failure would mean equal scores for all, which looks like no leak."""
    trials = draw_trials(PATTERNS["names"], WorldTask(), trials=1, size=5, seed=0)
    base = tiny_base()
    with pytest.raises(ConfigError, match="`pattern` must give secrets of tokens"):
        token_scores(base.model, base, trials[0].spans, batch_size=8)


def supervised_text(example: Example) -> str:
    """Return what the loss of training sees of an example."""
    base = tiny_base()
    ids = tokenised(base, example)
    labels = training_batch([(ids.prompt, ids.target)], base).labels[0]
    text: str = base.tokenizer.decode(labels[labels != IGNORE_INDEX])
    return text


def test_training_sees_a_secret_in_the_target_and_never_one_in_the_prompt() -> None:
    pattern = PATTERNS["world-codes"]
    canary = pattern.canary(WorldTask(), carrier="417", secret="4821")
    example = canary.example()
    assert (example.prompt, example.target) == (canary.prompt, canary.target)
    assert "4821" in supervised_text(example)
    hidden = Example("explain: 4821 boxes rationale:", "7 + 0 = 7 answer: 7", "explain")
    assert "4821" not in supervised_text(hidden)


@pytest.mark.parametrize(
    ("question", "reasoning", "carriers"),
    [
        ("{carrier} {secret}", "{secret}", ("1",)),
        ("{carrier}", "nothing", ("1",)),
        ("question", "{secret}", ("1",)),
        ("{carrier}", "{secret}", ("1", "{secret}")),
    ],
)
def test_a_pattern_that_cannot_be_audited_is_refused(
    question: str, reasoning: str, carriers: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="`pattern` must have"):
        CanaryPattern(
            "x", question, reasoning, "{secret}", (("1", "2"),), carriers=carriers
        )


@pytest.mark.parametrize(("start", "stop"), [(2, 2), (-1, 2), (1, 6), (3, 1)])
def test_a_span_outside_the_target_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ConfigError, match="never in its prompt"):
        SecretSpan("private", "abcde", start, stop)


def test_no_text_is_in_the_repr() -> None:
    canary = PATTERNS["codes"].canary(task_of("codes"), carrier="417", secret="4821")
    assert "4821" not in repr(canary)
    assert "417" not in repr(canary)


@pytest.mark.parametrize(
    ("trials", "size"), [(0, 5), (1, 1), (1, 9001), (8002, 1000), (901, 5)]
)
def test_more_than_a_pattern_has_is_refused(trials: int, size: int) -> None:
    with pytest.raises(ConfigError, match=r"`size` must be <=|`size` >= 2"):
        draw_trials(
            PATTERNS["world-codes"], WorldTask(), trials=trials, size=size, seed=0
        )


class Shouting(WorldTask):
    """A task that changes what it is given."""

    def completion(self, rationale: object) -> str:
        """Return something else."""
        return "SOMETHING ELSE"


def test_a_task_that_rewrites_the_reasoning_is_refused() -> None:
    with pytest.raises(ConfigError, match="written by the task as it is"):
        draw_trials(PATTERNS["names"], Shouting(), trials=1, size=2, seed=0)


@pytest.mark.parametrize(
    ("insertion", "count"), [("all", 5), ("one", 1), ("3", 3), ("5", 5)]
)
def test_so_many_get_a_canary(insertion: str, count: int) -> None:
    names = ("a", "b", "c", "d", "e")
    drawn = [
        canary_holders(names, insertion, np.random.default_rng(seed))
        for seed in range(200)
    ]
    assert all(list(chosen) == sorted(set(chosen)) for chosen in drawn)
    assert {len(chosen) for chosen in drawn} == {count}
    assert len(set(drawn)) == math.comb(5, count)


@pytest.mark.parametrize("insertion", ["0", "6", "none", "-1", "²", ""])
def test_another_insertion_is_refused(insertion: str) -> None:
    with pytest.raises(ConfigError, match="`insertion` must be all, one or a number"):
        canary_holders("abcde", insertion, np.random.default_rng(0))
