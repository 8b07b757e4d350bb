"""A whole run of communities against members in this process."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import client_app
import server_app
from fedcot.cli import main
from fedcot.community import member_training
from fedcot.community.member import Member
from fedcot.community.messages import (
    EVALUATE_STUDENTS,
    QUERY_TRACES,
    TRAIN_COALITION,
    CoalitionTrainReply,
    TracesReply,
)
from fedcot.community.settings import FEDERATED
from fedcot.errors import FedcotError
from fedcot.report.reader import read_run
from fedcot.report.terminal import (
    WHAT_ARMS_ARE,
    accuracy_table,
    cost_lines,
    privacy_lines,
)
from tests.communities import (
    NAMES,
    UNREADABLE,
    WRONG,
    adding_provider,  # noqa: F401
    community_config,
    gather,
    put_in_place,
)
from tests.contract import SUMMARY_KEYS
from tests.fakes import (
    fake_partition,
    node_configs,
    rows_of,
    summary_of,
)
from tests.grid import LocalGrid

LABELS = ("library", "bakery", "harbor", "library+bakery+harbor")


def adapters_of(run) -> dict[str, bytes]:
    root = run.path / "adapters"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.safetensors"))
    }


def arrays_of(run, arm: str, coalition: str) -> dict[str, torch.Tensor]:
    return load_file(
        run.path / "adapters" / arm / coalition / "adapter_model.safetensors"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return one run that pools and federates, and all that was sent in it."""
    with pytest.MonkeyPatch.context() as patched:
        made = put_in_place(patched)
        folder = tmp_path_factory.mktemp("finished") / "run"
        config = community_config(folder, sharing="pooled,federated")
        run, grid = gather(config, made)
    return run, grid


# A1: roles --------------------------------------------------------------------------


def test_every_coalition_has_a_student_and_every_community_a_score(tmp_path, provider):
    """A1: three communities, coalitions of one, two and three."""
    config = community_config(
        tmp_path / "a", coalitions="library,library+bakery,grand", hold_out=3
    )
    run, _ = gather(config, provider, count=5)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    community = summary["community"]
    names = ["library", "library+bakery", "library+bakery+harbor"]
    assert community["coalitions"] == names
    assert community["members"] == {
        "library": [0, 3],
        "bakery": [1, 4],
        "harbor": [2],
    }
    pooled = {n for n in community["students"] if n.startswith("pooled.")}
    assert pooled == {f"pooled.{name}" for name in names}
    for student in pooled:
        found = community["students"][student]
        assert set(found["own"]) == set(NAMES)
        # Four test questions of each member.
        counts = [found["own"][name]["n"] for name in NAMES]
        assert counts == [8, 8, 4]
        assert found["hold_out"]["n"] == 3
        assert (run.path / "adapters" / "pooled" / student.partition(".")[2]).is_dir()
    for view in ("provider", "before"):
        assert set(community[view]["own"]) == set(NAMES)
    # The controls of the widest: all its labels, and wrong ones.
    assert "random-label.library+bakery+harbor" in community["students"]
    assert "random-label.library" not in community["students"]
    assert {f"label-only.{name}" for name in names} <= community["students"].keys()
    # Five questions each, of which the provider got one wrong.
    for coalition in names:
        made = community["students"][f"pooled.{coalition}"]
        members = sum(len(community["members"][n]) for n in coalition.split("+"))
        assert made["num_traces"] == 4 * members
        assert made["num_examples"] == 8 * members  # predict and explain
    contents = {n: d for n, d in adapters_of(run).items() if n.startswith("pooled/")}
    assert len(set(contents.values())) == 3


# A10: filters -----------------------------------------------------------------------


@pytest.mark.parametrize(("chosen", "sent"), [("none", 8), ("steps", 7), ("answer", 7)])
def test_the_filter_s_counts_are_exact(tmp_path, provider, chosen, sent):
    """A10: of nine answers one is unreadable, and one wrong in a step and the end."""
    config = community_config(tmp_path / "a", trace_filter=chosen, coalitions="grand")
    run, _ = gather(config, provider)
    records = fake_partition(config, 0, 3).train
    firsts = [int(record.question.split()[2]) for record in records]
    assert (firsts.count(UNREADABLE), firsts.count(WRONG)) == (1, 1)
    for name in NAMES:
        traces = summary_of(run)["community"]["traces"][name]
        assert traces["asked"] == 9
        assert traces["unparsed"] == 1
        assert traces["filtered"] == 8 - sent
        assert traces["offered"] == {LABELS[-1]: sent}
    student = summary_of(run)["community"]["students"][f"pooled.{LABELS[-1]}"]
    # What members left out is not left out once more.
    assert (student["num_traces"], student["num_invalid"]) == (3 * sent, 0)


