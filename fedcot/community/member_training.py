"""What a member trains on its own traces: adapters for coalitions, and its generator.

Without noise an adapter gives its traces away as far as anybody can get them out of it.
With `noise-multiplier` each record is charged before anything is trained, once for all
rounds (`fedcot.privacy.ledger`), and a record that was refused, or whose trace may not
reach the coalition, takes part without a gradient.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from fedcot.community.pool import community_settings, training_config
from fedcot.config import RunConfig
from fedcot.data.schema import Record
from fedcot.data.traces import Trace
from fedcot.errors import ConfigError, FedcotError
from fedcot.node_adapters import AdapterStore
from fedcot.node_training import first_adapter, student_base
from fedcot.privacy.composition import training_epsilon
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.loss_distributions import DpTraining
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from fedcot.seeding import derive_seed
from fedcot.student.base import Adapter, TrainingSettings
from fedcot.student.dp import train_adapter_privately
from fedcot.student.dp_settings import DpSettings
from fedcot.student.examples import Example
from fedcot.student.training import TrainingOutcome, train_adapter

logger = logging.getLogger("flwr.fedcot")

Examples = Callable[[Sequence[Trace]], tuple[Example, ...]]


class MemberTraining:
    """Trains one member's adapters; one that is asked for again is not trained again.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    partition_id : int
        Which node.
    folder : Path
        This run's folder inside the node's state folder.
    records : sequence of Record
        The node's records; their number is public.
    open_ledger : callable
        Opens the node's ledger.
    run : str
        Names the run on this node.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        partition_id: int,
        folder: Path,
        records: Sequence[Record],
        open_ledger: Callable[[], Ledger],
        run: str,
    ) -> None:
        self.config = config
        self.partition_id = partition_id
        self.folder = folder
        self.records = records
        self._open_ledger = open_ledger
        self._run = run

    @property
    def is_private(self) -> bool:
        """Whether what is trained here leaves under DP-SGD."""
        return self.config.noise_multiplier > 0

    def train(
        self,
        arm: str,
        number: int,
        traces: Sequence[Trace],
        *,
        examples: Examples,
        rounds: int,
        start: Adapter | None = None,
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Return an adapter and the loss of its last epoch, in nats per token.

        Parameters
        ----------
        arm : str
            Which adapter; a folder and a charge of its own.
        number : int
            Round, from 1.
        traces : sequence of Trace
            What may be learnt from.
        examples : callable
            Makes training examples of traces.
        rounds : int
            How often this adapter is trained in the run; they are charged together.
        start : mapping of str to Tensor, optional
            To go on from; without it all members start from one adapter.
        """
        if not 1 <= number <= rounds:
            raise ConfigError(
                "`num-server-rounds` must cover every round that trains, found "
                f"{rounds} and a request for round {number}; start a run with more."
            )
        # With noise, what was trained is paid for and stays; without, other traces, as
        # after a withdrawal, make another adapter, and so does another start: the mean
        # of all members may hold what one of them withdrew.
        folder = arm if self.is_private else f"{arm}.{_digest(traces, start)}"
        store = AdapterStore(self.folder, folder, is_shared=True)
        base, settings = student_base(self.config), self.settings(arm)
        if store.outcome(number) is None:
            start = start or first_adapter(base, self.config)
            seed = derive_seed(self.config.seed, "member", self.partition_id, number)
            if self.is_private:
                rows = self._charged(store, arm, traces, rounds)
                trained = train_adapter_privately(
                    base,
                    [examples(row) for row in rows],
                    settings,
                    privacy=self._noise(arm),
                    source=self._source(arm, number),
                    seed=seed,
                    adapter=start,
                )
            else:
                trained = train_adapter(
                    base, examples(traces), settings, seed=seed, adapter=start
                )
            store.commit(
                number,
                {"loss": _last_loss(trained)},
                base=base,
                adapter=trained.adapter,
                settings=settings,
            )
        adapter, outcome = store.load(number), store.outcome(number)
        if adapter is None or outcome is None:
            raise FedcotError(
                "an adapter of this run is missing from the node's folder"
            )
        return adapter, float("nan") if outcome["loss"] is None else float(
            outcome["loss"]
        )

    def settings(self, arm: str) -> TrainingSettings:
        """Return how an adapter is trained."""
        settings = community_settings(training_config(self.config, arm))
        share = self.config.label_share
        if self.is_private and 0 < share < 1:
            # Clipping makes the scale of a record's loss meaningless; the ratio counts.
            settings = replace(settings, rationale_weight=(1 - share) / share)
        return settings

    def _charged(
        self, store: AdapterStore, arm: str, traces: Sequence[Trace], rounds: int
    ) -> list[list[Trace]]:
        """Return the traces of each record, none where it may not take part."""
        settings = self._noise(arm)
        training = DpTraining(
            noise_multiplier=settings.noise_multiplier,
            phases=((settings.sample_rate, settings.steps),) * rounds,
        )
        with closing(self._open_ledger()) as ledger:
            keys = ledger.record_keys([record.identity for record in self.records])
            allowed = set(
                ledger.charge_training(
                    keys,
                    run=self._run,
                    epsilon=training_epsilon(training, delta=self.config.delta),
                    delta=self.config.delta,
                    # A store that was lost trains with new noise, which costs again.
                    description=f"dp-sgd {arm} {store.identity()}",
                )
            )
        by_question: dict[str, list[Trace]] = {}
        for trace in traces:
            by_question.setdefault(trace.question, []).append(trace)
        self._warn_of_strangers(by_question)
        return [
            # Of equal questions one record learns, so that none has two gradients.
            by_question.pop(record.question, []) if key in allowed else []
            for key, record in zip(keys, self.records, strict=True)
        ]

    def _warn_of_strangers(self, by_question: Mapping[str, Sequence[Trace]]) -> None:
        """Tell the node's owner of traces that nobody learns: they have no record."""
        known = {record.question for record in self.records}
        unknown = sum(len(by_question[one]) for one in by_question.keys() - known)
        if unknown:
            logger.warning(
                "%d of %d traces ask what no record of this node asks: under DP-SGD "
                "nobody learns them, since there is nothing to charge.",
                unknown,
                sum(map(len, by_question.values())),
            )

    def _noise(self, arm: str) -> DpSettings:
        """Return noise, sampling and steps of one round; public numbers."""
        return DpSettings.of(training_config(self.config, arm), len(self.records))

    def _source(self, arm: str, number: int) -> RandomSource:
        """Return the randomness; under a tape each arm and round has its own."""
        if not self.config.test_tape:
            return SystemRandomSource()
        path = ("dp-sgd", arm, self.partition_id, number)
        return TapeRandomSource(derive_seed(self.config.seed, *path))


def _digest(traces: Sequence[Trace], start: Adapter | None) -> str:
    """Return 16 hex digits that stand for these traces and what they go on from."""
    digest = hashlib.sha256("".join(trace.key for trace in traces).encode())
    for name, tensor in sorted((start or {}).items()):
        digest.update(f"\x1f{name} {tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def _last_loss(trained: TrainingOutcome) -> float:
    losses = trained.rationale_loss or trained.label_loss
    return float(losses[-1]) if losses else float("nan")
