"""The whole conversation of a student with its teacher clients, in one process."""

import json

import pytest

import client_app
import strategies.social
from fedcot.errors import FedcotError
from fedcot.records import QUERY_IDENTIFY
from fedcot.resuming import check_resuming
from fedcot.social.configured import configured_silo, configured_test
from fedcot.social.flow import check_log
from fedcot.social.inspection import MessageLog
from fedcot.social.messages import (
    EVALUATE_PROMPTS,
    QUERY_BALLOT,
    QUERY_EXAMPLES,
    QUERY_INSTRUCTION,
)
from tests.social_models import (
    RuleModel,
    converse,
    put_in_place,
    rule_of,
    social_config,
)


@pytest.fixture(autouse=True)
def _no_baseline(monkeypatch):
    # What FedAvg would cost needs the built-in model; see test_social_distil.py.
    monkeypatch.setattr(strategies.social, "fedavg_bytes", lambda *given: None)


def test_a_student_learns_from_examples_and_from_instructions(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config)
    run, summary = converse(config)
    found = {
        name: one["accuracy"]["mean"]
        for name, one in summary["social"]["students"].items()
    }
    assert summary["status"] == "completed"
    assert found.pop("zero-shot") == 0
    assert set(found) == {
        *(f"{kind}.{n}" for kind in ("original", "random", "voting") for n in (1, 4)),
        *("instruction", "instruction+random.4", "instruction+voting.4"),
    }
    assert set(found.values()) == {1.0}
    assert summary["accuracy"]["original"]["n"] == config.hold_out
    prompt = (run.path / "prompts" / "voting.4.txt").read_text()
    assert prompt.count("question:") == prompt.count("answer:") == 4


def test_every_teacher_client_gets_the_same_messages(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config)
    _, summary = converse(config)
    protocol = summary["social"]["protocol"]
    check_log(protocol)
    assert protocol["flow"] == ["teach.examples", "vote", "teach.instruction"]
    assert [list(step["sent"].values()) for step in protocol["steps"]] == [
        [[0, 1, 2]]
    ] * 3


def test_only_what_passed_a_gate_leaves_and_the_log_has_all_of_it(
    tmp_path, monkeypatch
):
    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config)
    run, summary = converse(config)
    logs = sorted((run.path / "nodes").glob("partition-*/**/messages.jsonl"))
    assert len(logs) == 3
    for partition, path in enumerate(logs):
        own = {one.question for one in configured_silo(config, partition, 3)}
        lines = MessageLog(path).read()
        sent = [line.text for line in lines if line.left and line.kind == "candidate"]
        assert (
            len(sent)
            == summary["social"]["pool"]["by_partition"].get(str(partition), 0)
            or summary["social"]["pool"]["repeated"]
        )
        assert not any(
            text.removeprefix("question: ").partition(" answer:")[0] in own
            for text in sent
        )


def test_the_student_never_reads_a_private_example(tmp_path, monkeypatch):
    """What `original` students read stays on the clients."""
    config = social_config(tmp_path / "run", teaching="examples")
    put_in_place(monkeypatch, config)
    run, _ = converse(config)
    private = {one.question for p in range(3) for one in configured_silo(config, p, 3)}
    for path in run.path.glob("prompts/*.txt"):
        asked = path.read_text().split("question: ")[1:]
        assert not private & {text.partition(" answer:")[0] for text in asked}
    kept = (
        run.path / "metrics.jsonl",
        run.path / "summary.json",
        run.path / "config.json",
    )
    for path in kept:
        assert not any(question in path.read_text() for question in private)


