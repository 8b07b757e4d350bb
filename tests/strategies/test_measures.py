"""Measures beside exact match are pooled over records, not over clients."""

import math

import pytest

from fedcot.rows import ArmScore, ArmTraining
from strategies.measures import estimate, filter_counts, further_measures


def score(records: int, **more) -> ArmScore:
    return ArmScore(
        arm="distil",
        prompt="explain",
        split="test",
        exact_match=0,
        parsed=0,
        valid_rationales=0,
        num_records=records,
        correct="0" * records,
        **more,
    )


def test_clients_of_different_size_count_by_their_records():
    first = score(
        3,
        flexible_match=1,
        ranked_match=2,
        answer_nats=-6.0,
        rationale_nats=-20.0,
        rationale_tokens=10,
        chrf=90.0,
        chance=0.2,
    )
    second = score(
        1,
        flexible_match=1,
        ranked_match=0,
        answer_nats=-2.0,
        rationale_nats=-4.0,
        rationale_tokens=2,
        chrf=10.0,
        chance=0.5,
    )
    found = further_measures(
        {("distil", "explain", "test"): {0: first, 1: second}}, ("zero-shot", "distil")
    )
    assert found["chance"] == pytest.approx((3 * 0.2 + 0.5) / 4)
    assert found["accuracy_flexible"]["distil"] == {
        "mean": 0.5,
        "stderr": 0.25,
        "n": 4,
    }
    assert found["accuracy_ranked"]["distil"]["mean"] == 0.5
    assert found["answer_log_likelihood"]["distil"] == {"mean": -2.0, "n": 4}
    perplexity = found["rationale_perplexity"]["distil"]
    assert perplexity == {"perplexity": pytest.approx(math.exp(2.0)), "tokens": 12}
    assert found["rationale_chrf"]["distil"] == 25.0
    by_arm = [value for value in found.values() if isinstance(value, dict)]
    assert len(by_arm) == 5
    assert all(set(value) == {"distil"} for value in by_arm)


def test_a_measure_that_was_not_taken_is_left_out():
    found = further_measures({("distil", "explain", "test"): {0: score(2)}}, ["distil"])
    for name in (
        "accuracy_ranked",
        "answer_log_likelihood",
        "rationale_perplexity",
        "rationale_chrf",
    ):
        assert found[name] == {}
    assert found["chance"] == 0.0


def test_one_client_without_choices_leaves_no_ranking():
    rows = {0: score(2, ranked_match=1), 1: score(2)}
    found = further_measures({("distil", "explain", "test"): rows}, ["distil"])
    assert found["accuracy_ranked"] == {}


def test_standalone_is_measured_by_its_own_prompt():
    scores = {("standalone", "predict", "test"): {0: score(2, ranked_match=1)}}
    found = further_measures(scores, ["standalone"])
    assert found["accuracy_ranked"]["standalone"]["mean"] == 0.5


def training(arm: str, **counts) -> ArmTraining:
    names = ("pairs", "unparsable", "invalid_step", "label_mismatch", "kept")
    numbers = {f"num_{name}": counts.get(name, 0) for name in names}
    return ArmTraining(
        arm=arm,
        num_examples=0,
        num_truncated=counts.get("truncated", 0),
        label_loss=(),
        rationale_loss=(),
        seconds=0.0,
        **numbers,
    )


def test_filter_counts_add_up_over_clients_and_keep_arms_apart():
    found = filter_counts(
        {
            ("distil", 0): training("distil", pairs=4, kept=3, unparsable=1),
            ("distil", 1): training("distil", pairs=2, kept=2, truncated=1),
            ("fedcot", 0): training("fedcot", pairs=1, label_mismatch=1),
        }
    )
    assert found["distil"] == {
        "num_pairs": 6,
        "num_unparsable": 1,
        "num_invalid_step": 0,
        "num_label_mismatch": 0,
        "num_kept": 5,
        "num_truncated": 1,
    }
    assert found["fedcot"]["num_label_mismatch"] == 1


def test_an_estimate_of_nothing_is_no_number():
    assert math.isnan(estimate(0, 0)["mean"])
    assert estimate(1, 4)["stderr"] == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
