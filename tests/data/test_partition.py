"""Partitions hold what they should, and nothing of each other's splits."""

from pathlib import Path
from typing import Any

import pytest

from fedcot.config import RunConfig
from fedcot.data.loading import load_dataset
from fedcot.data.partition import (
    load_partition,
    load_public_bank,
    partition_size,
    partition_sizes,
)
from fedcot.data.schema import Partition
from fedcot.errors import ConfigError
from fedcot.world import CLIENT_NAMES, FAMILIES, normalize
from tests.tasks.writing import SUMS, config_for, sums, write_lines, write_mapping

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


def test_the_world_s_partitions_have_one_size() -> None:
    assert partition_sizes(CONFIG, 7) == (42,) * 7
    assert partition_size(CONFIG, 7) == len(load_partition(CONFIG, 2, 7).train) == 42


@pytest.fixture(name="mapped")
def mapped_config(tmp_path: Path) -> Any:
    """Return configurations of a dataset of 100 training and 12 test questions."""
    rows = [{**row, "t": f"topic {n % 2}"} for n, row in enumerate(sums(0, 100))]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "test.jsonl", [{**x, "t": "t"} for x in sums(500, 12)])
    text = SUMS.replace('"a"\n', '"a"\ndomain = "t"\n', 1)
    path = write_mapping(tmp_path, text)

    def config(**more: Any) -> RunConfig:
        return config_for(path, tmp_path, **more)

    return config


def all_of(config: RunConfig, clients: int) -> list[Partition]:
    return [load_partition(config, number, clients) for number in range(clients)]


def asked(partitions: list[Partition], split: str) -> list[str]:
    return [record.question for p in partitions for record in getattr(p, split)]


def test_a_dataset_s_partitions_cover_it_once(mapped: Any) -> None:
    loaded = load_dataset(mapped())
    partitions = all_of(mapped(test_records=3), 4)
    assert [len(partition.train) for partition in partitions] == [25] * 4
    for split in ("train", "test"):
        everything = sorted(record.question for record in getattr(loaded, split))
        assert sorted(asked(partitions, split)) == everything
    assert all(partition.deep_test == () for partition in partitions)
    places = {record.question: n for n, record in enumerate(loaded.train)}
    for partition in partitions:
        rows = [places[record.question] for record in partition.train]
        assert rows == sorted(rows)


def test_a_dataset_s_partitions_repeat_from_the_seed(mapped: Any) -> None:
    first = all_of(mapped(seed=1), 3)
    assert all_of(mapped(seed=1), 3) == first
    other = all_of(mapped(seed=2), 3)
    assert asked(other[:1], "train") != asked(first[:1], "train")
    assert asked(other[:1], "test") != asked(first[:1], "test")


def test_num_records_limits_all_clients_together(mapped: Any) -> None:
    config = mapped(num_records=10, records_per_round=5)
    assert partition_sizes(config, 4) == (3, 3, 2, 2)
    assert partition_size(config, 4) == 2
    found = asked(all_of(config, 4), "train")
    assert len(set(found)) == 10
    again = mapped(num_records=10, records_per_round=5, seed=1)
    assert set(asked(all_of(again, 4), "train")) != set(found)
    assert partition_sizes(mapped(num_records=5000), 4) == (25,) * 4


@pytest.mark.parametrize(
    ("clients", "wanted", "each"), [(4, 100, 3), (5, 100, 2), (3, 2, 2), (12, 9, 1)]
)
def test_test_records_are_dealt_out_once(
    mapped: Any, clients: int, wanted: int, each: int
) -> None:
    partitions = all_of(mapped(test_records=wanted), clients)
    assert [len(partition.test) for partition in partitions] == [each] * clients
    assert len(set(asked(partitions, "test"))) == clients * each


def test_clients_share_test_records_where_there_are_too_few(mapped: Any) -> None:
    partitions = all_of(mapped(), 30)
    assert [len(partition.test) for partition in partitions] == [1] * 30
    assert len(set(asked(partitions, "test"))) == 12


def test_a_dataset_is_split_by_the_mapping_s_domain(mapped: Any) -> None:
    partitions = all_of(mapped(partitioner="domain"), 2)
    domains = [{record.domain for record in p.train} for p in partitions]
    assert domains == [{"topic 0"}, {"topic 1"}]


def test_a_partitioner_needs_its_column(mapped: Any) -> None:
    with pytest.raises(ConfigError, match=r"`natural-id`.*partitioner=iid"):
        load_partition(mapped(partitioner="natural-id"), 0, 2)
    plain = RunConfig(
        token_epsilon=8.0, dataset="strategyqa", arms="zero-shot", partitioner="domain"
    )
    with pytest.raises(ConfigError, match=r"`strategyqa`.*partitioner=iid"):
        load_partition(plain, 0, 2)


def test_too_many_clients_for_a_dataset_are_refused(mapped: Any) -> None:
    assert partition_size(mapped(), 100) == 1
    with pytest.raises(ConfigError, match=r"num-partitions.*\(100\), found 101"):
        load_partition(mapped(), 0, 101)
    with pytest.raises(ConfigError, match=r"num-records.*found 2000"):
        load_partition(mapped(), 0, 2000)
    with pytest.raises(ValueError, match="partition_id"):
        load_partition(mapped(), 4, 4)


def test_the_public_bank_of_a_dataset_is_held_by_nobody(mapped: Any) -> None:
    config = mapped(public_share=0.3)
    bank = load_public_bank(config, 1000)
    assert 15 < len(bank) < 45
    assert load_public_bank(config, 5) == bank[:5]
    public = {record.question for record in bank}
    partitions = all_of(config, 3)
    assert not public & {*asked(partitions, "train"), *asked(partitions, "test")}
    assert len(public) + len(asked(partitions, "train")) == 100
    assert load_public_bank(mapped(public_share=0.3, seed=5), 1000) == bank


def test_a_bank_without_a_public_share_is_refused(mapped: Any) -> None:
    with pytest.raises(ConfigError, match=r"`public-share`.*public-share=0.2"):
        load_public_bank(mapped(), 10)
    with pytest.raises(ConfigError, match=r"`public-share`"):
        load_public_bank(mapped(public_share=1e-9), 10)
