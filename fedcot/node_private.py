"""A client's training by DP-SGD: which arms, which records, what it costs.

See `fedcot.student.dp`. Who trains has to charge first: `fedcot.privacy.ledger.Ledger`
takes `PrivateTraining.epsilon` once for all rounds of a run, before the first one.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

from fedcot.arms import trains_privately
from fedcot.config import RunConfig
from fedcot.data.schema import Record
from fedcot.errors import ConfigError
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from fedcot.seeding import derive_seed
from fedcot.student.base import Adapter, Base, TrainingSettings
from fedcot.student.dp import train_adapter_privately
from fedcot.student.dp_settings import DpSettings, training_schedule, used_counts
from fedcot.student.examples import Example, Pairing, label_examples
from fedcot.student.training import TrainingOutcome
from fedcot.tasks.task import Task


class PrivateTraining:
    """DP-SGD of one node.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    partition_id : int
        Which node.
    """

    def __init__(self, config: RunConfig, *, partition_id: int) -> None:
        self.config = config
        self.partition_id = partition_id

    def covers(self, arm: str) -> bool:
        """Whether an arm is trained by it."""
        return trains_privately(
            arm,
            aggregation=self.config.aggregation,
            pairing=self.config.pairing,
            noise_multiplier=self.config.noise_multiplier,
        )

    def charge(
        self,
        ledger: Ledger,
        keys: Mapping[str, str],
        *,
        num_records: int,
        run: str,
        trainings: Iterable[str],
    ) -> set[str]:
        """Charge what is to be trained, for all rounds of the run at once.

        Parameters
        ----------
        ledger : Ledger
            The node's.
        keys : mapping of str to str
            Name of each record that takes part in this round to its key.
        num_records : int
            Training records of the node; public.
        run : str
            Names the run.
        trainings : iterable of str
            What each training is called.

        Returns
        -------
        set of str
            The names of the records that may take part.
        """
        granted = set(keys)
        names = {key: name for name, key in keys.items()}
        for description in trainings:
            allowed = ledger.charge_training(
                list(names),
                run=run,
                epsilon=self.epsilon(num_records),
                delta=self.config.delta,
                description=description,
            )
            granted &= {names[key] for key in allowed}
        return granted

    def epsilon(self, num_records: int) -> float:
        """Return what one arm costs a record over all rounds, in nats at `delta`.

        Parameters
        ----------
        num_records : int
            Training records of the node; public.
        """
        # They bring SciPy's and Google's accounting along, which few runs need.
        from fedcot.privacy.composition import training_epsilon
        from fedcot.privacy.loss_distributions import DpTraining

        counts = used_counts(self.config, self.partition_id, num_records)
        training = DpTraining(
            noise_multiplier=self.config.noise_multiplier,
            phases=tuple(
                (one.sample_rate, one.steps)
                for one in training_schedule(self.config, counts)
            ),
        )
        return training_epsilon(training, delta=self.config.delta)

    def check_round(self, arms: Sequence[str], server_round: int) -> None:
        """Refuse a round that no charge was planned for.

        Raises
        ------
        ConfigError
            The round is beyond the last one of the run.
        """
        rounds = self.config.num_server_rounds
        if server_round > rounds and any(map(self.covers, arms)):
            raise ConfigError(
                "`num-server-rounds` must cover every round that trains by DP-SGD, "
                f"found {rounds} and a request for round {server_round}; start a run "
                "with more rounds."
            )

    def train(
        self,
        arm: str,
        records: Sequence[Sequence[Example]],
        *,
        base: Base,
        settings: TrainingSettings,
        server_round: int,
        seed: int,
        adapter: Adapter | None,
    ) -> TrainingOutcome:
        """Train one arm on the records used so far, see `train_adapter_privately`."""
        return train_adapter_privately(
            base,
            records,
            settings,
            privacy=DpSettings.of(self.config, len(records)),
            source=self._source(arm, server_round),
            seed=seed,
            adapter=adapter,
        )

    def _source(self, arm: str, server_round: int) -> RandomSource:
        """Return the randomness; under a tape each arm and round has its own."""
        if not self.config.test_tape:
            return SystemRandomSource()
        path = ("dp-sgd", arm, self.partition_id, server_round)
        return TapeRandomSource(derive_seed(self.config.seed, *path))


def examples_by_record(
    pairing: Pairing,
    sources: Sequence[str],
    *,
    records: Mapping[str, Record],
    used: Sequence[Record],
    granted: Container[str] | None,
    task: Task,
) -> list[list[Example]]:
    """Return the examples of each used record: its label's and its rationale's.

    What a filter dropped or the ledger refused leaves a null record behind, so that the
    number of records stays public.

    Parameters
    ----------
    pairing : Pairing
        Rationale examples.
    sources : sequence of str
        Of each pair, the key of its record.
    records : mapping of str to Record
        All training records of the node by key.
    used : sequence of Record
        The very objects of `records` that were used so far.
    granted : container of str or None
        Keys of the records that may be used; None: all.
    task : Task
        Writes the label examples.
    """
    keys = {id(record): key for key, record in records.items()}
    examples: dict[str, list[Example]] = {
        keys[id(record)]: list(label_examples([record], task)) for record in used
    }
    for owner, example in zip(pairing.owners, pairing.examples, strict=True):
        if sources[owner] in examples:
            examples[sources[owner]].append(example)
    return [
        found if granted is None or key in granted else []
        for key, found in examples.items()
    ]