# A19: pooled and federated ----------------------------------------------------------


def test_the_federated_adapter_is_the_weighted_mean_of_what_members_sent(
    tmp_path, provider
):
    config = community_config(
        tmp_path / "a",
        sharing="federated",
        scenario="free-rider:bakery:0.5",
        num_server_rounds=2,
        coalitions="grand",
    )
    run, grid = gather(config, provider)
    offered = rows_of(run, phase="collect", round=2)
    weights = {row["partition"]: row["num_offered"][-1] for row in offered}
    assert weights == {0: 7, 1: 3, 2: 7}
    last = {
        reply.partition_id: reply.adapters[LABELS[-1]]
        for kind, content in grid.replies
        if kind == TRAIN_COALITION
        # Of two rounds the later one stays.
        for reply in [CoalitionTrainReply.decode(content)]
    }
    saved = arrays_of(run, FEDERATED, LABELS[-1])
    names = {name.replace(".default", "") for name in last[0]}
    assert names == {name.replace(".default", "") for name in saved}
    for name, tensor in saved.items():
        expected = sum(
            weights[p] / 17 * last[p][name].astype(np.float64) for p in range(3)
        )
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-7)


def test_a_community_alone_is_its_own_member_in_the_federated_arm(finished):
    run, grid = finished
    for kind, content in grid.replies:
        if kind != TRAIN_COALITION:
            continue
        reply = CoalitionTrainReply.decode(content)
        # Not asked for a coalition that it is not in.
        assert list(reply.adapters) == [NAMES[reply.partition_id], LABELS[-1]]
        saved = arrays_of(run, FEDERATED, NAMES[reply.partition_id])
        for name, tensor in reply.adapters[NAMES[reply.partition_id]].items():
            np.testing.assert_array_equal(tensor, saved[name].numpy())


def test_ways_of_sharing_stand_on_the_same_split(finished, tmp_path, provider):
    """A19: the same questions, traces and tests, in one run and in two."""
    both, _ = finished
    alone, _ = gather(community_config(tmp_path / "b", sharing="pooled"), provider)
    other, _ = gather(community_config(tmp_path / "c", sharing="federated"), provider)
    # Once in each run a member's questions are put to the provider.
    questions = [tuple(sorted(asked)) for asked in provider.asked if len(asked) == 9]
    assert (len(questions), len(set(questions))) == (6, 3)
    joint = adapters_of(both)
    for run in (alone, other):
        for name, content in adapters_of(run).items():
            assert joint[name] == content
    arms = {"pooled", "label-only", "random-label", "federated"}
    assert {name.split("/")[0] for name in joint} == arms
    accuracy = summary_of(both)["accuracy"]
    assert accuracy.keys() >= {*arms, "alone", "teacher", "zero-shot"}
    assert {score["n"] for score in accuracy.values()} == {12}


def test_a_message_that_is_delivered_again_trains_once(tmp_path, provider, monkeypatch):
    honest = Member.train
    sent = []

    def twice(self, request):
        first = honest(self, request)
        # As the app does: a new member for each message.
        second = honest(Member(self.config, self.owner), request)
        assert first.losses == second.losses
        for name, adapter in first.adapters.items():
            for key, tensor in adapter.items():
                np.testing.assert_array_equal(tensor, second.adapters[name][key])
        sent.append(second)
        return second

    trainings = []
    train = member_training.train_adapter

    def counted(*arguments, **named):
        trainings.append(named["seed"])
        return train(*arguments, **named)

    monkeypatch.setattr(member_training, "train_adapter", counted)
    # The app holds the handler itself.
    monkeypatch.setattr(Member, "train", twice)
    config = community_config(tmp_path / "a", sharing="federated", num_server_rounds=2)
    nodes = node_configs(3)
    grid = LocalGrid(client_app.app, nodes, config.to_run_config())
    server_app.run(grid, config, provider)
    assert len(sent) == 3 * 2
    assert len(trainings) == 3 * 2 * 2  # members, rounds, coalitions


# A22: repetition --------------------------------------------------------------------


def measured(run) -> str:
    """Return what must not change from run to run, to the last digit."""
    summary = summary_of(run)
    named = ("accuracy", "rationale_validity", "community")
    found = {name: summary[name] for name in named}
    for student in found["community"]["students"].values():
        student.pop("seconds", None)
    return json.dumps(found, sort_keys=True)


