"""Messages of the community mode: what cannot be put into one, and what is refused."""

import copy
import dataclasses
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedcot.community.coalitions import all_coalitions, label
from fedcot.community.consent import Grant, TraceStore
from fedcot.community.messages import (
    COUNT,
    LONGEST_TEXT,
    CoalitionTrainReply,
    CoalitionTrainRequest,
    SharedTrace,
    StudentPrompt,
    StudentScore,
    StudentsReply,
    StudentsRequest,
    SyntheticReply,
    SyntheticRequest,
    SyntheticTrace,
    TracesReply,
    TracesRequest,
)
from fedcot.community.synthetic import Written
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import WireError
from fedcot.records import CONFIG, Wire, serialise
from tests.communities import NAMES, secret_trace, words_of

NAME, OTHER, RUN = "0f" * 32, "1e" * 32, "ab" * 8
EVERY = all_coalitions(NAMES)
SECRET = "zircon"


def model_of(audience: tuple[str, ...]) -> str:
    return label(audience)


@pytest.fixture
def granted(tmp_path: Path):
    """Return a function that puts one trace into a store and asks for its grant."""
    stores: list[TraceStore] = []

    def grant(trace: Trace, audiences=EVERY) -> Grant:
        folder = tmp_path / str(len(stores))
        stores.append(store := TraceStore(folder, community=NAMES[0]))
        store.add([trace])
        (made,) = store.grant(audiences, model=model_of, purpose="pooled")
        return made

    yield grant
    for store in stores:
        store.close()


def shared(granted, word: str = SECRET, name: str = NAME) -> SharedTrace:
    return SharedTrace(
        granted(secret_trace(word, Scope.PUBLIC)), name=name, coalitions=EVERY
    )


def reply(*traces: SharedTrace, **changes: Any) -> TracesReply:
    count = len(EVERY)
    offered = tuple(sum(place in t.audiences for t in traces) for place in range(count))
    given: dict[str, Any] = {
        "partition_id": 0,
        "community": NAMES[0],
        "manifest_hash": NAME,
        "num_offered": offered,
        "traces": tuple(traces),
    }
    return TracesReply(**{**given, **changes})


# What cannot be sent ----------------------------------------------------------------


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("asked", EVERY + tuple(reversed(EVERY[:3])))
def test_a_shared_trace_reaches_whom_its_scope_permits(tmp_path, scope, asked):
    """Against a formula of its own, over every scope and coalition."""
    own = NAMES[0]
    expected = {
        Scope.OWN: False,
        Scope.COMMUNITY: set(asked) == {own},
        Scope.COALITION: own in asked,
        Scope.PUBLIC: True,
    }[scope]
    with TraceStore(tmp_path, community=own) as store:
        store.add([secret_trace(SECRET, scope)])
        grants = store.grant([asked], model=model_of, purpose="pooled")
    assert bool(grants) == expected
    for grant in grants:
        # The request lists other coalitions too: only the granted place is named.
        places = (*EVERY, ("bakery", "library"))
        made = SharedTrace(grant, name=NAME, coalitions=places)
        assert made.audiences == (places.index(asked),)


def forgeries(trace: Trace) -> list[Any]:
    """Return what looks like a grant and is none."""

    @dataclasses.dataclass(frozen=True)
    class Lookalike:
        key: str
        trace: Trace
        audiences: tuple[tuple[str, ...], ...]

    values = (trace.key, trace, EVERY)
    return [trace, values, dict(zip(Grant.__slots__, values, strict=True)), None,
            Lookalike(*values), Grant, "grant"]  # fmt: skip


def test_nothing_but_a_grant_becomes_a_shared_trace(granted):
    for forged in forgeries(secret_trace(SECRET, Scope.PUBLIC)):
        with pytest.raises(WireError, match="built from a store's Grant") as caught:
            SharedTrace(forged, name=NAME, coalitions=EVERY)
        assert SECRET not in str(caught.value)


def test_a_grant_that_holds_nothing_becomes_no_shared_trace():
    """An object made past the constructor has no trace in it."""
    empty = object.__new__(Grant)
    with pytest.raises(AttributeError):
        SharedTrace(empty, name=NAME, coalitions=EVERY)


