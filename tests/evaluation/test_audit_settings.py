"""What an audit run may ask for, and what it is refused."""

from typing import Any

import pytest

from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.evaluation.audit_settings import (
    ANSWER_PATTERNS,
    PATTERN_NAMES,
    WORLD_PATTERNS,
)
from fedcot.evaluation.canaries import PATTERNS, SECRET
from fedcot.settings import COMMUNITY


def audit_config(**settings: Any) -> RunConfig:
    return RunConfig(**{"token_epsilon": 8.0, "canaries": 2, **settings})


COMMUNITIES = {"mode": COMMUNITY, "communities": "library,bakery"}


def test_the_names_are_those_of_the_patterns() -> None:
    assert tuple(PATTERNS) == PATTERN_NAMES
    assert {name for name in PATTERNS if name.startswith("world-")} == set(
        WORLD_PATTERNS
    )
    whole = {name for name, pattern in PATTERNS.items() if pattern.answer == SECRET}
    assert whole == set(ANSWER_PATTERNS)


def test_no_canary_is_inserted_unless_asked_for() -> None:
    config = RunConfig(token_epsilon=8.0)
    assert (config.canaries, config.canary_insertion) == (0, "all")
    # What would be wrong in an audit run is not looked at in another one.
    RunConfig(token_epsilon=8.0, canary_pattern="codes")


@pytest.mark.parametrize("insertion", ["some", "0", "-1", "", "²", "1.5", "9" * 30])
def test_another_insertion_is_refused(insertion: str) -> None:
    with pytest.raises(ConfigError, match="`canary-insertion` must be all, one or"):
        audit_config(canary_insertion=insertion)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canaries": -1}, "`canaries` must be >= 0"),
        ({"canary_repeats": 0}, "`canary-repeats` must be >= 1"),
        ({"canary_pattern": "pins"}, "`canary-pattern` must be one of world-codes"),
        ({"canary_pattern": "codes"}, "`canary-pattern` must be .* in the built-in"),
        ({"canary_pattern": "world-names"}, "the secret has to be the answer"),
        ({**COMMUNITIES, "canary_repeats": 2}, "`canary-repeats` must be 1 .* store"),
        ({**COMMUNITIES, "granularity": 1}, "`granularity` must be 0 with canaries"),
        (
            {**COMMUNITIES, "provider_reasoning": "absent"},
            "`provider-reasoning` must be `full` with canaries",
        ),
        (
            {**COMMUNITIES, "scenario": "strike:bakery"},
            "`scenario` must be empty with canaries",
        ),
    ],
)
def test_a_canary_that_would_not_be_learnt_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        audit_config(**settings)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_communities_may_hold_secrets_in_their_reasoning() -> None:
    config = audit_config(**COMMUNITIES, canary_pattern="world-names")
    assert config.canaries == 2
