"""The students of coalitions that are trained where traces are pooled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcot.community.pool import (
    AnyTrace,
    Shown,
    checks_steps,
    community_settings,
    count_tokens,
    shuffled_answers,
    trace_examples,
    valid_traces,
    within_tokens,
)
from fedcot.community.settings import LABEL_ONLY, RANDOM_LABEL
from fedcot.config import RunConfig
from fedcot.node_training import first_adapter, student_base
from fedcot.seeding import derive_seed, numpy_generator
from fedcot.student.training import train_adapter
from fedcot.tasks.registry import configured_task

logger = logging.getLogger("flwr.fedcot")


@dataclass(frozen=True)
class CoalitionStudent:
    """One trained student and what it was trained on.

    Attributes
    ----------
    adapter : dict of str to ndarray
        fp32, by tensor name; empty if there was nothing to train on.
    num_traces, num_invalid : int
        Traces used, and those left out because their steps do not hold.
    num_examples, num_tokens : int
        Examples, and their tokens in one epoch.
    loss : float
        Mean of the last epoch, nats per token; not a number without training.
    seconds : float
    """

    adapter: dict[str, NDArray[np.float32]]
    num_traces: int
    num_invalid: int
    num_examples: int
    num_tokens: int
    loss: float
    seconds: float


class PooledTraining:
    """Trains students on pools of traces; equal pools give equal students.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.task = configured_task(config)

    def checked(self, traces: Sequence[AnyTrace]) -> tuple[list[AnyTrace], int]:
        """Return the traces to learn from, and how many have steps that do not hold."""
        if not checks_steps(self.config, self.task):
            return list(traces), 0
        return valid_traces(traces, self.task)

    def chosen(self, traces: Sequence[AnyTrace], count: int) -> list[AnyTrace]:
        """Return some of the traces, by the run's seed, in their order."""
        rng = numpy_generator(self.config.seed, "demonstrations")
        order = sorted(map(int, rng.permutation(len(traces))[:count]))
        return [traces[place] for place in order]

    def train(
        self, traces: Sequence[Shown], num_invalid: int, *, arm: str
    ) -> CoalitionStudent:
        """Train one student.

        Parameters
        ----------
        arm : str
            ``label-only`` learns the answers of the same traces alone;
            ``random-label`` learns with targets that belong to other questions.
        """
        base = student_base(self.config)
        share = 1.0 if arm == LABEL_ONLY else self.config.label_share
        taken = within_tokens(
            traces,
            tokens=self.config.pool_tokens,
            base=base,
            task=self.task,
            # Every arm sees the traces that the full loss could pay for.
            label_share=self.config.label_share,
            rng=numpy_generator(self.config.seed, "pool"),
        )
        examples = trace_examples(taken, self.task, label_share=share)
        if arm == RANDOM_LABEL:
            examples = shuffled_answers(
                examples, rng=numpy_generator(self.config.seed, RANDOM_LABEL)
            )
        if not examples:
            return CoalitionStudent({}, 0, num_invalid, 0, 0, float("nan"), 0.0)
        trained = train_adapter(
            base,
            examples,
            community_settings(self.config),
            seed=derive_seed(self.config.seed, "coalition"),
            adapter=first_adapter(base, self.config),
        )
        losses = trained.rationale_loss or trained.label_loss
        return CoalitionStudent(
            adapter={name: value.numpy() for name, value in trained.adapter.items()},
            num_traces=len(taken),
            num_invalid=num_invalid,
            num_examples=len(examples),
            num_tokens=count_tokens(examples, base),
            loss=losses[-1],
            seconds=trained.seconds,
        )
