"""A trace: what it is known by, and what it cannot be."""

import hashlib

import pytest

from fedcot.data.traces import REASONED, Scope, Trace, TraceClass
from fedcot.errors import ConfigError


@pytest.mark.parametrize("kind", list(TraceClass))
@pytest.mark.parametrize("reasoning", ["", "because"])
def test_there_is_reasoning_exactly_where_the_class_says_so(kind, reasoning):
    if bool(reasoning) == (kind in REASONED):
        made = Trace(question="secret", reasoning=reasoning, trace_class=kind)
        assert made.trace_class is kind
        return
    with pytest.raises(ConfigError, match="`trace-class` must be") as caught:
        Trace(question="secret", reasoning=reasoning, trace_class=kind)
    assert kind.value in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nothing_leaves_unless_its_owner_says_so():
    assert Trace(question="q").scope is Scope.OWN
    assert Trace(question="q").trace_class is TraceClass.ABSENT


def test_scopes_go_from_narrow_to_wide():
    assert list(Scope) == ["own", "community", "coalition", "public"]


def trace(**changes) -> Trace:
    given = {
        "question": "q",
        "reasoning": "r",
        "answer": "a",
        "trace_class": TraceClass.FULL,
    }
    return Trace(**{**given, **changes})


def test_a_key_is_a_hash_of_the_three_texts():
    assert trace().key == hashlib.sha256(b"q\x1fr\x1fa").hexdigest()
    others = [trace(question="x"), trace(reasoning="x"), trace(answer="x")]
    assert len({trace().key, *(one.key for one in others)}) == 4
    # Texts are told apart, and not only their sum.
    assert trace(question="qr", reasoning="r").key != trace(reasoning="rr").key


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": Scope.PUBLIC},
        {"provider": "x"},
        {"model": "x"},
        {"created": "2026-01-31T12:00:00Z"},
        {"subject": "x"},
        {"trace_class": TraceClass.SUMMARY},
    ],
)
def test_a_trace_stays_the_same_one_under_another_scope(changes):
    """Or what was withdrawn would come back with the next import."""
    assert trace(**changes).key == trace().key


def test_no_text_of_a_person_stands_in_a_repr():
    """An error that quotes an object must not quote what somebody wrote."""
    texts = ("question", "reasoning", "answer", "subject")
    shown = repr(trace(**{name: f"secret {name}" for name in texts}, model="large"))
    assert "secret" not in shown
    assert "large" in shown


def test_a_text_that_is_no_unicode_has_a_key_too():
    assert len(trace(question="a \ud800").key) == 64
