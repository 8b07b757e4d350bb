"""The law of what a node sends for a question, every draw enumerated exactly.

The path is the node's own: partition, keys, encoding, ledger, store and reply. Equal
questions see all draws between them, so counting the replies is enumerating.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest

from fedcot import node as node_module
from fedcot import node_runs
from fedcot.data.schema import Partition, Record
from fedcot.node import Node
from fedcot.records import PerturbReply, PerturbRequest
from tests.fakes import owner, tiny_config
from tests.grid import as_deployed
from tests.privacy.oracle import (
    TINY,
    ChoiceTape,
    Law,
    enumerated_law,
    worst_ratio,
)
from tests.privacy.test_enumeration import (
    FEW_TEXTS,
    SavingChannel,
    check_laws,
    exponential_channel,
    rank_channel,
    row_totals,
)


def laws_of(tmp_path, monkeypatch, texts: Sequence[str], channel) -> dict[str, Law]:
    """The law of the prompt that goes on the wire for each text."""
    held: list[Record] = []
    monkeypatch.setattr(node_module, "configured_vocabulary", lambda config: TINY)
    monkeypatch.setattr(
        node_module, "granted_channel", lambda *arguments, **more: channel
    )
    for module in (node_module, node_runs):
        monkeypatch.setattr(module, "artefact_hash", lambda *arguments: "ab" * 32)
    monkeypatch.setattr(
        Node, "partition", property(lambda self: Partition(tuple(held), (), ()))
    )

    def release(text: str, copies: int, tape: ChoiceTape) -> list[tuple[int, ...]]:
        held[:] = [Record(text, "1", "library")] * copies
        monkeypatch.setattr(Node, "_source", lambda self, server_round: tape)
        sizes = {"num_records": 3 * copies, "records_per_round": copies}
        node = Node(tiny_config(tmp_path, test_tape=False, **sizes), owner())
        asked = PerturbRequest(
            server_round=1,
            sources=("fedcot",),
            mechanism="rank",
            token_epsilon=1.0,
            prompt_epsilon=0.0,
            bank=(),
            record_epsilon=1000.0,
            channel_hash=channel.hash,
            run_key="0" * 16,
            run_dir=str(tmp_path / (text.replace(" ", "-") or "empty")),
        )
        sent = as_deployed(node.perturb(asked).encode())
        assert tape.calls == 1
        return [prompt.ids for prompt in PerturbReply.decode(sent).prompts]

    return {
        text: enumerated_law(text, row_totals(text, channel), release) for text in texts
    }


@pytest.mark.parametrize("make", [rank_channel, exponential_channel])
def test_the_epsilon_holds_for_what_a_node_sends(tmp_path, monkeypatch, make):
    channel = make()
    laws = laws_of(tmp_path, monkeypatch, FEW_TEXTS, channel)
    assert all(sum(law.values()) == 1 for law in laws.values())
    assert all(len(law) == channel.size**TINY.length for law in laws.values())
    check_laws(laws, channel.token_epsilon)


def test_the_claim_is_reached_and_not_merely_kept(tmp_path, monkeypatch):
    texts = ["", "fox fox fox"]
    laws = laws_of(tmp_path, monkeypatch, texts, rank_channel())
    assert worst_ratio([laws[text] for text in texts]) == Fraction(125)


@pytest.mark.parametrize("saved", [(1,), (2,), (0,)])
def test_a_channel_that_saves_a_token_fails(tmp_path, monkeypatch, saved):
    mutant = SavingChannel(rank_channel(), saved)
    laws = laws_of(tmp_path, monkeypatch, FEW_TEXTS, mutant)
    with pytest.raises(AssertionError):
        check_laws(laws, mutant.channel.token_epsilon)


def test_a_node_that_puts_one_word_back_fails(tmp_path, monkeypatch):
    # The ledger draws as it should and the node spoils it afterwards.
    honest = Node._release

    def leaks(self, ledger, request, records, vocabulary):
        return [
            replace(
                made,
                ids=(
                    int(vocabulary.encode(records[made.record_key].question)[0]),
                    *made.ids[1:],
                ),
            )
            for made in honest(self, ledger, request, records, vocabulary)
        ]

    monkeypatch.setattr(Node, "_release", leaks)
    laws = laws_of(tmp_path, monkeypatch, ["", "fox"], rank_channel())
    with pytest.raises(AssertionError):
        check_laws(laws, rank_channel().token_epsilon)


def test_the_order_of_the_prompts_is_that_of_public_chance(tmp_path, monkeypatch):
    # Node and server choose the same records, whatever the questions are.
    held = [Record(f"fox {n}", "1", "library") for n in range(9)]
    monkeypatch.setattr(node_module, "configured_vocabulary", lambda config: TINY)
    channel = rank_channel()
    monkeypatch.setattr(
        node_module, "granted_channel", lambda *arguments, **more: channel
    )
    for module in (node_module, node_runs):
        monkeypatch.setattr(module, "artefact_hash", lambda *arguments: "ab" * 32)
    texts = ("fox", "hen", "zebra")
    orders = set()
    for first, second in product(texts, repeat=2):
        held[:2] = [Record(first, "1", "library"), Record(second, "1", "library")]
        monkeypatch.setattr(
            Node, "partition", property(lambda self: Partition(tuple(held), (), ()))
        )
        node = Node(tiny_config(tmp_path), owner())
        with node._ledger(str(tmp_path / f"{first}-{second}")) as ledger:
            keys = node._keys(ledger)
            asked = node._asked_records(ledger, 1)
        orders.add(tuple(keys.index(key) for key in asked))
    assert len(orders) == 1
    assert len(orders.pop()) == 4
