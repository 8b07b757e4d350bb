"""What a server is told, what it may not be told, and what it refuses."""

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import pytest

from fedcot.community.coalitions import label
from fedcot.community.consent import TraceStore
from fedcot.community.manifest import (
    Entry,
    Manifest,
    joint_hash,
    run_manifest,
)
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError, LedgerError, WireError

HOME, BOTH, ELSEWHERE = ("library",), ("library", "post"), ("post",)
SCOPES = (Scope.OWN, Scope.COMMUNITY, Scope.COALITION, Scope.PUBLIC)


def trace(number: int, scope: Scope) -> Trace:
    return Trace(
        question=f"private question {number}",
        reasoning="private steps",
        answer=f"private answer {number}",
        trace_class=TraceClass.SUMMARY,
        provider="lab",
        model="large",
        created="2026-01-31T12:00:00Z",
        subject="person-1",
        scope=scope,
    )


TRACES = [trace(number, SCOPES[number % 4]) for number in range(8)]


@pytest.fixture
def store(tmp_path: Path):
    with TraceStore(tmp_path / "member", community="library") as opened:
        opened.add(TRACES)
        yield opened


def grants(store: TraceStore, purpose: str = "distil", run: str = "run"):
    return store.grant(
        [HOME, BOTH, ELSEWHERE],
        model=lambda one: f"{run.partition('-')[0]}/{label(one)}",
        purpose=purpose,
    )


def manifest(store, audience=BOTH, run="run", purpose="distil"):
    return run_manifest(
        store, grants(store, purpose, run), audience, run=run, purpose=purpose
    )


def names(store, chosen, run="run"):
    return set(store.pseudonyms([one.key for one in chosen], run=run))


@pytest.mark.parametrize(
    ("audience", "numbers"),
    [(HOME, {1, 2, 3, 5, 6, 7}), (BOTH, {2, 3, 6, 7}), (ELSEWHERE, {3, 7})],
)
def test_a_manifest_lists_what_its_audience_may_have(store, audience, numbers) -> None:
    made = manifest(store, audience)
    assert {one.name for one in made.entries} == names(
        store, [TRACES[number] for number in numbers]
    )
    assert {one.scope for one in made.entries} == {
        TRACES[number].scope for number in numbers
    }
    assert {(e.trace_class, e.provider, e.model) for e in made.entries} == {
        (TraceClass.SUMMARY, "lab", "large")
    }
    assert (made.community, made.audience, made.run) == ("library", audience, "run")


def test_a_server_is_told_neither_texts_nor_keys_nor_who_or_when(store) -> None:
    grants(store)
    store.withdraw([TRACES[3].key], reason="private reason")
    told = json.dumps(manifest(store).to_dict())
    assert "private" not in told
    assert "2026-01-31" not in told
    assert "person-1" not in told
    assert not any(one.key in told for one in TRACES)


def test_names_of_two_runs_or_two_members_have_nothing_in_common(
    store, tmp_path: Path
) -> None:
    with TraceStore(tmp_path / "other", community="library") as other:
        other.add(TRACES)
        made = [
            {one.name for one in each.entries}
            for each in (manifest(store), manifest(store, run="two"), manifest(other))
        ]
    assert [len(each) for each in made] == [4, 4, 4]
    assert len(set.union(*made)) == 12


def test_a_withdrawn_trace_is_gone_from_the_next_manifest_and_listed(store) -> None:
    before = manifest(store)
    stones = store.withdraw([TRACES[2].key, TRACES[1].key, TRACES[0].key])
    after = manifest(store)
    gone = names(store, [TRACES[2]])
    assert {one.name for one in before.entries} - {
        one.name for one in after.entries
    } == gone
    # The other two were never offered to this audience: nobody learns of them.
    assert set(after.withdrawn) == gone
    assert set(manifest(store, HOME).withdrawn) == names(store, TRACES[1:3])
    assert manifest(store, ELSEWHERE).withdrawn == ()
    assert manifest(store, purpose="audit").withdrawn == ()
    assert len(stones) == 3


def test_another_run_does_not_learn_of_what_was_withdrawn(store) -> None:
    """Its server may be another one, which was never offered the trace."""
    used = [manifest(store, run=run) for run in ("run-a", "two-a")]
    assert [len(made.entries) for made in used] == [4, 4]
    store.withdraw([TRACES[2].key])
    # Of one key are all settings, as for who counts what was withdrawn.
    for run, is_told in (("run-a", True), ("run-b", True), ("ru", False), ("x", False)):
        gone = names(store, [TRACES[2]], run) if is_told else set()
        assert set(manifest(store, run=run).withdrawn) == gone


