"""The rule, the store, and what a grant is; every public path that could leak."""

import copy
import dataclasses
import gc
import os
import pickle
import sqlite3
import stat
from itertools import permutations
from pathlib import Path

import pytest

from fedcot.community import consent, consent_database
from fedcot.community.coalitions import all_coalitions, label
from fedcot.community.consent import Added, Grant, TraceStore, permits
from fedcot.community.consent_database import DATABASE_NAME
from fedcot.community.consent_tables import count_traces
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError, LedgerError

COMMUNITIES = ("bakery", "library", "post")
EVERY = all_coalitions(COMMUNITIES)
SECRET_TEXT = "seven-green-lanterns"


def trace(number: int, scope: Scope = Scope.OWN, **changes: str) -> Trace:
    return Trace(
        question=f"question {number} {SECRET_TEXT}",
        reasoning=f"first {number}, then {SECRET_TEXT}",
        answer=str(number),
        trace_class=TraceClass.FULL,
        scope=scope,
        **changes,
    )


def model_of(audience: tuple[str, ...]) -> str:
    return f"student.{label(audience)}"


def grant(store: TraceStore, audiences=EVERY, purpose: str = "distil"):
    return store.grant(audiences, model=model_of, purpose=purpose)


@pytest.fixture
def store(tmp_path: Path):
    with TraceStore(tmp_path / "member", community="library") as opened:
        yield opened


def change(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / DATABASE_NAME)
    with connection:
        connection.execute(statement, values)
    connection.close()


# The rule ---------------------------------------------------------------------------

# Written out by hand: what a member of `library` lets each coalition have.
REACHED = {
    Scope.OWN: set(),
    Scope.COMMUNITY: {("library",)},
    Scope.COALITION: {
        ("library",),
        ("bakery", "library"),
        ("library", "post"),
        ("bakery", "library", "post"),
    },
    Scope.PUBLIC: set(EVERY),
}


@pytest.mark.parametrize("scope", Scope)
def test_the_rule_is_what_the_owner_was_told(scope: Scope) -> None:
    assert {one for one in EVERY if permits(scope, "library", one)} == REACHED[scope]


def test_a_wider_scope_reaches_at_least_as_much() -> None:
    assert list(Scope) == [Scope.OWN, Scope.COMMUNITY, Scope.COALITION, Scope.PUBLIC]
    for community in COMMUNITIES:
        for one in EVERY:
            reaches = [permits(scope, community, one) for scope in Scope]
            assert reaches == sorted(reaches)


@pytest.mark.parametrize(
    "audience",
    [(), "library", ["library"], ("library", "library"), ("lib", 3), None, {"library"}],
)
@pytest.mark.parametrize("scope", Scope)
def test_what_is_no_coalition_is_reached_by_nothing(scope: Scope, audience) -> None:
    assert not permits(scope, "library", audience)


def test_a_part_of_a_name_and_a_scope_as_text_reach_nothing() -> None:
    assert not permits(Scope.COALITION, "lib", ("library", "post"))
    assert not permits("public", "library", ("library",))  # type: ignore[arg-type]
    assert not permits("all", "library", ("library",))  # type: ignore[arg-type]


# The store --------------------------------------------------------------------------


def test_traces_come_back_as_they_were_and_survive_a_restart(tmp_path: Path) -> None:
    given = [
        trace(1, Scope.COMMUNITY, provider="lab", model="big", created="2026-01-31"),
        Trace(question="half \ud83d of a pair, NUL \0 and é", answer="\udcff"),
        Trace(question="", answer="", trace_class=TraceClass.RECAP_ONLY),
        trace(2, Scope.PUBLIC, subject="p-1"),
    ]
    with TraceStore(tmp_path, community="library") as store:
        assert store.add(iter(given)) == Added(4, 0, 0)
    with TraceStore(tmp_path, community="library") as store:
        assert store.active() == tuple(sorted(given, key=lambda one: one.key))


def test_adding_again_changes_nothing_and_counts(store: TraceStore) -> None:
    assert store.add([trace(1), trace(2), trace(1, Scope.PUBLIC)]) == Added(2, 1, 0)
    again = store.add([trace(1, Scope.PUBLIC), trace(3)])
    assert again == Added(1, 1, 0)
    assert {one.scope for one in store.active()} == {Scope.OWN}


