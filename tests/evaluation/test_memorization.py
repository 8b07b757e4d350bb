"""Audits of stubs, of a planted leak and of a student that learnt nothing."""

import json
import math
import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import PATTERNS, CanaryTrial, draw_trials
from fedcot.evaluation.memorization import (
    MembersReport,
    MemorizationReport,
    audit,
    audit_members,
)
from fedcot.evaluation.spans import ScoreFunction, SecretSpan, model_scores
from fedcot.models.loading import load_model
from fedcot.student.base import TrainingSettings
from fedcot.student.examples import Example
from fedcot.student.training import train_adapter
from fedcot.tasks.world import WorldTask
from tests.tiny import tiny_base

SETTINGS = TrainingSettings(
    lora_r=32, lora_alpha=64, local_epochs=60, batch_size=10, learning_rate=2e-2
)
CODES = PATTERNS["world-codes"]


def trials_of(trials: int, size: int, seed: int = 0) -> tuple[CanaryTrial, ...]:
    return draw_trials(CODES, WorldTask(), trials=trials, size=size, seed=seed)


def chance(text: str) -> float:
    """Return a number in [0, 1) that has nothing to do with who is the canary."""
    return zlib.crc32(text.encode()) / 2**32


def uninformed(spans: Sequence[SecretSpan]) -> list[float]:
    return [-5 + chance(span.prompt + span.secret) for span in spans]


def memorising(trials: Sequence[CanaryTrial]) -> ScoreFunction:
    known = {(trial.canary.prompt, trial.canary.secret) for trial in trials}
    return lambda spans: [
        0.0 if (span.prompt, span.secret) in known else score
        for span, score in zip(spans, uninformed(spans), strict=True)
    ]


def test_a_model_that_memorised_has_rank_zero_always() -> None:
    trials = trials_of(10, 1000)
    found = audit(memorising(trials), trials)
    assert found.ranks == (0,) * 10
    assert found.exposure.rank_zero.rate == 1
    assert found.exposure.mean_exposure == pytest.approx(math.log2(1000))
    assert found.exposure.rank_zero_p_value == pytest.approx(1e-30)


def test_a_model_that_knows_nothing_has_the_exposure_of_chance() -> None:
    trials = trials_of(60, 1000)
    found = audit(uninformed, trials).exposure
    # Four standard errors of a mean of 60, each with deviation 1 / ln 2.
    assert found.mean_exposure == pytest.approx(1.436, abs=0.75)
    assert found.uniformity_p_value > 0.01
    assert found.rank_zero_p_value > 0.01
    assert abs(found.mean_rank.z) < 3


def test_one_score_for_all_is_no_leak() -> None:
    trials = trials_of(3, 20)
    found = audit(lambda spans: [-1.0] * len(spans), trials)
    assert found.ranks == (19, 19, 19)
    assert found.exposure.mean_exposure == 0


def test_a_leak_among_drawn_canaries_is_seen() -> None:
    trials = trials_of(6, 50)
    found = audit(memorising(trials[:2]), trials, drawn=[True] * 2 + [False] * 4)
    assert found.exposure.drawn_rank_zero is not None
    assert (found.exposure.drawn_rank_zero.hits, found.ranks[:2]) == (2, (0, 0))
    assert found.exposure.rank_zero.n == 6


def test_trials_of_one_size_and_a_score_for_each_are_needed() -> None:
    with pytest.raises(ConfigError, match="at least one trial"):
        audit(uninformed, ())
    with pytest.raises(ConfigError, match=r"sizes \[5, 6\]"):
        audit(uninformed, trials_of(1, 5) + trials_of(1, 6))
    with pytest.raises(ValueError, match="5 scores are needed, found 4"):
        audit(lambda spans: [0.0] * 4, trials_of(1, 5))


def test_a_report_is_plain_and_holds_no_text() -> None:
    trials = trials_of(1, 5)
    found = audit(memorising(trials), trials).to_dict()
    written = json.dumps(found, allow_nan=False)
    assert trials[0].canary.secret not in written
    assert found["exposure"]["mean_rank"]["low"] is None
    assert found["exposure"]["rank_zero"]["rate"] == 1
    assert found["ranks"] == [0]


def with_the_least_likely(trial: CanaryTrial, score: ScoreFunction) -> CanaryTrial:
    """Return a trial whose canary is the string that a model expects least."""
    everything = [trial.canary, *trial.references]
    scores = score(trial.spans)
    place = int(np.argmin(scores))
    others = everything[:place] + everything[place + 1 :]
    return CanaryTrial(everything[place], tuple(others))


def test_a_planted_leak_is_found_and_the_untouched_student_is_clean() -> None:
    base = load_model("builtin", "student")
    clean = model_scores(base)
    planted, other = (with_the_least_likely(t, clean) for t in trials_of(2, 100))
    settings = TrainingSettings(lora_r=4, lora_alpha=8, local_epochs=25, batch_size=8)
    outcome = train_adapter(base, [planted.canary.example()] * 8, settings, seed=0)
    trained = model_scores(base, adapter=outcome.adapter, settings=settings)
    assert audit(trained, [planted]).ranks == (0,)
    # What was not planted is not found, although the student was trained.
    assert audit(trained, [other]).ranks[0] > 10
    assert audit(clean, [planted, other]).ranks == (99, 99)


