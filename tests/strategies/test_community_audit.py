"""What an audit finds of a student that learnt by heart, and of one that did not."""

import logging
import zlib
from dataclasses import replace
from typing import Any

import pytest

from fedcot.community.membership import load_controls, load_member
from fedcot.community.messages import SharedTrace
from fedcot.community.pool import community_settings, trace_examples
from fedcot.data.schema import Rationale, Record
from fedcot.data.traces import Scope
from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain
from fedcot.node_training import first_adapter
from fedcot.report.community_sharing import audit_section
from fedcot.report.reader import read_run
from fedcot.student.training import train_adapter
from fedcot.tasks.registry import configured_task
from fedcot.teacher.teacher import Completion
from strategies import community_audit
from strategies.community_audit import audit_students
from tests.communities import (
    NAMES,
    AddingProvider,
    adding_provider,  # noqa: F401
    community_config,
    fill_store,
    gather,
    owner_config,
    secret_trace,
)
from tests.fakes import summary_of
from tests.tiny import tiny_base

GRAND = "library+bakery+harbor"


def reasoned(question: str, answer: str) -> Rationale:
    """Return reasoning that nothing but the question decides."""
    number = zlib.crc32(question.encode())
    first, second, third = number % 50, number // 50 % 50, number // 2500 % 50
    return Rationale(f"{first} + {second} = {first + second} {third}", answer)


class Knowing(AddingProvider):
    """Knows the answers of some questions; of others it knows nothing."""

    def __init__(self, *records: Record) -> None:
        super().__init__()
        self.answers = {record.question: record.answer for record in records}

    def _completion(self, question: str) -> Completion:
        answer = self.answers.get(question)
        if answer is None:
            return Completion("no idea", None)
        return Completion("", reasoned(question, answer))


def given(records: tuple[Record, ...], start: int = 0) -> list[SharedTrace]:
    """Return the traces of records as they arrive in a pool."""
    traces = []
    for number, record in enumerate(records, start):
        one = reasoned(record.question, record.answer)
        traces.append(
            SharedTrace.from_wire(
                f"{number:064x}", record.question, one.text, one.answer, "full", (0,)
            )
        )
    return traces  # type: ignore[return-value]


@pytest.fixture(name="world")
def two_communities(tmp_path, provider, monkeypatch):
    """Return settings, traces by partition, and a provider that knows the controls."""
    monkeypatch.setattr(community_audit, "CONTROLS", 8)
    config = community_config(
        tmp_path,
        communities="library,bakery",
        coalitions="grand",
        num_records=16,
        local_epochs=80,
        learning_rate=2e-2,
        lora_r=8,
        lora_alpha=16,
        label_share=0.0,
    )
    traces = {p: given(load_member(config, p, 2).train, 100 * p) for p in range(2)}
    held = [record for name in ("library", "bakery")
            for record in load_controls(config, name, 8)]  # fmt: skip
    return config, traces, Knowing(*held)


COMMUNITIES = {0: "library", 1: "bakery"}


def arrays(adapter) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in adapter.items()}


def learnt(config, traces) -> dict[str, Any]:
    """Return the adapter of a student that read traces until it knew them."""
    base, task = tiny_base(), configured_task(config)
    trained = train_adapter(
        base,
        trace_examples(traces, task, label_share=0.0),
        replace(community_settings(config), label_weight=0.0),
        seed=1,
        adapter=first_adapter(base, config),
    )
    return arrays(trained.adapter)


def test_a_student_that_learnt_by_heart_is_found_and_the_base_is_not(world):
    """It is found for the community that it read, and not for the other."""
    config, traces, provider = world
    untouched = arrays(first_adapter(tiny_base(), config))
    found = audit_students(
        config, provider, traces, COMMUNITIES,
        {"pooled": learnt(config, traces[0]), "none": untouched},
    )  # fmt: skip
    assert {arm: set(one["members"]) for arm, one in found.items()} == {
        arm: {"library", "bakery"} for arm in ("pooled", "none")
    }
    own = found["pooled"]["members"]["library"]
    for measure in ("loss", "gain"):
        assert own[measure]["auc"] > 0.9, measure
    assert own["gain"]["p_value"] < 1e-3
    assert own["gain"]["members"] == 8
    assert own["gain"]["controls"] == 16
    other = found["pooled"]["members"]["bakery"]
    assert 0.2 < other["gain"]["auc"] < 0.8
    for name in ("library", "bakery"):
        base = found["none"]["members"][name]
        # Nothing was gained by anybody; by the loss, what a random student prefers.
        assert base["gain"]["auc"] == 0.5
        assert 0.2 < base["loss"]["auc"] < 0.8


