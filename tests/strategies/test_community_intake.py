"""Replies that no honest member sends are failures, and nothing of them is used."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedcot.community.messages import (
    COUNT,
    EVALUATE_STUDENTS,
    QUERY_TRACES,
    TRAIN_COALITION,
    TRAIN_GENERATOR,
    CoalitionTrainReply,
    SharedTrace,
    StudentScore,
    StudentsReply,
    SyntheticReply,
    TracesReply,
)
from fedcot.community.settings import POOLED, PROMPT
from strategies.community_intake import CommunityIntake
from strategies.exchange import Answer
from strategies.intake import LARGEST_VALUE
from strategies.state import RoundState

LABELS = ("library", "bakery", "library+bakery")
HASH = "ab" * 32
SHAPES = {"a": (2,)}


class Ignored:
    """Takes whatever is noted, and remembers that it was."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(
            community_names=("library", "bakery"), prompt_traces=2, synthetic_traces=1
        )
        self.noted: list[str] = []
        self.results = SimpleNamespace(
            adapter_shapes=lambda: SHAPES, progress=lambda *given, **more: None
        )

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **more: self.noted.append(name)


@pytest.fixture
def intake() -> CommunityIntake:
    made = CommunityIntake(Ignored(), LABELS, None, lambda *given: None)
    made.purpose = POOLED
    return made


@pytest.fixture
def state() -> RoundState:
    made = RoundState(server_round=1)
    for partition in range(2):
        identity = SimpleNamespace(num_records=9)
        made.members[partition] = SimpleNamespace(
            node_id=100 + partition, identity=identity
        )
    return made


def trace(number: int, *audiences: int) -> SharedTrace:
    return SharedTrace.from_wire(f"{number:064x}", "q", "", "a", "absent", audiences)


def reply(*traces: SharedTrace, **changes: Any) -> TracesReply:
    offered = tuple(sum(n in t.audiences for t in traces) for n in range(3))
    given: dict[str, Any] = {
        "partition_id": 0,
        "community": "library",
        "manifest_hash": HASH,
        "num_offered": offered,
        "traces": traces,
    }
    return TracesReply(**{**given, **changes})


def take(intake, state, message, kind=QUERY_TRACES, node: int = 100) -> list[str]:
    """Hand one reply over as it comes, and return the failures."""
    decoded = type(message)
    content = SimpleNamespace(message=message)
    with pytest.MonkeyPatch.context() as patched:
        # What was received cannot be encoded again; decoding is tested elsewhere.
        patched.setattr(decoded, "decode", classmethod(lambda cls, c: c.message))
        answer = Answer(
            node_id=node,
            message_type=kind,
            content=content,  # type: ignore[arg-type]
            uplink_bytes=1,
            downlink_bytes=1,
            seconds=0.0,
        )
        intake.take(state, answer)
    return state.failures


GOOD = (trace(1, 0, 2), trace(2, 2))


def test_an_honest_offer_is_taken(intake, state):
    assert take(intake, state, reply(*GOOD)) == []
    assert intake.gathered.offers[0].traces == GOOD
    assert intake.communities == {0: "library"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (reply(trace(1, 1, 2)), "a coalition that it is not in"),
        (reply(num_offered=(1, 1, 1)), "a coalition that it is not in"),
        (reply(community="school"), "belong to a community"),
        (reply(community="harbor"), "belong to a community"),
        (reply(num_offered=(1, 0)), "belong to a community"),
        (reply(num_offered=(1, 0, 1, 0)), "belong to a community"),
        (reply(partition_id=1), "not its own"),
    ],
)
def test_a_strange_offer_is_a_failure(intake, state, message, reason):
    (failure,) = take(intake, state, message)
    assert reason in failure
    assert intake.gathered.offers == {}
    assert intake.results.noted == []


def test_a_member_stays_in_its_community(intake, state):
    take(intake, state, reply(*GOOD))
    (failure,) = take(intake, state, reply(community="bakery", num_offered=(0, 1, 1)))
    assert "stay in its community" in failure
    assert intake.communities == {0: "library"}


@pytest.mark.parametrize("purpose", [POOLED, PROMPT])
def test_what_was_withdrawn_never_comes_again(intake, state, purpose):
    """Whatever round it is, and whatever the trace is offered for."""
    gone = GOOD[0].name
    assert take(intake, state, reply(GOOD[1], withdrawn=(gone,))) == []
    state.server_round = 2
    # It stays withdrawn where the member does not say so any more.
    assert take(intake, state, reply(GOOD[1])) == []
    intake.purpose = purpose
    (failure,) = take(intake, state, reply(*GOOD))
    assert "withdrawn was offered again" in failure
    assert intake.gathered.offers[0].traces == GOOD[1:]
    assert intake.gathered.prompts == {}
    # Another member's trace may have any name.
    assert len(take(intake, state, reply(*GOOD, partition_id=1), node=101)) == 1


def test_texts_that_were_not_asked_for_are_not_kept(intake, state):
    intake.purpose = COUNT
    (failure,) = take(intake, state, reply(*GOOD))
    assert "not asked for" in failure
    assert intake.gathered.offers == {}
    assert take(intake, state, reply(num_offered=(5, 0, 7)))[1:] == []


