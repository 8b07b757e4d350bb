"""Settings of mode social: their rules, what a run does, and what it gives away."""

import math

import pytest

from fedcot.budget import plan_arms
from fedcot.config import RunConfig, load_config
from fedcot.errors import ConfigError
from fedcot.social.costs import teaching_epsilons
from fedcot.social.flow import Flow
from fedcot.social.outline import (
    check_teaching,
    flow_kinds,
    model_sources,
    needed_examples,
    outline,
    silo_sizes,
    student_names,
)
from fedcot.social.settings import TASKS
from fedcot.social.task_data import task_names
from fedcot.social.votes import vote_epsilon
from fedcot.world.hidden_rules import KINDS

RULES = {
    "mode": "social",
    "task": "operator",
    "partitioner": "iid",
    "num-server-rounds": 1,
    "num-records": 80,
    "hold-out": 10,
}


def settings(**more) -> RunConfig:
    given = {key.replace("_", "-"): value for key, value in more.items()}
    return load_config(None, {**RULES, **given})


def test_every_task_can_be_named() -> None:
    assert set(TASKS) == {"world", *task_names()}
    assert set(KINDS) < set(TASKS)


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"num_server_rounds": 2}, "num-server-rounds"),
        ({"fraction_train": 0.5}, "fraction-train"),
        ({"dataset": "gsm8k"}, "dataset"),
        ({"partitioner": "domain"}, "partitioner"),
        ({"task": "world", "partitioner": "size"}, "partitioner"),
        ({"hold_out": 0}, "hold-out"),
        ({"client_model": "http://localhost:8000/v1"}, "client-model"),
        ({"prompted_student": "http://localhost:8000/v1"}, "prompted-student"),
        ({"example_counts": "0"}, "example-counts"),
        ({"example_counts": "1,two"}, "example-counts"),
        ({"example_counts": "1,1"}, "example-counts"),
        ({"example_counts": "65"}, "example-counts"),
        ({"aggregators": "private-voting"}, "vote-epsilon"),
        ({"vote_epsilon": 1.0}, "vote-epsilon"),
        ({"samples_per_prompt": 1, "examples_kept": 2}, "samples-per-prompt"),
        ({"example_temperature": 0.0}, "example-temperature"),
        (
            {"teaching": "examples", "instruction_merging": "vote"},
            "instruction-merging",
        ),
        ({"distil_examples": True}, "distil-examples"),
        ({"task": "chess"}, "task"),
        ({"gate_run": 0}, "gate-run"),
        ({"balanced_choice": True}, "balanced-choice"),
        ({"instruction_merging": "model"}, "instruction-merging"),
        ({"aggregators": "private-voting", "vote_epsilon": 65.0}, "vote-epsilon"),
        ({"client_model": "builtin,"}, "client-model"),
        ({"samples_per_prompt": 10_001}, "samples-per-prompt"),
        ({"example_temperature": 101.0}, "example-temperature"),
        ({"noise_multiplier": 1.0, "aggregation": "fedavg"}, "noise-multiplier"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, parameter) -> None:
    with pytest.raises(ConfigError, match=f"`{parameter}` must") as refused:
        settings(**given)
    assert "\n" not in str(refused.value)


def test_a_setting_of_teacher_clients_is_refused_in_other_modes() -> None:
    with pytest.raises(ConfigError, match="`gate-distance` must be left"):
        load_config(None, {"gate-distance": 0.5})


def test_without_examples_no_aggregator_counts_votes() -> None:
    config = settings(teaching="instruction", aggregators="voting")
    assert config.aggregator_names == ()
    assert not config.has_votes
    assert student_names(config) == ("zero-shot", "instruction")


def test_numbers_of_examples_come_in_rising_order() -> None:
    assert settings(example_counts="8,0,2").counts == (0, 2, 8)


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ({}, ("teach.examples", "vote", "teach.instruction")),
        ({"teaching": "examples", "aggregators": "random"}, ("teach.examples",)),
        ({"teaching": "instruction"}, ("teach.instruction",)),
        (
            {"teaching": "instruction", "instruction_merging": "vote"},
            ("teach.instruction", "vote"),
        ),
    ],
)
def test_the_conversation_follows_from_the_settings(given, kinds) -> None:
    assert flow_kinds(settings(**given)) == kinds
    assert Flow(kinds).kinds == kinds


def test_students_are_named_by_what_they_read() -> None:
    config = settings(example_counts="0,2,4", aggregators="random", manual_prompt="m")
    assert student_names(config) == (
        *("zero-shot", "manual", "original.2", "original.4"),
        *("random.2", "random.4", "instruction", "instruction+random.4"),
    )


def test_a_client_needs_examples_to_teach_and_to_vote_with() -> None:
    plain = settings(examples_per_prompt=12, aggregators="random")
    assert needed_examples(plain) == 12
    # An instruction reads eight, also where a prompt for examples has fewer.
    assert needed_examples(settings(examples_per_prompt=2, aggregators="random")) == 8
    # A quarter is held out of the others.
    assert needed_examples(settings(examples_per_prompt=12)) >= 12 / 0.75
    few = settings(num_records=36)
    with pytest.raises(ConfigError, match="`num-records` must leave every teacher"):
        check_teaching(few, 4)


def test_the_outline_counts_what_every_client_holds() -> None:
    config = settings(num_records=81)
    assert sorted(silo_sizes(config, 8)) == [10] * 7 + [11]
    found = outline(config, 8)
    assert found["silos"] == list(silo_sizes(config, 8))
    text = " ".join(found["lines"])
    assert "no epsilon bounds that" in text
    assert "8 teacher clients" in text


def test_an_endpoint_is_said_to_read_private_examples() -> None:
    url = "http://localhost:8000/v1"
    config = settings(client_model=f"builtin,{url}", raw_to_endpoint=True)
    assert list(model_sources(config)) == [
        ("client-model", "builtin"),
        ("client-model", url),
        ("prompted-student", "builtin"),
    ]
    assert any(
        "an endpoint reads private" in one for one in outline(config, 2)["lines"]
    )


def test_texts_cost_more_than_any_number_and_private_votes_what_was_asked() -> None:
    config = settings(aggregators="voting,private-voting", vote_epsilon=0.25)
    costs = teaching_epsilons(config)
    for name in ("examples", "instruction", "voting"):
        assert math.isinf(costs[name].record_epsilon)
    # Eight choices, each of a quarter nat at most.
    assert costs["private-voting"].record_epsilon == 2.0
    claims = vote_epsilon(0.25, num_candidates=20, num_teachers=8, num_votes=8)
    measured = teaching_epsilons(config, claims)["private-voting"]
    assert measured.record_epsilon == claims.epsilon
    assert measured.record_epsilon <= costs["private-voting"].record_epsilon
    assert plan_arms(config, None) == costs  # type: ignore[arg-type]


def test_seeded_votes_promise_nothing() -> None:
    config = settings(aggregators="private-voting", vote_epsilon=0.25, test_tape=True)
    voted = teaching_epsilons(config)["private-voting"]
    assert math.isinf(voted.record_epsilon)
    assert voted.guarantee == "none (seeded draws)"
