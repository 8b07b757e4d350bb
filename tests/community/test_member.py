"""A member's own side: what its owner decides, and what it asks of whom."""

from pathlib import Path
from typing import Any

import pytest

from fedcot.community.member import Member
from fedcot.community.member_traces import HISTORY, MemberTraces, model_id
from fedcot.community.messages import COUNT, SyntheticRequest, TracesRequest
from fedcot.community.settings import POOLED, PROMPT
from fedcot.data.traces import Scope
from fedcot.errors import ConfigError
from fedcot.node_state import Owner
from tests.communities import (
    NAMES,
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
