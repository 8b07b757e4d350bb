"""The three modes hold the same questions where each client asks about one domain."""

from typing import Any

import pytest

from fedcot.community.membership import load_member, task_mix
from fedcot.config import RunConfig
from fedcot.data.partition import load_partition
from fedcot.social.configured import configured_silo, demonstration_of
from fedcot.world.families import CLIENT_NAMES

CLIENTS = len(CLIENT_NAMES)


def config_of(mode: str, **more: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "mode": mode,
        "token_epsilon": 8.0,
        "num_records": 60,
        "records_per_round": 10,
        # One conversation takes place once.
        "num_server_rounds": 1,
        "test_records": 7,
        "hold_out": 10,
        "seed": 3,
    }
    if mode == "community":
        settings["communities"] = ",".join(CLIENT_NAMES)
    return RunConfig(**{**settings, **more})


@pytest.mark.parametrize("partition", range(CLIENTS))
def test_a_member_of_one_domain_holds_what_a_client_of_that_domain_holds(partition):
    client = load_partition(config_of("fedcot"), partition, CLIENTS)
    member = load_member(config_of("community"), partition, CLIENTS)
    assert member.train == client.train
    assert member.test == client.test
    assert {one.domain for one in member.train} == {CLIENT_NAMES[partition]}
    assert (len(member.train), len(member.test)) == (12, 7)


@pytest.mark.parametrize("partition", range(CLIENTS))
def test_a_teacher_client_holds_them_too(partition):
    client = load_partition(config_of("fedcot"), partition, CLIENTS)
    assert load_partition(config_of("social"), partition, CLIENTS) == client
    silo = configured_silo(config_of("social"), partition, CLIENTS)
    assert silo == tuple(map(demonstration_of, client.train))


def test_an_audit_puts_the_same_canaries_behind_them():
    audit = {"canaries": 6, "canary_insertion": "one"}
    for partition in range(CLIENTS):
        held = [
            load_partition(config_of(mode, **audit), partition, CLIENTS).train
            for mode in ("fedcot", "community")
        ]
        assert held[0] == held[1]
    total = sum(
        len(load_partition(config_of("community", **audit), p, CLIENTS).train)
        for p in range(CLIENTS)
    )
    assert total == 60 + 6


def test_several_members_of_a_domain_hold_questions_of_their_own():
    config = config_of("community", communities=CLIENT_NAMES[0], num_records=40)
    first, second = (load_member(config, partition, 2) for partition in range(2))
    assert set(first.train) != set(second.train)
    client = load_partition(config_of("fedcot", num_records=100), 0, CLIENTS)
    assert first.train == client.train


def test_members_that_mix_domains_keep_draws_of_their_own():
    """Numbers of communities that were published do not move."""
    mixed = config_of("community", community_diversity=0.75)
    single = config_of("community")
    mix = task_mix(mixed, 12)[CLIENT_NAMES[0]]
    assert sum(count > 0 for count in mix.values()) > 1
    home = [
        record
        for record in load_member(mixed, 0, CLIENTS).train
        if record.domain == CLIENT_NAMES[0]
    ]
    assert home
    # The first draws of one purpose would be the same.
    assert home != list(load_member(single, 0, CLIENTS).train[: len(home)])
