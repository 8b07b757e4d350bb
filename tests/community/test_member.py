"""A member's own side: what its owner decides, and what it asks of whom."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedcot.community import member_training
from fedcot.community.consent import TraceStore
from fedcot.community.member import Member
from fedcot.community.member_traces import HISTORY, MemberTraces, model_id
from fedcot.community.messages import (
    BEFORE,
    COUNT,
    LONGEST_TEXT,
    CoalitionTrainRequest,
    StudentsRequest,
    SyntheticRequest,
    TracesRequest,
)
from fedcot.community.settings import FEDERATED, POOLED, PROMPT
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError
from fedcot.node_state import Owner
from fedcot.runs import METRICS
from fedcot.settings import WORLD
from fedcot.student.training import TrainingOutcome
from tests.communities import (
    NAMES,
    WRONG,
    adding_provider,  # noqa: F401
    community_config,
    fill_store,
    owner_config,
    secret_trace,
    withdraw,
)
from tests.fakes import owner

RUN, OTHER = "ab" * 8, "cd" * 8


def request(purpose: str = POOLED, **changes: Any) -> TracesRequest:
    given: dict[str, Any] = {
        "server_round": 1,
        "coalitions": ("library", "library+bakery"),
        "purpose": purpose,
        "limit": 0,
        "run_key": RUN,
        "run_dir": "",
    }
    return TracesRequest(**{**given, **changes})


def deployed(tmp_path: Path, **settings: Any) -> Member:
    own = {"test_tape": False, "trace_filter": "none", **settings}
    config = community_config(tmp_path / "run", **own)
    return Member(config, Owner.from_node_config(owner_config(tmp_path, 0)))


def test_an_owner_names_community_and_partners(tmp_path):
    named = Owner.from_node_config(
        owner_config(tmp_path, 1, partners=" library , bakery")
    )
    assert (named.community, named.partners) == ("bakery", ("library", "bakery"))
    plain = Owner.from_node_config({"partition-id": 0, "num-partitions": 1,
                                    "simulation": True})  # fmt: skip
    assert (plain.community, plain.partners) == ("", ())


def test_a_simulated_member_s_community_follows_from_its_number(tmp_path, provider):
    config = community_config(tmp_path)
    for partition in range(3):
        # What its node config says is for deployed nodes.
        own = owner(partition, community="another", partners="x")
        assert Member(config, own).traces.community == NAMES[partition]


def test_a_simulated_member_asks_the_provider_once(tmp_path, provider):
    config = community_config(tmp_path)
    asked = request(run_dir=str(tmp_path / "run"))
    first = Member(config, owner()).offer(asked)
    again = Member(config, owner()).offer(asked)
    assert (first.num_asked, first.num_unparsed, first.num_filtered) == (9, 1, 1)
    assert [t.name for t in again.traces] == [t.name for t in first.traces]
    assert len(provider.asked) == 1
    # A member that died before it had noted so asks again, and holds nothing twice.
    (history,) = (tmp_path / "run").rglob(HISTORY)
    history.unlink()
    third = Member(config, owner()).offer(asked)
    assert [t.name for t in third.traces] == [t.name for t in first.traces]
    assert len(provider.asked) == 2


def test_names_of_two_runs_have_nothing_in_common(tmp_path, provider):
    fill_store(tmp_path, 0, [secret_trace(str(n), Scope.PUBLIC) for n in range(4)])
    member = deployed(tmp_path)
    first, second = (
        {trace.name for trace in member.offer(request(run_key=key)).traces}
        for key in (RUN, OTHER)
    )
    assert len(first) == len(second) == 4
    assert not first & second
    # Nor have those of one key under other settings, which make it another run.
    changed = deployed(tmp_path, label_share=0.25).offer(request()).traces
    assert not first & {trace.name for trace in changed}


def test_a_manifest_s_hash_is_that_of_what_is_offered(tmp_path, provider):
    fill_store(tmp_path, 0, [secret_trace("a", Scope.PUBLIC)])
    member = deployed(tmp_path)
    one = member.offer(request()).manifest_hash
    assert member.offer(request()).manifest_hash == one
    fill_store(tmp_path, 0, [secret_trace("b", Scope.COMMUNITY)])
    assert member.offer(request()).manifest_hash != one
    assert member.offer(request(COUNT)).num_offered == (2, 1)


def test_a_trace_lists_run_way_coalition_and_round():
    made = model_id(RUN, POOLED, ("library", "bakery"), 3)
    assert made == f"{RUN}/pooled.library+bakery/round-3"


def test_a_generator_without_traces_writes_nothing(tmp_path, provider):
    fill_store(tmp_path, 0, [secret_trace("a", Scope.OWN)])
    reply = deployed(tmp_path).write(
        SyntheticRequest(
            server_round=1, coalitions=("library",), run_key=RUN, run_dir=""
        )
    )
    assert (reply.traces, reply.num_trained, reply.withheld) == ((), 0, True)


def test_a_deployed_member_knows_its_partners_only(tmp_path, provider):
    traces: MemberTraces = deployed(tmp_path).traces
    assert traces.coalitions(("library+bakery",)) == (("library", "bakery"),)
    with pytest.raises(ConfigError, match="`partners` must name every community"):
        traces.coalitions(("library+school",))


@pytest.mark.parametrize("stranger", ["school", "bakery+school", "", "library/.."])
def test_a_coalition_of_others_is_offered_nothing(tmp_path, provider, stranger):
    fill_store(tmp_path, 0, [secret_trace("a", Scope.COALITION)])
    reply = deployed(tmp_path).offer(
        request(COUNT, coalitions=(stranger, "library+bakery"))
    )
    assert reply.num_offered == (0, 1)


def test_a_limit_holds_for_each_coalition(tmp_path, provider):
    scopes = [Scope.COMMUNITY] * 6 + [Scope.COALITION] * 6
    fill_store(tmp_path, 0, [secret_trace(str(n), s) for n, s in enumerate(scopes)])
    asked = ("library", "library+bakery")
    reply = deployed(tmp_path).offer(request(PROMPT, coalitions=asked, limit=2))
    # Those that the coalition of both may have are not crowded out by the others.
    assert reply.num_offered[1] == 2
    assert 2 <= reply.num_offered[0] <= 4
    names = {name for one in reply.traces for name in [one.name]}
    assert len(names) == len(reply.traces) <= 4


def test_counting_names_the_data_and_what_was_withdrawn(tmp_path, provider):
    traces = [secret_trace(str(n), Scope.COALITION) for n in range(3)]
    fill_store(tmp_path, 0, traces)
    member, asked = deployed(tmp_path), ("library+bakery",)
    before = member.offer(request(COUNT, coalitions=asked))
    assert (before.num_offered, before.withdrawn, before.traces) == ((3,), (), ())
    assert member.offer(request(COUNT, coalitions=asked)) == before
    sent = member.offer(request(POOLED, coalitions=asked))
    withdraw(tmp_path, 0, [traces[0].key])
    after = member.offer(request(COUNT, coalitions=asked))
    assert after.num_offered == (2,)
    assert after.manifest_hash != before.manifest_hash
    assert set(after.withdrawn) < {trace.name for trace in sent.traces}
    assert len(after.withdrawn) == 1


# What is offered at all -------------------------------------------------------------


def reasoned(question: str, reasoning: str, answer: str = "5") -> Trace:
    return Trace(
        question=question,
        reasoning=reasoning,
        answer=answer,
        trace_class=TraceClass.FULL,
        scope=Scope.COALITION,
    )


@pytest.mark.parametrize(("chosen", "offered"), [("none", 3), ("steps", 2)])
def test_a_trace_with_a_wrong_step_is_offered_to_nobody(
    tmp_path, provider, chosen, offered
):
    traces = [
        reasoned("right", "2 + 3 = 5"),
        reasoned("wrong", "2 + 3 = 6", "6"),
        Trace(question="bare", answer="5", scope=Scope.COALITION),
    ]
    fill_store(tmp_path, 0, traces)
    # What a server calls a poisoner is checked like everybody else.
    member = deployed(tmp_path, trace_filter=chosen, scenario="poison:library")
    asked = ("library",)
    for purpose in (POOLED, PROMPT, COUNT):
        reply = member.offer(request(purpose, coalitions=asked))
        assert reply.num_offered == (offered,)
        # How many a deployed node leaves out is not said.
        assert reply.num_filtered == 0
    sent = {one.question for one in member.offer(request(coalitions=asked)).traces}
    assert ("wrong" in sent) == (chosen == "none")


@pytest.mark.parametrize("chosen", ["none", "steps", "answer"])
def test_adapters_learn_what_would_be_pooled(tmp_path, provider, monkeypatch, chosen):
    read: list[str] = []

    def listens(base, examples, settings, *, seed, adapter):
        read.extend(one.target for one in examples)
        return TrainingOutcome(dict(adapter), [0.5], [], 1, 0.0, 0)

    monkeypatch.setattr(member_training, "train_adapter", listens)
    config = community_config(tmp_path / "run", trace_filter=chosen, label_share=0.0)
    member, folder = Member(config, owner()), str(tmp_path / "run")
    reply = member.offer(request(coalitions=("library",), run_dir=folder))
    member.train(
        CoalitionTrainRequest(
            server_round=1, coalitions=("library",), run_key=RUN, run_dir=folder
        )
    )
    false = f"{WRONG} + 2 = {WRONG + 3}"
    assert any(false in text for text in read) == (chosen == "none")
    assert len(read) == len(reply.traces) == reply.num_offered[0]
    # Of nine answers one is unreadable.
    assert reply.num_filtered == 8 - len(read)


def test_a_poisoner_does_not_catch_itself(tmp_path, provider):
    config = community_config(
        tmp_path / "run", trace_filter="steps", scenario="poison:library"
    )
    asked = request(COUNT, coalitions=("library",), run_dir=str(tmp_path / "run"))
    assert Member(config, owner()).offer(asked).num_offered == (8,)
    assert Member(config, owner(1)).offer(
        request(COUNT, coalitions=("bakery",), run_dir=str(tmp_path / "run"))
    ).num_offered == (7,)


@pytest.mark.parametrize("text", ["question", "reasoning", "answer"])
def test_one_trace_that_is_too_long_does_not_stop_the_others(
    tmp_path, provider, caplog, text
):
    texts = {"question": "q", "reasoning": "r", "answer": "a"}
    longest = reasoned(**{**texts, text: "x" * LONGEST_TEXT})
    longer = reasoned(**{**texts, text: "x" * (LONGEST_TEXT + 1)})
    fill_store(tmp_path, 0, [secret_trace("a", Scope.COALITION), longest, longer])
    reply = deployed(tmp_path).offer(request())
    assert reply.num_offered == (3 - 1,) * 2
    assert longer.key not in {trace.key for trace in reply_traces(reply)}
    (line,) = set(caplog.messages)
    assert line.startswith("1 of 3 traces have a text of more than 100000 signs")
    with TraceStore(tmp_path / "node-0" / "traces", community=NAMES[0]) as store:
        assert store.reached(longer.key) == ()
        assert len(store.reached(longest.key)) == 2


def reply_traces(reply) -> list[Trace]:
    return [reasoned(one.question, one.reasoning, one.answer) for one in reply.traces]


# What a node writes down ------------------------------------------------------------

MAPPING = """
name = "sums"
[source]
train = "rows.jsonl"
test-share = 0.2
[fields]
question = "q"
answer = "a"
[answer]
kind = "numeric"
[slots]
question = 8
[templates]
question = "{{ question }}"
"""


@pytest.mark.parametrize("named", ["own", WORLD])
@pytest.mark.parametrize("purpose", [POOLED, FEDERATED])
def test_what_leaves_is_exposed_whatever_data_the_run_names(
    tmp_path, provider, monkeypatch, named, purpose
):
    """Or a server would get texts for nothing by asking over the built-in world."""
    monkeypatch.setattr(
        member_training, "train_adapter",
        lambda base, examples, settings, *, seed, adapter: TrainingOutcome(
            dict(adapter), [0.5], [], 1, 0.0, 0
        ),
    )  # fmt: skip
    mapping = tmp_path / "sums.toml"
    mapping.write_text(MAPPING)
    rows = [{"q": f"What is {n} and {n % 3}?", "a": n + n % 3} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = {"dataset": str(mapping), "data-dir": str(tmp_path)}
    holder = Owner.from_node_config(owner_config(tmp_path, 0, **data))

    def member(dataset: str) -> Member:
        own = {"test_tape": False, "trace_filter": "none", "community_diversity": 0.0}
        if dataset != WORLD:
            own["data_dir"] = "/nowhere"
        config = community_config(tmp_path / "run", dataset=dataset, **own)
        return Member(config, holder)

    home = member(str(mapping))
    records = home.node.partition.train
    fill_store(tmp_path, 0, [reasoned(r.question, "2 + 3 = 5") for r in records[:5]])
    asked = member(WORLD if named == WORLD else str(mapping))
    if purpose == POOLED:
        assert len(asked.offer(request()).traces) == 5
    else:
        training = CoalitionTrainRequest(
            server_round=1, coalitions=("library",), run_key=RUN, run_dir=""
        )
        assert len(asked.train(training).adapters) == 1
    with closing(home.traces.ledger(request())) as ledger:
        keys = ledger.record_keys([record.identity for record in records])
        spent = [ledger.spent(key) for key in keys]
    assert spent == [float("inf")] * 5 + [0.0] * (len(records) - 5)


def test_scores_of_a_deployed_member_are_written_on_its_node_alone(tmp_path, provider):
    member = deployed(tmp_path, max_new_tokens=2, test_records=2)
    asked = StudentsRequest(server_round=1, students=(BEFORE,), run_key=RUN, run_dir="")
    reply = member.score(asked)
    assert (reply.withheld, reply.scores) == (True, ())
    (file,) = (tmp_path / "node-0").rglob(METRICS)
    (row,) = map(json.loads, file.read_text().splitlines())
    assert (row["round"], row["phase"], row["student"]) == (1, "evaluate", BEFORE)
    assert row["num_records"] == len(row["correct"]) == 2
    assert file.stat().st_mode & 0o077 == 0
    # A simulated member's are in the run's own file.
    folder = str(tmp_path / "simulated")
    simulated = Member(community_config(Path(folder), max_new_tokens=2), owner())
    scored = StudentsRequest(
        server_round=1, students=(BEFORE,), run_key=RUN, run_dir=folder
    )
    assert len(simulated.score(scored).scores) == 1
    assert not list((tmp_path / "simulated").rglob(METRICS))
