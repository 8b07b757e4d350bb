"""Selection over rounds: banks of later rounds are made of what was released."""

import numpy as np
import pytest

from fedcot.errors import ConfigError
from fedcot.mechanism import granted_channel
from fedcot.privacy.public_model import BigramModel
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.privacy.vocabulary import Vocabulary, world_vocabulary
from strategies.evolution import BankEvolution
from strategies.state import RoundState
from tests.fakes import federate, rows_of, summary_of, tiny_config, tiny_world

__all__ = ["tiny_world"]

WORDS = Vocabulary.of([first + second for first in "abcd" for second in "wxyz"], 3)
PROMPTS = np.array([[i, j, 2] for i in range(2, 18) for j in range(2, 8)])


@pytest.fixture
def evolution() -> BankEvolution:
    first = SelectionChannel(WORDS, 3.0, bank=Bank(WORDS, PROMPTS))
    return BankEvolution(first, BigramModel(WORDS, PROMPTS), seed=0)


def test_the_first_round_uses_the_public_bank_and_sends_none(evolution):
    state = RoundState(server_round=1)
    assert evolution.channel(state, 0) is evolution.first
    assert evolution.sent_bank(state, 0) == ()


def test_a_later_bank_holds_variations_of_what_this_client_released(evolution):
    state = RoundState(server_round=1)
    state.prompts_sent = {0: [(5, 3, 2)] * 4, 1: [(9, 3, 2)]}
    after = state.next_round()
    channel = evolution.channel(after, 0)
    begins = channel.bank.prompts[:, 0]
    before = (PROMPTS[:, 0] == 5).mean()
    assert (begins == 5).mean() > 3 * before
    assert (begins == 9).mean() <= 2 * before
    # The old bank stays in reach, and the price of one draw is the same.
    assert set(PROMPTS[: len(PROMPTS) // 2, 0]) <= set(begins)
    assert channel.prompt_epsilon == evolution.first.prompt_epsilon
    assert channel.hash != evolution.first.hash
    assert evolution.channel(after, 0) is channel
    assert evolution.channel(after, 2) is evolution.first


def test_the_order_of_releases_does_not_change_the_bank(evolution):
    released = [(5, 3, 2), (6, 4, 2), (7, 5, 2)]
    hashes = set()
    for order in (released, released[::-1]):
        fresh = BankEvolution(evolution.first, evolution.model, seed=0)
        state = RoundState(server_round=2, prompts_before={0: list(order)})
        hashes.add(fresh.channel(state, 0).hash)
    assert len(hashes) == 1


def test_a_client_builds_the_bank_that_was_sent(tmp_path):
    config = tiny_config(tmp_path, mechanism="selection", prompt_epsilon=4.0)
    vocabulary = world_vocabulary()
    prompts = np.zeros((3, vocabulary.length), dtype=np.int64)
    prompts[:, 0] = [2, 3, 4]
    own = SelectionChannel(vocabulary, 4.0, bank=Bank(vocabulary, prompts))
    given = {"mechanism": "selection", "token_epsilon": 8.0, "prompt_epsilon": 4.0}
    sent = tuple(prompts.reshape(-1).tolist())
    assert granted_channel(config, **given, bank=sent).hash == own.hash
    for broken in (sent[:-1], (*sent[:-1], 9999), (*sent[:-1], -1), sent[:21] * 2):
        with pytest.raises(ConfigError, match="`bank` must hold"):
            granted_channel(config, **given, bank=broken)


def test_a_run_with_variations_charges_each_record_one_prompt(
    tmp_path, tiny_world, monkeypatch
):
    config = tiny_config(
        tmp_path / "a",
        arms="fedcot",
        mechanism="selection",
        prompt_epsilon=4.0,
        bank_size=60,
        bank_variations=True,
        test_tape=False,
        num_records=24,
        records_per_round=4,
    )
    run, _ = federate(config, count=3)
    summary = summary_of(run)
    assert summary["status"] == "completed"
    fedcot = summary["privacy"]["per_arm"]["fedcot"]
    assert 3.98 <= fedcot["record_epsilon_max"] <= 4.0
    assert fedcot["prompt_epsilon_max"] == fedcot["record_epsilon_max"]
    second = rows_of(run, phase="perturb", round=2)
    assert {row["num_fresh"] for row in second} == {4}
    # The bank travels down in the second round only.
    down = [rows_of(run, phase="perturb", round=r)[0]["downlink_bytes"] for r in (1, 2)]
    assert down[1] > down[0] + 30 * world_vocabulary().length