def manifests(run) -> dict[int, str]:
    rows = rows_of(run, phase="collect")
    return {row["partition"]: row["manifest_hash"] for row in rows}


SETTINGS = {
    "sharing": "pooled,federated",
    "num_server_rounds": 2,
    "pool_tokens": 300,
    "coalitions": "grand",
}


def test_one_seed_gives_one_result_in_whatever_order_replies_come(tmp_path, provider):
    runs = [
        gather(community_config(tmp_path / name, **SETTINGS), provider, **more)[0]
        for name, more in (
            ("a", {}),
            ("c", {"seed": 1, "late": 2}),
        )
    ]
    first, *others = runs
    assert len(adapters_of(first)) == 4
    for other in others:
        assert adapters_of(other) == adapters_of(first)
        assert measured(other) == measured(first)
    changed, _ = gather(
        community_config(tmp_path / "d", **SETTINGS, **{"seed": 5}), provider
    )
    assert adapters_of(changed) != adapters_of(first)


# Failures ---------------------------------------------------------------------------


def failing(monkeypatch, method: str, partitions: set[int]) -> None:
    honest = getattr(Member, method)

    def fails(self, request):
        if self.owner.partition_id in partitions:
            raise ValueError(self.node.partition.train[0].question)
        return honest(self, request)

    monkeypatch.setattr(Member, method, fails)


@pytest.mark.parametrize(
    ("method", "phase"),
    [("offer", "collect"), ("train", "federate"), ("score", "evaluate")],
)
def test_one_member_that_fails_does_not_stop_the_run(
    tmp_path, provider, monkeypatch, method, phase
):
    failing(monkeypatch, method, {1})
    config = community_config(
        tmp_path / "a", sharing="pooled,federated", coalitions="grand"
    )
    run, grid = gather(config, provider)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    failures = [line for line in summary["failures"] if f", {phase}, " in line]
    assert len(failures) == 1
    assert "partition 1" in failures[0]
    # No text of the exception travels.
    assert not any(
        b"axolotltrain" in sent
        for kind, sent in grid.uplink
        if kind != QUERY_TRACES or method == "offer"
    )
    assert "axolotl" not in json.dumps(summary)
    if method == "offer":
        offered = summary["community"]["traces"]["bakery"]["offered"]
        assert set(offered.values()) <= {0}
    if method == "score":
        assert set(summary["community"]["before"]["own"]) == {"library", "harbor"}


@pytest.mark.parametrize(
    ("method", "phase"), [("offer", "collect"), ("score", "evaluate")]
)
def test_a_run_whose_members_all_fail_ends_with_the_reason(
    tmp_path, provider, monkeypatch, method, phase
):
    failing(monkeypatch, method, {0, 1, 2})
    config = community_config(tmp_path / "a")
    with pytest.raises(FedcotError, match=f"no client came through the phase {phase}"):
        gather(config, provider)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["status"] == "failed"
    assert phase in summary["reason"]
    assert len(summary["failures"]) == 3


# What a run leaves behind -----------------------------------------------------------


def test_a_summary_has_every_key_and_says_what_covers_nothing(finished):
    run, grid = finished
    summary = summary_of(run)
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["mode"] == "community"
    assert (summary["num_partitions"], summary["num_rounds"]) == (3, 1)
    assert summary["traffic"]["uplink_bytes"] == sum(len(b) for _, b in grid.uplink)
    per_arm = summary["privacy"]["per_arm"]
    for arm in ("pooled", "federated"):
        line = per_arm[arm]
        assert line["record_epsilon_max"] == "inf"
        assert line.keys() >= {
            "unit",
            "neighboring_relation",
            "token_epsilon",
            "prompt_epsilon_max",
            "record_epsilon_max",
            "delta",
            "guarantee",
            "uncharged",
        }
    assert summary["privacy"]["worst_arm"]["record_epsilon_max"] == "inf"
    assert summary["failures"] == []
    # Not even in the files of the server stands a word of a question.
    for name in ("summary.json", "metrics.jsonl", "config.json"):
        text = (run.path / name).read_text()
        assert not any(word in text for word in ("quokka", "axolotl", "pangolin"))


