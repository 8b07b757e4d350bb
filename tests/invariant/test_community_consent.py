"""Deployed members are asked for everything; every byte they send is searched.

Each trace has a word of its own in each of its texts. A word on the wire is a trace
that left; that it may leave is worked out here, by a formula that shares nothing with
the code.
"""

import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

import client_app
from fedcot.community import member_training
from fedcot.community.coalitions import all_coalitions, label
from fedcot.community.consent import TraceStore
from fedcot.community.member import Member
from fedcot.community.messages import (
    COUNT,
    EVALUATE_STUDENTS,
    QUERY_TRACES,
    TRAIN_COALITION,
    TRAIN_GENERATOR,
    CoalitionTrainReply,
    CoalitionTrainRequest,
    StudentsReply,
    StudentsRequest,
    SyntheticReply,
    SyntheticRequest,
    TracesReply,
    TracesRequest,
)
from fedcot.community.settings import POOLED, PROMPT
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import FedcotError
from fedcot.node_errors import REFUSED
from fedcot.records import CONFIG, Wire
from tests.communities import (
    NAMES,
    AddingProvider,
    adding_provider,  # noqa: F401
    community_config,
    fill_store,
    gather,
    owner_config,
    secret_trace,
    words_of,
)
from tests.fakes import (
    fake_partition,
    rows_of,
    summary_of,
)
from tests.grid import LocalGrid

RUN = "ab" * 8
EVERY = all_coalitions(NAMES)


def word(partition: int, scope: Scope) -> str:
    return f"{NAMES[partition]}{scope.value}zircon"


def deployed(folder: Path, **settings: Any):
    """Return settings that a deployed node takes."""
    return community_config(
        folder / "run", **{"test_tape": False, "trace_filter": "none", **settings}
    )


@pytest.fixture(name="grid")
def grid_of_owners(tmp_path: Path, provider: AddingProvider):
    """Return a function that starts three members whose stores hold all scopes."""

    def start(**more: Any) -> LocalGrid:
        own = {
            key: more.pop(key) for key in list(more) if key in ("community", "partners")
        }
        for partition in range(3):
            traces = [secret_trace(word(partition, scope), scope) for scope in Scope]
            fill_store(tmp_path, partition, traces)
        nodes = [owner_config(tmp_path, partition, **own) for partition in range(3)]
        config = deployed(tmp_path, **more)
        return LocalGrid(client_app.app, nodes, config.to_run_config())

    yield start
    # Whatever was asked for: a deployed member puts nothing to a provider.
    assert provider.asked == []


def ask(grid: LocalGrid, partition: int, kind: str, request: Wire) -> Message:
    """Send one message to a member, and return what comes back."""
    (node,) = (
        node
        for node, context in grid.contexts.items()
        if context.node_config["partition-id"] == partition
    )
    ids = grid.push_messages([Message(request.encode(), node, kind)])
    (reply,) = grid.pull_messages(ids)
    return reply


def traces_request(labels: Iterable[str], purpose: str = POOLED, **more: Any):
    given: dict[str, Any] = {
        "server_round": 1,
        "coalitions": tuple(labels),
        "purpose": purpose,
        "limit": 0,
        "run_key": RUN,
        "run_dir": "",
    }
    return TracesRequest(**{**given, **more})


def offered(grid: LocalGrid, partition: int, labels: Iterable[str], **more: Any):
    reply = ask(grid, partition, QUERY_TRACES, traces_request(labels, **more))
    assert reply.has_content(), reply.error.reason
    return TracesReply.decode(reply.content)


def may_reach(scope: Scope, own: str, members: set[str]) -> bool:
    """The rule as the owner was told it, and: only coalitions that one is in."""
    widest = {"own": 0, "community": 1, "coalition": 3, "public": 3}[scope.value]
    return own in members and len(members) <= widest


def sent_words(grid: LocalGrid) -> set[str]:
    """Return the words that are anywhere in what was sent."""
    everything = b"".join(sent for _, sent in grid.uplink)
    return {
        word(partition, scope)
        for partition, scope in product(range(3), Scope)
        if any(text in everything for text in words_of(word(partition, scope))[:3])
    }


