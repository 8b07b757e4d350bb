"""Which records each client holds."""

from fedcot.config import RunConfig
from fedcot.data.schema import Partition, Record
from fedcot.errors import ConfigError
from fedcot.world.families import CLIENT_NAMES, FAMILIES
from fedcot.world.splits import DEEP_DEPTHS, TRAINED_DEPTHS, Split, draw_problems


def partition_size(config: RunConfig, num_partitions: int) -> int:
    """Return the number of training records of one client.

    Raises
    ------
    ConfigError
        If there are more partitions than records.
    """
    if num_partitions > config.num_records:
        raise ConfigError(
            f"`num-partitions` must be at most `num-records` ({config.num_records}), "
            f"found {num_partitions}; pass for example "
            f"`-c num-records={num_partitions * 256}`."
        )
    return config.num_records // num_partitions


def partition_domains(
    config: RunConfig, partition_id: int, num_partitions: int
) -> tuple[str, ...]:
    """Return the client domains of a partition.

    With ``domain``, partitions take the domains in turn; where there are fewer
    partitions than domains, each holds several, so that none is left out.
    """
    if config.partitioner == "iid":
        return CLIENT_NAMES
    if num_partitions >= len(CLIENT_NAMES):
        return (CLIENT_NAMES[partition_id % len(CLIENT_NAMES)],)
    return CLIENT_NAMES[partition_id::num_partitions]


def _records(
    config: RunConfig,
    split: Split,
    partition_id: int,
    domains: tuple[str, ...],
    count: int,
    depths: tuple[int, ...] = TRAINED_DEPTHS,
) -> tuple[Record, ...]:
    problems = draw_problems(
        split,
        domains,
        count,
        seed=config.seed,
        depths=depths,
        purpose=f"partition-{partition_id}",
    )
    return tuple(problem.record() for problem in problems)


def load_partition(
    config: RunConfig, partition_id: int, num_partitions: int
) -> Partition:
    """Return the records of one client of the built-in world.

    Training and test records never share a question (their hashes fall
    into different splits); two clients of one domain may, as in life.

    Raises
    ------
    ConfigError
        If there are more partitions than records.
    ValueError
        If `partition_id` is not in [0, num_partitions).
    """
    if not 0 <= partition_id < num_partitions:
        raise ValueError(
            f"`partition_id` must be in [0, {num_partitions}), found {partition_id}."
        )
    size = partition_size(config, num_partitions)
    domains = partition_domains(config, partition_id, num_partitions)
    tests = config.test_records
    return Partition(
        train=_records(config, "train", partition_id, domains, size),
        test=_records(config, "test", partition_id, domains, tests),
        deep_test=_records(config, "test", partition_id, domains, tests, DEEP_DEPTHS),
    )


def load_public_bank(config: RunConfig, size: int) -> tuple[Record, ...]:
    """Return public problems of all nine families in equal share.

    Their split is the bank's, so no client's problem is among them.
    """
    problems = draw_problems("bank", tuple(FAMILIES), size, seed=config.seed)
    return tuple(problem.record() for problem in problems)
