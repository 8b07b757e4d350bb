"""What a coalition's student is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from fedcot.community.coalitions import Coalition
from fedcot.community.settings import (
    PERTURBED,
    POOLED,
    PROMPT,
    RANDOM_LABEL,
    SYNTHETIC,
)
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale
from fedcot.node_training import training_settings
from fedcot.student.base import Base, TrainingSettings
from fedcot.student.examples import Example
from fedcot.student.training import tokenised

if TYPE_CHECKING:
    from fedcot.tasks.task import Task


class Shown(Protocol):
    """The texts of a trace, of a member's own or of one that arrived."""

    @property
    def question(self) -> str: ...  # noqa: D102

    @property
    def reasoning(self) -> str: ...  # noqa: D102

    @property
    def answer(self) -> str: ...  # noqa: D102


AnyTrace = TypeVar("AnyTrace", bound=Shown)


def coalition_arms(
    config: RunConfig, coalition: Coalition, coalitions: Sequence[Coalition]
) -> tuple[str, ...]:
    """Return what a coalition's traces serve for at the server.

    Parameters
    ----------
    coalitions : sequence of Coalition
        Of the run; the widest of them have all controls.
    """
    pooled = (POOLED, PERTURBED, SYNTHETIC, PROMPT)
    arms = [arm for arm in pooled if arm in config.sharing_names]
    if POOLED in arms:
        is_widest = len(coalition) == max(map(len, coalitions))
        arms += [
            control
            for control in config.control_names
            if control != RANDOM_LABEL or is_widest
        ]
    return tuple(arms)


def community_settings(config: RunConfig) -> TrainingSettings:
    """Return how a coalition's student is trained: weights that add up to 1."""
    return replace(
        training_settings(config),
        label_weight=config.label_share,
        rationale_weight=1 - config.label_share,
    )


def training_config(config: RunConfig, arm: str) -> RunConfig:
    """Return the settings that an adapter is trained with: a generator has its own.

    Parameters
    ----------
    arm : str
        A way of sharing, alone or before a dot and what the adapter is for.
    """
    if arm.partition(".")[0] != SYNTHETIC:
        return config
    return replace(config, local_epochs=config.generator_epochs)


def trace_examples(
    traces: Sequence[Shown], task: Task, *, label_share: float
) -> tuple[Example, ...]:
    """Return the training examples of traces.

    The loss of a student is ``label_share x answer + (1 - label_share) x (reasoning and
    answer)``, the multi-task objective of Distilling Step-by-Step
    (https://arxiv.org/abs/2305.02301, section 3.2) with weights that add up to 1. A
    task of weight 0 has no examples: no gradient comes from it.

    Parameters
    ----------
    traces : sequence of Trace or SharedTrace
        One without reasoning can only be learnt by its answer.
    label_share : float
        In [0, 1]. 1: answers alone. 0: reasoning that ends in the answer.
    """
    examples: list[Example] = []
    for trace in traces:
        if label_share > 0:
            prompt = task.predict_prompt(trace.question)
            examples.append(Example(prompt, task.prediction(trace.answer), "predict"))
        if label_share < 1 and trace.reasoning:
            written = task.completion(Rationale(trace.reasoning, trace.answer))
            prompt = task.explain_prompt(trace.question)
            examples.append(Example(prompt, written, "explain"))
    return tuple(examples)


def checks_steps(config: RunConfig, task: Task) -> bool:
    """Whether a run leaves out traces whose steps do not hold.

    Not without a filter, nor where reasoning was rewritten or shortened: steps can be
    checked as the provider writes them only.
    """
    as_written = not config.granularity and config.provider_reasoning == "full"
    return config.trace_filter != "none" and as_written and task.checks_steps


def valid_traces(traces: Sequence[AnyTrace], task: Task) -> tuple[list[AnyTrace], int]:
    """Leave out the traces whose steps do not hold by public rules.

    Returns
    -------
    list of traces, int
        Those that are left, and how many were left out.
    """
    kept = [
        trace
        for trace in traces
        if not trace.reasoning
        or task.is_valid(Rationale(trace.reasoning, trace.answer))
    ]
    return kept, len(traces) - len(kept)


def shuffled_answers(
    examples: Sequence[Example], *, rng: np.random.Generator
) -> tuple[Example, ...]:
    """Return the examples with another one's target each: the random-label control.

    Targets change places within a task, in one circle: what is wrong is the target and
    never its form, and nobody keeps its own.
    """
    targets = [example.target for example in examples]
    for task in sorted({example.task for example in examples}):
        rows = [n for n, example in enumerate(examples) if example.task == task]
        circle = [rows[place] for place in map(int, rng.permutation(len(rows)))]
        for row, other in zip(circle, [*circle[1:], *circle[:1]], strict=True):
            targets[row] = examples[other].target
    return tuple(
        Example(example.prompt, target, example.task)
        for example, target in zip(examples, targets, strict=True)
    )


def within_tokens(
    traces: Sequence[AnyTrace],
    *,
    tokens: int,
    base: Base,
    task: Task,
    label_share: float,
    rng: np.random.Generator,
) -> list[AnyTrace]:
    """Return a random part of traces that fits a number of training tokens.

    Parameters
    ----------
    tokens : int
        Of prompts and targets of one epoch; 0 takes all. At least one trace is taken.
    rng : numpy Generator
        Decides which; one more trace at the end of the pool does not change the order
        of the others.
    """
    if not tokens:
        return list(traces)
    taken: list[int] = []
    left = tokens
    for place in map(int, np.argsort(rng.random(len(traces)), kind="stable")):
        examples = trace_examples([traces[place]], task, label_share=label_share)
        cost = count_tokens(examples, base)
        if taken and cost > left:
            break
        left -= cost
        taken.append(place)
    return [traces[place] for place in sorted(taken)]


def count_tokens(examples: Sequence[Example], base: Base) -> int:
    """Return the tokens of prompts and targets of one epoch, as they are read."""
    read = (tokenised(base, example) for example in examples)
    return sum(len(one.prompt) + len(one.target) for one in read)


def by_partition(pools: Mapping[int, Sequence[AnyTrace]]) -> list[AnyTrace]:
    """Return the traces of all members in the order of their partitions."""
    return [trace for partition in sorted(pools) for trace in pools[partition]]
