"""Partitions hold what they should, and nothing of each other's splits."""

import pytest

from fedcot.config import RunConfig
from fedcot.data.partition import load_partition, load_public_bank
from fedcot.errors import ConfigError
from fedcot.world import CLIENT_NAMES, FAMILIES, normalize

CONFIG = RunConfig(token_epsilon=8.0, num_records=300, test_records=20)


def test_five_partitions_hold_one_domain_each() -> None:
    for partition_id, domain in enumerate(CLIENT_NAMES):
        partition = load_partition(CONFIG, partition_id, 5)
        assert {record.domain for record in partition.train} == {domain}
        assert len(partition.train) == 60
        assert len(partition.test) == len(partition.deep_test) == 20


def test_fewer_partitions_leave_no_domain_out() -> None:
    held = [
        {record.domain for record in load_partition(CONFIG, i, 2).train}
        for i in range(2)
    ]
    assert held[0] | held[1] == set(CLIENT_NAMES)
    assert not held[0] & held[1]


def test_iid_partitions_hold_every_domain() -> None:
    config = RunConfig(token_epsilon=8.0, num_records=300, partitioner="iid")
    partition = load_partition(config, 3, 5)
    assert {record.domain for record in partition.train} == set(CLIENT_NAMES)


def test_no_question_stands_in_two_splits_or_in_the_bank() -> None:
    partitions = [load_partition(CONFIG, i, 10) for i in range(10)]
    bank = {normalize(r.question) for r in load_public_bank(CONFIG, 180)}

    def questions(split: str) -> set[str]:
        return {normalize(r.question) for p in partitions for r in getattr(p, split)}

    splits = [questions(s) for s in ("train", "test", "deep_test")]
    for index, first in enumerate([*splits, bank]):
        for second in [*splits, bank][index + 1 :]:
            assert not first & second


def test_the_bank_holds_every_family_in_equal_share() -> None:
    domains = [record.domain for record in load_public_bank(CONFIG, 180)]
    assert {domains.count(family) for family in FAMILIES} == {20}


def test_partitions_repeat_from_the_seed() -> None:
    assert load_partition(CONFIG, 1, 5) == load_partition(CONFIG, 1, 5)
    other = RunConfig(token_epsilon=8.0, num_records=300, test_records=20, seed=1)
    assert load_partition(CONFIG, 1, 5) != load_partition(other, 1, 5)


def test_more_partitions_than_records_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num-partitions.*found 301"):
        load_partition(CONFIG, 0, 301)


@pytest.mark.parametrize("partition_id", [-1, 5])
def test_a_partition_that_does_not_exist_is_refused(partition_id: int) -> None:
    with pytest.raises(ValueError, match="partition_id"):
        load_partition(CONFIG, partition_id, 5)