def test_a_grant_cannot_be_subclassed_copied_replaced_or_unpickled(granted):
    grant = granted(secret_trace(SECRET, Scope.COMMUNITY))
    with pytest.raises(TypeError):
        type("Wider", (Grant,), {})
    for make in (
        lambda: Grant(grant.key, grant.trace, EVERY),
        lambda: dataclasses.replace(grant, audiences=EVERY),
        lambda: copy.copy(grant),
        lambda: copy.deepcopy(grant),
        lambda: pickle.loads(pickle.dumps(grant)),
        lambda: grant.__setstate__([grant.key, grant.trace, EVERY]),
    ):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(AttributeError):
        grant.audiences = EVERY


def test_a_shared_trace_cannot_be_changed_into_another(granted):
    made = shared(granted)
    for make in (
        lambda: dataclasses.replace(made, question="another"),
        lambda: copy.copy(made),
        lambda: copy.deepcopy(made),
        lambda: pickle.loads(pickle.dumps(made)),
        lambda: made.__setstate__([NAME, "another", "", "", "absent", (0,)]),
    ):
        with pytest.raises((TypeError, WireError)):
            make()
    with pytest.raises(AttributeError):
        made.audiences = (0, 1)


def test_what_was_received_is_not_sent(granted):
    """Or any text could be written down as received, and sent without a grant."""
    received = SharedTrace.from_wire(
        name=NAME,
        question=f"question{SECRET}",
        reasoning="",
        answer="",
        trace_class="absent",
        audiences=(0,),
    )
    message = reply(received)
    assert message.traces[0].question == f"question{SECRET}"
    for encode in (message.encode, lambda: Wire.encode(message)):
        with pytest.raises(WireError) as caught:
            encode()
        assert SECRET not in str(caught.value)
    sent = reply(shared(granted))
    again = TracesReply.decode(sent.encode())
    assert [t.question for t in again.traces] == [t.question for t in sent.traces]
    with pytest.raises(WireError):
        again.encode()


def test_a_subclass_of_a_shared_trace_is_not_sent(granted):
    class Forged(SharedTrace):
        __slots__ = ()

        def __init__(self) -> None:
            self._fill(NAME, f"question{SECRET}", "", "", "absent", (0,))

    with pytest.raises(WireError):
        reply(Forged()).encode()


def test_other_rows_do_not_stand_among_the_traces(granted):
    counts = (1,) * len(EVERY)
    good = shared(granted)
    for row in forgeries(secret_trace(SECRET, Scope.PUBLIC)):
        with pytest.raises((WireError, AttributeError)):
            TracesReply(
                partition_id=0,
                community=NAMES[0],
                manifest_hash=NAME,
                num_offered=counts,
                traces=(row,),
            )
        message = reply(good)
        object.__setattr__(message, "traces", (row,))
        with pytest.raises(WireError, match="SharedTrace only"):
            message.encode()


def test_only_the_texts_travel(granted):
    """Provider, model, subject, scope and the trace's own key stay with the member."""
    grant = granted(secret_trace(SECRET, Scope.PUBLIC))
    sent = serialise(reply(SharedTrace(grant, name=NAME, coalitions=EVERY)).encode())
    found = [word in sent for word in words_of(SECRET)]
    assert found == [True, True, True, False, False, False]
    assert grant.key.encode() not in sent
    assert b"public" not in sent


@pytest.mark.parametrize(
    "changes",
    [
        {"community": f"question {SECRET}"},
        {"community": "../library"},
        {"manifest_hash": f"question {SECRET}"},
        {"withdrawn": (f"question {SECRET}",)},
    ],
)
def test_the_other_texts_of_a_reply_are_names_and_hashes(changes):
    with pytest.raises(WireError) as caught:
        reply(**changes)
    assert SECRET not in str(caught.value)


# Rules of the messages --------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "private question"}, "hex digest"),
        ({"name": "AB" * 32}, "hex digest"),
        ({"question": "a" * (LONGEST_TEXT + 1)}, "at most"),
        ({"reasoning": "a" * (LONGEST_TEXT + 1)}, "at most"),
        ({"answer": "a" * (LONGEST_TEXT + 1)}, "at most"),
        ({"trace_class": "whole"}, "trace-class"),
        ({"audiences": ()}, "audiences"),
        ({"audiences": (1, 1)}, "audiences"),
        ({"audiences": (0, -1)}, "audiences"),
    ],
)
def test_a_received_trace_is_checked(values, reason):
    good: dict[str, Any] = {
        "name": NAME,
        "question": "a",
        "reasoning": "b",
        "answer": "c",
        "trace_class": "full",
        "audiences": (0,),
    }
    assert SharedTrace.from_wire(**good).audiences == (0,)
    with pytest.raises(WireError, match=reason):
        SharedTrace.from_wire(**{**good, **values})


