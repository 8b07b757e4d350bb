"""Who belongs where, what members hold, and what nobody holds."""

from pathlib import Path
from typing import Any

import pytest

from fedcot.community.diversity import mixed_counts
from fedcot.community.membership import (
    community_of,
    load_hold_out,
    load_member,
    member_size,
    members_of,
    task_mix,
)
from fedcot.config import RunConfig
from fedcot.data.loading import question_key
from fedcot.data.partition import load_partition, partition_sizes
from fedcot.data.schema import Partition, Record
from fedcot.errors import ConfigError
from fedcot.tasks.registry import configured_task
from fedcot.world import normalize
from tests.tasks.writing import SUMS, config_for, write_lines, write_mapping

NAMES = ("library", "bakery", "harbor")


def world_config(**more: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "token_epsilon": 8.0,
        "mode": "community",
        "communities": ",".join(NAMES),
        "num_records": 240,
        "records_per_round": 5,
        "test_records": 12,
        "hold_out": 40,
    }
    return RunConfig(**{**settings, **more})


def members(config: RunConfig, count: int) -> list[Partition]:
    return [load_member(config, partition, count) for partition in range(count)]


def counts(records: tuple[Record, ...]) -> dict[str, int]:
    domains = [record.domain for record in records]
    return {name: domains.count(name) for name in sorted(set(domains))}


@pytest.mark.parametrize("clients", [1, 3, 4, 8])
def test_every_client_belongs_to_one_community_in_turn(clients):
    found = [members_of(name, NAMES, clients) for name in NAMES]
    assert sorted(sum(found, ())) == list(range(clients))
    for name, own in zip(NAMES, found, strict=True):
        assert all(community_of(partition, NAMES) == name for partition in own)
    sizes = [len(own) for own in found]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_sizes_are_equal_and_stated():
    config = world_config(num_records=100)
    assert member_size(config, 6) == 16
    assert partition_sizes(config, 6) == (16,) * 6
    assert {len(m.train) for m in members(config, 6)} == {16}
    assert {len(m.test) for m in members(config, 6)} == {12}


@pytest.mark.parametrize(
    ("clients", "key"), [(2, "communities"), (101, "num-partitions")]
)
def test_too_few_clients_or_questions_are_one_clear_line(clients, key):
    with pytest.raises(ConfigError, match=f"`{key}` must be at most") as caught:
        member_size(world_config(num_records=100), clients)
    assert "\n" not in str(caught.value)
    assert "; pass for example" in str(caught.value)


# The world --------------------------------------------------------------------------


@pytest.mark.parametrize("diversity", [0.0, 0.4, 1.0])
def test_members_ask_about_the_mix_of_their_community(diversity):
    config = world_config(community_diversity=diversity)
    expected = mixed_counts(NAMES, NAMES, diversity, 40)
    assert task_mix(config, 40) == expected
    tests = mixed_counts(NAMES, NAMES, diversity, 12)
    for partition, held in enumerate(members(config, 6)):
        name = NAMES[partition % 3]
        for records, mix in ((held.train, expected), (held.test, tests)):
            assert counts(records) == {d: n for d, n in sorted(mix[name].items()) if n}


def keys(records) -> set[bytes]:
    return {question_key(normalize(record.question)) for record in records}


@pytest.mark.parametrize("diversity", [0.0, 1.0])
def test_nobody_holds_a_question_of_the_hold_out_in_the_world(diversity):
    """A17, by hash; the second view is of all domains in equal share."""
    config = world_config(community_diversity=diversity, hold_out=42)
    held_out = load_hold_out(config)
    assert counts(held_out) == dict.fromkeys(sorted(NAMES), 14)
    assert len(keys(held_out)) == 42
    for held in members(config, 6):
        assert not keys(held.train) & keys(held.test)
        assert not keys(held_out) & (keys(held.train) | keys(held.test))
    assert load_hold_out(world_config(hold_out=0)) == ()


def test_members_of_one_community_hold_questions_of_their_own():
    held = members(world_config(), 6)
    assert held[0] != held[3]
    assert held == members(world_config(), 6)
    assert held[0] != members(world_config(seed=1), 6)[0]
    assert load_partition(world_config(), 4, 6) == held[4]


# A dataset --------------------------------------------------------------------------


def rows(start: int, count: int, *, topics: int = 3) -> list[dict[str, str]]:
    return [
        {
            "q": f"What is {n} plus {n}?",
            "a": str(2 * n),
            "t": NAMES[n % topics] if topics else "",
        }
        for n in range(start, start + count)
    ]


