"""A client's side: what its owner allows, what it keeps, what it never sends."""

import math
import os
import stat
import time
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import client_app
from fedcot import node_adapters, node_training
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.node import Node
from fedcot.node_errors import describe, keep_traceback
from fedcot.node_pairs import NodePairs, used_indices
from fedcot.node_state import Owner, PairStore, inside_simulation
from fedcot.privacy.channels import build_channel
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.records import (
    QUERY_PERTURB,
    DistillRequest,
    EvaluateRequest,
    IdentifyRequest,
    PerturbRequest,
)
from fedcot.rows import SentRationale
from fedcot.student.examples import Pair
from tests.fakes import owner, tiny_config, tiny_world  # noqa: F401

RUN = "0123456789abcdef"
DEPLOYED = {"partition-id": 0, "num-partitions": 3}


def request(run_dir, **changes) -> PerturbRequest:
    channel = build_channel("rank", world_vocabulary(), 8.0)
    asked = PerturbRequest(
        server_round=1,
        sources=("fedcot",),
        mechanism="rank",
        token_epsilon=8.0,
        prompt_epsilon=0.0,
        bank=(),
        record_epsilon=250.0,
        channel_hash=channel.hash,
        run_key=RUN,
        run_dir=str(run_dir),
    )
    return replace(asked, **changes)


