"""What a simulated member has after it asked the provider: every count by hand."""

import numpy as np
import pytest

from fedcot.community.granularity import OTHER_STEPS, rewrite_world
from fedcot.community.history import ask_provider
from fedcot.community.scenario import Behaviour
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale, Record
from fedcot.data.traces import Scope, TraceClass
from fedcot.tasks.world import WorldTask
from fedcot.teacher.teacher import Completion
from fedcot.world.splits import draw_problems
from tests.communities import AddingProvider, community_config

PROBLEMS = draw_problems("train", ("library",), 8, seed=3)
RECORDS = tuple(problem.record() for problem in PROBLEMS)


class SolvingProvider(AddingProvider):
    """Solves every question; of the first two it says something else."""

    def answer(self, questions, *, on_progress=None) -> list[Completion]:
        self.asked.append(list(questions))
        found = []
        for place, question in enumerate(questions):
            (problem,) = (p for p in PROBLEMS if p.record().question == question)
            text, answer = problem.rationale(2), problem.answer
            if place == 0:
                found.append(Completion("no idea", None))
                continue
            if place == 1:
                text, answer = "1 + 1 = 2", "0"
            found.append(Completion(text, Rationale(text, answer)))
        return found


def asked(config: RunConfig, behaviour: Behaviour | None = None, records=RECORDS):
    return ask_provider(
        SolvingProvider(),
        records,
        config=config,
        task=WorldTask(),
        behaviour=behaviour,
        rng=np.random.default_rng(0),
    )


def test_the_filter_by_answers_leaves_out_what_is_not_the_member_s_own(tmp_path):
    history = asked(community_config(tmp_path, trace_filter="answer"))
    assert (history.num_asked, history.num_unparsed) == (8, 1)
    assert (history.num_wrong, history.num_unlevelled) == (1, 0)
    for trace, problem in zip(history.traces, PROBLEMS[2:], strict=True):
        record = problem.record()
        assert (trace.question, trace.answer) == (record.question, record.answer)
        assert trace.reasoning == problem.rationale(2)
        assert (trace.provider, trace.trace_class) == ("adding", TraceClass.FULL)


@pytest.mark.parametrize("chosen", ["none", "steps"])
def test_without_it_a_wrong_answer_stays(tmp_path, chosen):
    history = asked(community_config(tmp_path, trace_filter=chosen))
    assert (len(history.traces), history.num_wrong) == (7, 0)


@pytest.mark.parametrize("scope", list(Scope))
def test_traces_have_the_scope_of_the_run(tmp_path, scope):
    history = asked(community_config(tmp_path, trace_scope=scope.value))
    assert {trace.scope for trace in history.traces} == {scope}


@pytest.mark.parametrize(
    ("handed_out", "reasoned"),
    [("full", True), ("summary", True), ("recap-only", False), ("absent", False)],
)
def test_a_provider_hands_out_as_much_as_it_says(tmp_path, handed_out, reasoned):
    history = asked(community_config(tmp_path, provider_reasoning=handed_out))
    assert {trace.trace_class.value for trace in history.traces} == {handed_out}
    for trace, problem in zip(history.traces, PROBLEMS[2:], strict=True):
        assert bool(trace.reasoning) == reasoned
        expected = {"full": problem.rationale(2), "summary": problem.rationale(1)}
        assert trace.reasoning == expected.get(handed_out, "")


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_traces_are_rewritten_to_the_level_of_the_run(tmp_path, level):
    history = asked(community_config(tmp_path, granularity=level, trace_filter="none"))
    # The wrong one makes other steps than its question's; no level repairs it.
    assert history.num_unlevelled == 1
    assert len(history.traces) == 6
    expected = rewrite_world(
        [record.question for record in RECORDS],
        [Rationale(problem.rationale(2), problem.answer) for problem in PROBLEMS],
        level,
    )
    assert expected.dropped.get(OTHER_STEPS) is None
    for trace, wanted in zip(history.traces, expected.rationales[2:], strict=True):
        assert wanted is not None
        assert trace.reasoning == wanted.text
        assert trace.reasoning == PROBLEMS[RECORDS.index(_record(trace))].rationale(
            level
        )


def _record(trace) -> Record:
    (record,) = (one for one in RECORDS if one.question == trace.question)
    return record


def test_a_scenario_comes_last(tmp_path):
    """Or a poisoner would be caught by its own filter."""
    config = community_config(tmp_path, trace_filter="answer")
    poisoned = asked(config, Behaviour("poison", 1.0)).traces
    honest = asked(config).traces
    assert [t.answer for t in poisoned] == [t.answer for t in honest]
    assert all(
        new.reasoning != old.reasoning
        for new, old in zip(poisoned, honest, strict=True)
    )
    kept = asked(config, Behaviour("free-rider", 0.5))
    assert len(kept.traces) == 3
    # What was asked was asked all the same.
    assert (kept.num_asked, kept.num_unparsed, kept.num_wrong) == (8, 1, 1)