def test_counts_are_those_of_the_traces_that_came(intake, state):
    """A member's word for traces that it did not send would be its weight."""
    claims = {"traces": (), "num_offered": (2**62, 0, 2**62)}
    for purpose in (POOLED, PROMPT):
        intake.purpose = purpose
        assert "must count" in take(intake, state, reply(**claims))[-1]
    assert (intake.gathered.offers, intake.gathered.prompts) == ({}, {})
    assert len(take(intake, state, reply())) == 2


@pytest.mark.parametrize("own", [1, 2])
def test_no_more_prompts_come_than_were_asked_for(intake, state, own):
    """Two for each coalition that the member is in; one may lack room in some."""
    intake.purpose, intake.labels = PROMPT, LABELS[: 2 * own - 1]
    made = [
        replace_offered(reply(*(trace(n, 0) for n in range(count))), len(intake.labels))
        for count in (2 * own, 2 * own + 1)
    ]
    assert take(intake, state, made[0]) == []
    (failure,) = take(intake, state, made[1])
    assert f"At most 2 traces were asked for each of {own} coalitions" in failure
    assert len(intake.gathered.prompts[0].traces) == 2 * own
    # Of pooled traces a member sends what it has.
    intake.purpose = POOLED
    assert len(take(intake, state, made[1])) == 1


def replace_offered(message: TracesReply, count: int) -> TracesReply:
    """Return a reply that counts for so many coalitions."""
    return replace(message, num_offered=message.num_offered[:count])


def trained(
    *labels: str, shape: tuple[int, ...] = (2,), value: float = 0.0, **more: Any
) -> CoalitionTrainReply:
    tensor = {"a": np.full(shape, value, np.float32)}
    given: dict[str, Any] = {"partition_id": 0, "withheld": True, **more}
    return CoalitionTrainReply(**given, adapters=dict.fromkeys(labels, tensor))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (trained("bakery"), "not asked for"),
        (trained("library", "bakery"), "not asked for"),
        (trained("../library"), "not asked for"),
        (trained("library+bakery", shape=(3,)), "does not fit"),
        (trained("library", value=1e30), "at most 10000 in size"),
        (trained("library", value=-1.01 * LARGEST_VALUE), "at most 10000 in size"),
        (trained("library", value=np.nan), "at most 10000 in size"),
        (replace(trained("library"), partition_id=1), "not its own"),
    ],
)
def test_an_adapter_that_was_not_asked_for_is_a_failure(intake, state, message, reason):
    take(intake, state, reply(*GOOD))
    intake.gathered.adapters_asked[0] = {"library", "library+bakery"}
    (failure,) = take(intake, state, message, TRAIN_COALITION)
    assert reason in failure
    assert intake.gathered.trained == {}
    assert not state.learnt
    good = trained("library", "library+bakery", value=LARGEST_VALUE)
    take(intake, state, good, TRAIN_COALITION)
    assert set(intake.gathered.trained) == {0}


def written(**changes: Any) -> SyntheticReply:
    given: dict[str, Any] = {"partition_id": 0, "withheld": True, "num_trained": 0}
    return SyntheticReply(**{**given, **changes})


@pytest.mark.parametrize(
    ("kind", "silent", "telling"),
    [
        (QUERY_TRACES, reply(*GOOD), reply(*GOOD, num_asked=9)),
        (QUERY_TRACES, reply(*GOOD), reply(*GOOD, num_filtered=1)),
        # What is refused has come all the same.
        (QUERY_TRACES, reply(*GOOD), reply(community="school", num_unparsed=1)),
        (TRAIN_COALITION, trained(), trained(withheld=False)),
        (TRAIN_COALITION, trained(), trained(losses=(0.5,))),
        (TRAIN_GENERATOR, written(), written(withheld=False)),
        (TRAIN_GENERATOR, written(), written(num_copied=1)),
    ],
)
def test_losses_and_counts_are_noted_as_sent(intake, state, kind, silent, telling):
    """A run may end before scores come, and says what was sent until then."""
    take(intake, state, silent, kind)
    assert not state.metrics_sent
    take(intake, state, telling, kind)
    assert state.metrics_sent


def scored(partition: int = 0, **changes: Any) -> StudentsReply:
    score = StudentScore(
        student="zero-shot",
        exact_match=1,
        parsed=1,
        valid_rationales=0,
        num_records=2,
        correct="10",
    )
    given: dict[str, Any] = {"withheld": False, "scores": (score,)}
    return StudentsReply(partition_id=partition, **{**given, **changes})


def test_scores_come_in_a_member_s_own_name(intake, state):
    (failure,) = take(intake, state, scored(1), EVALUATE_STUDENTS)
    assert "not its own" in failure
    assert intake.gathered.scored == {}
    assert not state.metrics_sent
    take(intake, state, scored(withheld=True, scores=()), EVALUATE_STUDENTS)
    assert not state.metrics_sent
    take(intake, state, scored(), EVALUATE_STUDENTS)
    assert state.metrics_sent