def null_audit(trials: int, size: int) -> MemorizationReport:
    base = load_model("builtin", "student")
    return audit(model_scores(base, batch_size=256), trials_of(trials, size, seed=11))


def test_the_untouched_student_has_the_exposure_of_chance() -> None:
    found = null_audit(30, 25).exposure
    assert found.uniformity_p_value > 0.01
    assert found.rank_zero_p_value > 0.01
    assert found.mean_exposure == pytest.approx(
        found.null_mean_exposure, abs=4 * 1.4 / math.sqrt(30)
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_untouched_student_has_the_exposure_of_chance_among_a_thousand() -> None:
    found = null_audit(100, 1000).exposure
    assert (found.trials, found.size) == (100, 1000)
    assert found.uniformity_p_value > 0.01
    assert found.rank_zero.hits <= 2
    assert found.mean_exposure == pytest.approx(1.436, abs=0.58)
    assert abs(found.mean_rank.z) < 3


def texts(name: str, first: int, count: int) -> list[tuple[str, str]]:
    """Return prompts with targets that cannot be guessed from them."""
    return [
        (
            f"explain: {name} has {number} boxes rationale:",
            " ".join(str(int(99 * chance(f"{name}{number}{i}"))) for i in range(3)),
        )
        for number in range(first, first + count)
    ]


MEMBERS = {"tom": texts("tom", 0, 10), "sue": texts("sue", 0, 10)}
CONTROLS = {name: texts(name, 10, 10) for name in MEMBERS}


@pytest.fixture(scope="module")
def report_on_tom() -> MembersReport:
    """Audit a student that was trained on the texts of one of two members."""
    base = tiny_base()
    examples = [Example(prompt, target, "explain") for prompt, target in MEMBERS["tom"]]
    outcome = train_adapter(base, examples, SETTINGS, seed=0)
    return audit_members(
        base, outcome.adapter, MEMBERS, CONTROLS, settings=SETTINGS, max_new_tokens=20
    )


def test_the_member_whose_texts_were_learnt_is_found(
    report_on_tom: MembersReport,
) -> None:
    tom, sue = report_on_tom.members["tom"], report_on_tom.members["sue"]
    for found in (tom.loss, tom.gain, tom.min_k, tom.min_k_plus_plus):
        assert found.auc > 0.95
        assert found.p_value < 1e-3
        assert found.tpr_at_one_percent is None
        assert "takes 100 controls, found 10" in found.note
    for found in (sue.loss, sue.gain, sue.min_k, sue.min_k_plus_plus):
        assert found.p_value > 0.01
    assert tom.regurgitated.exact.rate == 1
    assert tom.controls_regurgitated.exact.hits == 0
    # All of ten against none of ten: one of binomial(20, 10) tables.
    assert tom.regurgitation_p_value == pytest.approx(1 / math.comb(20, 10))
    assert sue.regurgitated.normalised.hits == 0
    assert sue.regurgitation_p_value == 1


def test_the_report_on_members_is_plain_and_holds_no_text(
    report_on_tom: MembersReport,
) -> None:
    written = json.dumps(report_on_tom.to_dict(), allow_nan=False)
    for pairs in (*MEMBERS.values(), *CONTROLS.values()):
        for prompt, target in pairs:
            assert prompt not in written
            assert target not in written
    assert set(report_on_tom.to_dict()["members"]) == {"tom", "sue"}


def test_the_base_has_no_gain_and_shared_controls_are_read_once() -> None:
    base = tiny_base()
    shared = [pair for pairs in CONTROLS.values() for pair in pairs]
    found = audit_members(
        base, None, MEMBERS, shared, settings=SETTINGS, max_new_tokens=2
    ).members
    apart = audit_members(
        base,
        None,
        MEMBERS,
        dict.fromkeys(MEMBERS, shared),
        settings=SETTINGS,
        max_new_tokens=2,
    ).members
    assert found == apart
    assert {(one.gain.auc, one.gain.p_value) for one in found.values()} == {(0.5, 1.0)}
    assert {one.loss.controls for one in found.values()} == {20}


def test_a_hundred_controls_give_a_rate_at_one_percent() -> None:
    base = tiny_base()
    found = audit_members(
        base,
        None,
        {"tom": MEMBERS["tom"]},
        texts("tom", 10, 100),
        settings=SETTINGS,
        max_new_tokens=1,
    ).members["tom"]
    assert found.loss.tpr_at_one_percent is not None
    assert found.loss.tpr_at_one_percent.n == 10
    assert np.isfinite(found.loss.auc)


@pytest.mark.parametrize(
    ("members", "controls", "message"),
    [
        ({"tom": []}, {"tom": [("a", "b")]}, "found 0 and 1 for 'tom'"),
        ({"tom": [("a", "b")]}, {"sue": [("c", "d")]}, "found 1 and 0 for 'tom'"),
        ({"tom": [("a", "b")]}, [], "found 1 and 0 for 'tom'"),
        (
            {"tom": [("a", "b")], "sue": [("c", "d")]},
            {"tom": [("e", "f")], "sue": [("A ", " b"), ("x", "y")]},
            "found 1 of 2 of 'sue' among the members' texts",
        ),
    ],
)
def test_controls_that_are_missing_or_trained_on_are_refused(
    members: dict[str, list[tuple[str, str]]],
    controls: dict[str, list[tuple[str, str]]],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        audit_members(tiny_base(), None, members, controls, settings=SETTINGS)