def listen(monkeypatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return what is audited, without auditing it."""
    calls = []

    def listens(base, adapter, members, controls, **named):
        calls.append((dict(members), dict(controls)))
        return type("Report", (), {"to_dict": lambda self: {"members": {}}})()

    monkeypatch.setattr(community_audit, "audit_members", listens)
    return calls


def test_controls_are_what_nobody_gave(world, monkeypatch):
    config, traces, provider = world
    calls = listen(monkeypatch)
    audit_students(config, provider, traces, COMMUNITIES, {"pooled": {}})
    members, controls = calls[0]
    assert {name: len(own) for name, own in members.items()} == {
        "library": 8,
        "bakery": 8,
    }
    assert {name: len(own) for name, own in controls.items()} == {
        "library": 16,
        "bakery": 16,
    }
    # One of the other community's members gave a question of the controls: it is none
    # any more, for neither community.
    known = load_controls(config, "library", 8)[3]
    more = {**traces, 1: [*traces[1], *given((known,), 900)]}
    audit_students(config, provider, more, COMMUNITIES, {"pooled": {}})
    members, controls = calls[1]
    assert len(members["bakery"]) == 9
    assert (len(controls["library"]), len(controls["bakery"])) == (15, 16)
    everything = {(plain(p), plain(t)) for own in members.values() for p, t in own}
    for own in controls.values():
        assert not everything & {(plain(p), plain(t)) for p, t in own}
    # Given twice, by two members, it is one text.
    twice = {**traces, 2: traces[0]}
    audit_students(
        config, provider, twice, {**COMMUNITIES, 2: "library"}, {"pooled": {}}
    )
    assert len(calls[2][0]["library"]) == 8


def test_controls_that_the_provider_gets_wrong_are_none(world, monkeypatch):
    config, traces, provider = world
    calls = listen(monkeypatch)
    for record in load_controls(config, "library", 8)[:5]:
        provider.answers[record.question] = "999"
    audit_students(config, provider, traces, COMMUNITIES, {"pooled": {}})
    assert len(calls[0][1]["library"]) == 16 - 5
    # A community without any is left out; the others are audited.
    for record in load_controls(config, "library", 8):
        del provider.answers[record.question]
    audit_students(config, provider, traces, COMMUNITIES, {"pooled": {}})
    assert set(calls[1][0]) == {"bakery"}
    provider.answers.clear()
    assert audit_students(config, provider, traces, COMMUNITIES, {"pooled": {}}) == {}
    assert audit_students(config, provider, {}, COMMUNITIES, {"pooled": {}}) == {}
    assert len(calls) == 2


# Whole runs -------------------------------------------------------------------------


def small(tmp_path, **more: Any):
    return community_config(
        tmp_path / "run",
        **{
            "audit_members": True,
            "coalitions": "library,grand",
            "controls": "label-only",
            "test_records": 1,
            "max_new_tokens": 2,
            **more,
        },
    )


def provider_of_controls(config) -> Knowing:
    return Knowing(*(r for name in NAMES for r in load_controls(config, name, 2)))


def test_the_audit_of_a_run_has_every_arm_and_community(
    tmp_path, provider, monkeypatch
):
    monkeypatch.setattr(community_audit, "CONTROLS", 2)
    config = small(tmp_path, sharing="pooled,federated")
    run, _ = gather(config, provider_of_controls(config))
    audit = summary_of(run)["community"]["audit"]
    assert set(audit) == {"pooled", "federated", "label-only"}
    for arm in audit.values():
        assert set(arm["members"]) == set(NAMES)
        for found in arm["members"].values():
            assert (found["gain"]["members"], found["gain"]["controls"]) == (7, 4)
    section = audit_section(read_run(run.path))
    assert section.problem == ""
    assert len(section.sheets[0].rows) == 9
    # No text of a trace stands in it.
    assert "quokka" not in (run.path / "summary.json").read_text()


@pytest.mark.parametrize("sharing", ["federated", "prompt"])
def test_without_pooled_traces_it_is_refused(tmp_path, sharing):
    with pytest.raises(ConfigError, match="`audit-members` must be false") as caught:
        small(tmp_path, sharing=sharing)
    assert "add pooled" in str(caught.value)


def check_said(run, caplog) -> None:
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["community"]["audit"] == {}
    (line,) = (
        one.getMessage() for one in caplog.records if "audit" in one.getMessage()
    )
    assert "needs pooled traces, in a simulation" in line
    with pytest.raises(ConfigError, match="simulation with pooled"):
        audit_section(read_run(run.path))


def test_in_a_deployment_it_says_why_there_is_none(tmp_path, provider, caplog):
    for partition in range(3):
        fill_store(
            tmp_path, partition, [secret_trace(NAMES[partition], Scope.COALITION)]
        )
    config = small(
        tmp_path, sharing="pooled", test_tape=False, trace_filter="none",
        coalitions="grand",
    )  # fmt: skip
    nodes = [owner_config(tmp_path, partition) for partition in range(3)]
    with caplog.at_level(logging.WARNING, logger="flwr.fedcot"):
        run, _ = gather(config, provider, nodes=nodes)
    check_said(run, caplog)
    # It put no question to the provider for it.
    assert provider.asked == []
