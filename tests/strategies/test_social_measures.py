"""What a run of social learning states: tests, privacy, bytes, and the hybrid."""

import math

import pytest

import strategies.social
from fedcot.errors import ConfigError
from fedcot.evaluation.permutation import paired_permutation_test
from fedcot.seeding import derive_seed
from fedcot.social.aggregation import Pool
from fedcot.social.configured import configured_test
from fedcot.social.demonstrations import Demonstration
from fedcot.social.messages import PromptScore
from fedcot.social.votes import vote_epsilon
from strategies import social_distil
from strategies.results import Results
from strategies.social_privacy import social_privacy
from strategies.social_students import Prompt, prompts_of
from strategies.social_tests import student_tests
from strategies.state import Member, RoundState
from tests.social_models import converse, put_in_place, social_config


def score(student: str, correct: str) -> PromptScore:
    return PromptScore(
        student=student,
        num_records=len(correct),
        correct=correct,
        num_answered=len(correct),
    )


def test_clients_shares_are_put_together_in_the_order_of_the_questions(tmp_path):
    """Client p of 3 was asked every third question, from its number on."""
    config = social_config(tmp_path, teaching="examples", aggregators="random")
    generated = [True, False, True, True, False, False, True]
    original = "1001011"
    shares = {p: score("original.4", original[p::3]) for p in range(3)}
    found = student_tests(
        config,
        {"zero-shot": [False] * 7, "random.4": generated},
        {"original.4": shares, "own/random.4": {0: score("own/random.4", "11")}},
        clients=3,
    )
    (only,) = found
    assert (only["first"], only["second"]) == ("random.4", "original.4")
    expected = paired_permutation_test(
        [generated],
        [[digit == "1" for digit in original]],
        seed=derive_seed(config.seed, "permutation", "random.4", "original.4"),
    )
    assert only["difference"] == expected.difference == pytest.approx(0)
    assert only["p_value"] == expected.p_value
    assert only["paired"]


def test_a_client_that_is_missing_leaves_no_test_behind(tmp_path):
    config = social_config(tmp_path, teaching="examples", aggregators="random")
    scores = {"original.4": {0: score("original.4", "11"), 2: score("original.4", "1")}}
    assert student_tests(config, {"random.4": [True] * 3}, scores, clients=3) == []
    # The last one's absence makes no smaller federation.
    first = {"original.4": {0: score("original.4", "111")}}
    assert student_tests(config, {"random.4": [True] * 3}, first, clients=2) == []


def test_votes_are_compared_with_chance_and_instructions_with_nothing(tmp_path):
    config = social_config(tmp_path)
    right = [True] * 12
    correct = {"random.4": right, "voting.4": right, "instruction": right}
    correct["zero-shot"] = [False] * 12
    found = student_tests(config, correct, {}, clients=3)
    pairs = {(one["first"], one["second"]): one for one in found}
    assert set(pairs) == {("voting.4", "random.4"), ("instruction", "zero-shot")}
    assert pairs["voting.4", "random.4"]["p_value"] == 1
    # Of twelve questions all differ: two of the 4,096 ways to swap are as far apart.
    assert pairs["instruction", "zero-shot"]["p_value"] < 0.005


def test_a_shorter_prompt_holds_the_first_examples_of_a_longer_one(tmp_path):
    config = social_config(tmp_path, example_counts="0,1,2,4", manual_prompt="a rule")
    pool = Pool(tuple(Demonstration(f"q{n}", f"a{n}") for n in range(5)), (0,) * 5, 0)
    chosen = strategies.social.Chosen((3, 1, 4), epsilon=0.0)
    found = {
        one.name: one for one in prompts_of(config, pool, {"random": chosen}, None)
    }
    # Four examples are asked for and three there.
    assert set(found) == {"zero-shot", "manual", "random.1", "random.2"}
    assert [one.question for one in found["random.2"].demonstrations] == ["q3", "q1"]
    assert found["manual"].instruction == "a rule"
    assert found["zero-shot"] == Prompt("zero-shot")
    assert "q3" not in repr(found["random.1"])


def test_the_privacy_line_states_a_unit_and_the_worst_part(tmp_path):
    config = social_config(
        tmp_path,
        aggregators="random,private-voting",
        vote_epsilon=0.5,
        test_tape=False,
    )
    claims = vote_epsilon(0.5, num_candidates=9, num_teachers=3, num_votes=4)
    state = RoundState(server_round=1)
    found = social_privacy(config, state, claims)
    voted = found["per_arm"]["private-voting"]
    assert voted["record_epsilon_max"] == claims.epsilon
    assert voted["unit"] == "nats per teacher client (all of its records)"
    assert math.isinf(found["worst_arm"]["record_epsilon_max"])
    assert "simulation-only" not in str(found)
    state.metrics_sent = True
    assert "simulation-only" in str(social_privacy(config, state, claims))


