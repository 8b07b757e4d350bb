"""The whole strategy against clients in this process."""

import dataclasses
import json
import logging

import pytest
from flwr.app import Context, RecordDict

import client_app
import server_app
from fedcot import provenance
from fedcot.errors import CodeMismatchError, ConfigError, FedcotError
from fedcot.node import Node
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.records import (
    EVALUATE,
    QUERY_PERTURB,
    TRAIN_DISTILL,
    DistillReply,
    EvaluateReply,
)
from strategies.privacy_report import SEEN_BY_WAITING
from strategies.state import Member, RoundState, sample_partitions
from tests.contract import SUMMARY_KEYS
from tests.fakes import (
    ScriptedTeacher,
    federate,
    node_configs,
    rows_of,
    summary_of,
    tiny_config,
    tiny_world,  # noqa: F401
)
from tests.grid import LocalGrid

PRIVACY_KEYS = {
    "unit",
    "neighboring_relation",
    "token_epsilon",
    "prompt_epsilon_max",
    "record_epsilon_max",
    "delta",
    "guarantee",
    "uncharged",
}
ALL_ARMS = (
    "zero-shot,standalone,self-rationale,shuffled-rationale,random-bank,distil,fedcot"
)
pytestmark = pytest.mark.usefixtures("tiny_world")


def test_a_run_with_every_arm_leaves_everything_behind(tmp_path):
    teacher = ScriptedTeacher()
    config = tiny_config(tmp_path / "a", arms=ALL_ARMS, test_tape=False)
    run, grid = federate(config, count=2, teacher=teacher)
    summary = summary_of(run)

    assert summary.keys() >= SUMMARY_KEYS
    assert summary["status"] == "completed"
    assert (summary["num_partitions"], summary["num_rounds"]) == (2, 2)
    assert list(summary["accuracy"]) == ["teacher", *ALL_ARMS.split(",")]
    assert all(score["n"] == 8 for score in summary["accuracy"].values())
    assert set(summary["timing"]) == {
        "identify",
        "perturb",
        "answer",
        "distil",
        "aggregate",
        "evaluate",
    }
    assert summary["traffic"]["uplink_bytes"] == sum(len(b) for _, b in grid.uplink)

    # Each prompt was answered in one call with all clients' prompts of that poll.
    assert len(teacher.asked) <= 2 * 2 + 1
    for arm in ALL_ARMS.split(",")[1:]:
        for partition in range(2):
            folder = run.path / "adapters" / arm / f"partition-{partition}"
            assert (folder / "adapter_config.json").is_file()
    trained = rows_of(run, phase="distil", arm="fedcot", round=2, partition=1)
    assert trained[0]["num_pairs"] == 8  # those of round 1 and round 2
    assert len(trained[0]["rationale_loss"]) == 1
    bank = rows_of(run, phase="distil", arm="random-bank", round=2, partition=1)
    assert bank[0]["num_pairs"] == 8
    config_file = json.loads((run.path / "config.json").read_text())
    assert config_file["run_config"] == config.to_run_config()

    # Privacy is stated per arm, with the epsilon that was enumerated.
    privacy = summary["privacy"]
    slots = world_vocabulary().length
    for line in privacy["per_arm"].values():
        assert line.keys() >= PRIVACY_KEYS
        assert "simulation-only" in line["uncharged"][0]
        assert line["uncharged"][1] == SEEN_BY_WAITING
        assert "nothing derived" not in line["guarantee"]
    fedcot = privacy["per_arm"]["fedcot"]
    assert 7.98 <= fedcot["token_epsilon"] <= 8.0
    assert fedcot["prompt_epsilon_max"] == pytest.approx(
        slots * fedcot["token_epsilon"]
    )
    # Perturbed once ever: two rounds cost one prompt.
    assert fedcot["record_epsilon_max"] == pytest.approx(fedcot["prompt_epsilon_max"])
    for arm in ("distil", "shuffled-rationale"):
        assert privacy["per_arm"][arm]["record_epsilon_max"] == "inf"
    for arm in ("zero-shot", "standalone", "self-rationale", "random-bank"):
        assert privacy["per_arm"][arm]["record_epsilon_max"] == 0.0
    assert privacy["worst_arm"]["record_epsilon_max"] == "inf"
    assert privacy["covers"] == "epsilon covers prompts only"


