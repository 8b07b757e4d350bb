"""Canaries stand in the training data of their holders, and nowhere else."""

from collections import Counter
from typing import Any

import pytest

from fedcot.config import RunConfig
from fedcot.data.partition import load_partition, partition_sizes
from fedcot.errors import ConfigError
from fedcot.evaluation.insertion import (
    canary_records,
    canary_traces,
    held_numbers,
    holders_of,
    inserted_canaries,
    inserted_trials,
)
from fedcot.node import Node
from fedcot.node_state import Owner
from tests.fakes import owner

CLIENTS = 3


def audit_config(**settings: Any) -> RunConfig:
    small = {
        "token_epsilon": 8.0,
        "num_records": 24,
        "records_per_round": 4,
        "test_records": 4,
        "canaries": 6,
        "canary_insertion": "2",
    }
    return RunConfig(**{**small, **settings})


def test_the_same_settings_give_the_same_holders_and_secrets() -> None:
    config = audit_config()
    again = audit_config()
    assert inserted_canaries(config) == inserted_canaries(again)
    chosen = [holders_of(config, number, CLIENTS) for number in range(6)]
    assert chosen == [holders_of(again, number, CLIENTS) for number in range(6)]
    assert {len(holders) for holders in chosen} == {2}
    assert len(set(chosen)) > 1
    other = audit_config(seed=1)
    assert inserted_canaries(config) != inserted_canaries(other)


def test_how_many_references_there_are_changes_no_canary() -> None:
    config = audit_config()
    trials = inserted_trials(config, 40)
    assert tuple(trial.canary for trial in trials) == inserted_canaries(config)
    assert {trial.size for trial in trials} == {40}


@pytest.mark.parametrize(("insertion", "count"), [("all", 3), ("one", 1), ("2", 2)])
def test_so_many_clients_hold_each_canary(insertion: str, count: int) -> None:
    config = audit_config(canary_insertion=insertion)
    held = Counter(
        number
        for partition in range(CLIENTS)
        for number in held_numbers(config, partition, CLIENTS)
    )
    assert held == dict.fromkeys(range(6), count)


def test_more_holders_than_clients_are_refused() -> None:
    config = audit_config(canary_insertion="4")
    with pytest.raises(ConfigError, match="a number from 1 to 3, the number"):
        load_partition(config, 0, CLIENTS)


def test_a_client_holds_its_canaries_behind_its_records_and_never_tests_them() -> None:
    config, clean = audit_config(canary_repeats=2), audit_config(canaries=0)
    canaries = inserted_canaries(config)
    sizes = partition_sizes(config, CLIENTS)
    for partition in range(CLIENTS):
        own = load_partition(config, partition, CLIENTS)
        plain = load_partition(clean, partition, CLIENTS)
        held = held_numbers(config, partition, CLIENTS)
        wanted = [
            (canaries[number].question, canaries[number].secret)
            for number in held
            for _ in range(2)
        ]
        behind = own.train[len(plain.train) :]
        assert own.train[: len(plain.train)] == plain.train
        assert [(one.question, one.answer) for one in behind] == wanted
        assert sizes[partition] == len(own.train) == len(plain.train) + 2 * len(held)
        assert (own.test, own.deep_test) == (plain.test, plain.deep_test)
        questions = {canary.question for canary in canaries}
        assert not questions & {r.question for r in own.test + own.deep_test}
        assert {one.domain for one in behind} <= {plain.train[0].domain}


def test_a_member_holds_the_record_and_the_trace() -> None:
    config = audit_config(
        mode="community", communities="library,bakery", canary_pattern="world-names"
    )
    records = canary_records(config, 0, CLIENTS, domain="library")
    traces = canary_traces(config, 0, CLIENTS)
    assert [r.question for r in records] == [t.question for t in traces]
    secrets = [c.secret for c in inserted_canaries(config)]
    held = held_numbers(config, 0, CLIENTS)
    for number, trace in zip(held, traces, strict=True):
        assert secrets[number] in trace.reasoning
    train = load_partition(config, 0, CLIENTS).train
    assert train[-len(records) :] == tuple(
        canary_records(config, 0, CLIENTS, domain=train[0].domain)
    )


def test_in_mode_social_records_have_none() -> None:
    """There they are demonstrations, which `configured_silo` inserts."""
    config = audit_config(mode="social", num_server_rounds=1)
    assert partition_sizes(config, CLIENTS) == (8, 8, 8)
    questions = {r.question for r in load_partition(config, 0, CLIENTS).train}
    assert not questions & {canary.question for canary in inserted_canaries(config)}


def test_a_deployed_node_refuses_an_audit_run(tmp_path) -> None:
    deployed = Owner.from_node_config(
        {
            "partition-id": 0,
            "num-partitions": CLIENTS,
            "state-dir": str(tmp_path),
            "max-record-epsilon": 9.0,
        }
    )
    with pytest.raises(ConfigError, match="`canaries` must be 0 on a deployed node"):
        Node(audit_config(), deployed)
    Node(audit_config(canaries=0), deployed)
    Node(audit_config(), owner())