def test_the_longest_text_is_allowed():
    made = SharedTrace.from_wire(NAME, "a" * LONGEST_TEXT, "", "", "absent", (0,))
    assert len(made.question) == LONGEST_TEXT


def test_a_text_that_is_no_unicode_is_repaired_before_it_travels(granted):
    trace = Trace(question="a \ud800 b", scope=Scope.PUBLIC)
    made = SharedTrace(granted(trace), name=NAME, coalitions=EVERY)
    message = TracesReply.decode(reply(made).encode())
    assert message.traces[0].question == made.question
    made.question.encode()


def test_a_name_stands_once_and_no_withdrawn_one_is_offered(granted):
    made = shared(granted)
    twice = shared(granted, "another")
    with pytest.raises(WireError, match="stands twice"):
        reply(made, twice)
    with pytest.raises(WireError, match="withdrawn"):
        reply(made, withdrawn=(NAME,))
    assert reply(made, withdrawn=(OTHER,)).withdrawn == (OTHER,)


def test_audiences_outside_the_request_are_refused(granted):
    made = shared(granted)
    with pytest.raises(WireError, match="for who asked"):
        reply(made, num_offered=(1,) * (len(EVERY) - 1))


def test_the_counts_are_those_of_the_traces(granted):
    one, two = shared(granted), shared(granted, "another", OTHER)
    offered = (2,) * len(EVERY)
    assert reply(one, two).num_offered == offered
    for place in range(len(EVERY)):
        for wrong in (1, 3):
            counts = (*offered[:place], wrong, *offered[place + 1 :])
            with pytest.raises(WireError, match="must count"):
                reply(one, two, num_offered=counts)
    # Where only numbers were asked for there is nothing to count.
    assert reply(num_offered=(5,) * len(EVERY)).num_offered[0] == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"num_offered": (-1,)},
        {"num_asked": -1},
        {"num_unparsed": -1},
        {"num_filtered": -1},
    ],
)
def test_counts_are_not_negative(changes):
    with pytest.raises(WireError, match=">= 0"):
        reply(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "federated"},
        {"purpose": ""},
        {"limit": -1},
        {"run_key": "../../etc"},
        {"server_round": 0},
    ],
)
def test_a_request_for_traces_is_checked(changes):
    good: dict[str, Any] = {
        "server_round": 1,
        "coalitions": ("library",),
        "purpose": COUNT,
        "limit": 0,
        "run_key": RUN,
        "run_dir": "",
    }
    request = TracesRequest(**good)
    assert TracesRequest.decode(request.encode()) == request
    with pytest.raises(WireError):
        TracesRequest(**{**good, **changes})


def test_requests_name_no_adapter_that_was_not_asked_for():
    tensor = {"a": np.ones(2, np.float32)}
    good: dict[str, Any] = {
        "server_round": 1,
        "coalitions": ("library",),
        "run_key": RUN,
        "run_dir": "",
    }
    request = CoalitionTrainRequest(**good, adapters={"library": tensor})
    back = CoalitionTrainRequest.decode(request.encode())
    np.testing.assert_array_equal(back.adapters["library"]["a"], tensor["a"])
    with pytest.raises(WireError, match="`adapters`"):
        CoalitionTrainRequest(**good, adapters={"library+bakery": tensor})
    for kind in (CoalitionTrainRequest, SyntheticRequest):
        with pytest.raises(WireError, match="run-key"):
            kind(**{**good, "run_key": "x/../y"})


def students(**changes: Any) -> StudentsRequest:
    given: dict[str, Any] = {
        "server_round": 1,
        "students": ("provider", "zero-shot", "pooled.library", "prompt.library"),
        "run_key": RUN,
        "run_dir": "",
        "prompts": (StudentPrompt(student="prompt.library", text="3 + 2 = 5"),),
        "adapters": {"pooled.library": {"a": np.ones(2, np.float32)}},
    }
    return StudentsRequest(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompts": ()}, "its adapter or its prompt"),
        ({"adapters": {}}, "its adapter or its prompt"),
        ({"students": ("pooled.library",)}, "its adapter or its prompt"),
        (
            {
                "students": ("../x",),
                "prompts": (),
                "adapters": {"../x": {"a": np.ones(1, np.float32)}},
            },
            "an arm and a coalition",
        ),
        ({"run_key": "x"}, "run-key"),
        ({"server_round": 0}, "server-round"),
    ],
)
def test_every_student_comes_with_what_it_is(changes, reason):
    message = students()
    assert StudentsRequest.decode(message.encode()).prompts == message.prompts
    with pytest.raises(WireError, match=reason):
        students(**changes)


