"""Which client belongs to which community, and what its members ask about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedcot.community.diversity import mixed_counts
from fedcot.config import RunConfig
from fedcot.data.loading import LoadedData, load_dataset, question_key
from fedcot.data.schema import Partition, Record
from fedcot.errors import ConfigError
from fedcot.seeding import numpy_generator
from fedcot.settings import WORLD
from fedcot.world.splits import Split, draw_problems


def community_of(partition_id: int, communities: Sequence[str]) -> str:
    """Return the community of a simulated client."""
    return communities[partition_id % len(communities)]


def members_of(
    community: str, communities: Sequence[str], num_partitions: int
) -> tuple[int, ...]:
    """Return the clients of a community, in order."""
    first = communities.index(community)
    return tuple(range(first, num_partitions, len(communities)))


def member_size(config: RunConfig, num_partitions: int) -> int:
    """Return the number of training questions of each member.

    Raises
    ------
    ConfigError
        There are fewer questions than members, or fewer members than communities.
    """
    communities = config.community_names
    if num_partitions < len(communities):
        raise ConfigError(
            "`communities` must be at most as many as there are clients "
            f"({num_partitions}), found {len(communities)}; pass for example "
            f"`--num-supernodes {len(communities)}`."
        )
    if num_partitions > config.num_records:
        raise ConfigError(
            f"`num-partitions` must be at most `num-records` ({config.num_records}), "
            f"found {num_partitions}; pass for example "
            f"`-c num-records={num_partitions * 64}`."
        )
    return config.num_records // num_partitions


def task_mix(config: RunConfig, size: int) -> dict[str, dict[str, int]]:
    """Return how many of `size` questions of a member are of each domain.

    Returns
    -------
    dict of str to dict of str to int
        By community, then by domain.
    """
    names = config.community_names
    counts = mixed_counts(names, names, config.community_diversity, size)
    return {name: dict(mix) for name, mix in counts.items()}


def load_member(config: RunConfig, partition_id: int, num_partitions: int) -> Partition:
    """Return the records of one member.

    In the built-in world a member that asks about one domain holds the questions that a
    client of the other modes holds with ``partitioner=domain``, where it is dealt the
    same domain: modes can be compared on them.

    Raises
    ------
    ConfigError
        A domain has too few records, or a dataset cannot be read.
    """
    size = member_size(config, num_partitions)
    if config.dataset != WORLD:
        return _dataset_member(config, partition_id, num_partitions, size)
    return Partition(
        train=_own(config, "train", partition_id, size),
        test=_own(config, "test", partition_id, config.test_records),
    )


def load_hold_out(config: RunConfig) -> tuple[Record, ...]:
    """Return the questions that no member holds.

    Of the built-in world all domains in equal share, of a dataset a part of its test
    questions by chance.

    Raises
    ------
    ConfigError
        A dataset has too few test questions.
    """
    if not config.hold_out:
        return ()
    if config.dataset != WORLD:
        loaded = load_dataset(config)
        return tuple(loaded.test[row] for row in _test_order(config, loaded)[0])
    return _drawn(config, "validation", config.community_names, config.hold_out, "")


def load_controls(config: RunConfig, community: str, count: int) -> tuple[Record, ...]:
    """Return questions like a community's that nobody trains on, for an audit.

    Of a dataset they are the hold-out.

    Raises
    ------
    ConfigError
        A dataset has too few test questions.
    """
    if config.dataset != WORLD:
        return load_hold_out(config)
    # Some of them the provider will get wrong.
    mix = task_mix(config, 2 * count)[community]
    return _mixed(config, "validation", mix, "controls")


def _own(
    config: RunConfig, split: Split, partition_id: int, size: int
) -> tuple[Record, ...]:
    """Return a member's problems of the built-in world."""
    community = community_of(partition_id, config.community_names)
    mix = task_mix(config, size)[community]
    is_single = config.community_diversity == 1 or len(mix) == 1
    # `fedcot.data.partition` draws a client's problems for the same purpose.
    purpose = f"{'partition' if is_single else 'member'}-{partition_id}"
    return _mixed(config, split, mix, purpose)


