"""Every byte that a client sends is searched for what only its records hold.

The private questions hold words that stand nowhere else (`tests.fakes.secret_word`), so
a hit has one explanation.
"""

import pytest

import client_app
import server_app
from fedcot.errors import FedcotError
from fedcot.node import Node
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.records import QUERY_PERTURB, PerturbReply
from tests.fakes import (
    NAMES,
    ScriptedTeacher,
    fake_partition,
    federate,
    node_configs,
    tiny_config,
    tiny_world,  # noqa: F401
)
from tests.grid import LocalGrid

pytestmark = pytest.mark.usefixtures("tiny_world")
PRIVATE_ARMS = "zero-shot,standalone,self-rationale,random-bank,fedcot"


def secrets() -> list[bytes]:
    return [name.encode() for name in NAMES]


def test_the_questions_do_hold_words_that_stand_nowhere_else(tmp_path):
    config = tiny_config(tmp_path)
    words = set(world_vocabulary().words)
    for partition in range(3):
        for record in fake_partition(config, partition, 3).train:
            assert record.question.split()[0].startswith(NAMES[partition])
            assert record.question.split()[0] not in words


@pytest.mark.parametrize("mechanism", ["rank", "none"])
def test_without_raw_prompts_nothing_private_is_sent(tmp_path, mechanism):
    # Even without a mechanism an unknown word becomes <unk> before anything is drawn.
    config = tiny_config(
        tmp_path / "a", arms=PRIVATE_ARMS, mechanism=mechanism, test_tape=False
    )
    _, grid = federate(config)
    assert {kind for kind, _ in grid.uplink} == {
        "query.identify",
        "query.perturb",
        "train.distill",
        "evaluate",
    }
    assert len(grid.uplink) == 3 + 2 * 3 * 3
    for kind, sent in grid.uplink:
        assert not any(secret in sent for secret in secrets()), kind


def test_averaged_adapters_hold_nothing_private_either(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="fedcot", aggregation="fedavg", num_server_rounds=1
    )
    _, grid = federate(config)
    assert not any(secret in sent for _, sent in grid.uplink for secret in secrets())


def test_with_raw_prompts_only_their_own_type_holds_private_text(tmp_path):
    config = tiny_config(tmp_path / "a", arms="distil,shuffled-rationale,fedcot")
    _, grid = federate(config)
    for kind, sent in grid.uplink:
        found = any(secret in sent for secret in secrets())
        assert found == (kind == QUERY_PERTURB)
    for kind, content in grid.replies:
        if kind != QUERY_PERTURB:
            continue
        reply = PerturbReply.decode(content)
        assert all(prompt.question.startswith(NAMES) for prompt in reply.raw_prompts)
        columns = {
            key: str(value).encode()
            for key, value in content["config"].items()
            if key != "raw-prompts.question"
        }
        for key, value in columns.items():
            assert not any(secret in value for secret in secrets()), key


def test_what_is_sent_is_exactly_what_was_released(tmp_path):
    config = tiny_config(
        tmp_path / "a", arms="fedcot", num_server_rounds=1, test_tape=False
    )
    run, grid = federate(config)
    vocabulary = world_vocabulary()
    for kind, content in grid.replies:
        if kind == QUERY_PERTURB:
            reply = PerturbReply.decode(content)
            assert len(reply.prompts) == 4
            # The public length for every prompt, whatever the question's was.
            assert {len(prompt.ids) for prompt in reply.prompts} == {vocabulary.length}
    # The server's ledger holds keys, epsilons and hashes; never a word.
    ledger = run.ledger.read_bytes()
    assert not any(secret in ledger for secret in secrets())
    assert b"books" not in ledger


@pytest.mark.parametrize("handler", ["identify", "perturb", "distil", "evaluate"])
def test_no_exception_text_is_sent(tmp_path, monkeypatch, handler):
    # Flower would send type and text of an exception, and that of its cause.
    def fails(self, request):
        try:
            raise ValueError(self.partition.train[0].question)
        except ValueError as error:
            raise RuntimeError(f"failed on {self.partition.train}") from error

    monkeypatch.setattr(Node, handler, fails)
    config = tiny_config(tmp_path / "a", arms="fedcot", num_server_rounds=1)
    grid = LocalGrid(client_app.app, node_configs(2), config.to_run_config())
    with pytest.raises(FedcotError, match=f"no client came .* {handler}:"):
        server_app.run(grid, config, ScriptedTeacher())

    assert any(b"RuntimeError" in sent for _, sent in grid.uplink)
    summary = (tmp_path / "a" / "summary.json").read_bytes()
    for text in (*secrets(), b"failed on"):
        assert not any(text in sent for _, sent in grid.uplink)
        assert text not in summary