def test_a_withdrawn_trace_is_never_added_again(store: TraceStore) -> None:
    store.add([trace(1, Scope.PUBLIC), trace(2)])
    store.withdraw([trace(1).key])
    assert store.add([trace(1, Scope.PUBLIC), trace(3), trace(1)]) == Added(1, 0, 2)
    assert {one.key for one in store.active()} == {trace(2).key, trace(3).key}
    assert trace(1).key not in {one.key for one in grant(store)}


def test_a_batch_is_added_whole_or_not_at_all(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="traces only"):
        store.add([trace(1), "trace"])  # type: ignore[list-item]
    monkeypatch.setattr(consent, "count_call", lambda database: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.add([trace(1)])
    monkeypatch.undo()
    assert store.active() == ()


def test_scopes_are_changed_by_their_owner_all_or_nothing(store: TraceStore) -> None:
    keys = [trace(n).key for n in range(3)]
    store.add([trace(n) for n in range(3)])
    assert store.set_scope([keys[0], keys[1], keys[0]], Scope.PUBLIC) == 2
    assert store.set_scope(keys, Scope.PUBLIC) == 1
    with pytest.raises(ConfigError, match="1 of 2"):
        store.set_scope([keys[0], "0" * 64], Scope.OWN)
    store.withdraw([keys[2]])
    with pytest.raises(ConfigError, match="trace that is there"):
        store.set_scope(keys, Scope.OWN)
    assert {one.scope for one in store.active()} == {Scope.PUBLIC}
    assert store.set_scope(keys[:1], Scope.OWN) == 1
    assert {one.key for one in grant(store)} == {keys[1]}
    assert store.set_scope([], Scope.OWN) == 0


@pytest.mark.parametrize("scope", ["public", "all", None, 3])
def test_a_scope_that_is_none_is_refused(store: TraceStore, scope) -> None:
    store.add([trace(1)])
    with pytest.raises(ConfigError, match="`scope` must be one of own, community"):
        store.set_scope([trace(1).key], scope)


@pytest.mark.parametrize("keys", ["0" * 64, [SECRET_TEXT], [3], ["0" * 63], ["A" * 64]])
def test_keys_that_are_none_are_refused_and_not_quoted(store: TraceStore, keys) -> None:
    for ask in (
        lambda: store.set_scope(keys, Scope.OWN),
        lambda: store.withdraw(keys),
        lambda: store.pseudonyms(keys, run="run"),
        lambda: store.reached(keys if isinstance(keys, list) else [keys]),
    ):
        with pytest.raises(ConfigError, match="64 digits") as caught:
            ask()
        assert SECRET_TEXT not in str(caught.value)


def test_withdrawing_leaves_a_tombstone_with_what_was_reached(
    store: TraceStore,
) -> None:
    store.add([trace(1, Scope.COALITION), trace(2, Scope.PUBLIC), trace(3)])
    key = trace(1).key
    grant(store, [("library",), ("post",)])
    grant(store, [("library", "post")], purpose="audit")
    (stone,) = store.withdraw([key], reason="mine")
    assert stone.models == ("student.library", "student.library+post")
    assert [(one.audience, one.purpose) for one in stone.reached] == [
        ("library", "distil"),
        ("library+post", "audit"),
    ]
    assert (stone.key, stone.reason) == (key, "mine")
    assert stone.time.endswith("Z")
    assert store.tombstones() == (stone,)
    assert store.reached(key) == stone.reached
    # Again: the first one stays, also beside a new one.
    both = store.withdraw([trace(3).key, key], reason="other")
    assert both[1] == stone
    assert (both[0].models, both[0].reason) == ((), "other")
    assert len(store.tombstones()) == 2
    with pytest.raises(ConfigError, match="1 of 2"):
        store.withdraw([trace(2).key, trace(9).key])
    assert [one.key for one in store.active()] == [trace(2).key]


def test_the_same_model_is_listed_once_from_the_first_time(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([trace(1, Scope.COMMUNITY)])
    for second in (5, 3, 9):
        monkeypatch.setattr(consent, "_now", lambda s=second: f"2026-01-01T00:00:0{s}Z")
        grant(store)
    (one,) = store.reached(trace(1).key)
    assert one.time == "2026-01-01T00:00:05Z"
    assert one.model == "student.library"


def test_withdrawn_texts_are_in_no_file(tmp_path: Path) -> None:
    many = [trace(n, Scope.PUBLIC) for n in range(60)]
    large = trace(99, provider=SECRET_TEXT * 2000)
    with TraceStore(tmp_path, community="library") as store:
        store.add([*many, large])
        assert SECRET_TEXT.encode() in (tmp_path / DATABASE_NAME).read_bytes()
        store.withdraw([one.key for one in many[::2]])
        left = (tmp_path / DATABASE_NAME).read_bytes()
        assert b"question 2 " not in left
        assert b"question 3 " in left
        store.withdraw([one.key for one in store.active()])
        for path in tmp_path.iterdir():
            assert SECRET_TEXT.encode() not in path.read_bytes()
        assert store.active() == ()


def test_counts_are_by_scope_and_class(store: TraceStore) -> None:
    recap = Trace(question="q", trace_class=TraceClass.RECAP_ONLY, scope=Scope.PUBLIC)
    store.add([trace(1), trace(2), trace(3, Scope.PUBLIC), recap, trace(4)])
    store.withdraw([trace(4).key])
    counts = count_traces(store.active(), withdrawn=len(store.tombstones()))
    assert (counts.active, counts.withdrawn) == (4, 1)
    assert counts.scopes["own"] == {
        "full": 2,
        "summary": 0,
        "recap-only": 0,
        "absent": 0,
    }
    assert counts.scopes["public"]["recap-only"] == 1
    assert list(counts.scopes) == list(Scope)


def test_prefixes_find_one_trace_or_none(store: TraceStore) -> None:
    traces = [trace(n) for n in range(5)]
    store.add(traces)
    store.withdraw([traces[0].key])
    keys = [one.key for one in traces]
    assert store.find([key[:8].upper() for key in keys]) == tuple(keys)
    assert store.find([keys[1], keys[1][:63]]) == (keys[1], keys[1])
    for prefix in (keys[1][:7], "g" * 8, "", keys[1] + "0", "*" * 8):
        with pytest.raises(ConfigError, match="first 8 hex digits"):
            store.find([prefix])
    with pytest.raises(ConfigError, match="found 0 for 00000000"):
        store.find(["00000000"])
    twin = keys[1][:9] + ("0" * 55 if keys[1][9:] != "0" * 55 else "1" * 55)
    change(
        store.folder, "INSERT INTO tombstones VALUES (?, ?, ?)", twin, "2026", "planted"
    )
    with pytest.raises(ConfigError, match="found 2"):
        store.find([keys[1][:8]])
    assert store.find([keys[1]]) == (keys[1],)


# Grants -----------------------------------------------------------------------------


def test_grants_hold_what_the_rule_permits_and_no_more(store: TraceStore) -> None:
    given = {scope: trace(n, scope) for n, scope in enumerate(Scope)}
    store.add(given.values())
    grants = {one.key: one for one in grant(store)}
    assert list(grants) == sorted(grants)
    assert given[Scope.OWN].key not in grants
    for scope in (Scope.COMMUNITY, Scope.COALITION, Scope.PUBLIC):
        made = grants[given[scope].key]
        assert set(made.audiences) == REACHED[scope]
        assert made.trace == given[scope]
        wrote = {(one.model, one.audience) for one in store.reached(made.key)}
        assert wrote == {(model_of(one), label(one)) for one in REACHED[scope]}
    assert store.reached(given[Scope.OWN].key) == ()


def test_audiences_keep_the_order_asked_and_others_are_left_out(
    store: TraceStore,
) -> None:
    store.add([trace(1, Scope.COALITION)])
    for asked in permutations([("library",), ("post",), ("library", "post")]):
        (made,) = grant(store, asked)
        assert made.audiences == tuple(one for one in asked if "library" in one)
    assert grant(store, [("post",), ("bakery", "post")]) == ()
    assert grant(store, []) == ()
    assert len(store.reached(trace(1).key)) == 2


@pytest.mark.parametrize(
    "audiences",
    [
        ["library"],
        [["library"]],
        [()],
        [("library", "library")],
        [("library+post",)],
        [("Library",)],
        [(["library"],)],
        [("library",), ("library",)],
        [None],
    ],
)
def test_what_is_no_audience_stops_the_grant(store: TraceStore, audiences) -> None:
    store.add([trace(1, Scope.PUBLIC)])
    with pytest.raises(ConfigError, match="`audiences` must"):
        grant(store, audiences)
    assert store.reached(trace(1).key) == ()


@pytest.mark.parametrize("name", ["", None, "\ud800", 3])
def test_a_model_or_purpose_that_cannot_be_listed_stops_the_grant(
    store: TraceStore, name
) -> None:
    store.add([trace(1, Scope.PUBLIC)])
    with pytest.raises(ConfigError, match="`model`"):
        store.grant([("library",)], model=lambda audience: name, purpose="distil")
    with pytest.raises(ConfigError, match="`purpose`"):
        grant(store, purpose=name)
    assert store.reached(trace(1).key) == ()


def test_nothing_else_makes_a_grant(store: TraceStore) -> None:
    """Each line is a way to give a trace audiences that its owner did not permit."""
    store.add([trace(1, Scope.COMMUNITY)])
    (made,) = grant(store)
    wider = (*EVERY,)
    fields = {"key": made.key, "trace": made.trace, "audiences": wider}
    ways = [
        lambda: Grant(),
        lambda: Grant(*fields.values()),
        lambda: Grant(**fields),
        lambda: dataclasses.replace(made, audiences=wider),
        lambda: dataclasses.replace(made),
        lambda: made.__init__(*fields.values()),  # type: ignore[misc]
        lambda: made.__setstate__(list(fields.values())),
        lambda: made.__getstate__(),
        lambda: copy.copy(made),
        lambda: copy.deepcopy(made),
        *(lambda n=n: pickle.dumps(made, n) for n in range(6)),
        lambda: type("Wider", (Grant,), {}),
        lambda: getattr(copy, "replace", dataclasses.replace)(made, audiences=wider),
    ]
    for way in ways:
        with pytest.raises(TypeError, match=r"must come from `TraceStore\.grant`"):
            way()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.audiences = wider  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.audiences[0] = ("post",)  # type: ignore[index]
    assert made.audiences == (("library",),)


def test_a_pickle_written_by_hand_makes_no_grant_that_holds_anything() -> None:
    """The first is an empty object, the second tries to fill it."""
    new = b"cfedcot.community.consent\nGrant\n)\x81"
    empty = pickle.loads(b"\x80\x04" + new + b".")
    with pytest.raises(AttributeError):
        _ = empty.audiences
    with pytest.raises(TypeError, match="must come from"):
        pickle.loads(b"\x80\x04" + new + b"](NNNeb.")


def test_neither_a_grant_nor_an_error_shows_a_text(store: TraceStore) -> None:
    store.add([trace(1, Scope.PUBLIC)])
    (made,) = grant(store)
    assert SECRET_TEXT not in repr(made)
    change(store.folder, "UPDATE traces SET question = ?", SECRET_TEXT.encode())
    for use in (lambda: grant(store), store.active):
        with pytest.raises(LedgerError, match="is damaged") as caught:
            use()
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET_TEXT not in f"{error} {error.args}"
            error = error.__cause__


def test_a_grant_is_checked_again_before_it_is_sent(
    store: TraceStore, tmp_path: Path
) -> None:
    store.add([trace(1, Scope.PUBLIC), trace(2, Scope.COALITION)])
    grants = {one.key: one for one in grant(store)}
    both = list(grants.values())
    store.require_current(both)
    store.set_scope([trace(1).key], Scope.COMMUNITY)
    store.require_current([grants[trace(2).key]])
    with pytest.raises(LedgerError, match="must still hold"):
        store.require_current(both)
    store.set_scope([trace(1).key], Scope.PUBLIC)
    store.require_current(both)
    store.withdraw([trace(2).key])
    with pytest.raises(LedgerError, match="must still hold"):
        store.require_current(both)
    with (
        TraceStore(tmp_path / "other", community="library") as other,
        pytest.raises(LedgerError, match="another store"),
    ):
        other.require_current(both[:1])


# What fails closed ------------------------------------------------------------------


@pytest.mark.parametrize("value", ["everyone", "PUBLIC", "public ", "", b"public", 3])
def test_an_unknown_scope_lets_nothing_leave_until_its_owner_sets_it(
    store: TraceStore, value: object
) -> None:
    store.add([trace(1), trace(2, Scope.PUBLIC)])
    before = grant(store)
    key = trace(1).key
    change(store.folder, "UPDATE traces SET scope = ? WHERE key = ?", value, key)
    with pytest.raises(LedgerError, match="scope that is not known"):
        grant(store, purpose="later")
    assert {one.purpose for one in store.reached(trace(2).key)} == {"distil"}
    store.require_current(before)
    assert store.set_scope([key], Scope.OWN) == 1
    assert len(grant(store)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE traces SET reasoning = x'00' || reasoning",
        "UPDATE traces SET answer = x'ff'",
        "UPDATE traces SET answer = 'text'",
        "UPDATE traces SET trace_class = 'absent'",
        "UPDATE traces SET trace_class = 'all'",
        "UPDATE traces SET key = '" + "0" * 64 + "'",
        "INSERT INTO tombstones SELECT key, '2026', '' FROM traces",
        "DROP TABLE tombstones",
        "DROP TABLE reached",
    ],
)
def test_a_damaged_store_lets_nothing_leave(store: TraceStore, statement: str) -> None:
    store.add([trace(1, Scope.PUBLIC)])
    assert grant(store)
    change(store.folder, statement)
    with pytest.raises(LedgerError):
        grant(store, purpose="later")


def test_a_damaged_page_is_found_when_the_store_is_opened(tmp_path: Path) -> None:
    with TraceStore(tmp_path, community="library") as store:
        store.add([trace(n, Scope.PUBLIC) for n in range(400)])
    path = tmp_path / DATABASE_NAME
    whole = path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    path.write_bytes(whole[:middle] + os.urandom(4096) + whole[middle + 4096 :])
    with pytest.raises(LedgerError, match="cannot be used"):
        TraceStore(tmp_path, community="library")
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="cannot be used"):
        TraceStore(tmp_path, community="library")


