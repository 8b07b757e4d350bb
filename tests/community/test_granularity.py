"""A trace at another level: exact for the world, never a repair, elsewhere its end."""

from dataclasses import replace
from itertools import pairwise
from statistics import median

import pytest

from fedcot.community.granularity import (
    NOT_OF_WORLD,
    OTHER_STEPS,
    TEXT_LEVELS,
    reduce_reasoning,
    rewrite,
    rewrite_world,
    student_measure,
    text_level,
    world_level,
)
from fedcot.community.step_text import TEXT_FILLER, WORLD_FILLER
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale
from fedcot.data.traces import TraceClass
from fedcot.errors import ConfigError
from fedcot.world import FAMILIES, Problem, draw_problems, solves

PROBLEMS = draw_problems("test", tuple(FAMILIES), 180, seed=6)
QUESTION = "Tom has 12 marbles. Loses 5. Finds 3. How many marbles now?"
STEPS = "12 - 5 = 7 , 7 + 3 = 10"


def written(problem: Problem, level: int) -> Rationale:
    return Rationale(problem.rationale(level), problem.answer)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_right_trace_becomes_the_exact_one_of_a_level(level: int) -> None:
    for problem in PROBLEMS:
        for source in (2, 3, 4):
            for question in (problem.text, problem.question):
                found = world_level(question, written(problem, source), level)
                assert found == written(problem, level)


def test_levels_of_the_world_grow_and_keep_the_answer() -> None:
    rows = []
    for level in (1, 2, 3, 4):
        found = [world_level(p, written(p, 2), level) for p in PROBLEMS]
        kept = [one for one in found if one is not None]
        assert len(kept) == len(PROBLEMS)
        for one, problem in zip(kept, PROBLEMS, strict=True):
            assert solves(one.text, one.answer, problem)
        rows.append([len(one.text.split()) for one in kept])
    for coarse, fine in pairwise(rows):
        assert median(coarse) < median(fine)
        assert all(a < b for a, b in zip(coarse, fine, strict=True))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12 - 5 = 8 , 8 + 3 = 11", "11"),  # Wrong arithmetic.
        ("12 - 5 = 7 , 7 + 3 = 10", "11"),  # Wrong answer.
        ("12 + 5 = 17 , 17 - 7 = 10", "10"),  # Right answer, other steps.
        ("7 + 3 = 10", "10"),  # A step is missing.
        ("12 - 5 = 7 , 7 + 3 = 10 , 10 + 0 = 10", "10"),  # A step too many.
        ("7 + 3 = 10 , 12 - 5 = 7", "10"),  # Another order.
        ("112 - 5 = 7 , 7 + 3 = 10", "10"),  # The step is there as a part only.
        ("12 - 5 = 70 , 7 + 3 = 10", "10"),
        ("now find so 12 - 5 = 7 marbles , 7 + 3 = 10", "10"),  # Another cause.
        ("now lose so 12 - 5 = 7 shells , 7 + 3 = 10", "10"),  # Another noun.
        ("well 12 - 5 = 7 , 7 + 3 = 10", "10"),
        ("7 , 10", "10"),  # Results show no steps.
        ("", "10"),
    ],
)
def test_a_wrong_trace_is_dropped_and_never_repaired(text: str, answer: str) -> None:
    for level in (2, 3, 4):
        assert world_level(QUESTION, Rationale(text, answer), level) is None


def test_results_alone_can_become_coarser_only() -> None:
    results = Rationale("7 , 10", "10")
    assert world_level(QUESTION, results, 1) == results
    assert world_level(QUESTION, results, 0) == Rationale("", "10")
    assert world_level(QUESTION, results, 2) is None
    assert world_level(QUESTION, Rationale("8 , 10", "10"), 1) is None


def test_mixed_levels_and_white_space_are_read() -> None:
    mixed = Rationale("lose 12 - 5  = 7 ,\nnow find so 7 + 3 = 10 marbles", "10")
    assert world_level(QUESTION, mixed, 2) == Rationale(STEPS, "10")


def test_unknown_levels_and_questions() -> None:
    with pytest.raises(ConfigError, match="`level`"):
        world_level(QUESTION, Rationale(STEPS, "10"), 5)
    assert world_level("What is love?", Rationale(STEPS, "10"), 2) is None