def test_votes_are_cast_with_examples_that_no_model_taught_from(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", teaching="examples")
    model = put_in_place(monkeypatch, config)
    converse(config, count=1)
    taught = {prompt for prompt in model.read if prompt.endswith("question:")}
    voted = set(model.scored)
    assert taught
    assert voted

    def questions(prompts):
        return {q.strip() for p in prompts for q in p.split("question:") if q.strip()}

    assert not questions(taught) & questions(voted)


def test_a_teacher_client_that_fails_is_left_out_and_the_rest_goes_on(
    tmp_path, monkeypatch
):
    config = social_config(tmp_path / "run", teaching="examples")
    put_in_place(monkeypatch, config)

    def fails(message, context):
        if (
            message.metadata.message_type == QUERY_BALLOT
            and context.node_config["partition-id"] == 1
        ):
            raise RuntimeError("a private question")
        return client_app.app(message, context)

    _, summary = converse(config, app=fails)
    protocol = summary["social"]["protocol"]
    check_log(protocol)
    assert summary["status"] == "completed"
    assert protocol["lost"] == {"1": 2}
    assert summary["social"]["votes"]["voters"] == 2
    assert "a private question" not in json.dumps(summary)


def test_without_a_single_example_the_run_fails_and_says_so(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", gate_distance=1.0)
    put_in_place(monkeypatch, config)
    with pytest.raises(FedcotError, match="`gate-distance`"):
        converse(config)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "gate-distance" in summary["reason"]


def test_texts_have_no_epsilon_and_private_votes_one_for_a_client(
    tmp_path, monkeypatch
):
    settings = {
        "aggregators": "random,private-voting",
        "vote_epsilon": 0.5,
        "test_tape": False,
    }
    config = social_config(tmp_path / "run", **settings)
    put_in_place(monkeypatch, config)
    _, summary = converse(config)
    lines = summary["privacy"]["per_arm"]
    assert set(lines) == {"examples", "instruction", "private-voting"}
    assert summary["privacy"]["worst_arm"]["arm"] in ("examples", "instruction")
    assert summary["privacy"]["worst_arm"]["record_epsilon_max"] == "inf"
    voted = lines["private-voting"]
    claims = summary["social"]["votes"]["claims"]
    # Four votes of at most half a nat each, enumerated from integer weights.
    assert 0 < claims["epsilon"] <= 2.0
    assert voted["record_epsilon_max"] == claims["epsilon"]
    assert "teacher client" in voted["unit"]
    assert any("candidates themselves" in line for line in voted["uncharged"])


def test_seeded_votes_have_no_guarantee(tmp_path, monkeypatch):
    config = social_config(
        tmp_path / "run", aggregators="private-voting", vote_epsilon=0.5
    )
    put_in_place(monkeypatch, config)
    _, summary = converse(config)
    voted = summary["privacy"]["per_arm"]["private-voting"]
    assert voted["guarantee"] == "none (seeded draws)"
    assert voted["record_epsilon_max"] == "inf"


def test_a_run_with_private_votes_is_not_gone_on_with(tmp_path):
    config = social_config(tmp_path, aggregators="private-voting", vote_epsilon=0.5)
    with pytest.raises(FedcotError, match="`vote-epsilon` must be 0"):
        check_resuming(config)


def test_a_run_that_goes_on_sends_the_same_texts_again(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", teaching="examples")
    model = put_in_place(monkeypatch, config)

    def fails_late(message, context):
        if message.metadata.message_type == QUERY_BALLOT:
            raise RuntimeError
        return client_app.app(message, context)

    with pytest.raises(FedcotError):
        converse(config, app=fails_late)
    logs = sorted((tmp_path / "run" / "nodes").glob("partition-*/**/messages.jsonl"))
    before = [path.read_bytes() for path in logs]
    model.read.clear()
    resumed = social_config(tmp_path / "run", teaching="examples", resume=True)
    _, summary = converse(resumed)
    assert summary["status"] == "completed"
    lines = [path.read_bytes() for path in logs]
    assert all(new.startswith(old) for new, old in zip(lines, before, strict=True))
    votes = [MessageLog(path).read() for path in logs]
    assert all([line.kind for line in one].count("vote") == 1 for one in votes)
    # No model wrote an example a second time.
    assert not any(prompt.endswith("question:") for prompt in model.read)


def test_equal_seeds_give_equal_students(tmp_path, monkeypatch):
    found = []
    for name in ("first", "second"):
        config = social_config(tmp_path / name)
        put_in_place(monkeypatch, config)
        run, summary = converse(config)
        prompts = {p.name: p.read_text() for p in run.path.glob("prompts/*.txt")}
        found.append((prompts, summary["accuracy"], summary["social"]["chosen"]))
    assert found[0] == found[1]


def test_bytes_are_counted_by_what_was_asked(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config)
    run, summary = converse(config)
    told = summary["social"]["bytes"]
    rows = [
        json.loads(line)
        for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    for kind, phase in (("examples", "teach"), ("ballot", "vote")):
        own = [
            row for row in rows if row.get("phase") == phase and "uplink_bytes" in row
        ]
        assert len(own) == 3
        for key in ("uplink_bytes", "downlink_bytes"):
            assert told[kind][key] == sum(row[key] for row in own) > 0
    taught = ("examples", "ballot", "instruction")
    for key in ("uplink_bytes", "downlink_bytes"):
        assert told["per_teacher"][key] == pytest.approx(
            sum(told[kind][key] for kind in taught) / 3
        )


def test_more_examples_than_asked_for_are_refused(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", teaching="examples", examples_kept=2)
    put_in_place(monkeypatch, config)

    def talkative(message, context):
        reply = client_app.app(message, context)
        if message.metadata.message_type == QUERY_EXAMPLES:
            told = reply.content["config"]
            sent = len(told["demonstrations.question"])
            for key in ("question", "answer", "reasoning"):
                told[f"demonstrations.{key}"] = 2 * list(told[f"demonstrations.{key}"])
            told["num-sampled"] += sent
        return reply

    with pytest.raises(FedcotError, match="At most 8 examples"):
        converse(config, app=talkative)


def test_a_wrong_teacher_makes_a_wrong_student(tmp_path, monkeypatch):
    """The student's accuracy comes from what it was told, not from the test."""

    class Silent(RuleModel):
        def _one(self, prompt, seed):
            found = super()._one(prompt, seed)
            if prompt.endswith("question:"):
                return found
            return type(found)(" answer: no", -1.0, 2)

    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config, Silent(rule_of(config.task, config.seed)))
    _, summary = converse(config)
    assert {s["mean"] for s in summary["accuracy"].values()} == {0.0}
    assert len(configured_test(config)) == 12


def answers_with(changed, partition=1):
    """Return a client app that puts another ballot into one client's reply."""

    def app(message, context):
        reply = client_app.app(message, context)
        is_vote = message.metadata.message_type == QUERY_BALLOT
        if is_vote and context.node_config["partition-id"] == partition:
            reply.content["config"]["ballot"] = changed
        return reply

    return app


@pytest.mark.parametrize("ballot", [[9999, 9998, 9997, 9996], [0], []], ids=str)
def test_a_ballot_that_is_none_costs_its_client_alone(tmp_path, monkeypatch, ballot):
    config = social_config(tmp_path / "run", teaching="examples")
    put_in_place(monkeypatch, config)
    _, summary = converse(config, app=answers_with(ballot))
    assert summary["status"] == "completed"
    assert len(summary["failures"]) == 1
    assert summary["social"]["votes"]["voters"] == 2


def test_instructions_are_voted_on_by_place(tmp_path, monkeypatch):
    config = social_config(
        tmp_path / "run", teaching="instruction", instruction_merging="vote"
    )
    put_in_place(monkeypatch, config)
    _, summary = converse(config, app=answers_with([9999]))
    assert summary["status"] == "completed"
    assert len(summary["failures"]) == 1


class Silent(RuleModel):
    """Has no words for its rule."""

    def _one(self, prompt, seed):
        found = super()._one(prompt, seed)
        if prompt.endswith("hint:"):
            return type(found)("", -1.0, 0)
        return found


def test_without_instructions_their_vote_is_skipped(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", instruction_merging="vote")
    model = Silent(rule_of(config.task, config.seed))
    put_in_place(monkeypatch, config, model)
    _, summary = converse(config)
    assert summary["status"] == "completed"
    protocol = summary["social"]["protocol"]
    check_log(protocol)
    assert [step["skipped"] for step in protocol["steps"]] == [False] * 3 + [True]


def test_a_prompt_that_is_too_long_costs_its_student_alone(tmp_path, monkeypatch):
    class Short(RuleModel):
        def fits(self, prompt, *, max_new_tokens):
            return prompt.count("question:") < 5

    config = social_config(tmp_path / "run", teaching="examples", aggregators="random")
    put_in_place(monkeypatch, config, Short(rule_of(config.task, config.seed)))
    _, summary = converse(config)
    assert summary["status"] == "completed"
    assert list(summary["social"]["left_out"]) == ["random.4"]
    assert "random.1" in summary["social"]["students"]


def test_an_instruction_may_be_a_word_of_the_protocol(tmp_path, monkeypatch):
    """Not a quotation: the next message holds the word whoever says it."""
    config = social_config(
        tmp_path / "run", teaching="instruction", instruction_merging="vote"
    )
    put_in_place(monkeypatch, config)

    def app(message, context):
        reply = client_app.app(message, context)
        if message.metadata.message_type == QUERY_INSTRUCTION:
            reply.content["config"]["instruction.text"] = ["subject"]
        return reply

    _, summary = converse(config, app=app)
    assert summary["status"] == "completed"


def test_what_the_server_scored_stays(tmp_path, monkeypatch):
    """On the built-in world clients score the same students on their own questions."""
    config = social_config(tmp_path / "run")
    put_in_place(monkeypatch, config)

    def app(message, context):
        reply = client_app.app(message, context)
        if message.metadata.message_type == EVALUATE_PROMPTS:
            names = list(reply.content["config"]["scores.student"])
            reply.content["config"]["scores.student"] = ["random.1", *names[1:]]
        return reply

    _, summary = converse(config, app=app)
    assert summary["social"]["students"]["random.1"]["accuracy"]["n"] == 12


def test_a_resumed_conversation_leaves_out_who_was_lost(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", teaching="examples")
    put_in_place(monkeypatch, config)

    def loses_one_and_ends(message, context):
        kind = message.metadata.message_type
        lost = kind == QUERY_EXAMPLES and context.node_config["partition-id"] == 1
        if lost or kind == EVALUATE_PROMPTS:
            raise RuntimeError
        return client_app.app(message, context)

    def ends(self, state, prompts):
        raise FedcotError("the machine was switched off")

    with monkeypatch.context() as patched:
        patched.setattr(strategies.social.SocialLearning, "_evaluate_clients", ends)
        with pytest.raises(FedcotError, match="switched off"):
            converse(config, app=loses_one_and_ends)
    resumed = social_config(tmp_path / "run", teaching="examples", resume=True)
    _, summary = converse(resumed)
    assert summary["status"] == "completed"
    assert not summary["failures"]
    assert summary["social"]["votes"]["voters"] == 2
    assert summary["social"]["protocol"]["lost"] == {"1": 0}


def test_deployed_clients_are_not_asked_for_scores(tmp_path, monkeypatch):
    config = social_config(tmp_path / "run", teaching="examples")
    put_in_place(monkeypatch, config)
    asked = []

    def app(message, context):
        reply = client_app.app(message, context)
        asked.append(message.metadata.message_type)
        if message.metadata.message_type == QUERY_IDENTIFY:
            deployed = context.node_config["partition-id"] == 2
            reply.content["config"]["simulated"] = not deployed
        return reply

    # One that only calls itself deployed gets no run directory, and is lost.
    _, summary = converse(config, app=app)
    assert EVALUATE_PROMPTS not in asked
    assert summary["status"] == "completed"