REQUESTS = [
    ("library",),
    ("bakery",),
    ("library+bakery",),
    ("bakery+library",),  # another order names the same members
    ("library+bakery+harbor",),
    ("bakery", "bakery+harbor"),
    ("harbor", "library+harbor", "library"),
    tuple(map(label, EVERY)),
    tuple(map(label, reversed(EVERY))),
]


@pytest.mark.parametrize("labels", REQUESTS, ids=",".join)
def test_a_word_is_on_the_wire_exactly_where_its_scope_permits(grid, labels):
    members = [set(one.split("+")) for one in labels]
    started = grid()
    expected = set()
    for partition, own in enumerate(NAMES):
        reply = offered(started, partition, labels)
        for scope in Scope:
            places = {n for n, one in enumerate(members) if may_reach(scope, own, one)}
            found = [
                set(trace.audiences)
                for trace in reply.traces
                if word(partition, scope) in trace.question
            ]
            assert found == ([places] if places else [])
            if places:
                expected.add(word(partition, scope))
        counts = [sum(may_reach(scope, own, one) for scope in Scope) for one in members]
        assert list(reply.num_offered) == counts
        counted = offered(started, partition, labels, purpose=COUNT)
        assert list(counted.num_offered) == counts
        assert counted.traces == ()
    assert sent_words(started) == expected
    # Who answered whom is in no message at all.
    everything = b"".join(sent for _, sent in started.uplink)
    for partition, scope in product(range(3), Scope):
        for text in words_of(word(partition, scope))[3:]:
            assert text not in everything


def test_a_count_sends_no_text_and_reaches_nobody(grid, tmp_path):
    started = grid()
    offered(started, 0, map(label, EVERY), purpose=COUNT)
    assert sent_words(started) == set()
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        assert all(store.reached(trace.key) == () for trace in store.active())


def test_what_left_is_in_the_list_of_what_a_trace_reached(grid, tmp_path):
    started = grid()
    offered(started, 0, map(label, EVERY))
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        for trace in store.active():
            reached = {one.audience for one in store.reached(trace.key)}
            assert reached == {
                label(one)
                for one in EVERY
                if may_reach(trace.scope, NAMES[0], set(one))
            }


@pytest.mark.parametrize(
    "labels",
    [
        ("library", "library"),
        ("library+library",),
        ("library+bakery", "library+bakery"),
        ("library+bakery+library",),
    ],
)
def test_a_coalition_that_stands_twice_gets_nothing(grid, labels):
    started = grid()
    reply = ask(started, 0, QUERY_TRACES, traces_request(labels))
    assert reply.has_error()
    assert sent_words(started) == set()


@pytest.mark.parametrize(
    "name", ["library+", "+library", "library+school", "library+../bakery"]
)
@pytest.mark.parametrize("beside", [(), ("library+bakery",)])
def test_a_coalition_with_others_than_partners_gets_nothing(
    grid, tmp_path, name, beside
):
    started = grid()
    for purpose in (POOLED, PROMPT, COUNT):
        request = traces_request((*beside, name), purpose)
        assert ask(started, 0, QUERY_TRACES, request).has_error()
    train = CoalitionTrainRequest(
        server_round=1, coalitions=(*beside, name), run_key=RUN, run_dir=""
    )
    assert ask(started, 0, TRAIN_COALITION, train).has_error()
    assert sent_words(started) == set()
    made = {path.name for path in (tmp_path / "node-0").rglob("*")}
    assert not any(part in made for part in ("school", "bakery"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "school",
        "bakery+harbor",
        "../library",
        "library/../bakery",
        "..",
        "/etc",
        "Library",
        "library bakery",
        "library,bakery",
        " library",
        "library\n",
        "library\x00",
        "lib\u00adrary",
        "a" * 500,
    ],
)
def test_a_coalition_without_the_member_gets_nothing(grid, tmp_path, name):
    started = grid()
    for purpose in (POOLED, PROMPT, COUNT):
        answer = ask(started, 0, QUERY_TRACES, traces_request((name,), purpose))
        reply = TracesReply.decode(answer.content)
        assert (reply.num_offered, reply.traces) == ((0,), ())
    train = CoalitionTrainRequest(
        server_round=1, coalitions=(name,), run_key=RUN, run_dir=""
    )
    answer = ask(started, 0, TRAIN_COALITION, train)
    assert CoalitionTrainReply.decode(answer.content).adapters == {}
    assert sent_words(started) == set()
    # Nothing was made outside of the node's own folder, and no folder named by it.
    made = {path.name for path in (tmp_path / "node-0").rglob("*")}
    assert not any(part in made for part in ("school", "etc", "a" * 500, "bakery"))


