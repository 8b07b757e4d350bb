"""Which records each client holds: of the built-in world, or of a mapped dataset."""

from dataclasses import replace
from functools import lru_cache

from fedcot.community.membership import load_member, member_size
from fedcot.config import RunConfig
from fedcot.data.loading import LoadedData, load_dataset, load_rows
from fedcot.data.partitioners import Splitting, partition_rows
from fedcot.data.schema import Partition, Record
from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.settings import COMMUNITY, SOCIAL, WORLD
from fedcot.tasks.mapping import load_mapping
from fedcot.world.families import CLIENT_NAMES, FAMILIES
from fedcot.world.splits import DEEP_DEPTHS, TRAINED_DEPTHS, Split, draw_problems


def partition_size(config: RunConfig, num_partitions: int) -> int:
    """Return the number of training records of the client that has the fewest.

    Raises
    ------
    ConfigError
        There are more partitions than records, or a dataset cannot be read.
    """
    return min(partition_sizes(config, num_partitions))


def partition_sizes(config: RunConfig, num_partitions: int) -> tuple[int, ...]:
    """Return the number of training records of each client.

    Raises
    ------
    ConfigError
        There are more partitions than records, or a dataset cannot be read.
    """
    drawn = _drawn_sizes(config, num_partitions)
    if not _holds_canary_records(config):
        return drawn
    from fedcot.evaluation.insertion import num_inserted

    return tuple(
        size + num_inserted(config, partition_id, num_partitions)
        for partition_id, size in enumerate(drawn)
    )


def _holds_canary_records(config: RunConfig) -> bool:
    """Whether canaries are among the records; in mode social they are elsewhere."""
    return config.canaries > 0 and config.mode != SOCIAL


def _drawn_sizes(config: RunConfig, num_partitions: int) -> tuple[int, ...]:
    """Return how many records of the world or the dataset each client is dealt."""
    if config.mode == COMMUNITY:
        return (member_size(config, num_partitions),) * num_partitions
    if num_partitions > config.num_records:
        raise ConfigError(
            f"`num-partitions` must be at most `num-records` ({config.num_records}), "
            f"found {num_partitions}; pass for example "
            f"`-c num-records={num_partitions * 256}`."
        )
    if config.dataset == WORLD:
        return (config.num_records // num_partitions,) * num_partitions
    return tuple(len(rows) for rows in _dataset_rows(config, num_partitions))


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
    """Return the records of one client.

    Training and test records never share a question. Two clients of one domain of the
    world may, as in life; a record of a dataset has one holder, in the order of the
    dataset's rows. The canaries of an audit run stand behind the training records.

    Raises
    ------
    ConfigError
        If there are more partitions than records, or a dataset cannot be read or
        cannot be split as asked.
    ValueError
        If `partition_id` is not in [0, num_partitions).
    """
    if not 0 <= partition_id < num_partitions:
        raise ValueError(
            f"`partition_id` must be in [0, {num_partitions}), found {partition_id}."
        )
    partition = _dealt_partition(config, partition_id, num_partitions)
    if not _holds_canary_records(config):
        return partition
    from fedcot.evaluation.insertion import canary_records

    canaries = canary_records(
        config, partition_id, num_partitions, domain=partition.train[0].domain
    )
    return replace(partition, train=partition.train + canaries)


def _dealt_partition(
    config: RunConfig, partition_id: int, num_partitions: int
) -> Partition:
    """Return the records of one client but for canaries."""
    if config.mode == COMMUNITY:
        return load_member(config, partition_id, num_partitions)
    size = _drawn_sizes(config, num_partitions)[partition_id]
    if config.dataset != WORLD:
        return _load_dataset_partition(config, partition_id, num_partitions)
    domains = partition_domains(config, partition_id, num_partitions)
    tests = config.test_records
    return Partition(
        train=_records(config, "train", partition_id, domains, size),
        test=_records(config, "test", partition_id, domains, tests),
        deep_test=_records(config, "test", partition_id, domains, tests, DEEP_DEPTHS),
    )


def load_own_partition(dataset: str, data_dir: str, *, test_records: int) -> Partition:
    """Return all records of a folder: what a deployed node holds.

    Nothing of it depends on what a run asks for but the number of test records, which
    nobody is told.

    Raises
    ------
    ConfigError
        There is no such dataset, or it has no training record.
    """
    loaded = load_rows(dataset, data_dir, 0.0)
    return Partition(train=loaded.train, test=loaded.test[:test_records])


def load_public_bank(config: RunConfig, size: int) -> tuple[Record, ...]:
    """Return public problems, `size` at most.

    Of the world: all nine families in equal share, from a split of their own. Of a
    dataset: the first of its public share. No client's problem is among them.

    Raises
    ------
    ConfigError
        A dataset has no public share, or cannot be read.
    """
    if config.dataset == WORLD:
        problems = draw_problems("bank", tuple(FAMILIES), size, seed=config.seed)
        return tuple(problem.record() for problem in problems)
    records = load_dataset(config).public[:size]
    if not records:
        raise ConfigError(
            "`public-share` must leave public questions of the dataset, found none "
            f"with {config.public_share}; pass for example `-c public-share=0.2`."
        )
    return records


def _load_dataset_partition(
    config: RunConfig, partition_id: int, num_partitions: int
) -> Partition:
    loaded = load_dataset(config)
    rows = _dataset_rows(config, num_partitions)[partition_id]
    tests = len(loaded.test)
    order = numpy_generator(config.seed, "test-order").permutation(tests)
    # Where there are fewer test records than clients, clients share them.
    share = max(1, min(config.test_records, tests // num_partitions))
    start = partition_id * share
    dealt = sorted(int(order[place % tests]) for place in range(start, start + share))
    return Partition(
        train=tuple(loaded.train[row] for row in rows),
        test=tuple(loaded.test[row] for row in dealt),
    )


def _dataset_rows(
    config: RunConfig, num_partitions: int
) -> tuple[tuple[int, ...], ...]:
    """Return which of a dataset's training records each client holds."""
    mapping = load_mapping(config.dataset)
    kind = config.partitioner
    if kind in ("domain", "natural-id") and kind not in mapping.columns:
        raise ConfigError(
            f"`partitioner` must be one that the mapping `{mapping.name}` has a column "
            f"for, found `{kind}`, and no `{kind}` in its [fields]; pass "
            "`-c partitioner=iid`."
        )
    split = Splitting(kind, config.dirichlet_alpha, config.seed)
    return _split_rows(load_dataset(config), split, config.num_records, num_partitions)


@lru_cache(maxsize=8)
def _split_rows(
    loaded: LoadedData, split: Splitting, num_records: int, num_partitions: int
) -> tuple[tuple[int, ...], ...]:
    """Choose `num_records` training records with the seed, and split them."""
    order = numpy_generator(split.seed, "records").permutation(len(loaded.train))
    chosen = sorted(int(row) for row in order[:num_records])
    partitions = partition_rows(
        split,
        [loaded.train[row] for row in chosen],
        [loaded.natural_ids[row] for row in chosen],
        num_partitions,
    )
    return tuple(tuple(chosen[place] for place in rows) for rows in partitions)