def dataset(folder: Path, train, test, *, domain: bool = True):
    """Return a function that makes the settings of a mapped dataset."""
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", test)
    text = SUMS.replace('"a"\n', '"a"\ndomain = "t"\n', 1) if domain else SUMS
    path = write_mapping(folder, text)

    def config(**more: Any) -> RunConfig:
        settings = {
            "mode": "community",
            "communities": ",".join(NAMES),
            "num_records": 60,
            "records_per_round": 5,
            "test_records": 4,
            "hold_out": 12,
        }
        return config_for(path, folder, **{**settings, **more})

    return config


@pytest.fixture(name="mapped")
def mapped_dataset(tmp_path):
    return dataset(tmp_path, rows(0, 120), rows(500, 60))


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_every_record_of_a_dataset_has_one_holder(mapped, diversity):
    config = mapped(community_diversity=diversity)
    held = members(config, 6)
    for split, size in (("train", 10), ("test", 4)):
        all_of = [r.question for m in held for r in getattr(m, split)]
        assert len(all_of) == len(set(all_of)) == 6 * size
        mix = mixed_counts(NAMES, NAMES, diversity, size)
        for partition, member in enumerate(held):
            expected = {d: n for d, n in sorted(mix[NAMES[partition % 3]].items()) if n}
            assert counts(getattr(member, split)) == expected
    assert held == members(config, 6)
    assert held != members(mapped(community_diversity=diversity, seed=3), 6)


@pytest.mark.parametrize("hold_out", [0, 1, 12, 30])
def test_nobody_holds_a_question_of_the_hold_out_of_a_dataset(mapped, hold_out):
    config = mapped(hold_out=hold_out, test_records=3, community_diversity=0.0)
    held_out = load_hold_out(config)
    assert len(held_out) == hold_out
    for held in members(config, 6):
        assert not keys(held_out) & (keys(held.train) | keys(held.test))
        assert not keys(held.train) & keys(held.test)


def test_a_question_that_stands_twice_is_not_held_out_and_held(tmp_path):
    """A17 by hash, not by row: published test files do repeat questions."""
    doubled = rows(500, 30) + rows(500, 30)
    mapped = dataset(tmp_path, rows(0, 120), doubled)
    for seed in range(3):
        config = mapped(hold_out=10, test_records=2, community_diversity=0.0, seed=seed)
        held_out = keys(load_hold_out(config))
        assert held_out
        for held in members(config, 6):
            assert held.test
            assert not held_out & keys(held.test)


def test_at_least_half_of_the_test_questions_are_left_to_members(tmp_path):
    mapped = dataset(tmp_path, rows(0, 120), rows(500, 60), domain=False)
    config = mapped(hold_out=1000, test_records=50, community_diversity=0.0)
    assert len(load_hold_out(config)) == 30
    assert sum(len(m.test) for m in members(config, 6)) == 30


@pytest.mark.parametrize(
    ("more", "split"),
    [
        ({"num_records": 600}, "train"),
        ({"num_records": 126, "community_diversity": 1.0}, "train"),
        ({"hold_out": 30, "test_records": 10, "community_diversity": 1.0}, "test"),
    ],
)
def test_too_few_records_are_one_clear_line(tmp_path, more, split):
    mapped = dataset(tmp_path, rows(0, 120), rows(500, 31, topics=2) + rows(602, 1))
    with pytest.raises(ConfigError) as caught:
        members(mapped(**more), 6)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("`num-records` must leave every member")
    assert f"{split} questions" in line
    assert "found too few; lower num-records" in line


def test_a_dataset_of_one_domain_has_no_diversity(tmp_path):
    mapped = dataset(tmp_path, rows(0, 120, topics=1), rows(500, 60, topics=1))
    with pytest.raises(ConfigError, match="`communities` must be domains") as caught:
        members(mapped(community_diversity=0.1), 3)
    assert "pass `-c community-diversity=0.0`" in str(caught.value)
    # Without it, communities are groups of members and nothing else.
    held = members(mapped(community_diversity=0.0), 6)
    all_of = [record.question for member in held for record in member.train]
    assert len(set(all_of)) == 60


def test_a_dataset_without_domains_has_none_to_name(tmp_path):
    mapped = dataset(tmp_path, rows(0, 120), rows(500, 60), domain=False)
    with pytest.raises(ConfigError, match="`communities` must be domains"):
        members(mapped(), 3)
    assert configured_task(mapped(community_diversity=0.0)).name
    held = members(mapped(community_diversity=0.0), 3)
    assert [len(member.train) for member in held] == [20] * 3


def test_domains_that_are_nobody_s_are_left_alone(tmp_path):
    mapped = dataset(tmp_path, rows(0, 120), rows(500, 60))
    config = mapped(communities="library,harbor", community_diversity=0.5)
    domains = {r.domain for m in members(config, 4) for r in (*m.train, *m.test)}
    assert domains == {"library", "harbor"}