@pytest.mark.parametrize(
    "changes",
    [
        {"community": ""},
        {"partners": ""},
        {"partners": "library,bakery"},  # harbor is in the grand coalition
        {"partners": "bakery,harbor"},  # its own is not named
        {"partners": "library+bakery+harbor"},
    ],
)
@pytest.mark.parametrize("kind", [QUERY_TRACES, TRAIN_COALITION])
def test_without_its_owner_s_word_a_member_gives_nothing(grid, tmp_path, changes, kind):
    started = grid(**changes)
    labels = ("library", "library+bakery+harbor")
    request: Wire = traces_request(labels)
    if kind == TRAIN_COALITION:
        request = CoalitionTrainRequest(
            server_round=1, coalitions=labels, run_key=RUN, run_dir=""
        )
    reply = ask(started, 0, kind, request)
    assert reply.has_error()
    assert reply.error.reason == f"{REFUSED} (ConfigError)"
    assert sent_words(started) == set()
    # The owner finds out why.
    log = (tmp_path / "node-0" / "errors.log").read_text()
    (name,) = changes
    said = "given" if name == "community" else "name every community"
    assert f"`{name}` must {'be ' if said == 'given' else ''}{said}" in log
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        assert all(store.reached(trace.key) == () for trace in store.active())


def test_a_store_of_another_community_gives_nothing(grid):
    started = grid(community="bakery")
    assert ask(started, 0, QUERY_TRACES, traces_request(("bakery",))).has_error()
    assert sent_words(started) == set()


def test_the_folder_that_a_server_names_is_not_looked_into(grid, tmp_path):
    started = grid()
    elsewhere = tmp_path / "elsewhere"
    fill_store(elsewhere, 0, [secret_trace("planted", Scope.PUBLIC)])
    reply = offered(started, 0, ("library",), run_dir=str(elsewhere / "node-0"))
    assert {t.question.split()[0] for t in reply.traces} == {
        f"question{word(0, scope)}"
        for scope in (Scope.COMMUNITY, Scope.COALITION, Scope.PUBLIC)
    }
    assert sorted(path.name for path in elsewhere.iterdir()) == ["node-0"]
    assert list((elsewhere / "node-0").iterdir()) == [elsewhere / "node-0" / "traces"]


# Withdrawal -------------------------------------------------------------------------


def withdraw(tmp_path: Path, gone: str) -> tuple[str, ...]:
    """Withdraw a trace of the first member and return what it had reached."""
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        (key,) = (t.key for t in store.active() if gone in t.question)
        (stone,) = store.withdraw([key], reason="I changed my mind")
        return tuple(one.model for one in stone.reached)


def test_a_withdrawn_trace_is_absent_from_the_next_round_and_its_manifest(
    grid, tmp_path
):
    started = grid()
    labels = tuple(map(label, EVERY))
    gone = word(0, Scope.COALITION)
    first = offered(started, 0, labels)
    (name,) = (t.name for t in first.traces if gone in t.question)
    assert first.withdrawn == ()

    models = withdraw(tmp_path, gone)
    own = [one for one in EVERY if "library" in one]
    assert sorted(models) == sorted(f"{RUN}/pooled.{label(one)}/round-1" for one in own)
    started.uplink.clear()
    second = offered(started, 0, labels, server_round=2)
    assert second.withdrawn == (name,)
    assert {t.name for t in second.traces} == {t.name for t in first.traces} - {name}
    assert second.manifest_hash != first.manifest_hash
    assert gone not in sent_words(started)
    # Nor does the owner's machine hold its texts any more.
    for path in (tmp_path / "node-0").rglob("*"):
        if path.is_file():
            assert not any(text in path.read_bytes() for text in words_of(gone))
    # An adapter is not trained on it either.
    assert offered(started, 0, labels, purpose=COUNT).num_offered[0] == 2


