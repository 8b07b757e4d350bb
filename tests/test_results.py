"""The committed result shows the effect that the README claims."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def result() -> dict:
    file = Path(__file__).resolve().parent.parent / "results" / "main-job.json"
    return json.loads(file.read_text(encoding="utf-8"))


def mean(result: dict, arm: str) -> float:
    return result["accuracy"][arm]["mean"]


def test_means_follow_from_the_seeds(result: dict) -> None:
    assert len(result["seeds"]) >= 3
    for entry in result["accuracy"].values():
        assert len(entry["per_seed"]) == len(result["seeds"])
        assert entry["mean"] == pytest.approx(
            sum(entry["per_seed"]) / len(entry["per_seed"])
        )


def test_the_teachers_rationales_and_nothing_else_bring_the_gain(result: dict) -> None:
    controls = ("standalone", "self-rationale", "shuffled-rationale")
    best = max(mean(result, arm) for arm in controls)
    assert mean(result, "teacher") >= 0.97
    assert mean(result, "distil") - best >= 0.35


def test_the_private_arm_keeps_a_gain_that_public_prompts_do_not_give(
    result: dict,
) -> None:
    assert result["settings"]["token-epsilon"] <= 8.0
    assert mean(result, "fedcot") - mean(result, "standalone") >= 0.20
    test = result["paired_tests"]["fedcot > random-bank"]
    assert test["difference"] > 0
    assert test["p_value"] < 0.01