SCORE: dict[str, Any] = {
    "student": "pooled.library+bakery",
    "exact_match": 2,
    "parsed": 3,
    "valid_rationales": 1,
    "num_records": 4,
    "correct": "0110",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"student": "pooled"}, "an arm and a coalition"),
        ({"student": "pooled.a/b"}, "an arm and a coalition"),
        ({"student": "a question"}, "an arm and a coalition"),
        ({"correct": "011"}, "for each record"),
        ({"correct": "01a0"}, "for each record"),
        ({"exact_match": 3}, "count the ones"),
        ({"parsed": 5}, "at most `num-records`"),
        ({"valid_rationales": 5}, "at most `num-records`"),
        ({"parsed": -1}, ">= 0"),
    ],
)
def test_a_score_is_checked(changes, reason):
    score = StudentScore(**SCORE)
    sent = StudentsReply(partition_id=0, withheld=False, scores=(score,))
    assert StudentsReply.decode(sent.encode()) == sent
    with pytest.raises(WireError, match=reason):
        StudentScore(**{**SCORE, **changes})


def test_replies_survive_their_way():
    trained = CoalitionTrainReply(
        partition_id=1,
        withheld=True,
        adapters={"library": {"a": np.arange(3, dtype=np.float32)}},
    )
    back = CoalitionTrainReply.decode(trained.encode())
    np.testing.assert_array_equal(back.adapters["library"]["a"], [0, 1, 2])
    empty = SyntheticReply(partition_id=1, withheld=True, num_trained=0)
    assert SyntheticReply.decode(empty.encode()) == empty


def test_a_row_from_the_wire_is_checked_as_one_that_is_built(granted):
    content = reply(shared(granted)).encode()
    for key, value in (
        ("traces.name", ["a question"]),
        ("traces.trace-class", ["whole"]),
        ("traces.audiences.lengths", [0]),
        ("traces.audiences", [*range(1, len(EVERY)), 99]),
        ("withdrawn", [NAME]),
        ("num-offered", [0] * len(EVERY)),
    ):
        changed = RecordDict({CONFIG: ConfigRecord({**content[CONFIG], key: value})})
        with pytest.raises(WireError):
            TracesReply.decode(changed)
    assert TracesReply.decode(content).traces[0].name == NAME


# Synthetic traces -------------------------------------------------------------------


def test_nothing_but_what_a_generator_wrote_becomes_a_synthetic_trace():
    for forged in (secret_trace(SECRET, Scope.PUBLIC), ("a", "b", "c"), None, Written):
        with pytest.raises(WireError, match="what a generator wrote") as caught:
            SyntheticTrace(forged)
        assert SECRET not in str(caught.value)
    for make in (lambda: Written("a", "b", "c"), lambda: Written(question="a")):
        with pytest.raises(TypeError):
            make()


def test_a_synthetic_trace_that_was_received_is_not_sent():
    received = SyntheticTrace.from_wire(f"question{SECRET}", "a", "b")
    message = SyntheticReply(
        partition_id=0, withheld=True, num_trained=0, traces=(received,)
    )
    with pytest.raises(WireError) as caught:
        message.encode()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("place", range(3))
def test_a_synthetic_trace_has_texts_that_are_not_too_long(place):
    for bad in ("", "a" * (LONGEST_TEXT + 1)):
        texts = ["a", "b", "c"]
        texts[place] = bad
        with pytest.raises(WireError, match="must have texts"):
            SyntheticTrace.from_wire(*texts)


def test_every_trace_class_travels(granted):
    for kind, reasoning in product(TraceClass, ("", "3 + 2 = 5")):
        if bool(reasoning) != (kind in (TraceClass.FULL, TraceClass.SUMMARY)):
            continue
        trace = Trace(
            question=f"q {kind.value}",
            reasoning=reasoning,
            trace_class=kind,
            scope=Scope.PUBLIC,
        )
        made = SharedTrace(granted(trace), name=NAME, coalitions=EVERY)
        back = TracesReply.decode(reply(made).encode()).traces[0]
        assert (back.trace_class, back.reasoning) == (kind.value, reasoning)