def test_a_narrowed_trace_is_absent_from_the_next_round(grid, tmp_path):
    started = grid()
    gone = word(0, Scope.PUBLIC)
    offered(started, 0, ("library+bakery",))
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        (key,) = (t.key for t in store.active() if gone in t.question)
        store.set_scope([key], Scope.COMMUNITY)
    started.uplink.clear()
    again = offered(started, 0, ("library+bakery",), server_round=2)
    assert gone not in sent_words(started)
    assert len(again.traces) == 1
    # It is not withdrawn: others may still use what they were given.
    assert again.withdrawn == ()


def test_the_server_refuses_a_trace_that_was_withdrawn(tmp_path, provider, monkeypatch):
    """A member that offers it again is a failure; the others go on."""
    honest = Member.offer
    seen: dict[int, TracesReply] = {}

    def offers_again(self, request):
        reply = honest(self, request)
        if self.owner.partition_id == 0:
            if request.purpose == POOLED:
                object.__setattr__(reply, "withdrawn", (reply.traces[0].name,))
                object.__setattr__(reply, "traces", reply.traces[1:])
                counts = tuple(count - 1 for count in reply.num_offered)
                object.__setattr__(reply, "num_offered", counts)
            seen[len(seen)] = reply
        return reply

    monkeypatch.setattr(Member, "offer", offers_again)
    for partition in range(3):
        traces = [
            secret_trace(f"{n}{word(partition, Scope.COALITION)}", Scope.COALITION)
            for n in range(3)
        ]
        fill_store(tmp_path, partition, traces)
    config = deployed(tmp_path, sharing="pooled,prompt", coalitions="grand")
    nodes = [owner_config(tmp_path, partition) for partition in range(3)]
    run, _ = gather(config, provider, nodes=nodes)
    summary = summary_of(run)
    assert len(seen) == 2
    (failure,) = (line for line in summary["failures"] if "collect" in line)
    assert "partition 0: A trace that was withdrawn was offered again." in failure


# A whole run ------------------------------------------------------------------------


def full_run(tmp_path: Path, provider: AddingProvider, **settings: Any):
    for partition in range(3):
        traces = [
            *(secret_trace(word(partition, scope), scope) for scope in Scope),
            # Something to learn.
            Trace(
                question=f"{partition} books 2 come back how many books remain",
                reasoning=f"{partition} + 2 = {partition + 2}",
                answer=str(partition + 2),
                trace_class=TraceClass.FULL,
                scope=Scope.COALITION,
            ),
        ]
        fill_store(tmp_path, partition, traces)
    config = deployed(tmp_path, **settings)
    nodes = [owner_config(tmp_path, partition) for partition in range(3)]
    return gather(config, provider, nodes=nodes)


def test_a_whole_run_sends_what_scopes_permit_and_withholds_the_rest(
    tmp_path, provider
):
    run, grid = full_run(
        tmp_path, provider, sharing="pooled,federated", coalitions="grand"
    )
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["failures"] == []
    # Nobody asked for a community alone.
    assert sent_words(grid) == {
        word(partition, scope)
        for partition in range(3)
        for scope in (Scope.COALITION, Scope.PUBLIC)
    }
    for kind, sent in grid.uplink:
        if kind != QUERY_TRACES:
            assert b"zircon" not in sent
        # A member's own records are in nothing that it sends.
        assert not re.search(rb"quokka|axolotl|pangolin", sent)
    for kind, content in grid.replies:
        if kind == TRAIN_COALITION:
            trained = CoalitionTrainReply.decode(content)
            assert trained.withheld
            assert trained.losses == ()
            assert list(trained.adapters) == ["library+bakery+harbor"]
        if kind == EVALUATE_STUDENTS:
            scored = StudentsReply.decode(content)
            assert (scored.withheld, scored.scores) == (True, ())
    # The server's own questions are the only ones that the provider ever saw.
    asked = {question for questions in provider.asked for question in questions}
    own = {
        record.question
        for partition in range(3)
        for split in ("train", "test")
        for record in getattr(fake_partition(deployed(tmp_path), partition, 3), split)
    }
    assert not asked & own
    assert summary["accuracy"] == {}
    # Nothing of a text is in the files of the run, but for what trained the students.
    for name in ("summary.json", "metrics.jsonl", "config.json"):
        assert "zircon" not in (run.path / name).read_text()
    assert not (run.path / "nodes").exists()
    for row in rows_of(run, phase="collect"):
        assert (row["num_asked"], row["num_unparsed"]) == (0, 0)