def test_a_grant_that_does_not_hold_any_more_makes_no_manifest(
    store, tmp_path: Path
) -> None:
    old = grants(store)
    store.withdraw([TRACES[2].key])
    with pytest.raises(LedgerError, match="must still hold"):
        run_manifest(store, old, BOTH, run="run", purpose="distil")
    # Those that do not reach the audience are not looked at.
    assert run_manifest(store, old, ELSEWHERE, run="run", purpose="x").entries
    with (
        TraceStore(tmp_path / "other", community="library") as other,
        pytest.raises(LedgerError, match="another store"),
    ):
        run_manifest(other, grants(store), BOTH, run="run", purpose="distil")
    with pytest.raises(WireError, match="store's grants"):
        run_manifest(store, TRACES, BOTH, run="run", purpose="distil")
    with pytest.raises(ConfigError, match="`run`"):
        manifest(store, run="")


def entry(digit: str, **changes) -> Entry:
    values = {
        "name": digit * 64,
        "scope": Scope.PUBLIC,
        "trace_class": TraceClass.FULL,
        "provider": "lab",
        "model": "large",
        **changes,
    }
    return Entry(**values)


def made_of(*entries: Entry, **changes) -> Manifest:
    values = {
        "community": "library",
        "audience": BOTH,
        "run": "run",
        "entries": entries,
        **changes,
    }
    return Manifest(**values)


@pytest.mark.parametrize(
    ("scope", "audience", "fits"),
    [
        (Scope.OWN, HOME, False),
        (Scope.COMMUNITY, HOME, True),
        (Scope.COMMUNITY, BOTH, False),
        (Scope.COALITION, BOTH, True),
        (Scope.COALITION, ELSEWHERE, False),
        (Scope.PUBLIC, ELSEWHERE, True),
        ("public", BOTH, False),
    ],
)
def test_an_entry_that_the_rule_does_not_permit_makes_no_manifest(
    scope, audience, fits
) -> None:
    if fits:
        assert len(made_of(entry("a", scope=scope), audience=audience).entries) == 1
        return
    with pytest.raises(WireError, match="scope that permits"):
        made_of(entry("a", scope=scope), audience=audience)


@pytest.mark.parametrize(
    ("entries", "withdrawn", "said"),
    [
        ("ba", (), "sorted"),
        ("aa", (), "sorted"),
        ("a", ("c" * 64, "b" * 64), "sorted"),
        ("a", ("b" * 64, "b" * 64), "sorted"),
        ("ab", ("b" * 64,), "withdrawn"),
        ("A", (), "64 digits"),
        ("a", ("b",), "64 digits"),
    ],
)
def test_names_are_sorted_digests_and_none_is_withdrawn(
    entries, withdrawn, said
) -> None:
    with pytest.raises(WireError, match=said):
        made_of(*map(entry, entries), withdrawn=withdrawn)
    with pytest.raises(WireError):
        made_of(entry("a", trace_class="full"))


def test_the_hash_is_that_of_the_sorted_entries_and_of_every_field(store) -> None:
    made = manifest(store)
    shuffled = list(grants(store))
    random.Random(0).shuffle(shuffled)
    again = run_manifest(store, shuffled, BOTH, run="run", purpose="distil")
    assert again == made
    assert again.hash == made.hash
    base = made_of(entry("a"), entry("b"), withdrawn=("c" * 64,))
    others = [
        made_of(entry("a"), withdrawn=("c" * 64,)),
        made_of(entry("a"), entry("b")),
        made_of(entry("a"), entry("d"), withdrawn=("c" * 64,)),
        dataclasses.replace(base, community="post"),
        dataclasses.replace(base, audience=HOME),
        dataclasses.replace(base, run="two"),
        *(
            dataclasses.replace(base, entries=(entry("a", **change), entry("b")))
            for change in (
                {"scope": Scope.COALITION},
                {"trace_class": TraceClass.SUMMARY},
                {"provider": "la"},
                {"model": "\ud800"},
            )
        ),
    ]
    assert len({one.hash for one in (base, *others)}) == len(others) + 1
    # Written by hand: a change of the format changes what runs recorded.
    empty = made_of()
    text = (
        '{"audience":["library","post"],"community":"library","entries":[],'
        '"run":"run","withdrawn":[]}'
    )
    assert empty.hash == hashlib.sha256(text.encode()).hexdigest()
    assert joint_hash([base, empty]) == joint_hash([empty, base])
    assert joint_hash([base, empty]) != joint_hash([base, base])
