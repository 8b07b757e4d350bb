"""The ClientApp in mode social: messages in, replies out, and no text in an error."""

from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import client_app
from fedcot import provenance
from fedcot.node_errors import CODE_MISMATCH, NODE_CONFIG
from fedcot.records import (
    QUERY_IDENTIFY,
    IdentifyReply,
    IdentifyRequest,
    Wire,
    count_bytes,
    serialise,
)
from fedcot.social.configured import social_identity
from fedcot.social.messages import (
    EVALUATE_PROMPTS,
    QUERY_BALLOT,
    QUERY_EXAMPLES,
    QUERY_INSTRUCTION,
    BallotReply,
    ExamplesReply,
    InstructionReply,
    PromptsReply,
    SentPrompt,
)
from tests.social_clients import (
    ballot_request,
    client,
    examples_request,
    instruction_request,
    prompts_request,
    scripted_models,  # noqa: F401
    social_config,
)

NODE = {"partition-id": 2, "num-partitions": 3, "simulation": True}


def call(tmp_path, kind: str, request: Wire, node: dict[str, Any], **settings: Any):
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    config = social_config(tmp_path, aggregators="random,voting", **settings)
    context = Context(1, 1, node, RecordDict(), config.to_run_config())
    return client_app.app(Message(request.encode(), 1, kind), context)


def identity(tmp_path) -> IdentifyRequest:
    return social_identity(social_config(tmp_path), provenance.code_hash())


def test_every_message_is_answered(tmp_path, models):
    asked: list[tuple[str, Wire, type[Any]]] = [
        (QUERY_IDENTIFY, identity(tmp_path), IdentifyReply),
        (QUERY_EXAMPLES, examples_request(tmp_path), ExamplesReply),
        (QUERY_INSTRUCTION, instruction_request(tmp_path, step=2), InstructionReply),
        (QUERY_BALLOT, ballot_request(tmp_path), BallotReply),
        (
            EVALUATE_PROMPTS,
            prompts_request(tmp_path, students=(SentPrompt(student="zero-shot"),)),
            PromptsReply,
        ),
    ]
    for kind, request, expected in asked:
        reply = call(tmp_path, kind, request, NODE)
        assert reply.has_content(), kind
        found = expected.decode(reply.content)
        assert found.partition_id == 2
        assert count_bytes(reply) == len(serialise(reply.content)) > 0


def test_no_example_is_on_the_wire(tmp_path, models):
    """Searched for in the bytes of everything that a client sends."""
    requests: list[tuple[str, Wire]] = [
        (QUERY_IDENTIFY, identity(tmp_path)),
        (QUERY_EXAMPLES, examples_request(tmp_path)),
        (QUERY_INSTRUCTION, instruction_request(tmp_path, step=2)),
        (QUERY_BALLOT, ballot_request(tmp_path)),
        (EVALUATE_PROMPTS, prompts_request(tmp_path, original_counts=(1, 2))),
    ]
    sent = [
        serialise(call(tmp_path, kind, request, NODE).content)
        for kind, request in requests
    ]
    private = client(tmp_path, 2, aggregators="random,voting").silo.all
    assert len(private) == 12
    for one in private:
        assert not any(one.question.encode() in found for found in sent)
    # The search finds what is there.
    asked = serialise(ballot_request(tmp_path).encode())
    assert b"candidate one" in asked


@pytest.mark.parametrize("mode", ["social", "fedcot"])
def test_who_answers_follows_from_the_mode(tmp_path, models, monkeypatch, mode):
    seen: list[str] = []
    for side in (client_app.Node, client_app.TeacherClient):
        monkeypatch.setattr(
            side, "identify", lambda self, asked: seen.append(type(self).__name__)
        )
    settings = social_config(tmp_path).to_run_config()
    if mode == "fedcot":
        settings = {"token-epsilon": 8.0, "run-dir": str(tmp_path)}
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    message = Message(identity(tmp_path).encode(), 1, QUERY_IDENTIFY)
    client_app.app(message, Context(1, 1, NODE, RecordDict(), settings))
    # A mode-social client is a node too, which must not answer for it.
    assert seen == ["TeacherClient" if mode == "social" else "Node"]


def test_an_error_holds_no_text(tmp_path, models):
    def fail(prompt: str, seed: int) -> str:
        raise ValueError(prompt)

    models["stub"].write = fail
    reply = call(tmp_path, QUERY_EXAMPLES, examples_request(tmp_path), NODE)
    assert reply.has_error()
    private = client(tmp_path, 2).silo.all
    assert not any(one.question in (reply.error.reason or "") for one in private)
    # It is kept where the examples are.
    (log,) = tmp_path.rglob("errors.log")
    assert "question:" in log.read_text()


def test_a_deployed_node_that_may_not_share_says_so_at_once(tmp_path, models):
    node = {
        "partition-id": 0,
        "num-partitions": 3,
        "state-dir": str(tmp_path / "state"),
        "max-record-epsilon": 250.0,
        "client-model": "own-model",
    }
    for kind, request in (
        (QUERY_IDENTIFY, identity(tmp_path)),
        (QUERY_EXAMPLES, examples_request("")),
    ):
        reply = call(tmp_path, kind, request, node)
        assert reply.error.code == NODE_CONFIG
    assert not models.made
    allowed = {**node, "allow-sharing": True}
    assert call(tmp_path, QUERY_EXAMPLES, examples_request(""), allowed).has_content()


def test_other_test_questions_are_another_run(tmp_path, models):
    reply = call(tmp_path, QUERY_IDENTIFY, identity(tmp_path), NODE, hold_out=6)
    assert reply.error.code == CODE_MISMATCH
