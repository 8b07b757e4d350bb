"""Which records of a dataset each client holds; the splitting is `flwr-datasets`'.

All of it repeats from the seed. Every record has one holder, and none is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcot.data.schema import Record
from fedcot.errors import ConfigError
from fedcot.seeding import derive_seed, numpy_generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

_ROW, _GROUP = "row", "group"


@dataclass(frozen=True, slots=True)
class Splitting:
    """How records are split: the settings of the same names."""

    partitioner: str
    dirichlet_alpha: float
    seed: int


def partition_rows(
    split: Splitting,
    records: Sequence[Record],
    natural_ids: Sequence[str],
    num_partitions: int,
) -> tuple[tuple[int, ...], ...]:
    """Return, for each partition, which records it holds, in rising order.

    Parameters
    ----------
    split : Splitting
    records : sequence of Record
    natural_ids : sequence of str
        Whose record it is, for each of `records`.
    num_partitions : int
        At least 1.

    Raises
    ------
    ConfigError
        A partition would be empty.
    """
    if num_partitions > len(records):
        raise ConfigError(
            f"`num-partitions` must be at most the number of training records "
            f"({len(records)}), found {num_partitions}; ask for fewer clients, or "
            "raise num-records if the dataset has more."
        )
    order = numpy_generator(split.seed, "partition-order").permutation(len(records))
    groups = _groups(split, records, natural_ids, num_partitions)
    table = {
        _ROW: [int(index) for index in order],
        _GROUP: [groups[index] for index in order],
    }
    partitions = _split(split, table, num_partitions)
    for number, rows in enumerate(partitions):
        if not rows:
            raise ConfigError(
                f"`partitioner` must leave every client a training record, found none "
                f"for partition {number} of {num_partitions}; ask for fewer clients, "
                "or pass `-c partitioner=iid`."
            )
    return partitions


def _groups(
    split: Splitting,
    records: Sequence[Record],
    natural_ids: Sequence[str],
    num_partitions: int,
) -> list[int]:
    """Return the number of what each record is split by."""
    kind = split.partitioner
    if kind == "iid":
        return [0] * len(records)
    if kind == "natural-id":
        values = list(natural_ids)
    elif kind == "domain":
        values = [record.domain for record in records]
    else:
        values = [record.answer for record in records]
    distinct = sorted(set(values))
    if kind == "natural-id":
        if len(distinct) < num_partitions:
            raise ConfigError(
                f"`num-partitions` must be at most the number of natural ids "
                f"({len(distinct)}), found {num_partitions}; ask for fewer clients."
            )
        numpy_generator(split.seed, "natural-ids").shuffle(distinct)
    numbers = {value: number for number, value in enumerate(distinct)}
    # Dealt out in turn, so that every one of them is held by somebody.
    is_dealt = kind != "dirichlet"
    return [
        numbers[value] % num_partitions if is_dealt else numbers[value]
        for value in values
    ]


def _split(
    split: Splitting, table: dict[str, list[int]], num_partitions: int
) -> tuple[tuple[int, ...], ...]:
    import datasets

    partitioner = _partitioner(split, num_partitions)
    partitioner.dataset = datasets.Dataset.from_dict(table)
    with warnings.catch_warnings():
        # Tries of `DirichletPartitioner` that gave somebody too little.
        warnings.filterwarnings("ignore", "The specified min_partition_size")
        try:
            held = [
                partitioner.load_partition(number)[:][_ROW]
                for number in range(num_partitions)
            ]
        except ValueError as error:
            raise ConfigError(
                f"`partitioner={split.partitioner}` must leave each of the "
                f"{num_partitions} clients a training record, found that it cannot; "
                "ask for fewer clients, raise dirichlet-alpha, or pass "
                "`-c partitioner=iid`."
            ) from error
    return tuple(tuple(sorted(rows)) for rows in held)


def _partitioner(split: Splitting, num_partitions: int) -> Partitioner:
    from flwr_datasets import partitioner as library

    # NumPy's generator takes any seed, `Dataset.shuffle` none above 2^32.
    seed = derive_seed(split.seed, "partitioner") % 2**32
    kind = split.partitioner
    if kind == "iid":
        return library.IidPartitioner(num_partitions)
    if kind == "natural-id":
        return library.GroupedNaturalIdPartitioner(_GROUP, 1, sort_unique_ids=True)
    if kind == "dirichlet":
        return library.DirichletPartitioner(
            num_partitions,
            partition_by=_GROUP,
            alpha=split.dirichlet_alpha,
            min_partition_size=1,
            seed=seed,
        )
    return library.PathologicalPartitioner(
        num_partitions,
        partition_by=_GROUP,
        num_classes_per_partition=1,
        class_assignment_mode="deterministic",
        seed=seed,
    )
