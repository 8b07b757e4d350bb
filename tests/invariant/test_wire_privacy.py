"""Every byte that a client sends is searched for what only its records hold.

Words that stand in no vocabulary would not survive the encoding anyway, so they find
raw text only. That the ids on the wire are the ones that a ledger drew is checked
against the ledgers themselves.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

import client_app
import server_app
from fedcot import node
from fedcot.arms import PROMPTS, SPLITS
from fedcot.errors import FedcotError
from fedcot.node import Node
from fedcot.privacy.channels import build_channel
from fedcot.privacy.ledger import Ledger
from fedcot.privacy.vocabulary import world_vocabulary
from fedcot.records import CONFIG, QUERY_PERTURB, SCHEMA, PerturbReply
from fedcot.settings import ARMS
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
# A draw at 0.5 nats keeps a token of about 200 with probability 0.01.
LOW = 0.5


def secrets() -> list[bytes]:
    return [name.encode() for name in NAMES]


def low_config(run_dir, **settings):
    low = {"token_epsilon": LOW, "test_tape": False, "arms": "fedcot"}
    return tiny_config(run_dir, **{**low, **settings})


def perturb_replies(grid) -> list[PerturbReply]:
    return [
        PerturbReply.decode(content)
        for kind, content in grid.replies
        if kind == QUERY_PERTURB
    ]


def released(config, run, partition: int) -> dict[str, tuple[int, ...]]:
    """Return what a node's ledger drew, by the names that records have on the wire.

    The names are worked out here from the node's secret and its run folder.
    """
    folder = run.path / "nodes" / f"partition-{partition}"
    (run_folder,) = (path for path in folder.iterdir() if path.name != "ledger")
    channel = build_channel(config.mechanism, world_vocabulary(), config.token_epsilon)
    questions = [r.question for r in fake_partition(config, partition, 3).train]
    with Ledger(folder / "ledger", record_epsilon=1e9) as ledger:
        keys = ledger.record_keys(questions)
        names = ledger.pseudonyms(keys, run=run_folder.name)
    with closing(sqlite3.connect(folder / "ledger" / "ledger.sqlite")) as database:
        rows = database.execute(
            "SELECT record_key, ids FROM releases WHERE artefact = ?", (channel.hash,)
        )
        drawn = {key: tuple(json.loads(ids)) for key, ids in rows}
    found = zip(keys, names, strict=True)
    return {name: drawn[key] for key, name in found if key in drawn}


def check_ids(config, run, grid) -> None:
    """Every id on the wire was drawn by a ledger, for the record that it stands for."""
    replies = perturb_replies(grid)
    assert len(replies) == 3 * config.num_server_rounds
    for partition in range(3):
        own = [reply for reply in replies if reply.partition_id == partition]
        sent = {p.record_key: p.ids for reply in own for p in reply.prompts}
        assert len(sent) == 4 * config.num_server_rounds
        assert sent == released(config, run, partition)


def texts_of(content) -> Iterator[tuple[str, str]]:
    for key, value in content[CONFIG].items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                yield key, item


def check_texts(grid) -> None:
    """Every text on the wire is a hash, a name in the code, or which are right."""
    known = {*ARMS, *PROMPTS, *SPLITS}
    for kind, content in grid.replies:
        assert list(content.config_records) == [CONFIG]
        for key, text in texts_of(content):
            harmless = (
                key == SCHEMA
                or text in known
                or re.fullmatch(r"[0-9a-f]{64}|[01]*", text) is not None
            )
            assert harmless, (kind, key)


def test_the_questions_do_hold_words_that_stand_nowhere_else(tmp_path):
    config = tiny_config(tmp_path)
    words = set(world_vocabulary().words)
    for partition in range(3):
        for record in fake_partition(config, partition, 3).train:
            assert record.question.split()[0].startswith(NAMES[partition])
            assert record.question.split()[0] not in words
            # Others would survive the encoding.
            assert len(set(record.question.split()[1:]) & words) >= 4


@pytest.mark.parametrize("mechanism", ["rank", "none"])
def test_without_raw_prompts_no_unknown_word_is_sent(tmp_path, mechanism):
    # Even without a mechanism an unknown word becomes <unk> before anything is drawn.
    config = low_config(tmp_path / "a", arms=PRIVATE_ARMS, mechanism=mechanism)
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
    check_texts(grid)


def test_what_is_sent_is_exactly_what_the_ledgers_drew(tmp_path):
    config = low_config(tmp_path / "a", arms=PRIVATE_ARMS)
    run, grid = federate(config)
    check_ids(config, run, grid)
    check_texts(grid)
    vocabulary = world_vocabulary()
    for reply in perturb_replies(grid):
        encoded = [
            tuple(vocabulary.encode(record.question).tolist())
            for record in fake_partition(config, reply.partition_id, 3).train
        ]
        # The public length for every prompt, whatever the question's was.
        assert {len(prompt.ids) for prompt in reply.prompts} == {vocabulary.length}
        assert not {prompt.ids for prompt in reply.prompts} & set(encoded)
    # The server's ledger holds names, epsilons and hashes; never a word.
    ledger = run.ledger.read_bytes()
    assert not any(secret in ledger for secret in secrets())
    assert b"books" not in ledger


def whole_question(prompt, question):
    return question


def one_word(prompt, question):
    return (*prompt[:3], question[3], *prompt[4:])


def turned(prompt, question):
    return prompt[::-1]


@pytest.mark.parametrize("leak", [whole_question, one_word, turned])
def test_a_node_that_sends_other_ids_than_it_drew_is_caught(
    tmp_path, monkeypatch, leak
):
    # Words of the question stand in the vocabulary, and the search for secret words
    # passes; only the ledger shows the leak.
    honest = Node._release

    def leaks(self, ledger, request, records, vocabulary):
        return [
            replace(
                made,
                ids=leak(
                    made.ids,
                    tuple(vocabulary.encode(records[made.record_key].question)),
                ),
            )
            for made in honest(self, ledger, request, records, vocabulary)
        ]

    monkeypatch.setattr(Node, "_release", leaks)
    config = low_config(tmp_path / "a", num_server_rounds=1)
    run, grid = federate(config)
    assert not any(secret in sent for _, sent in grid.uplink for secret in secrets())
    with pytest.raises(AssertionError):
        check_ids(config, run, grid)


def test_a_node_that_exchanges_two_records_is_caught(tmp_path, monkeypatch):
    # The ids are drawn ones, but a rationale would meet another record's label.
    honest = Node._release

    def exchanges(self, ledger, request, records, vocabulary):
        made = honest(self, ledger, request, records, vocabulary)
        first, second, *others = made
        return [
            replace(first, ids=second.ids),
            replace(second, ids=first.ids),
            *others,
        ]

    monkeypatch.setattr(Node, "_release", exchanges)
    config = low_config(tmp_path / "a", num_server_rounds=1)
    run, grid = federate(config)
    with pytest.raises(AssertionError):
        check_ids(config, run, grid)


def test_without_a_mechanism_the_check_of_the_ids_sees_the_questions(tmp_path):
    # Where nothing is perturbed, what is sent is the encoding: the comparison above
    # between drawn and encoded prompts is not empty.
    config = low_config(tmp_path / "a", mechanism="none", num_server_rounds=1)
    run, grid = federate(config)
    check_ids(config, run, grid)
    vocabulary = world_vocabulary()
    for reply in perturb_replies(grid):
        encoded = {
            tuple(vocabulary.encode(record.question).tolist())
            for record in fake_partition(config, reply.partition_id, 3).train
        }
        assert {prompt.ids for prompt in reply.prompts} <= encoded


def test_text_beside_the_ids_is_caught(tmp_path, monkeypatch):
    # No check of ids would look there.
    honest = Node.perturb

    def leaks(self, request):
        reply = honest(self, request)
        object.__setattr__(reply, "channel_hash", "has 3 books")
        return reply

    monkeypatch.setattr(Node, "perturb", leaks)
    grid = LocalGrid(
        client_app.app,
        node_configs(2),
        low_config(tmp_path / "a", num_server_rounds=1).to_run_config(),
    )
    with pytest.raises(FedcotError):
        server_app.run(
            grid, low_config(tmp_path / "a", num_server_rounds=1), ScriptedTeacher()
        )
    with pytest.raises(AssertionError):
        check_texts(grid)


def test_averaged_adapters_hold_nothing_private_either(tmp_path):
    config = low_config(tmp_path / "a", aggregation="fedavg", num_server_rounds=1)
    run, grid = federate(config)
    assert not any(secret in sent for _, sent in grid.uplink for secret in secrets())
    check_ids(config, run, grid)
    check_texts(grid)


def test_averaged_adapters_are_a_function_of_what_was_released(tmp_path, monkeypatch):
    # Other private questions and labels, the same releases: the same adapters go up.
    honest = Node._release

    def same(self, ledger, request, records, vocabulary):
        return [
            replace(made, ids=tuple(range(place + 2, place + 2 + vocabulary.length)))
            for place, made in enumerate(
                honest(self, ledger, request, records, vocabulary)
            )
        ]

    monkeypatch.setattr(Node, "_release", same)

    def sent(name, change):
        def changed(*arguments):
            made = fake_partition(*arguments)
            return replace(made, train=tuple(map(change, made.train)))

        config = low_config(tmp_path / name, aggregation="fedavg", num_server_rounds=1)
        with monkeypatch.context() as patched:
            patched.setattr(node, "load_partition", changed)
            node._partition.cache_clear()
            _, grid = federate(config)
        node._partition.cache_clear()
        return {
            (content[CONFIG]["partition-id"], key): array.data
            for _, content in grid.replies
            for record in content.array_records.values()
            for key, array in record.items()
        }

    first = sent("a", lambda record: record)
    second = sent("b", lambda record: replace(record, answer="7", question="3 x"))
    assert len(first) > 3
    assert first == second


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