def test_a_later_round_costs_nothing_for_what_was_released(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="fedcot", records_per_round=8, test_tape=False
    )
    run, _ = federate(config)
    first, second = (rows_of(run, phase="perturb", round=r) for r in (1, 2))
    assert {row["num_fresh"] for row in first} == {8}
    assert {row["num_fresh"] for row in second} == {0}
    assert {row["num_prompts"] for row in second} == {8}
    assert {r["record_epsilon"] for r in first} == {r["record_epsilon"] for r in second}


def test_a_client_that_still_perturbs_does_not_hold_up_the_others(tmp_path):
    config = tiny_config(tmp_path / "a", arms="fedcot", num_server_rounds=1)
    _, grid = federate(config, late=4)
    order = [entry for entry in grid.log if entry[1] in (QUERY_PERTURB, TRAIN_DISTILL)]
    slow = order.index((0, QUERY_PERTURB))
    trained = [order.index((p, TRAIN_DISTILL)) for p in (1, 2)]
    assert max(trained) < slow


def test_a_failing_client_is_counted_and_the_others_go_on(tmp_path, monkeypatch):
    perturb = Node.perturb

    def fails_once(self, request):
        if self.owner.partition_id == 1:
            raise RuntimeError(self.partition.train[0].question)
        return perturb(self, request)

    monkeypatch.setattr(Node, "perturb", fails_once)
    run, grid = federate(
        tiny_config(tmp_path / "a", arms="fedcot", num_server_rounds=1)
    )
    summary = summary_of(run)
    assert summary["status"] == "completed"
    assert len(summary["failures"]) == 1
    assert "partition 1: the client failed" in summary["failures"][0]
    assert "(RuntimeError)" in summary["failures"][0]
    assert not any(b"axolotl" in sent for _, sent in grid.uplink)
    # The text stays with the node, where its owner can read it.
    log = (run.path / "nodes" / "partition-1" / "errors.log").read_text()
    assert "axolotl" in log


def test_a_run_without_a_client_left_fails_and_says_why(tmp_path, monkeypatch):
    def fails(self, request):
        raise RuntimeError("quokka")

    monkeypatch.setattr(Node, "distil", fails)
    config = tiny_config(tmp_path / "a", arms="fedcot")
    with pytest.raises(FedcotError, match="no client came through the phase distil"):
        federate(config)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "RuntimeError" in summary["reason"]
    assert "\n" not in summary["reason"]


def test_a_client_with_other_code_refuses_and_the_run_ends(tmp_path, monkeypatch):
    # The server asks for its hash twice, for config.json and for the request.
    hashes = iter(["server", "server"])
    monkeypatch.setattr(provenance, "code_hash", lambda: next(hashes, "client"))
    with pytest.raises(CodeMismatchError, match="other code"):
        federate(tiny_config(tmp_path / "a"))
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_a_prompt_that_costs_more_than_a_record_may_is_never_asked(tmp_path):
    config = tiny_config(tmp_path / "a", arms="standalone,fedcot", record_epsilon=10.0)
    run, grid = federate(config)
    assert summary_of(run)["status"] == "budget-exhausted"
    assert not [kind for _, kind in grid.log if kind == QUERY_PERTURB]