def test_the_report_of_a_run_of_communities_shows_every_arm(finished, capsys):
    run, _ = finished
    read = read_run(run.path)
    arms = {"zero-shot", "label-only", "alone", "pooled", "federated", "random-label"}
    assert set(read.arms) == {"teacher", *arms}
    assert set(read.privacy) >= {"pooled", "federated"}
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run.path), "--json"])
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    page = Path(shown["report"]).read_text()
    assert shown["figures"]
    console = Console(width=160, file=(written := io.StringIO()))
    console.print(accuracy_table(read.summary))
    for arm in read.arms:
        assert arm in page
        assert arm in written.getvalue()
        assert WHAT_ARMS_ARE[arm] in written.getvalue()
    privacy = "\n".join(privacy_lines(read.summary))
    assert "  pooled: epsilon inf nats" in privacy
    lines = list(cost_lines(read.summary))
    assert any("Traffic" in line for line in lines)
    # Nine training questions of each of three members, and their own test questions.
    tests = sum(s["n"] for s in read.summary["community"]["provider"]["own"].values())
    asked = f"asked 27 questions for their traces and {tests} test questions"
    assert tests > 0
    assert any(line.startswith("Teacher: ") and asked in line for line in lines)
    assert "quokka" not in page


def test_adapters_of_coalitions_have_a_card_of_their_own_scores(finished):
    run, _ = finished
    students = summary_of(run)["community"]["students"]
    folders = sorted(
        path.parent for path in (run.path / "adapters").rglob("adapter_config.json")
    )
    assert len(folders) == 3 * 4 + 1
    for folder in folders:
        card = (folder / "README.md").read_text()
        assert f"# fedcot: {folder.parent.name}, coalition {folder.name}" in card
        own = students[f"{folder.parent.name}.{folder.name}"]["own"]
        for name, score in own.items():
            assert f"| of {name} | {score['mean']:.3f} ± {score['stderr']:.3f}" in card
        assert "infinite (no bound holds)" in card
        assert "quokka" not in card


def test_a_student_without_traces_is_left_out_and_said(tmp_path, provider):
    """A community that strikes in full has none alone; the grand one goes on."""
    config = community_config(tmp_path / "a", scenario="strike:bakery")
    run, _ = gather(config, provider)
    summary = summary_of(run)
    assert summary["status"] == "completed", summary["reason"]
    students = summary["community"]["students"]
    assert students["pooled.bakery"]["num_traces"] == 0
    assert not (run.path / "adapters" / "pooled" / "bakery").exists()
    assert students[f"pooled.{LABELS[-1]}"]["num_traces"] == 14
    json.dumps(summary, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["free-rider:bakery:0.5", "poison:bakery:0.5"])
def test_a_scenario_changes_what_is_offered_as_it_says(tmp_path, provider, scenario):
    config = community_config(
        tmp_path / "a", scenario=scenario, coalitions="bakery,grand"
    )
    run, _ = gather(config, provider)
    offered = summary_of(run)["community"]["traces"]
    kept = 3 if scenario.startswith("free") else 7
    assert offered["bakery"]["offered"][LABELS[-1]] == kept
    assert offered["library"]["offered"] == {LABELS[-1]: 7}
    student = summary_of(run)["community"]["students"]["pooled.bakery"]
    # Half of seven, to the even number: steps of others are caught by public rules.
    poisoned = 4 if scenario.startswith("poison") else 0
    assert student["num_invalid"] == poisoned


def test_a_provider_that_hands_out_no_reasoning_leaves_answers(tmp_path, provider):
    config = community_config(
        tmp_path / "a", provider_reasoning="recap-only", coalitions="grand"
    )
    run, grid = gather(config, provider)
    for kind, content in grid.replies:
        if kind == QUERY_TRACES:
            reply = TracesReply.decode(content)
            assert {t.trace_class for t in reply.traces} == {"recap-only"}
            assert {t.reasoning for t in reply.traces} == {""}
    student = summary_of(run)["community"]["students"][f"pooled.{LABELS[-1]}"]
    assert student["num_examples"] == student["num_traces"] == 21


def test_scores_of_members_are_those_of_their_own_questions(finished):
    run, grid = finished
    scores = rows_of(run, phase="evaluate", student="provider")
    assert {row["partition"]: row["community"] for row in scores} == dict(
        enumerate(NAMES)
    )
    # The provider is right about 0 to 3: the test questions of each member.
    assert {row["correct"] for row in scores} == {"1111"}
    assert summary_of(run)["accuracy"]["teacher"] == {
        "mean": 1.0,
        "stderr": 0.0,
        "n": 12,
    }
    assert sum(kind == EVALUATE_STUDENTS for kind, _ in grid.replies) == 3
