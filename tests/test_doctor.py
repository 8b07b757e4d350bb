"""What `fedcot doctor` finds in models, budgets and memory."""

import functools
import socket

import pytest

from fedcot import memory
from fedcot.config import RunConfig
from fedcot.doctor import examine


def named(config: RunConfig, name: str) -> list:
    return [check for check in examine(config) if check.name == name]


CONFIG = RunConfig(token_epsilon=8.0, device="cpu")
ONCE = functools.cache(memory.estimate)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Estimate the same settings once; others than these need no estimate here."""
    small = memory.Need("server", 1, "idle", {"all": 10**9})
    other = memory.Estimate((small,), "cpu")
    monkeypatch.setattr(
        memory,
        "estimate",
        lambda config, **more: ONCE(config, **more) if config == CONFIG else other,
    )


def test_the_peak_is_stated_with_its_parts_and_compared(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 16 * 10**9)
    checks = examine(CONFIG)
    lines = [check.found for check in checks if check.name == "memory"]
    estimated = memory.estimate(CONFIG, num_supernodes=5)
    assert lines == [f"{line} (estimate)" for line in estimated.lines()]
    (limit,) = [check for check in checks if check.name == "memory limit"]
    assert limit.ok
    assert "16.00 GB" in limit.found


def test_too_much_is_wrong_and_the_remedy_names_settings(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**9)
    (limit,) = named(CONFIG, "memory limit")
    assert not limit.ok
    assert "1.00 GB" in limit.found
    for setting in ("batch-size", "max-sequence-tokens", "gradient-checkpointing"):
        assert setting in limit.remedy
    assert "fewer clients" in limit.remedy


def test_an_endpoint_is_named_and_not_asked(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("doctor opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    config = RunConfig(
        token_epsilon=8.0, teacher="http://localhost:9/v1", arms="fedcot"
    )
    (teacher,) = named(config, "teacher")
    assert teacher.ok
    assert "not asked" in teacher.found


@pytest.mark.parametrize("limit", [0.5, 250.0])
def test_a_budget_that_no_prompt_fits_is_wrong(limit):
    config = RunConfig(token_epsilon=8.0, record_epsilon=limit)
    (check,) = named(config, "record limit")
    assert check.ok == (limit > 168)