def _mixed(
    config: RunConfig, split: Split, mix: Mapping[str, int], purpose: str
) -> tuple[Record, ...]:
    """Return problems of the built-in world, so many of each domain."""
    return tuple(
        record
        for domain, count in mix.items()
        for record in _drawn(config, split, (domain,), count, purpose)
    )


def _drawn(
    config: RunConfig, split: Split, domains: Sequence[str], count: int, purpose: str
) -> tuple[Record, ...]:
    """Return problems of domains in turn; they do not hold as many as one likes."""
    try:
        problems = draw_problems(
            split, domains, count, seed=config.seed, purpose=purpose
        )
    except ValueError as error:
        raise ConfigError(
            "`num-records`, `test-records` and `hold-out` must be at most what the "
            f"domains of the built-in world hold, found {count} of "
            f"{', '.join(domains)} in the split {split}; lower them."
        ) from error
    return tuple(problem.record() for problem in problems)


def _dataset_member(
    config: RunConfig, partition_id: int, num_partitions: int, size: int
) -> Partition:
    loaded = load_dataset(config)
    train = _deal(config, loaded.train, size, num_partitions, "train")
    rows = _test_order(config, loaded)[1]
    tests = [loaded.test[row] for row in rows]
    share = min(config.test_records, len(tests) // num_partitions)
    test = _deal(config, tests, share, num_partitions, "test")
    return Partition(
        train=tuple(loaded.train[row] for row in train[partition_id]),
        test=tuple(tests[row] for row in test[partition_id]),
    )


def _deal(
    config: RunConfig,
    records: Sequence[Record],
    size: int,
    num_partitions: int,
    split: str,
) -> tuple[tuple[int, ...], ...]:
    """Return which records each member gets; each record has one holder at most."""
    names = config.community_names
    domains = {record.domain for record in records}
    if not set(names) <= domains:
        if config.community_diversity > 0:
            raise ConfigError(
                "`communities` must be domains of the dataset where they differ ("
                f"{', '.join(sorted(domains)[:8]) or 'it has none'}), found "
                f"{', '.join(names)}; pass `-c community-diversity=0.0`, or a mapping "
                "with a column for `domain`."
            )
        pools = {"": list(range(len(records)))}
        mixes = {name: {"": size} for name in names}
    else:
        pools = {name: [] for name in names}
        for row, record in enumerate(records):
            if record.domain in pools:
                pools[record.domain].append(row)
        mixes = task_mix(config, size)
    for domain, pool in pools.items():
        numpy_generator(config.seed, "deal", split, domain).shuffle(pool)
    held: list[tuple[int, ...]] = []
    for partition_id in range(num_partitions):
        rows: list[int] = []
        for domain, count in mixes[community_of(partition_id, names)].items():
            pool = pools[domain]
            if len(pool) < count or size < 1:
                raise ConfigError(
                    f"`num-records` must leave every member its {split} questions of "
                    f"the domain {domain or 'all'!r}, found too few; lower "
                    "num-records, test-records or hold-out, or ask for fewer clients."
                )
            rows += pool[:count]
            del pool[:count]
        held.append(tuple(sorted(rows)))
    return tuple(held)


@lru_cache(maxsize=8)
def _test_order(
    config: RunConfig, loaded: LoadedData
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which test rows are held out, and which are for members."""
    order = numpy_generator(config.seed, "hold-out").permutation(len(loaded.test))
    rows = tuple(int(row) for row in order)
    # At least half is left to the members.
    count = min(config.hold_out, len(rows) // 2)
    keys = [question_key(record.identity) for record in loaded.test]
    held = {keys[row] for row in rows[:count]}
    # Published files repeat questions; one that is held out is nobody's.
    return rows[:count], tuple(row for row in rows[count:] if keys[row] not in held)