def test_another_community_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with TraceStore(tmp_path, community="library") as store:
        store.add([trace(1, Scope.COMMUNITY)])
    with pytest.raises(ConfigError, match="pass `--community library`"):
        TraceStore(tmp_path, community="post")
    with TraceStore.existing(tmp_path) as store:
        assert store.community == "library"
        assert store.active() == (trace(1, Scope.COMMUNITY),)
    for name in ("", "Library", "a+b", "a,b", " a", None, 3, ("library",)):
        with pytest.raises(ConfigError, match="must be a name"):
            TraceStore(tmp_path / "none", community=name)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="fedcot traces add"):
        TraceStore.existing(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_first_start_that_died_is_no_store_and_can_become_one(tmp_path: Path) -> None:
    consent_database.open_database(tmp_path).close()
    with pytest.raises(ConfigError, match="fedcot traces add"):
        TraceStore.existing(tmp_path)
    TraceStore(tmp_path, community="library").close()
    with TraceStore.existing(tmp_path) as store:
        assert store.community == "library"


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 1",
        "DELETE FROM meta WHERE name = 'secret'",
        "DELETE FROM meta WHERE name = 'community'",
        "UPDATE meta SET value = 'short' WHERE name = 'secret'",
        "UPDATE meta SET value = x'00' WHERE name = 'secret'",
    ],
)
def test_a_file_of_others_or_without_its_secret_is_refused(
    tmp_path: Path, statement: str
) -> None:
    TraceStore(tmp_path, community="library").close()
    change(tmp_path, statement)
    with pytest.raises(LedgerError):
        TraceStore(tmp_path, community="library")
    with pytest.raises(LedgerError):
        TraceStore.existing(tmp_path)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    path.touch(mode=0o600)
    change(tmp_path, "CREATE TABLE notes (text)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="file of traces"):
        TraceStore(tmp_path, community="library")
    assert path.read_bytes() == before


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        TraceStore(tmp_path / "a", community="library").close()
    finally:
        os.umask(old)
    path = tmp_path / "a" / DATABASE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(LedgerError, match="0600, found 0640"):
        TraceStore(tmp_path / "a", community="library")


def test_durability_and_overwriting_are_set_and_read_back(store: TraceStore) -> None:
    def found(name: str) -> object:
        return store._connection.execute(f"PRAGMA {name}").fetchone()[0]

    # 3 is EXTRA; with less a power cut could bring back the state before a commit.
    assert (found("journal_mode"), found("synchronous")) == ("delete", 3)
    assert (found("secure_delete"), found("temp_store")) == (1, 2)
    in_memory = sqlite3.connect(":memory:")
    with pytest.raises(LedgerError, match="found memory"):
        consent_database.require_sound(in_memory)
    in_memory.close()


def test_every_grant_writes_so_that_its_commit_syncs(store: TraceStore) -> None:
    """What a killed process wrote is relied on by the next one; it must be synced."""
    store.add([trace(1, Scope.PUBLIC)])

    def calls() -> int:
        (value,) = store._connection.execute(
            "SELECT value FROM meta WHERE name = 'grants'"
        ).fetchone()
        return int(value)

    before = calls()
    grant(store)
    grant(store)
    assert calls() == before + 2


def test_a_full_disk_grants_nothing(store: TraceStore) -> None:
    store.add([trace(n, Scope.PUBLIC) for n in range(200)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LedgerError, match="full"):
        grant(store)
    assert store.reached(trace(1).key) == ()
    store._connection.execute(f"PRAGMA max_page_count={1 << 20}")
    assert len(grant(store)) == 200


def test_nothing_is_granted_once_the_file_was_replaced(tmp_path: Path) -> None:
    with TraceStore(tmp_path, community="library") as store:
        store.add([trace(1, Scope.PUBLIC)])
        path = tmp_path / DATABASE_NAME
        copied = path.read_bytes()
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(LedgerError):
            grant(store)
        path.write_bytes(copied)
        with pytest.raises(LedgerError):
            grant(store)


def test_a_file_that_is_replaced_while_it_is_written_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite looks before it writes; the name may go right after that."""
    count_call = consent.count_call
    uses = {
        "grant": grant,
        "add": lambda store: store.add([trace(2)]),
        "scope": lambda store: store.set_scope([trace(1).key], Scope.OWN),
        "withdraw": lambda store: store.withdraw([trace(1).key]),
    }
    for name, use in uses.items():
        folder = tmp_path / name
        with TraceStore(folder, community="library") as store:
            store.add([trace(1, Scope.PUBLIC)])

            def lose_the_name(database: sqlite3.Connection, place=folder) -> None:
                count_call(database)
                (place / DATABASE_NAME).rename(place / "elsewhere")

            monkeypatch.setattr(consent, "count_call", lose_the_name)
            with pytest.raises(LedgerError, match="are gone"):
                use(store)
            monkeypatch.undo()
        (folder / "elsewhere").rename(folder / DATABASE_NAME)


def test_a_closed_store_and_a_forked_process_get_nothing(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, community="library")
    store.add([trace(1, Scope.PUBLIC)])
    child = os.fork()
    if child == 0:
        try:
            grant(store)
        except LedgerError:
            os._exit(17)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    store.close()
    with pytest.raises(LedgerError, match="cannot be used"):
        grant(store)
    gc.collect()


# Pseudonyms -------------------------------------------------------------------------


def test_pseudonyms_hang_on_store_and_run_and_on_nothing_else(tmp_path: Path) -> None:
    keys = [trace(n).key for n in range(20)]
    with TraceStore(tmp_path / "a", community="library") as store:
        first = store.pseudonyms(keys, run="one")
        assert store.pseudonyms(keys[::-1], run="one") == first[::-1]
        assert store.pseudonyms([keys[0], keys[0]], run="one") == (first[0], first[0])
        other_run = store.pseudonyms(keys, run="two")
        with pytest.raises(ConfigError, match="`run`"):
            store.pseudonyms(keys, run="")
    with TraceStore(tmp_path / "a", community="library") as store:
        assert store.pseudonyms(keys, run="one") == first
    with TraceStore(tmp_path / "b", community="library") as store:
        other_member = store.pseudonyms(keys, run="one")
    assert all(len(name) == 64 for name in first)
    assert len({*keys, *first, *other_run, *other_member}) == 80
