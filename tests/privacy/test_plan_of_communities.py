"""`fedcot privacy plan` of a run of communities."""

from pathlib import Path

import pytest

from fedcot.cli import main

CONFIG = Path(__file__).parents[2] / "conf" / "community-small.toml"
MECHANISM = ("mechanism  ", "token epsilon", "record limit")


def shown(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["privacy", "plan", "--config", str(CONFIG), *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_mechanism_stands_in_a_plan_where_it_perturbs_or_was_asked_for(capsys):
    plain = shown(capsys)
    assert "arm pooled" in plain
    assert not any(words in plain for words in MECHANISM)
    for arguments in (("-c", "sharing=perturbed"), ("--prompt-epsilon", "20")):
        found = shown(capsys, *arguments)
        assert all(words in found for words in MECHANISM)
