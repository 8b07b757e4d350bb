"""Partitions cover the records once, repeat from the seed, and are split as asked."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.data.partitioners import Splitting, partition_rows
from fedcot.data.schema import Record
from fedcot.errors import ConfigError

KINDS = ["iid", "domain", "dirichlet", "label", "natural-id"]
Rows = tuple[tuple[int, ...], ...]


def records(count: int, answers: int = 4, domains: int = 3) -> list[Record]:
    return [Record(f"{n}?", f"a{n % answers}", f"d{n % domains}") for n in range(count)]


def split(
    kind: str, found: list[Record], clients: int, seed: int = 0, alpha: float = 0.5
) -> Rows:
    ids = [f"user {n % 9}" for n in range(len(found))]
    return partition_rows(Splitting(kind, alpha, seed), found, ids, clients)


def held(partitions: Rows) -> list[int]:
    return sorted(row for rows in partitions for row in rows)


@settings(max_examples=25)
@given(st.sampled_from(KINDS), st.integers(60, 120), st.integers(1, 8), st.integers(0))
def test_every_record_has_one_holder(
    kind: str, count: int, clients: int, seed: int
) -> None:
    partitions = split(kind, records(count), clients, seed % 2**63, alpha=5.0)
    assert len(partitions) == clients
    assert held(partitions) == list(range(count))
    assert all(list(rows) == sorted(rows) and rows for rows in partitions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_repeats_from_the_seed(kind: str) -> None:
    found = records(90)
    first = split(kind, found, 5, seed=3)
    assert split(kind, found, 5, seed=3) == first
    assert split(kind, found, 5, seed=4) != first


def test_iid_partitions_differ_by_one_at_most() -> None:
    sizes = {len(rows) for rows in split("iid", records(103), 8)}
    assert sizes == {12, 13}


def test_iid_partitions_are_mixed() -> None:
    found = [Record(f"{n}?", "x", "d" if n < 200 else "e") for n in range(400)]
    for rows in split("iid", found, 4):
        share = sum(found[row].domain == "d" for row in rows) / len(rows)
        assert 0.35 < share < 0.65


@pytest.mark.parametrize("kind", ["domain", "label"])
def test_fewer_clients_than_values_leave_none_out(kind: str) -> None:
    found = records(120, answers=5, domains=5)
    partitions = split(kind, found, 2)
    values = [{found[row].domain for row in rows} for rows in partitions]
    # Values are dealt out in turn.
    assert values == [{"d0", "d2", "d4"}, {"d1", "d3"}]


@pytest.mark.parametrize("kind", ["domain", "label"])
def test_more_clients_than_values_hold_one_each(kind: str) -> None:
    found = records(120, answers=3, domains=3)
    partitions = split(kind, found, 7)
    values = [{found[row].domain for row in rows} for rows in partitions]
    assert values == [{f"d{number % 3}"} for number in range(7)]


def test_all_of_a_person_s_records_are_with_one_client() -> None:
    partitions = split("natural-id", records(95), 4)
    people = [{row % 9 for row in rows} for rows in partitions]
    assert sorted(person for group in people for person in group) == list(range(9))
    assert sorted(map(len, people)) == [2, 2, 2, 3]


def unevenness(partitions: Rows, found: list[Record]) -> float:
    """Mean distance, in total variation, of a client's answers from all answers."""
    answers = sorted({record.answer for record in found})

    def shares(rows: list[int]) -> np.ndarray:
        counts = Counter(found[row].answer for row in rows)
        return np.array([counts[answer] for answer in answers]) / len(rows)

    everybody = shares(list(range(len(found))))
    apart = [abs(shares(list(rows)) - everybody).sum() / 2 for rows in partitions]
    return float(np.mean(apart))


def test_a_smaller_alpha_makes_partitions_more_uneven() -> None:
    found = records(2000)
    apart = [
        np.mean(
            [
                unevenness(split("dirichlet", found, 4, seed, alpha), found)
                for seed in range(6)
            ]
        )
        for alpha in (0.3, 1.0, 10.0, 1000.0)
    ]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 3 * apart[2]
    assert apart[3] < 0.03


def test_the_shares_of_a_label_follow_the_dirichlet_distribution() -> None:
    # With one label, a client's share of it is Beta(alpha, alpha (clients - 1)).
    found = [Record(f"{n}?", "x", "d") for n in range(300)]
    shares = [
        len(split("dirichlet", found, 2, seed, alpha=2.0)[0]) / 300
        for seed in range(150)
    ]
    assert abs(np.mean(shares) - 1 / 2) < 0.05
    assert abs(np.var(shares) - 1 / 20) < 0.015


@pytest.mark.parametrize("kind", KINDS)
def test_one_record_for_each_client_works(kind: str) -> None:
    found = records(4, answers=4, domains=4)
    assert split(kind, found[:1], 1) == ((0,),)
    # Whole records cannot follow the shares of labels that have one each.
    if kind != "dirichlet":
        assert held(split(kind, found, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_without_a_record_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"num-partitions.*\(4\), found 5"):
        split(kind, records(4), 5)


def test_what_cannot_be_split_is_refused_in_one_line() -> None:
    rare = [*records(50, answers=1, domains=1), Record("x?", "b", "rare")]
    cases = [
        ("dirichlet", records(60, answers=1), 50, "dirichlet-alpha"),
        ("label", rare, 4, "partitioner=label"),
        ("domain", rare, 4, "partitioner=domain"),
        ("natural-id", records(60), 10, r"natural ids \(9\), found 10"),
    ]
    for kind, found, clients, words in cases:
        with pytest.raises(ConfigError, match=words) as raised:
            split(kind, found, clients, alpha=0.01)
        assert "\n" not in str(raised.value)