def test_a_provider_that_a_run_names_is_not_asked_by_a_deployed_member(
    grid, provider, tmp_path
):
    """The server chooses it: it could be an endpoint that keeps what it reads."""
    started = grid()
    request = StudentsRequest(
        server_round=1, students=("provider", "zero-shot"), run_key=RUN, run_dir=""
    )
    reply = ask(started, 0, EVALUATE_STUDENTS, request)
    assert reply.has_content()
    assert StudentsReply.decode(reply.content).scores == ()
    assert provider.asked == []


@pytest.fixture(name="learnt")
def listen_to_training(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Return the words that each training of a member learns from, in order."""
    every = {word(partition, scope) for partition in range(3) for scope in Scope}
    found: list[set[str]] = []
    train = member_training.train_adapter

    def listens(base, examples, settings, **more):
        text = " ".join(f"{one.prompt} {one.target}" for one in examples)
        found.append({one for one in every if one in text})
        return train(base, examples, settings, **more)

    monkeypatch.setattr(member_training, "train_adapter", listens)
    return found


def test_an_adapter_learns_from_what_may_reach_its_coalition(grid, tmp_path, learnt):
    started = grid(sharing="federated", num_server_rounds=3)

    def train(server_round: int, *labels: str) -> CoalitionTrainReply:
        request = CoalitionTrainRequest(
            server_round=server_round, coalitions=labels, run_key=RUN, run_dir=""
        )
        reply = ask(started, 0, TRAIN_COALITION, request)
        assert reply.has_content(), reply.error.reason
        return CoalitionTrainReply.decode(reply.content)

    wide = {word(0, Scope.COALITION), word(0, Scope.PUBLIC)}
    sent = train(1, "library", "bakery", "library+bakery", "bakery+harbor")
    # None for a coalition that it is not in, though a public trace might reach it.
    assert list(sent.adapters) == ["library", "library+bakery"]
    assert learnt == [{*wide, word(0, Scope.COMMUNITY)}, wide]
    withdraw(tmp_path, word(0, Scope.PUBLIC))
    train(2, "library+bakery")
    assert learnt[2:] == [{word(0, Scope.COALITION)}]
    withdraw(tmp_path, word(0, Scope.COALITION))
    assert train(3, "library+bakery").adapters == {}
    assert len(learnt) == 3
    assert sent_words(started) == set()


def test_a_generator_for_some_coalitions_does_not_write_for_others(
    grid, tmp_path, learnt
):
    """What it learnt may reach the first ones only; it must be trained anew."""
    started = grid(sharing="synthetic", synthetic_traces=2)
    wide = {word(0, Scope.COALITION), word(0, Scope.PUBLIC)}

    def write(*labels: str) -> SyntheticReply:
        request = SyntheticRequest(
            server_round=1, coalitions=labels, run_key=RUN, run_dir=""
        )
        reply = ask(started, 0, TRAIN_GENERATOR, request)
        assert reply.has_content(), reply.error.reason
        return SyntheticReply.decode(reply.content)

    first = write("library")
    assert (first.withheld, first.num_trained, first.num_copied) == (True, 0, 0)
    write("library", "library+bakery", "bakery")
    write("library", "library+bakery")
    assert learnt == [{*wide, word(0, Scope.COMMUNITY)}, wide]
    # The same traces train once; without one of them it is another generator.
    withdraw(tmp_path, word(0, Scope.PUBLIC))
    write("library", "library+bakery")
    assert learnt[2:] == [{word(0, Scope.COALITION)}]
    write("bakery")
    assert len(learnt) == 3
    assert sent_words(started) == set()


def test_the_filter_by_answers_works_with_the_owner_s_records(grid, tmp_path):
    config = deployed(tmp_path)
    record = fake_partition(config, 0, 3).train[0]

    def trace(question: str, answer: str) -> Trace:
        return Trace(question=question, answer=answer, scope=Scope.COALITION)

    kept = trace(record.question, record.answer)
    fill_store(tmp_path, 0, [kept, trace(record.question, "77"), trace("unknown", "5")])
    started = grid(trace_filter="answer")
    (only,) = offered(started, 0, ("library",)).traces
    assert (only.question, only.answer) == (kept.question, kept.answer)
    assert offered(started, 0, ("library",), purpose=COUNT).num_offered == (1,)
    assert sent_words(started) == set()
    # What left has no finite epsilon any more, and the ledger says so.
    ledger = tmp_path / "node-0" / "ledger" / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as database:
        tables = {
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        }
        assert "exposures" in tables
        (count,) = database.execute("SELECT count(*) FROM exposures").fetchone()
    assert count == 1


def test_a_limit_is_one_for_each_coalition(grid):
    started, limit = grid(), 1
    asked = [label(one) for one in EVERY]
    everything = offered(grid(), 0, asked, purpose=PROMPT).num_offered
    reply = offered(started, 0, asked, purpose=PROMPT, limit=limit)
    for found, whole in zip(reply.num_offered, everything, strict=True):
        assert found >= min(limit, whole)
    # One wide trace fills every coalition; one of the community may come before it.
    assert len(reply.traces) <= limit + 1 < sum(count > 0 for count in everything)
    assert len(sent_words(started)) == len(reply.traces)


@pytest.mark.parametrize("method", ["offer", "train", "score"])
def test_no_text_of_an_exception_travels(tmp_path, provider, monkeypatch, method):
    honest = getattr(Member, method)

    def fails(self, request):
        honest(self, request)
        with TraceStore(
            tmp_path / f"node-{self.owner.partition_id}" / "traces",
            community=self.owner.community,
        ) as store:
            raise ValueError(f"failed on {store.active()}")

    monkeypatch.setattr(Member, method, fails)
    travelled: list[bytes] = []
    call = LocalGrid._call

    def listens(self, *arguments):
        reply = call(self, *arguments)
        travelled.append(self.uplink[-1][1])
        return reply

    monkeypatch.setattr(LocalGrid, "_call", listens)
    settings = {"sharing": "pooled,federated", "coalitions": "grand"}
    if method == "train":
        full_run(tmp_path, provider, **settings)
    else:
        with pytest.raises(FedcotError, match="ValueError"):
            full_run(tmp_path, provider, **settings)
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    own = word(0, Scope.OWN).encode()
    assert own not in summary
    assert b"zircon" not in summary
    assert b"failed on" not in summary
    assert travelled
    assert not any(b"failed on" in one or own in one for one in travelled)
    assert own in (tmp_path / "node-0" / "errors.log").read_bytes()


def test_a_community_s_prompt_goes_to_its_own_members_only(tmp_path, provider):
    """Another community's demonstrations are traces too."""
    sent: list[tuple[int, StudentsRequest]] = []
    honest = Member.score

    def listens(self, request):
        sent.append((self.owner.partition_id, request))
        return honest(self, request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Member, "score", listens)
        full_run(
            tmp_path,
            provider,
            sharing="pooled,prompt",
            coalitions="alone,library+bakery",
            prompt_traces=9,
        )
    assert len(sent) == 3
    for partition, request in sent:
        own = NAMES[partition]
        coalitions = {one.partition(".")[2] for one in request.students[2:]}
        assert all(own in one.split("+") for one in coalitions)
        texts = " ".join(one.text for one in request.prompts)
        for other, scope in product(range(3), Scope):
            together = {other, partition} <= {0, 1}
            shared = other == partition or together
            permitted = scope in (Scope.COALITION, Scope.PUBLIC) or (
                other == partition and scope is Scope.COMMUNITY
            )
            found = word(other, scope) in texts
            assert found == (shared and permitted), (own, NAMES[other], scope)
    assert json.dumps(sorted(one for one, _ in sent)) == "[0, 1, 2]"


def test_every_text_of_a_reply_but_the_traces_is_a_name_or_a_hash(grid):
    started = grid()
    for partition in range(3):
        offered(started, partition, map(label, EVERY))
    for _, content in started.replies:
        for key, value in content[CONFIG].items():
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, str) or key.startswith("traces."):
                    continue
                known = item in NAMES or item.startswith("TracesReply/")
                assert known or re.fullmatch(r"[0-9a-f]{64}", item), key
