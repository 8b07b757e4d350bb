"""A run of communities that ended early goes on: nobody is asked or charged twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcot.community import member_traces, member_training
from fedcot.community.consent import TraceStore
from fedcot.errors import ConfigError, TeacherError
from fedcot.report.ledgers import read_ledgers
from strategies import coalition_students
from tests.communities import (
    NAMES,
    AddingProvider,
    adding_provider,  # noqa: F401
    community_config,
    gather,
)
from tests.fakes import ScriptedTeacher, summary_of

GRAND = "library+bakery+harbor"


class Unreachable(AddingProvider):
    """Cannot be reached from some call on, by the server that is."""

    def answer(self, questions, *, on_progress=None):
        raise TeacherError("the endpoint cannot be reached")


class Released(AddingProvider):
    """Says any sum that holds of what was released."""

    def for_released(self):
        return ScriptedTeacher()


class UnreachableReleased(AddingProvider):
    def for_released(self):
        return Unreachable()


def settings(folder: Path, **more: Any):
    small = {
        "sharing": "pooled,federated",
        "controls": "none",
        "coalitions": "grand",
        "hold_out": 2,
        "test_records": 2,
        "max_new_tokens": 2,
    }
    return community_config(folder, **{**small, **more})


def adapters_of(run) -> dict[str, bytes]:
    root = run.path / "adapters"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.safetensors"))
    }


def break_off(config, provider=None) -> dict[str, Any]:
    """Start a run whose provider fails on the server, and return its summary."""
    with pytest.raises(TeacherError, match="cannot be reached"):
        gather(config, provider or Unreachable())
    folder = Path(config.run_dir)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert found["status"] == "failed"
    return found


def test_a_run_goes_on_and_no_member_asks_its_provider_again(tmp_path, provider):
    broken = tmp_path / "broken"
    break_off(settings(broken))
    asked = [tuple(some) for some in provider.asked]
    training = [some for some in asked if len(some) == 9]
    assert len(training) == len(set(training)) == 3
    run_key = json.loads((broken / "config.json").read_text())["run_key"]
    run, _ = gather(settings(broken, resume=True), provider)
    summary = summary_of(run)
    assert (summary["status"], summary["failures"]) == ("completed", [])
    assert run.run_key == run_key
    again = [tuple(some) for some in provider.asked if len(some) == 9]
    assert again == training
    assert (run.path / "metrics.jsonl.1").exists()
    # It is the run that an unbroken one would have been.
    whole, _ = gather(settings(tmp_path / "whole"), provider)
    assert adapters_of(run) == adapters_of(whole)
    for key in ("accuracy", "rationale_validity"):
        assert summary[key] == summary_of(whole)[key]


@pytest.mark.parametrize(
    "changed",
    [{"coalitions": "all"}, {"label_share": 0.25}, {"trace_scope": "community"}],
    ids=str,
)
def test_other_settings_are_refused(tmp_path, provider, changed):
    break_off(settings(tmp_path / "a", sharing="prompt"))
    asked = len(provider.asked)
    with pytest.raises(ConfigError, match="`resume` must have what"):
        gather(
            settings(tmp_path / "a", sharing="prompt", resume=True, **changed), provider
        )
    assert len(provider.asked) == asked


def test_noised_runs_are_refused(tmp_path, provider):
    config = settings(
        tmp_path / "a", sharing="federated", noise_multiplier=4.0, record_epsilon=250.0
    )
    break_off(config)
    before = read_ledgers(tmp_path / "a")
    with pytest.raises(ConfigError, match="`noise-multiplier` must be 0"):
        gather(
            settings(
                tmp_path / "a",
                sharing="federated",
                noise_multiplier=4.0,
                record_epsilon=250.0,
                resume=True,
            ),
            provider,
        )
    assert read_ledgers(tmp_path / "a") == before


def withdraw_first(folder: Path) -> str:
    """Withdraw a trace of the first member and return its question."""
    (store,) = (folder / "nodes" / "partition-0").rglob("traces")
    with TraceStore(store, community=NAMES[0]) as opened:
        trace = opened.active()[0]
        opened.withdraw([trace.key], reason="changed my mind")
        return trace.question


def test_a_trace_withdrawn_between_two_starts_is_not_used(
    tmp_path, provider, monkeypatch
):
    read: list[str] = []
    for module in (member_training, coalition_students):
        honest = module.train_adapter

        def listens(base, examples, settings, *, honest=honest, **more):
            read.append(" ".join(one.prompt for one in examples))
            return honest(base, examples, settings, **more)

        monkeypatch.setattr(module, "train_adapter", listens)
    folder = tmp_path / "a"
    break_off(settings(folder, num_server_rounds=2))
    first = list(read)
    gone = withdraw_first(folder)
    # Members train in two rounds, and then the server.
    assert len(first) == 3 * 2 + 1
    assert sum(gone in text for text in first) == 3
    read.clear()
    run, grid = gather(settings(folder, num_server_rounds=2, resume=True), provider)
    resumed = list(read)
    # The others' adapters of the first round are there. This one's are made anew, and
    # so is the second round, which goes on from another mean, and the pool.
    assert len(resumed) == 1 + 3 + 1
    assert not any(gone in text for text in resumed)
    assert not any(gone.encode() in sent for _, sent in grid.uplink)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["community"]["students"][f"pooled.{GRAND}"]["num_traces"] == 20
    assert summary["community"]["traces"]["library"]["withdrawn"] == 1
    # They are the students of a run that never had the trace: what the others train in
    # the second round goes on from another mean.
    ask = member_traces.ask_provider

    def without(*arguments, **named):
        history = ask(*arguments, **named)
        left = tuple(one for one in history.traces if one.question != gone)
        return replace(history, traces=left)

    monkeypatch.setattr(member_traces, "ask_provider", without)
    never, _ = gather(settings(tmp_path / "b", num_server_rounds=2), provider)
    assert len(adapters_of(run)) == 2
    assert adapters_of(run) == adapters_of(never)


def test_released_questions_are_charged_once_over_both_starts(tmp_path, provider):
    more = {
        "sharing": "perturbed",
        "test_tape": False,
        "record_epsilon": 250.0,
        "records_per_round": 9,
    }
    break_off(settings(tmp_path / "a", **more), UnreachableReleased())
    before = read_ledgers(tmp_path / "a")
    assert [use.releases for use in before] == [9, 9, 9]
    run, _ = gather(settings(tmp_path / "a", resume=True, **more), Released())
    assert summary_of(run)["status"] == "completed"
    assert [(use.releases, use.max_epsilon) for use in read_ledgers(run.path)] == [
        (use.releases, use.max_epsilon) for use in before
    ]
