"""The committed result shows the effect that the README claims."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parent.parent / "results"


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads((RESULTS / "main-job.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def curve() -> dict:
    return json.loads((RESULTS / "privacy-curve.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def words() -> dict[str, dict]:
    found = json.loads((RESULTS / "english-words.json").read_text(encoding="utf-8"))
    return {row["mechanism"]: row for row in found["mechanisms"]}


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


def accuracy(curve: dict, mechanism: str) -> dict[float, float]:
    return {
        point["asked_prompt_epsilon"]: point["accuracy"]["mean"]
        for point in curve["points"]
        if point["mechanism"] == mechanism
    }


def test_the_epsilons_of_the_curve_are_those_that_were_asked_for(curve: dict) -> None:
    assert len(curve["seeds"]) == 5
    for point in curve["points"]:
        asked = point["asked_prompt_epsilon"]
        # A token mechanism is calibrated for each of 21 slots.
        assert asked - 21 * 0.02 <= point["prompt_epsilon"] <= asked
        assert len(point["accuracy"]["per_seed"]) == 5


def test_a_whole_prompt_epsilon_of_a_few_nats_recovers_most_of_distil(
    curve: dict,
) -> None:
    low = curve["random_bank"]["accuracy"]["mean"]
    high = curve["distil"]["accuracy"]["mean"]
    share = {
        epsilon: (mean - low) / (high - low)
        for epsilon, mean in accuracy(curve, "selection").items()
    }
    assert share[8.0] >= 0.8
    assert share[4.0] >= 0.5


def test_adaptive_is_better_than_the_other_token_mechanisms(curve: dict) -> None:
    adaptive = accuracy(curve, "adaptive")
    exponential, rank = accuracy(curve, "exponential"), accuracy(curve, "rank")
    assert len(exponential) >= 3
    assert all(adaptive[epsilon] > mean for epsilon, mean in exponential.items())
    assert sum(adaptive[epsilon] > mean for epsilon, mean in rank.items()) >= 2
    for other in ("exponential", "rank"):
        assert curve["paired_tests"][f"adaptive > {other} at 84"]["p_value"] < 0.01


def test_on_english_words_ranks_keep_more_than_scores(words: dict[str, dict]) -> None:
    for row in ("exponential", "rank", "adaptive"):
        assert 5.98 <= words[row]["exact_epsilon"] <= 6.0
    # Half of the textbook's epsilon is not used.
    assert words["nominal exponential"]["exact_epsilon"] < 3.5
    everywhere = "near_over_the_vocabulary"
    assert words["rank"][everywhere] >= 5 * words["exponential"][everywhere]
    assert words["adaptive"]["near"] >= words["rank"]["near"]
    assert words["adaptive"]["perplexity"] < words["rank"]["perplexity"]


@pytest.fixture(scope="module")
def community() -> dict:
    return json.loads((RESULTS / "community.json").read_text(encoding="utf-8"))


def test_every_coalition_of_four_communities_was_run_over_five_seeds(
    community: dict,
) -> None:
    assert len(community["seeds"]) == 5
    rows = community["utility"]["own_test"]
    assert len(rows) == 4
    for row in rows.values():
        assert len(row["coalitions"]) == 2**4 - 1
        for one in row["coalitions"].values():
            assert one["mean"] == pytest.approx(sum(one["per_seed"]) / 5, abs=1e-4)
            assert one["low"] < one["mean"] < one["high"]


def test_a_badly_served_community_gains_from_a_coalition(community: dict) -> None:
    harbor = community["utility"]["own_test"]["harbor"]
    together = harbor["coalitions"]["library+bakery+colony+harbor"]
    assert together["low"] > harbor["provider"]["high"]
    assert together["low"] > harbor["coalitions"]["harbor"]["high"]
    win = min(community["winners"], key=lambda one: one["p_both"])
    assert win["community"] == "harbor"
    assert win["p_both_corrected"] < 0.01


def test_every_factor_has_a_curve_and_a_finding(community: dict) -> None:
    told = {one["factor"]: one["text"] for one in community["findings"]}
    assert told.keys() >= community["factors"].keys()
    for name in ("diversity", "examples", "members", "communities", "granularity"):
        places = community["factors"][name]["places"]
        assert len(places) >= 3
        for _, point in places:
            found = community["points"][point]["arms"]["pooled"]["own"]["all"]
            assert found["low"] < found["mean"] < found["high"]
            assert community["points"][point]["failures"] == 0


def test_six_levels_of_real_rationales_grow_in_aggregate_but_not_in_each() -> None:
    found = json.loads((RESULTS / "svamp-levels.json").read_text(encoding="utf-8"))
    written = found["levels"]["written"]
    assert found["levels"]["joined"] == 698
    assert written["medians"] == sorted(set(written["medians"]))
    assert len(written["medians"]) == 6
    assert 0 < written["monotone"] < 0.5
    for name, variant in found["variants"].items():
        arm = "standalone" if name == "0" else "distil"
        assert variant["summary"]["accuracy"][arm]["n"] == 3
