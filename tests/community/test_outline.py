"""What a run of communities will do is said as it will happen."""

from typing import Any

import pytest

from fedcot.community.outline import outline
from fedcot.community.settings import perturbs
from fedcot.config import RunConfig
from fedcot.errors import ConfigError

EVERY = "pooled,perturbed,federated,synthetic,prompt"


def config(**more: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "token_epsilon": 8.0,
        "mode": "community",
        "communities": "library,bakery,harbor",
        "num_records": 90,
        "records_per_round": 30,
    }
    return RunConfig(**{**settings, **more})


def lines(**more: Any) -> str:
    return "\n".join(outline(config(**more), 3, None)["lines"])


def test_members_are_those_that_each_client_will_belong_to():
    found = outline(config(), 7, None)["communities"]
    assert found == {"library": [0, 3, 6], "bakery": [1, 4], "harbor": [2, 5]}
    shown = outline(config(), 7, None)["lines"]
    assert shown[0] == "library: 3 members (client 0, 3, 6)"
    # Seven clients have 12 of 90 questions each.
    assert any("84 training questions" in line for line in shown)
    with pytest.raises(ConfigError, match="`communities` must be at most as many"):
        outline(config(), 2, None)


def test_only_some_of_many_coalitions_are_named():
    assert (
        "coalitions: 7 (library, bakery, harbor, library+bakery, library+harbor, "
        in (shown := lines(coalitions="all"))
    )
    assert "bakery+harbor and 1 more)" in shown


@pytest.mark.parametrize(
    ("scope", "students"),
    [
        ("own", {"pooled": 0, "label-only": 0, "federated": 0, "synthetic": 0}),
        ("community", {"pooled": 3, "label-only": 3, "federated": 3, "synthetic": 0}),
        ("coalition", {"pooled": 4, "label-only": 4, "federated": 4, "synthetic": 4}),
        ("public", {"pooled": 4, "label-only": 4, "federated": 4, "synthetic": 4}),
    ],
)
def test_a_student_needs_traces_whose_scope_lets_them_reach_it(scope, students):
    """A generator's texts go to all coalitions of its member, so it needs them all."""
    found = outline(config(sharing=EVERY, trace_scope=scope), 3, None)["students"]
    assert {name: found[name] for name in students} == students
    assert found["perturbed"] == 4
    assert found["random-label"] == (scope in ("coalition", "public"))
    assert "prompt" not in found


def test_what_leaves_under_dp_sgd_leaves_whatever_the_scope_is():
    private = {"noise_multiplier": 1.5, "max_grad_norm": 0.5, "trace_scope": "own"}
    found = outline(config(sharing="federated,synthetic", **private), 3, None)
    assert found["students"] == {"federated": 4, "synthetic": 4}
    for what in found["leaves"].values():
        assert "under DP-SGD with noise 1.5 x norm 0.5" in what
    bare = outline(config(sharing="federated,synthetic"), 3, None)
    for what in bare["leaves"].values():
        assert "without noise, no epsilon bounds that" in what


def test_full_tuning_sends_full_weights():
    leaves = outline(config(sharing="federated", tuning="full"), 3, None)["leaves"]
    assert leaves["federated"].startswith("full weights trained on its traces")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, "controls: label-only for every coalition, random-label for the widest"),
        ({"controls": "none"}, "controls: none; so no gain is stated"),
        ({"sharing": "federated"}, "controls: none; so no gain is stated"),
        ({"hold_out": 0}, "hold-out: none"),
        ({"trace_scope": "own"}, "a trace reaches nobody's student (trace-scope=own)"),
        ({"trace_filter": "steps"}, "filtered by trace-filter=steps"),
        ({"provider_reasoning": "summary"}, "reasoning handed out: summary"),
        ({"sharing": "prompt", "prompt_traces": 2}, "up to 2 traces as text for each"),
        ({"sharing": "synthetic", "synthetic_traces": 5}, "up to 5 texts that a"),
    ],
)
def test_every_setting_that_decides_is_said(more, line):
    assert line in lines(**more)


def test_a_level_is_said_and_an_endpoint_is_named_as_one():
    asked = config(dataset="svamp", teacher="http://127.0.0.1:9/v1", provider_level=3)
    shown = "\n".join(outline(asked, 3, None)["lines"])
    assert "members ask an endpoint 90 training questions as they are" in shown
    assert "prompted for level 3 of 6" in shown


def test_a_mechanism_has_something_to_do_where_questions_are_perturbed():
    assert perturbs(RunConfig(token_epsilon=8.0))
    assert perturbs(config(sharing="pooled,perturbed"))
    assert not perturbs(config(sharing="pooled,federated"))
