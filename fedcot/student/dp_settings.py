"""What DP-SGD of one training costs, from public numbers alone.

Paper: https://arxiv.org/abs/1607.00133. The number of records of a node is public, and
a record is taken out by putting the null record, which has no gradient, in its place
(zero-out): sampling rate, number of steps and normaliser do not depend on any content.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcot.errors import ConfigError

if TYPE_CHECKING:
    from fedcot.config import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DpSettings:
    """One training by DP-SGD; everything here is public.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation of the noise in units of `max_grad_norm`, >= 0; 0 has no
        guarantee.
    max_grad_norm : float
        Largest norm of one record's gradient over all tensors together, > 0.
    num_records : int
        Records sampled from, null records included, >= 1.
    expected_batch : int
        Records of a step on average, from 1 to `num_records`. Sums are divided by it,
        never by the number drawn, which would tell who took part.
    steps : int
        Noised gradients that are released, >= 1.

    Raises
    ------
    ConfigError
        A value breaks its rule.
    """

    noise_multiplier: float
    max_grad_norm: float
    num_records: int
    expected_batch: int
    steps: int

    def __post_init__(self) -> None:
        """Check every value."""
        rules = {
            "noise-multiplier": (
                0 <= self.noise_multiplier < math.inf,
                ">= 0 and finite",
                self.noise_multiplier,
            ),
            "max-grad-norm": (
                0 < self.max_grad_norm < math.inf,
                "> 0 and finite",
                self.max_grad_norm,
            ),
            "num-records": (self.num_records >= 1, ">= 1", self.num_records),
            "batch-size": (
                1 <= self.expected_batch <= self.num_records,
                f"from 1 to the {self.num_records} records",
                self.expected_batch,
            ),
            "local-epochs": (self.steps >= 1, "enough for one step", self.steps),
        }
        for name, (holds, rule, found) in rules.items():
            if not holds:
                raise ConfigError(
                    f"`{name}` must be {rule}, found {found}; pass another value."
                )

    @property
    def sample_rate(self) -> float:
        """Probability that a record takes part in a step."""
        return self.expected_batch / self.num_records

    @classmethod
    def of(cls, config: RunConfig, num_records: int) -> DpSettings:
        """Return the settings of one round's training on so many records.

        An epoch is as many steps as see each record once on average.

        Parameters
        ----------
        config : RunConfig
            Settings of the run.
        num_records : int
            Records that were used up to this round, >= 1; public.
        """
        expected = min(config.batch_size, num_records)
        return cls(
            noise_multiplier=config.noise_multiplier,
            max_grad_norm=config.max_grad_norm,
            num_records=num_records,
            expected_batch=expected,
            steps=-(-config.local_epochs * num_records // expected) if expected else 0,
        )


def training_schedule(
    config: RunConfig, used_counts: Sequence[int]
) -> tuple[DpSettings, ...]:
    """Return the training of every round, as one record goes through it.

    A record of the first round takes part in every round's training, so its loss is
    the composition of all of them; no record has more.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    used_counts : sequence of int
        Records used up to each round, as `used_counts` returns them.
    """
    return tuple(DpSettings.of(config, count) for count in used_counts)


def used_counts(config: RunConfig, partition_id: int, num_records: int) -> list[int]:
    """Return how many records a node has used up to each round; public.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    partition_id : int
        Which node.
    num_records : int
        Training records of the node.
    """
    # Brings torch along, which a plan on the command line would wait for.
    from fedcot.node_pairs import used_indices

    rounds = used_indices(config, partition_id, config.num_server_rounds, num_records)
    seen: set[int] = set()
    counts = []
    for indices in rounds:
        seen.update(indices)
        counts.append(len(seen))
    return counts