def test_what_is_dropped_is_counted_by_reason() -> None:
    questions = [QUESTION, "What is love?", QUESTION]
    right = Rationale(STEPS, "10")
    found = rewrite_world(questions, [right, right, replace(right, answer="9")], 1)
    assert found.rationales == (Rationale("7 , 10", "10"), None, None)
    assert found.dropped == {NOT_OF_WORLD: 1, OTHER_STEPS: 1}


def test_padded_traces_have_the_length_of_the_finer_level() -> None:
    measure = student_measure("builtin")
    traces = [written(problem, 2) for problem in PROBLEMS]
    questions = [problem.text for problem in PROBLEMS]
    padded = rewrite_world(questions, traces, 1, padded_to=4, measure=measure)
    assert padded.dropped == {}
    for one, problem in zip(padded.rationales, PROBLEMS, strict=True):
        assert one is not None
        assert measure(one.text) == measure(problem.rationale(4))
        before = one.text.removesuffix(problem.rationale(1)).split()
        assert set(before) == {WORLD_FILLER}
    with pytest.raises(ConfigError, match="`measure`"):
        rewrite_world(questions, traces, 1, padded_to=4)


def levelled(level: int, padding: int = 0, dataset: str = "world") -> RunConfig:
    config = RunConfig(token_epsilon=8.0)
    # The rule that both need `mode=community` is not what is tested here.
    for name, value in {
        "granularity": level,
        "granularity_padding": padding,
        "dataset": dataset,
    }.items():
        object.__setattr__(config, name, value)
    return config


def test_a_run_rewrites_traces_of_the_world() -> None:
    trace = Rationale(STEPS, "10")
    assert rewrite(QUESTION, trace, levelled(0)) == STEPS
    assert rewrite(QUESTION, trace, levelled(1)) == "7 , 10"
    assert rewrite(QUESTION, trace, levelled(3)) == "lose 12 - 5 = 7 , find 7 + 3 = 10"
    padded = rewrite(QUESTION, trace, levelled(1, 2))
    measure = student_measure("builtin")
    assert padded is not None
    assert measure(padded) == measure(STEPS)
    assert padded.endswith(" the 7 , 10")
    assert rewrite(QUESTION, Rationale("7 + 3 = 10", "10"), levelled(1)) is None


def test_a_run_rewrites_traces_of_other_tasks() -> None:
    text = "Count. Add 2. Add 3. That is 5. Check it. So 5."
    trace = Rationale(text, "5")
    assert rewrite("Any?", trace, levelled(1, dataset="svamp")) == "So 5."
    assert rewrite("Any?", trace, levelled(6, dataset="svamp")) == text
    padded = rewrite("Any?", trace, levelled(1, 6, dataset="svamp"))
    assert padded is not None
    assert padded.endswith(" So 5.")
    assert set(padded.removesuffix("So 5.").split()) == {TEXT_FILLER}
    with pytest.raises(ConfigError, match="`granularity`"):
        rewrite("Any?", trace, levelled(TEXT_LEVELS + 1, dataset="svamp"))


def test_levels_of_text_keep_the_end() -> None:
    trace = Rationale("A one. B two. C three.", "3")
    texts = [text_level(trace, level, 3).text for level in range(4)]
    assert texts == ["", "C three.", "B two. C three.", "A one. B two. C three."]
    assert text_level(trace, 1, 3).answer == "3"


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        (STEPS, "7 , 10"),
        ("lose 12 - 5 = 7 , now find so 7 + 3 = 10 marbles", "7 , 10"),
        ("12 or 9 = 9 tom , now compare so 9 or 4 = 4 sue", "9 tom , 4 sue"),
        ("7 , 10", "7 , 10"),
        ("Add 2. That is 5.", "That is 5."),
        ("Tom has 3 + 4 = 7 pens. So 7.", "So 7."),
        ("", ""),
    ],
)
def test_a_summary_leaves_the_steps_out(text: str, summary: str) -> None:
    assert reduce_reasoning(text, TraceClass.SUMMARY) == summary


def test_full_is_all_and_the_other_classes_are_nothing() -> None:
    assert reduce_reasoning(STEPS, TraceClass.FULL) == STEPS
    assert reduce_reasoning(STEPS, TraceClass.RECAP_ONLY) == ""
    assert reduce_reasoning(STEPS, TraceClass.ABSENT) == ""


def test_a_summary_of_right_steps_is_level_one() -> None:
    for problem in PROBLEMS:
        for level in (2, 3, 4):
            found = reduce_reasoning(problem.rationale(level), TraceClass.SUMMARY)
            assert found == problem.rationale(1)
