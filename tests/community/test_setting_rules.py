"""Settings of communities that do not go together are one clear line each."""

import re
from typing import Any

import pytest

from fedcot.community.coalitions import MOST_COMMUNITIES
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from tests.tasks.writing import SUMS, config_for, sums, write_lines, write_mapping


def config(**more: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "token_epsilon": 8.0,
        "mode": "community",
        "communities": "library,bakery",
    }
    return RunConfig(**{**settings, **more})


REFUSED = [
    ({"mode": "fedcot"}, "communities", "`library,bakery`"),
    ({"communities": ""}, "communities", ""),
    ({"communities": "library,library"}, "communities", "`library,library`"),
    ({"communities": "library,Bakery"}, "communities", "Bakery"),
    ({"communities": "library,../x"}, "communities", "../x"),
    ({"communities": "library,a b"}, "communities", "a b"),
    ({"communities": "library,a+b"}, "communities", "a+b"),
    ({"communities": "library,school"}, "communities", "school"),
    ({"communities": "library,grand"}, "communities", "grand"),
    ({"coalitions": "library+school"}, "coalitions", "library+school"),
    ({"coalitions": "library+library"}, "coalitions", "library+library"),
    ({"coalitions": "../x"}, "coalitions", "../x"),
    ({"scenario": "leave:library"}, "scenario", "leave:library"),
    ({"scenario": "strike:library:2"}, "scenario", "strike:library:2"),
    ({"scenario": "strike:school"}, "scenario", "strike:school"),
    ({"num_partitions": 1}, "num-partitions", "1"),
    ({"granularity_padding": 2}, "granularity-padding", "2"),
    ({"granularity": 2, "granularity_padding": 2}, "granularity-padding", "2"),
    ({"granularity": 3, "granularity_padding": 2}, "granularity-padding", "2"),
    ({"granularity": 5}, "granularity", "5"),
    ({"granularity": 1, "granularity_padding": 5}, "granularity", "5"),
    ({"sharing": "pooled,gossip"}, "sharing", "gossip"),
    ({"sharing": ""}, "sharing", ""),
    ({"trace_scope": "everyone"}, "trace-scope", "everyone"),
    ({"trace_filter": "right"}, "trace-filter", "right"),
    ({"provider_reasoning": "some"}, "provider-reasoning", "some"),
    ({"community_diversity": 1.1}, "community-diversity", "1.1"),
    ({"community_diversity": -0.1}, "community-diversity", "-0.1"),
    ({"label_share": 1.01}, "label-share", "1.01"),
    ({"label_share": -0.01}, "label-share", "-0.01"),
    ({"pool_tokens": -1}, "pool-tokens", "-1"),
    ({"hold_out": -1}, "hold-out", "-1"),
    ({"low_utility": 2.0}, "low-utility", "2.0"),
    ({"granularity": -1}, "granularity", "-1"),
    ({"provider_level": 7, "teacher": "x/y"}, "provider-level", "7"),
    ({"provider_level": -1, "teacher": "x/y"}, "provider-level", "-1"),
    ({"provider_level": 2}, "provider-level", "2"),
    (
        {"noise_multiplier": 1.0, "gradient_checkpointing": True},
        "gradient-checkpointing",
        "true",
    ),
]


@pytest.mark.parametrize(
    ("more", "parameter", "value"),
    REFUSED,
    ids=[f"{parameter}={value}" for _, parameter, value in REFUSED],
)
def test_every_refusal_names_parameter_rule_value_and_remedy(more, parameter, value):
    assert config().mode == "community"
    with pytest.raises(ConfigError) as caught:
        config(**more)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"`{parameter}` must")
    found = line[line.index("found ") :]
    assert (value.strip("`") or "``") in found
    # What to do, after the last semicolon.
    remedy = found.rpartition("; ")[2]
    assert re.match(r"(pass|see|shorten|start|the communities are)\b", remedy), remedy


ALLOWED = [
    {"coalitions": "all"},
    {"coalitions": " library , library+bakery,grand"},
    {"communities": "library"},
    {"num_partitions": 2},
    {"num_partitions": 0},
    {"granularity": 1, "granularity_padding": 4},
    {"granularity": 4},
    {"label_share": 0.0},
    {"label_share": 1.0},
    {"scenario": "poison:library:0.5,strike:bakery"},
]


@pytest.mark.parametrize("more", ALLOWED, ids=str)
def test_what_goes_together_is_taken(more):
    made = config(**more)
    assert RunConfig.from_run_config(made.to_run_config()) == made


LEVELLED: dict[str, Any] = {
    "dataset": "svamp",
    "teacher": "http://127.0.0.1:9/v1",
    "provider_level": 3,
}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"teacher": "builtin"}, "the teacher `builtin`"),
        ({"teacher": "recorded"}, "the teacher `recorded`"),
        ({"dataset": "world"}, "the built-in world"),
        ({"granularity": 2}, "`granularity=2`"),
    ],
    ids=["builtin", "recorded", "world", "granularity"],
)
def test_a_level_is_for_a_model_that_can_be_asked_for_it(more, why):
    assert config(**LEVELLED).provider_level == 3
    with pytest.raises(ConfigError) as caught:
        config(**{**LEVELLED, **more})
    line = str(caught.value)
    assert line.startswith(f"`provider-level` must be 0 with {why}")
    assert "\n" not in line


def test_a_level_is_for_communities():
    with pytest.raises(ConfigError, match="`provider-level` must be 0 outside"):
        RunConfig(token_epsilon=8.0, arms="standalone", **LEVELLED)


def mapped(tmp_path, **more: Any) -> RunConfig:
    write_lines(tmp_path / "train.jsonl", sums(0, 4))
    write_lines(tmp_path / "test.jsonl", sums(9, 4))
    path = write_mapping(tmp_path, SUMS)
    return config_for(path, tmp_path, mode="community", **more)


def test_a_dataset_s_communities_are_named_freely_but_few_and_short(tmp_path):
    names = [f"group-{n}" for n in range(MOST_COMMUNITIES)]
    assert len(mapped(tmp_path, communities=",".join(names)).community_names) == 10
    with pytest.raises(ConfigError, match="`communities` must be 1 to 10 names"):
        mapped(tmp_path, communities=",".join([*names, "one-more"]))
    with pytest.raises(ConfigError, match="`communities` must be 1 to 10 names"):
        mapped(tmp_path, communities=f"b,{'a' * 33}")
    assert mapped(tmp_path, communities=f"b,{'a' * 32}").community_names[1] == "a" * 32
    # A level of a text is known once its trace is.
    assert mapped(tmp_path, communities="a,b", granularity=6).granularity == 6


def test_a_coalition_s_folder_has_a_name_that_files_can_have(tmp_path):
    names = [f"{'a' * 30}{n}" for n in range(7)]
    with pytest.raises(ConfigError, match="`communities` must have names that are at"):
        mapped(tmp_path, communities=",".join(names))
    assert mapped(tmp_path, communities=",".join(names), coalitions="alone")


def test_nothing_of_a_community_is_left_outside_its_mode():
    plain = RunConfig(token_epsilon=8.0)
    assert plain.community_names == ()
    assert RunConfig(token_epsilon=8.0, resume=True).resume