@pytest.mark.parametrize(
    ("node_config", "reason"),
    [
        ({"num-partitions": 3}, "`partition-id` must be a whole number"),
        ({**DEPLOYED, "partition-id": "0"}, "`partition-id` must be a whole number"),
        ({**DEPLOYED, "partition-id": True}, "`partition-id` must be a whole number"),
        ({**DEPLOYED, "partition-id": 3}, r"must be in \[0, num-partitions\)"),
        (DEPLOYED, "`state-dir` must be an absolute path"),  # a ledger must last
        # Else a server could set the only limit there is.
        ({**DEPLOYED, "state-dir": "/a"}, "`max-record-epsilon` must be given"),
        ({**DEPLOYED, "state-dir": "here"}, "`state-dir` must be an absolute path"),
        ({**DEPLOYED, "simulation": "yes"}, "`simulation` must be true or false"),
        (
            {**DEPLOYED, "simulation": True, "allow-raw-prompts": 1},
            "`allow-raw-prompts` must be true or false",
        ),
        (
            {**DEPLOYED, "state-dir": "/a", "max-record-epsilon": 0},
            "`max-record-epsilon` must be > 0",
        ),
        (
            {**DEPLOYED, "state-dir": "/a", "max-record-epsilon": float("nan")},
            "`max-record-epsilon` must be > 0",
        ),
        (
            {**DEPLOYED, "simulation": True, "allow-sharing": "yes"},
            "`allow-sharing` must be true or false",
        ),
        *(
            (
                {**DEPLOYED, "simulation": True, "client-model": value},
                "`client-model` must name one model",
            )
            for value in ("a,b", 7, True)
        ),
        *(
            (
                {**DEPLOYED, "simulation": True, "max-record-delta": value},
                r"`max-record-delta` must be in \(0, 1\)",
            )
            for value in (0.0, 1.0, -1e-6, float("nan"), 1, True, "1e-5")
        ),
    ],
)
def test_a_bad_node_config_is_one_line(node_config, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        Owner.from_node_config(node_config)
    assert "\n" not in str(caught.value)


def test_every_owner_limits_the_deltas(tmp_path):
    assert deployed_owner(tmp_path).max_record_delta == 1e-5
    simulated = Owner.from_node_config({**DEPLOYED, "simulation": True})
    assert simulated.max_record_delta == 1e-5
    chosen = deployed_owner(tmp_path, **{"max-record-delta": 0.25})
    assert chosen.max_record_delta == 0.25


def test_an_owner_says_what_teaches_and_whether_it_may(tmp_path):
    plain = deployed_owner(tmp_path)
    assert (plain.client_model, plain.allow_sharing) == ("", False)
    given = {"client-model": " /srv/model ", "allow-sharing": True}
    allowed = deployed_owner(tmp_path, **given)
    assert (allowed.client_model, allowed.allow_sharing) == ("/srv/model", True)
    simulated = Owner.from_node_config({**DEPLOYED, "simulation": True})
    assert simulated.allow_sharing


def test_the_server_cannot_make_a_node_believe_it_is_simulated(tmp_path):
    assert not inside_simulation()
    deployed = deployed_owner(tmp_path / "mine")
    assert not deployed.simulated
    assert not deployed.allow_raw_prompts
    # The folder that a server names is not written to.
    assert deployed.folder(str(tmp_path / "server")) == tmp_path / "mine"


def deployed_owner(folder, **more) -> Owner:
    limits = {"state-dir": str(folder), "max-record-epsilon": 250.0}
    return Owner.from_node_config({**DEPLOYED, **limits, **more})


@pytest.fixture
def deployed(tmp_path):
    return deployed_owner(tmp_path / "state")


@pytest.mark.usefixtures("tiny_world")
class TestRefusals:
    def test_raw_questions(self, tmp_path, deployed):
        node = Node(tiny_config(tmp_path, test_tape=False), deployed)
        raw = request("", sources=("fedcot", "distil"))
        with pytest.raises(ConfigError, match="`allow-raw-prompts` must be true"):
            node.perturb(raw)
        none = build_channel("none", world_vocabulary(), 8.0)
        with pytest.raises(ConfigError, match="`allow-raw-prompts` must be true"):
            node.perturb(
                request(
                    "",
                    mechanism="none",
                    channel_hash=none.hash,
                    record_epsilon=float("inf"),
                )
            )
        # Refused before anything was charged or written.
        assert not (tmp_path / "state").exists()

    @pytest.mark.parametrize(
        ("arm", "pairing"), [("fedcot", "original"), ("fedcot", "adapted")]
    )
    def test_adapters_that_saw_private_questions(
        self, tmp_path, deployed, arm, pairing
    ):
        config = tiny_config(
            tmp_path, pairing=pairing, aggregation="fedavg", test_tape=False
        )
        with pytest.raises(ConfigError, match="`aggregation` must be none"):
            Node(config, deployed).distil(distil_request("", arms=(arm,)))

    def test_seeded_draws_on_a_deployed_node(self, tmp_path, deployed):
        with pytest.raises(ConfigError, match="`test-tape` must be false"):
            Node(tiny_config(tmp_path, test_tape=True), deployed)

    def test_another_channel_than_the_server_means(self, tmp_path):
        node = Node(tiny_config(tmp_path), owner())
        with pytest.raises(CodeMismatchError):
            node.perturb(request(tmp_path, channel_hash="0" * 64))
        with pytest.raises(CodeMismatchError):
            node.perturb(request(tmp_path, token_epsilon=9.0))

    def test_another_number_of_partitions(self, tmp_path):
        with pytest.raises(ConfigError, match="`num-partitions` must be 0 or"):
            Node(tiny_config(tmp_path, num_partitions=5), owner())

    def test_other_artefacts(self, tmp_path):
        node = Node(tiny_config(tmp_path), owner())
        wrong = IdentifyRequest(
            code_hash="a", student_hash="b", vocabulary_hash="c", dataset_hash="d"
        )
        with pytest.raises(CodeMismatchError):
            node.identify(wrong)

    def test_a_simulated_node_without_a_run_directory(self, tmp_path):
        node = Node(tiny_config(tmp_path), owner())
        with pytest.raises(ConfigError, match="absolute run directory"):
            node.perturb(request(""))


@pytest.mark.usefixtures("tiny_world")
def test_the_owners_limit_counts_if_it_is_lower(tmp_path):
    node = Node(tiny_config(tmp_path), owner(**{"max-record-epsilon": 100.0}))
    reply = node.perturb(request(tmp_path))  # one prompt costs 168
    assert reply.prompts == ()
    assert reply.num_refused == 4
    assert reply.spent_record_epsilon == 0.0
    higher = Node(tiny_config(tmp_path), owner(**{"max-record-epsilon": 1000.0}))
    assert higher.perturb(request(tmp_path, record_epsilon=100.0)).num_refused == 4


@pytest.mark.usefixtures("tiny_world")
def test_a_request_that_is_delivered_twice_gives_the_same_prompts(tmp_path):
    config = tiny_config(tmp_path, test_tape=False)
    first = Node(config, owner()).perturb(request(tmp_path))
    again = Node(config, owner()).perturb(request(tmp_path))
    assert [p.ids for p in first.prompts] == [p.ids for p in again.prompts]
    assert (first.num_fresh, again.num_fresh) == (4, 0)
    assert first.spent_record_epsilon == again.spent_record_epsilon


def distil_request(run_dir, keys=(), arms=("fedcot",), server_round=1):
    return DistillRequest(
        server_round=server_round,
        arms=arms,
        run_key=RUN,
        run_dir=str(run_dir),
        rationales=tuple(
            SentRationale(
                source="fedcot", key=key, parsed=True, text="1 + 1 = 2", answer="2"
            )
            for key in keys
        ),
    )


@pytest.mark.usefixtures("tiny_world")
def test_training_that_is_asked_twice_runs_once(tmp_path, monkeypatch):
    node = Node(tiny_config(tmp_path), owner())
    keys = [p.record_key for p in node.perturb(request(tmp_path)).prompts]
    first = node.distil(distil_request(tmp_path, keys))
    monkeypatch.setattr(node_training, "train_adapter", pytest.fail)
    assert node.distil(distil_request(tmp_path, keys)).training == first.training


@pytest.mark.usefixtures("tiny_world")
def test_the_server_cannot_plant_a_pair(tmp_path):
    node = Node(tiny_config(tmp_path), owner())
    keys = [p.record_key for p in node.perturb(request(tmp_path)).prompts]
    with ledger_of(tmp_path) as ledger:
        names = set(ledger.pseudonyms(node._keys(ledger), run=node._run_name(RUN)))
    assert names >= set(keys)
    planted = ["0" * 64, (names - set(keys)).pop()]
    reply = node.distil(distil_request(tmp_path, [keys[0], *planted]))
    assert reply.training[0].num_pairs == 1


@pytest.mark.usefixtures("tiny_world")
def test_arms_are_scored_by_both_prompts_at_the_end_only(tmp_path):
    node = Node(tiny_config(tmp_path), owner())

    def scores(final: bool):
        reply = node.evaluate(
            EvaluateRequest(
                server_round=1,
                arms=("zero-shot", "standalone"),
                final=final,
                run_key=RUN,
                run_dir=str(tmp_path),
            )
        )
        return [(s.arm, s.prompt, s.split) for s in reply.scores]

    assert scores(False) == [
        ("zero-shot", "explain", "test"),
        ("standalone", "predict", "test"),
    ]
    assert scores(True) == [
        ("zero-shot", "explain", "test"),
        ("zero-shot", "predict", "test"),
        ("zero-shot", "explain", "deep-test"),
        ("standalone", "predict", "test"),
        ("standalone", "explain", "test"),
        ("standalone", "predict", "deep-test"),
    ]


def test_records_are_used_without_replacement_until_all_were(tmp_path):
    config = tiny_config(tmp_path)  # 4 a round
    rounds = used_indices(config, 0, 4, 8)
    assert sorted(rounds[0] + rounds[1]) == list(range(8))
    assert sorted(rounds[2] + rounds[3]) == list(range(8))
    assert rounds[:2] == used_indices(config, 0, 2, 8)
    assert rounds != used_indices(config, 1, 4, 8)
    assert rounds != used_indices(tiny_config(tmp_path, seed=1), 0, 4, 8)
    # Fewer records than a round wants, and a number that does not divide.
    assert sorted(used_indices(config, 0, 1, 3)[0]) == [0, 1, 2]
    for indices in used_indices(config, 0, 5, 10):
        assert len(set(indices)) == 4


@pytest.mark.parametrize("count", [2, 3, 8])
def test_shuffling_leaves_no_rationale_with_its_question(tmp_path, count):
    pairs = [Pair(None, f"q{i}", f"r{i}") for i in range(count)]
    paired = NodePairs(
        tiny_config(tmp_path), partition_id=0, folder=tmp_path, base=pytest.fail
    )
    shuffled = paired._shuffled(pairs)
    assert {p.question for p in shuffled} == {p.question for p in pairs}
    assert {p.rationale for p in shuffled} == {p.rationale for p in pairs}
    assert all(p.question[1:] != p.rationale[1:] for p in shuffled)
    assert paired._shuffled(pairs[:1]) == []


def test_pairs_are_kept_in_order_and_unreadable_answers_too(tmp_path):
    store = PairStore(tmp_path / "deep", "fedcot")
    for key in ("b", "a", "c"):
        store.put_question(key, f"question {key}")
    store.put_rationale("a", "", "", parsed=False)
    store.put_rationale("b", "1 + 1 = 2", "2", parsed=True)
    store.put_rationale("never asked", "1 + 1 = 2", "2", parsed=True)
    store.save()
    answered = PairStore(tmp_path / "deep", "fedcot").answered()
    assert list(answered) == ["b", "a"]
    assert answered["a"]["rationale"] is None
    assert answered["b"]["rationale"] == {"text": "1 + 1 = 2", "answer": "2"}


def test_what_a_client_says_about_an_error_never_holds_its_text():
    for error in (
        ConfigError("quokka"),
        CodeMismatchError("quokka"),
        TimeoutError("quokka"),
        KeyError("quokka"),
        ValueError("quokka"),
    ):
        code, sentence = describe(error)
        assert code > 100
        assert type(error).__name__ in sentence
        assert "quokka" not in sentence


def call(message_type: str, content: RecordDict, node_config, run_config) -> Message:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    message = Message(content, 1, message_type)
    return client_app.app(message, Context(1, 1, node_config, RecordDict(), run_config))


@pytest.mark.usefixtures("tiny_world")
def test_a_client_that_hangs_is_stopped_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(Node, "perturb", lambda self, asked: time.sleep(30))
    config = tiny_config(tmp_path, phase_timeout=0.2).to_run_config()
    node_config = {"partition-id": 0, "num-partitions": 3, "simulation": True}
    started = time.monotonic()
    reply = call(QUERY_PERTURB, request(tmp_path).encode(), node_config, config)
    assert time.monotonic() - started < 5
    assert reply.has_error()
    assert "TimeoutError" in reply.error.reason


def test_a_message_that_the_wire_does_not_allow_is_answered_with_an_error(tmp_path):
    config = tiny_config(tmp_path).to_run_config()
    node_config = {"partition-id": 0, "num-partitions": 3, "simulation": True}
    for content in (
        RecordDict(),
        IdentifyRequest(
            code_hash="a", student_hash="b", vocabulary_hash="c", dataset_hash="d"
        ).encode(),
    ):
        reply = call(QUERY_PERTURB, content, node_config, config)
        assert reply.has_error()
        assert "WireError" in reply.error.reason


def ledger_of(run_dir) -> Ledger:
    return Ledger(run_dir / "nodes/partition-0/ledger", record_epsilon=250.0)


@pytest.mark.usefixtures("tiny_world")
@pytest.mark.parametrize("server_round", [1, 2])
def test_a_personal_adapter_is_never_sent_by_another_run(tmp_path, server_round):
    # Failure: a run without sharing trains on labels, then one with the same run key
    # and `fedavg` gets what it trained, or what goes on from it, as free.
    shared = {"arms": "fedcot", "aggregation": "fedavg", "pairing": "perturbed"}
    private = {"arms": "fedcot", "aggregation": "none", "pairing": "original"}

    def sent(run_dir, *, with_private: bool):
        steps = [(private, 1)] if with_private else []
        for settings, number in [*steps, (shared, server_round)]:
            node = Node(tiny_config(tmp_path, **settings), owner())
            asked = request(run_dir, server_round=number)
            keys = [prompt.record_key for prompt in node.perturb(asked).prompts]
            reply = node.distil(distil_request(run_dir, keys, server_round=number))
        return reply.adapters["fedcot"]

    honest = sent(tmp_path / "a", with_private=False)
    attacked = sent(tmp_path / "b", with_private=True)
    assert honest.keys() == attacked.keys()
    for name, tensor in honest.items():
        assert np.array_equal(tensor, attacked[name]), name


@pytest.mark.usefixtures("tiny_world")
def test_shared_and_personal_adapters_lie_in_different_folders(tmp_path):
    for aggregation in ("none", "fedavg"):
        node = Node(tiny_config(tmp_path, aggregation=aggregation), owner())
        keys = [p.record_key for p in node.perturb(request(tmp_path)).prompts]
        node.distil(distil_request(tmp_path, keys, arms=("fedcot", "standalone")))
    stored = (tmp_path / "nodes/partition-0").glob(f"{RUN}-*/rounds/*/*/round-1")
    found = sorted((path.parts[-3], path.parts[-2]) for path in stored)
    assert found == [
        ("personal", "fedcot"),
        ("personal", "standalone"),
        ("personal", "standalone"),
        ("shared", "fedcot"),
    ]


@pytest.mark.usefixtures("tiny_world")
def test_raw_questions_are_noted_before_they_are_sent(tmp_path, monkeypatch):
    node = Node(tiny_config(tmp_path), owner())
    # Nothing is noted of what was only perturbed.
    first = node.perturb(request(tmp_path))
    assert math.isfinite(first.spent_record_epsilon)
    with ledger_of(tmp_path) as ledger:
        assert ledger.totals().exposed == 0

    def dies(*arguments):
        with ledger_of(tmp_path) as ledger:
            assert ledger.totals().exposed == 4
        raise KeyboardInterrupt

    # The message is never built, and still the records count as sent.
    monkeypatch.setattr("fedcot.node.RawPrompt", dies)
    both = request(tmp_path, sources=("fedcot", "distil"))
    with pytest.raises(KeyboardInterrupt):
        node.perturb(both)


@pytest.mark.usefixtures("tiny_world")
def test_a_later_run_knows_which_records_went_out_raw(tmp_path):
    node = Node(tiny_config(tmp_path), owner())
    both = request(tmp_path, sources=("fedcot", "distil"))
    # Within one run each arm is stated by itself.
    first = node.perturb(both)
    assert len(first.raw_prompts) == 4
    assert math.isfinite(first.spent_record_epsilon)
    assert node.perturb(both).spent_record_epsilon == first.spent_record_epsilon
    later = node.perturb(request(tmp_path, run_key="f" * 16))
    assert later.spent_record_epsilon == math.inf
    assert len(later.prompts) == 4
    # Other records were not sent raw.
    second = node.perturb(request(tmp_path, run_key="f" * 16, server_round=2))
    assert math.isfinite(second.spent_record_epsilon)


@pytest.mark.usefixtures("tiny_world")
@pytest.mark.parametrize(("pairing", "exposed"), [("perturbed", 0), ("original", 3)])
def test_a_shared_adapter_that_saw_private_text_is_noted(tmp_path, pairing, exposed):
    config = tiny_config(tmp_path, aggregation="fedavg", pairing=pairing)
    node = Node(config, owner())
    keys = [p.record_key for p in node.perturb(request(tmp_path)).prompts]
    node.distil(distil_request(tmp_path, keys[:3]))
    with ledger_of(tmp_path) as ledger:
        assert ledger.totals().exposed == exposed


@pytest.mark.usefixtures("tiny_world")
def test_a_crash_after_training_does_not_train_on_from_its_result(
    tmp_path, monkeypatch
):
    settings = {"aggregation": "fedavg", "arms": "fedcot"}

    def trained(run_dir, crash_in):
        node = Node(tiny_config(tmp_path, **settings), owner())
        keys = [p.record_key for p in node.perturb(request(run_dir)).prompts]
        asked = distil_request(run_dir, keys)
        if crash_in:
            module = node_training if crash_in == "publish" else node_adapters
            original = getattr(module, crash_in)

            def dies(*arguments, **more):
                original(*arguments, **more)
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(module, crash_in, dies)
                with pytest.raises(KeyboardInterrupt):
                    node.distil(asked)
        return node.distil(asked)

    smooth = trained(tmp_path / "a", None)
    # After the adapter was saved; after the outcome; after both have their name.
    for moment in ("save_adapter", "write_json", "publish"):
        again = trained(tmp_path / moment, moment)
        assert again.training[0].rationale_loss == smooth.training[0].rationale_loss
        for name, tensor in smooth.adapters["fedcot"].items():
            assert np.array_equal(tensor, again.adapters["fedcot"][name]), moment
        published = tmp_path / moment / "adapters/fedcot/partition-0"
        assert (published / "adapter_model.safetensors").is_file()


@pytest.mark.usefixtures("tiny_world")
def test_what_a_node_keeps_is_for_its_owner_only(tmp_path):
    before = os.umask(0o022)
    try:
        deployed = deployed_owner(tmp_path / "state", **{"allow-raw-prompts": True})
        node = Node(tiny_config(tmp_path, test_tape=False), deployed)
        both = request("", sources=("fedcot", "distil"))
        keys = [p.record_key for p in node.perturb(both).prompts]
        arms = ("standalone", "fedcot")
        node.distil(distil_request("", keys, arms=arms))
        keep_traceback(ValueError("quokka"), tmp_path / "state")
        paths = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert len(paths) > 15
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.usefixtures("tiny_world")
def test_names_on_the_wire_cannot_be_followed_from_run_to_run(tmp_path):
    node = Node(tiny_config(tmp_path), owner())
    both = request(tmp_path, sources=("fedcot", "distil"))
    first, again = node.perturb(both), node.perturb(both)
    later = node.perturb(replace(both, run_key="f" * 16))
    names = [prompt.record_key for prompt in first.prompts]
    # One name for a record within a run, whatever is sent about it.
    assert names == [prompt.record_key for prompt in first.raw_prompts]
    assert names == [prompt.record_key for prompt in again.prompts]
    assert not set(names) & {prompt.record_key for prompt in later.prompts}
    assert [p.ids for p in first.prompts] == [p.ids for p in later.prompts]
    # Nor does it show which of them an earlier run has used.
    assert all(prompt.fresh for prompt in (*first.prompts, *later.prompts))
    assert not any(prompt.fresh for prompt in again.prompts)
    with ledger_of(tmp_path) as ledger:
        assert not set(names) & set(node._keys(ledger))


def test_a_rationale_longer_than_a_teacher_may_write_is_dropped_unseen(tmp_path):
    """Before any filter looks at a label, so that its length tells nothing of one."""
    config = tiny_config(tmp_path, max_new_tokens=8)
    paired = NodePairs(config, partition_id=0, folder=tmp_path, base=pytest.fail)
    store = PairStore(tmp_path, "fedcot")
    keys = ["0f" * 32, "1e" * 32]
    for key in keys:
        store.put_question(key, "question")
    store.save()
    texts = ["1 + 1 = 2", "1 + 1 = 2 , 2 + 1 = 3"]
    sent = tuple(
        SentRationale(source="fedcot", key=key, parsed=True, text=text, answer="2")
        for key, text in zip(keys, texts, strict=True)
    )
    request = DistillRequest(
        server_round=1, arms=("fedcot",), run_key=RUN, run_dir="", rationales=sent
    )
    paired.store(request, dict.fromkeys(keys))
    kept = PairStore(tmp_path, "fedcot").answered()
    assert kept[keys[0]]["rationale"] is not None
    assert kept[keys[1]]["rationale"] is None
