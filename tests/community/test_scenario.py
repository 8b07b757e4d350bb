"""What communities do against the plan: which traces, how many, and nothing else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.community.scenario import (
    FREE_RIDER,
    POISON,
    STRIKE,
    Behaviour,
    behave,
    parse_scenario,
)
from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError

NAMES = ("library", "bakery", "post")


def traces(count: int, *, equal: int = 0) -> tuple[Trace, ...]:
    """Return traces with reasoning of their own; the first `equal` share theirs."""
    return tuple(
        Trace(
            question=f"question {n}",
            reasoning=f"reasoning {0 if n < equal else n}",
            answer=str(n),
            trace_class=TraceClass.FULL,
            scope=Scope.COALITION,
        )
        for n in range(count)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" , ", {}),
        ("strike:bakery", {"bakery": Behaviour(STRIKE, 1.0)}),
        ("free-rider:post:1", {"post": Behaviour(FREE_RIDER, 1.0)}),
        (
            " poison:library:0.25 ,strike:post:0.5",
            {"library": Behaviour(POISON, 0.25), "post": Behaviour(STRIKE, 0.5)},
        ),
    ],
)
def test_a_scenario_is_read(text, expected):
    assert parse_scenario(text, NAMES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "strike",
        "strike:",
        "leave:bakery",
        ":bakery",
        "strike:school",
        "strike:bakery:0",
        "strike:bakery:-0.5",
        "strike:bakery:1.01",
        "strike:bakery:half",
        "strike:bakery:nan",
        "strike:bakery:inf",
        "strike:bakery:0.5:0.5",
        "strike:bakery,poison:bakery:0.5",
        "Strike:bakery",
        "strike:library+bakery",
    ],
)
def test_what_is_no_scenario_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text, NAMES)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("`scenario` must be")
    assert "found " in line
    assert "one of library, bakery, post, each once" in line
    assert "pass for example `-c scenario=" in line


@pytest.mark.parametrize("kind", [FREE_RIDER, STRIKE])
@pytest.mark.parametrize(
    ("count", "share", "left"),
    [(10, 1.0, 0), (10, 0.3, 7), (10, 0.01, 10), (1, 1.0, 0), (7, 0.5, 3), (4, 0.9, 0)],
)
def test_what_is_kept_back_is_exactly_the_share(kind, count, share, left):
    made = traces(count)
    kept = behave(made, Behaviour(kind, share), rng=np.random.default_rng(0))
    assert len(kept) == left
    # In order, unchanged, none twice.
    places = [made.index(trace) for trace in kept]
    assert places == sorted(set(places))


@given(st.integers(2, 12), st.floats(0.01, 1.0), st.integers(0, 99))
def test_poison_changes_the_reasoning_of_exactly_the_share(count, share, seed):
    made = traces(count)
    given_out = behave(made, Behaviour(POISON, share), rng=np.random.default_rng(seed))
    changed = [
        place
        for place, (old, new) in enumerate(zip(made, given_out, strict=True))
        if new != old
    ]
    assert len(changed) == round(share * count)
    own = {trace.reasoning for trace in made}
    for place in changed:
        old, new = made[place], given_out[place]
        assert (new.question, new.answer, new.scope) == (
            old.question,
            old.answer,
            old.scope,
        )
        assert new.reasoning != old.reasoning
        assert new.reasoning in own


@pytest.mark.parametrize("equal", [2, 5, 7])
@pytest.mark.parametrize("seed", range(8))
def test_poison_gives_no_trace_its_own_words_where_there_are_others(equal, seed):
    made = traces(8, equal=equal)
    poisoned = behave(made, Behaviour(POISON, 1.0), rng=np.random.default_rng(seed))
    assert all(
        new.reasoning != old.reasoning for old, new in zip(made, poisoned, strict=True)
    )


def test_poison_takes_the_class_with_the_reasoning():
    full, none = traces(1)[0], Trace(question="q", answer="1", scope=Scope.PUBLIC)
    first, second = behave(
        (full, none), Behaviour(POISON, 1.0), rng=np.random.default_rng(0)
    )
    assert (first.reasoning, first.trace_class) == ("", TraceClass.ABSENT)
    assert (second.reasoning, second.trace_class) == (full.reasoning, TraceClass.FULL)


def test_a_trace_alone_has_no_other_reasoning_to_be_poisoned_with():
    (only,) = traces(1)
    rng = np.random.default_rng(0)
    assert behave((only,), Behaviour(POISON, 1.0), rng=rng) == (only,)


@pytest.mark.parametrize("kind", [FREE_RIDER, STRIKE, POISON])
def test_the_seed_decides_which(kind):
    made = traces(40)

    def drawn(seed: int) -> tuple[Trace, ...]:
        rng = np.random.default_rng(seed)
        return behave(made, Behaviour(kind, 0.5), rng=rng)

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@pytest.mark.parametrize("kind", [FREE_RIDER, STRIKE])
def test_every_trace_is_kept_back_as_often(kind):
    made = traces(6)
    rng = np.random.default_rng(5)
    counts: Counter[str] = Counter()
    for _ in range(600):
        counts.update(t.answer for t in behave(made, Behaviour(kind, 0.5), rng=rng))
    # Half of 600; six standard deviations of a binomial.
    assert all(abs(counts[trace.answer] - 300) < 75 for trace in made)


def test_without_a_scenario_nothing_changes():
    made = traces(3)
    assert behave(made, None, rng=np.random.default_rng(0)) == made
    assert behave((), Behaviour(POISON, 1.0), rng=np.random.default_rng(0)) == ()