def test_the_hybrid_trains_on_what_was_shared_and_on_nothing_else(
    tmp_path, monkeypatch
):
    """Training is the community's; what goes in and what is scored is checked here."""
    config = social_config(tmp_path, task="world", partitioner="domain")
    shared = (
        Demonstration("a has 2 and 3 more", "5", "2 + 3 = 5"),
        Demonstration("b has 1 and 3 more", "4", "1 + 3 = 4"),
    )
    trained, scored = [], []

    class Training:
        def __init__(self, given):
            assert given is config

        def checked(self, traces):
            return list(traces), 1

        def train(self, traces, num_invalid, *, arm):
            trained.append((tuple(traces), num_invalid))
            return type(
                "Student",
                (),
                {
                    "adapter": {"a": 1},
                    "num_traces": len(traces),
                    "num_tokens": 9,
                    "loss": 0.5,
                    "seconds": 0.0,
                },
            )()

    def score_student(given, name, records, *, adapter):
        scored.append([record.question for record in records])
        right = 1 if len(scored) == 1 else 3
        return type("S", (), {"exact_match": right, "num_records": len(records)})()

    monkeypatch.setattr(social_distil, "PooledTraining", Training)
    monkeypatch.setattr(social_distil, "score_student", score_student)
    monkeypatch.setattr(Results, "save_global", lambda *given, **more: None)
    test = (Demonstration("q one", "1"), Demonstration("q two", "2"))
    identity = type("I", (), {"simulated": True, "num_partitions": 5})()
    state = RoundState(server_round=1, members={3: Member(7, identity)})
    found = social_distil.distilled_student(
        config, Pool(shared, (0, 1), 0), test, state, Results(None, config)
    )
    assert trained == [(shared, 1)]
    assert scored[0] == ["q one", "q two"]
    assert found["accuracy"]["mean"] == 0.5
    own = social_distil.load_partition(config, 3, 5).test
    assert scored[1] == [record.question for record in own]
    assert found["own"]["mean"] == 3 / len(own)
    assert (found["num_examples"], found["num_invalid"]) == (2, 1)


def test_averaged_adapters_would_cost_four_bytes_for_each_value(tmp_path, monkeypatch):
    config = social_config(tmp_path)
    monkeypatch.setattr(social_distil, "model_folder", lambda *given: tmp_path)
    shapes = {"a": (4, 2), "b": (3,)}
    monkeypatch.setattr(Results, "adapter_shapes", lambda self: shapes)
    found = social_distil.fedavg_bytes(config, Results(None, config))
    assert found["parameters"] == 11
    assert found["uplink_bytes"] == found["downlink_bytes"] == 44
    url = "http://localhost:8000/v1"
    asked = social_config(tmp_path, prompted_student=url, raw_to_endpoint=True)
    assert social_distil.fedavg_bytes(asked, Results(None, asked)) is None


def test_classes_that_a_choice_favours_are_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(strategies.social, "fedavg_bytes", lambda *given: None)
    config = social_config(tmp_path / "run", task="labels", teaching="examples")
    put_in_place(monkeypatch, config)
    _, summary = converse(config)
    chosen = summary["social"]["chosen"]["random"]
    assert sum(chosen["balance"]["counts"].values()) == 4
    assert set(summary["social"]["labels"]) == set(chosen["balance"]["counts"])
    balanced = social_config(
        tmp_path / "even", task="labels", teaching="examples", balanced_choice=True
    )
    put_in_place(monkeypatch, balanced)
    _, summary = converse(balanced)
    for found in summary["social"]["chosen"].values():
        assert set(found["balance"]["counts"].values()) == {2}


def test_the_test_questions_do_not_hang_on_what_clients_hold(tmp_path):
    few, many = (social_config(tmp_path, num_records=n) for n in (24, 60))
    assert configured_test(few) == configured_test(many)


def test_open_votes_beside_private_ones_are_said(tmp_path):
    state = RoundState(server_round=1)
    claims = vote_epsilon(0.5, num_candidates=9, num_teachers=3, num_votes=4)
    both = social_config(
        tmp_path, aggregators="voting,private-voting", vote_epsilon=0.5, test_tape=False
    )
    alone = social_config(
        tmp_path, aggregators="private-voting", vote_epsilon=0.5, test_tape=False
    )
    for config, expected in ((both, True), (alone, False)):
        line = social_privacy(config, state, claims)["per_arm"]["private-voting"]
        assert any("`voting`" in one for one in line["uncharged"]) is expected


def test_a_model_without_adapters_costs_no_run(tmp_path, monkeypatch):
    config = social_config(tmp_path)

    def fails(*given):
        raise ConfigError("`target-modules` must ...")

    monkeypatch.setattr(social_distil, "_fedavg_bytes", fails)
    assert social_distil.fedavg_bytes(config, Results(None, config)) is None