def test_a_ledger_that_refuses_ends_the_run_after_a_last_evaluation(tmp_path):
    # The owner allows one record's prompt, the server would allow more.
    nodes = node_configs(2, **{"max-record-epsilon": 100.0})
    config = tiny_config(
        tmp_path / "a", arms="zero-shot,fedcot", num_server_rounds=3, test_tape=False
    )
    run, _ = federate(config, nodes=nodes)
    summary = summary_of(run)
    assert summary["status"] == "budget-exhausted"
    assert summary["num_rounds"] == 1
    assert summary["refused"] == 8
    assert summary["accuracy"]["zero-shot"]["n"] == 8
    # Nothing was sent, but a grant may have been used and counts from then on.
    line = summary["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == line["prompt_epsilon_max"]


def test_raw_arms_are_left_out_where_an_owner_forbids_them(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="distil,fedcot", num_server_rounds=1, test_tape=False
    )
    deployed = {"simulation": False, "max-record-epsilon": 250.0}
    nodes = [
        {**node, **deployed, "state-dir": str(tmp_path / f"node-{i}")}
        for i, node in enumerate(node_configs(2))
    ]
    run, grid = federate(config, nodes=nodes)
    summary = summary_of(run)
    assert list(summary["privacy"]["per_arm"]) == ["fedcot"]
    # Whoever waits for a node sees how long it takes and whether it fails.
    assert summary["privacy"]["per_arm"]["fedcot"]["uncharged"] == [SEEN_BY_WAITING]
    assert summary["privacy"]["covers"] == "epsilon covers what messages hold"
    # A deployed node sends no loss, no accuracy and no count of what it filtered.
    assert "fedcot" not in summary["accuracy"]
    assert summary["teacher_measured_on"] == "public problems"
    for reply_type in (DistillReply, EvaluateReply):
        kind = TRAIN_DISTILL if reply_type is DistillReply else EVALUATE
        contents = [content for name, content in grid.replies if name == kind]
        assert len(contents) == 2
        for reply in map(reply_type.decode, contents):
            assert reply == reply_type(partition_id=reply.partition_id, withheld=True)
    assert not (run.path / "nodes").exists()
    for i in range(2):
        state = tmp_path / f"node-{i}"
        assert (state / "ledger").is_dir()
        assert list(state.glob("*/adapters/fedcot/partition-*/adapter_config.json"))
        assert list(state.glob("*/metrics.jsonl"))


def test_averaged_adapters_leave_without_labels_and_cost_nothing_more(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="standalone,fedcot", aggregation="fedavg", test_tape=False
    )
    run, _ = federate(config)
    folder = run.path / "adapters" / "fedcot" / "global"
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (run.path / "adapters" / "standalone" / "global").exists()
    rows = rows_of(run, phase="distil", arm="fedcot")
    assert all(row["label_loss"] == [] for row in rows)
    line = summary_of(run)["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == pytest.approx(line["prompt_epsilon_max"])


def test_averaged_adapters_that_saw_private_questions_are_infinite(tmp_path):
    config = tiny_config(
        tmp_path / "a",
        arms="fedcot",
        aggregation="fedavg",
        pairing="original",
        num_server_rounds=1,
        test_tape=False,
    )
    run, _ = federate(config, count=2)
    line = summary_of(run)["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == "inf"
    assert "adapters" in line["guarantee"]


def test_a_prompt_limit_below_the_mechanism_writes_nothing(tmp_path):
    # Seeded draws are charged like others, so they pass and fail the same check.
    for tape in (True, False):
        config = tiny_config(tmp_path / "a", prompt_epsilon=5.0, test_tape=tape)
        with pytest.raises(ConfigError, match="`prompt-epsilon` must be 0 or at least"):
            federate(config)
    assert not (tmp_path / "a").exists()
    config = tiny_config(
        tmp_path / "b", arms="fedcot", prompt_epsilon=1000.0, num_server_rounds=1
    )
    run, _ = federate(config, count=1)
    assert summary_of(run)["status"] == "completed"


def test_a_part_of_the_clients_is_sampled_by_partition_and_seed(tmp_path):
    members = {p: Member(1000 - p, None) for p in range(10)}
    draws = [
        sample_partitions(members, fraction=0.3, seed=seed, server_round=r)
        for seed in (0, 0, 1)
        for r in (1, 2, 3)
    ]
    assert draws[:3] == draws[3:6] != draws[6:]
    assert len({*draws[:3]}) > 1
    assert all(len(draw) == 3 and list(draw) == sorted(draw) for draw in draws)
    one = {0: Member(1, None)}
    assert sample_partitions(one, fraction=0.01, seed=0, server_round=1) == (0,)

    config = tiny_config(tmp_path / "a", arms="fedcot", fraction_train=0.4)
    run, _ = federate(config)
    for server_round in (1, 2):
        assert len(rows_of(run, phase="perturb", round=server_round)) == 1
    # At the end everybody is scored, trained or not.
    assert summary_of(run)["accuracy"]["fedcot"]["n"] == 12


def test_a_round_can_be_taken_up_again_after_any_phase(tmp_path):
    # Every phase skips what the state holds: a second pass sends nothing.
    config = tiny_config(tmp_path / "a", arms="fedcot", num_server_rounds=1)
    sent: list[int] = []

    def twice(self, grid, state):
        for _, phase in self.phases:
            phase(grid, state)
            before = len(grid.log)
            phase(grid, state)
            sent.append(len(grid.log) - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strategies.phased.PhasedStrategy.run_round", twice)
        run, _ = federate(config, count=2)
    assert sent == [0] * 6
    assert summary_of(run)["status"] == "completed"


def test_the_next_round_keeps_what_outlives_one():
    state = RoundState(server_round=1, failures=["a"], refused=2)
    state.asked[0] = state.answered[0] = None
    state.charged[0] = 3.0
    state.charged_delta[0] = 2e-6
    following = state.next_round()
    assert following.server_round == 2
    assert following.failures == ["a"]
    assert following.refused == 2
    assert following.charged == {0: 3.0}
    assert following.charged_delta == {0: 2e-6}
    assert not following.asked
    assert not following.answered


def test_flowers_four_hooks_refuse(tmp_path):
    # A wrapper that changes messages in the hooks would otherwise do nothing.
    config = tiny_config(tmp_path / "a", arms="zero-shot", num_server_rounds=1)
    grid = LocalGrid(client_app.app, node_configs(1), config.to_run_config())
    server_app.run(grid, config, ScriptedTeacher())
    from strategies import FedCoT

    strategy = FedCoT.__new__(FedCoT)
    with pytest.raises(NotImplementedError, match="phases of its own"):
        strategy.aggregate_train(1, [])


def test_a_config_error_ends_the_server_app_with_one_line(caplog):
    context = Context(1, 1, {}, RecordDict(), {"token-epsilon": -1.0})
    with pytest.raises(ConfigError) as caught:
        server_app.main(None, context)
    assert "\n" not in str(caught.value)
    assert "`token-epsilon` must be > 0" in str(caught.value)


def losing(monkeypatch, replaced, *, partition: int = 0, times: int = 10**9):
    """Let a node do its work, then spoil its reply in `times` rounds."""
    perturb = Node.perturb
    left = [times]

    def spoilt(self, request):
        reply = perturb(self, request)
        if self.owner.partition_id != partition or not left[0]:
            return reply
        left[0] -= 1
        return replaced(reply)

    monkeypatch.setattr(Node, "perturb", spoilt)


def lost(reply):
    raise TimeoutError


@pytest.mark.parametrize(
    "replaced",
    [
        lost,
        lambda reply: dataclasses.replace(reply, channel_hash="other"),  # WireError
        lambda reply: dataclasses.replace(reply, prompt_epsilon=400.0),  # compose fails
    ],
)
def test_a_release_whose_reply_is_lost_is_not_reported_as_nothing(
    tmp_path, monkeypatch, replaced
):
    losing(monkeypatch, replaced)
    config = tiny_config(
        tmp_path / "a", arms="fedcot", num_server_rounds=1, test_tape=False
    )
    with pytest.raises(FedcotError):
        federate(config, count=1)
    line = json.loads((tmp_path / "a" / "summary.json").read_text())
    line = line["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] >= line["prompt_epsilon_max"] > 160


def test_a_node_that_remembers_earlier_runs_raises_what_is_reported(
    tmp_path, monkeypatch
):
    def remembers(reply):
        return dataclasses.replace(reply, spent_record_epsilon=240.0)

    losing(monkeypatch, remembers, partition=1)
    config = tiny_config(
        tmp_path / "a", arms="fedcot", num_server_rounds=1, test_tape=False
    )
    run, _ = federate(config, count=2)
    line = summary_of(run)["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == 240.0


def test_what_a_node_charged_at_a_delta_is_stated_at_it(tmp_path, monkeypatch):
    def remembers(reply):
        return dataclasses.replace(
            reply, spent_record_epsilon=240.0, spent_record_delta=3e-6
        )

    losing(monkeypatch, remembers, partition=1)
    config = tiny_config(
        tmp_path / "a", arms="fedcot", num_server_rounds=1, test_tape=False
    )
    summary = summary_of(federate(config, count=2)[0])
    line = summary["privacy"]["per_arm"]["fedcot"]
    assert line["record_epsilon_max"] == "inf"
    assert line["record_epsilon_at_delta"] == 240.0
    assert line["delta"] == pytest.approx(config.delta + 3e-6)
    assert summary["account"]["charged_epsilon"] == pytest.approx(240.0)
    assert summary["account"]["delta"] == 3e-6


def test_one_simulated_node_among_others_makes_the_metrics_sent(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="fedcot", num_server_rounds=1, test_tape=False
    )
    simulated, deployed = node_configs(2)
    deployed |= {
        "simulation": False,
        "max-record-epsilon": 250.0,
        "state-dir": str(tmp_path / "node"),
    }
    run, _ = federate(config, nodes=[simulated, deployed])
    privacy = summary_of(run)["privacy"]
    assert "simulation-only" in privacy["per_arm"]["fedcot"]["uncharged"][0]
    assert privacy["covers"] == "epsilon covers prompts only"
    # The teacher is scored on the clients' questions only where all are simulated.
    assert summary_of(run)["teacher_measured_on"] == "public problems"


def refusing(monkeypatch, refused, *, partition: int = 0):
    """Let a node's ledger refuse some of its prompts, by round."""

    def refuse(self, ledger, request, records, vocabulary):
        releases = release(self, ledger, request, records, vocabulary)
        if self.owner.partition_id != partition:
            return releases
        return releases[refused(request.server_round) :]

    release = Node._release
    monkeypatch.setattr(Node, "_release", refuse)


def test_a_refused_record_ends_neither_its_client_nor_the_run(tmp_path, monkeypatch):
    refusing(monkeypatch, lambda server_round: 1)
    config = tiny_config(
        tmp_path / "a", arms="fedcot", records_per_round=8, test_tape=False
    )
    run, _ = federate(config, count=3)
    summary = summary_of(run)
    # It says so and exits 4, but the records with budget left go on being sent.
    assert summary["status"] == "budget-exhausted"
    assert (summary["num_rounds"], summary["refused"]) == (2, 2)
    second = rows_of(run, phase="perturb", round=2, partition=0)
    assert [row["num_prompts"] for row in second] == [7]
    assert len(rows_of(run, phase="distil", arm="fedcot", round=2)) == 3


def test_free_re_sends_go_on_after_a_round_of_refusals(tmp_path, monkeypatch):
    refusing(monkeypatch, lambda server_round: 4 if server_round == 2 else 0)
    config = tiny_config(
        tmp_path / "a",
        arms="fedcot",
        num_records=8,
        num_server_rounds=3,
        test_tape=False,
    )
    run, _ = federate(config, count=1)
    third = rows_of(run, phase="perturb", round=3)
    assert [row["num_prompts"] for row in third] == [4]


def test_the_run_ends_when_all_members_are_exhausted_not_one_sample(
    tmp_path, monkeypatch
):
    # One client of three is sampled per round; the first one sampled refuses all.
    sampled = sample_partitions(
        dict.fromkeys(range(3)), fraction=0.34, seed=0, server_round=1
    )
    refusing(monkeypatch, lambda server_round: 4, partition=sampled[0])
    config = tiny_config(
        tmp_path / "a",
        arms="fedcot",
        fraction_train=0.34,
        num_server_rounds=4,
        test_tape=False,
    )
    run, _ = federate(config)
    assert summary_of(run)["num_rounds"] == 4
    # It is not granted anything a second time.
    assert len(rows_of(run, phase="perturb", partition=sampled[0])) == 1


def test_an_adapter_that_does_not_fit_is_a_failure_of_its_client(tmp_path, monkeypatch):
    distil = Node.distil

    def other_shape(self, request):
        reply = distil(self, request)
        if self.owner.partition_id == 0:
            adapters = {
                arm: {name: tensor[:1] for name, tensor in adapter.items()}
                for arm, adapter in reply.adapters.items()
            }
            return dataclasses.replace(reply, adapters=adapters)
        return reply

    monkeypatch.setattr(Node, "distil", other_shape)
    config = tiny_config(tmp_path / "a", arms="fedcot", aggregation="fedavg")
    run, _ = federate(config)
    summary = summary_of(run)
    assert summary["status"] == "completed"
    assert len(summary["failures"]) == 2
    assert "partition 0: The adapter of fedcot does not fit" in summary["failures"][0]
    assert (run.path / "adapters" / "fedcot" / "global").is_dir()


def test_progress_is_monotone_in_each_round_and_starts_at_once(tmp_path):
    config = tiny_config(tmp_path / "a", arms=ALL_ARMS)
    run, _ = federate(config, late=4)
    text = (run.path / "progress.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0]["phase"] == "identify"
    for server_round in (1, 2):
        found = [
            (row["done"], row["total"])
            for row in rows
            if (row["phase"], row["round"]) == ("answer", server_round)
        ]
        # 4 perturbed, 4 raw and 4 public prompts of each of 3 clients
        assert {total for _, total in found} == {36}
        assert [done for done, _ in found] == sorted(done for done, _ in found)
        assert found[-1] == (36, 36)


def test_the_log_states_epsilons_rounded_up_with_unit_and_neighbours(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="flwr.fedcot"):
        federate(tiny_config(tmp_path / "a", arms="fedcot", record_epsilon=10.00001))
    text = caplog.text
    assert "nats per token" in text
    assert "10.0001 nats over all rounds" in text
    assert "REPLACE_SPECIAL" in text
    assert "guarantee: none" in text.lower()
