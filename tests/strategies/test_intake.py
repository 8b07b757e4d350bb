"""Replies are charged before anything of them is used, for what they really hold."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.ledger import Release
from fedcot.records import (
    QUERY_IDENTIFY,
    QUERY_PERTURB,
    TRAIN_DISTILL,
    DistillReply,
    IdentifyReply,
    PerturbReply,
)
from fedcot.rows import PerturbedPrompt, RawPrompt
from strategies.events import PromptsEvent, TrainingEvent
from strategies.exchange import Answer
from strategies.intake import LARGEST_VALUE, Intake
from strategies.state import Member, RoundState

CHANNEL = SimpleNamespace(slots=2, size=5, hash="ab" * 32)
NODE, PARTITION = 77, 3


class Notes:
    """Stands for the account: keeps each event with what the state held then."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.events: list[tuple[object, bool]] = []

    def before_send(self, state, event):
        raise AssertionError

    def after_receive(self, state, event):
        used = bool(state.asked or state.trained or state.released)
        self.events.append((event, used))
        if self.refuses:
            raise PrivacyBudgetExhausted("Too much.")


class NoResults:
    def __init__(self, **more):
        given = {
            "aggregation": "fedavg",
            "arm_names": ("fedcot", "standalone"),
            "records_per_round": 8,
            "mode": "fedcot",
            "canaries": 0,
            "canary_repeats": 1,
            **more,
        }
        self.config = SimpleNamespace(**given)

    def adapter_shapes(self):
        return {"a": (2,)}

    def __getattr__(self, name):
        return lambda *arguments, **keywords: None


def training(arm: str) -> TrainingEvent:
    return TrainingEvent(
        server_round=1,
        partition_id=PARTITION,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        steps=4,
        arm=arm,
    )


def member(**changes) -> Member:
    said = {"num_records": 9, "raw_prompts_allowed": True, **changes}
    return Member(NODE, SimpleNamespace(**said))


def take(message_type, reply, spending, state=None, **settings):
    intake = Intake(
        channel_of=lambda *_: CHANNEL,
        spending=spending,
        results=NoResults(**settings),
        trainings=lambda *_: (training("fedcot"), training("standalone")),
    )
    if state is None:
        state = RoundState(server_round=1, members={PARTITION: member()})
    intake.take(state, Answer(NODE, message_type, reply.encode(), 1, 1, 0.1))
    return state


def prompts(**changes) -> PerturbReply:
    """Two prompts, of which one was sent before."""
    made = []
    for digit, fresh in (("1", True), ("2", False)):
        release = Release("key", (1, 2), CHANNEL.hash, 8.0, fresh)
        made.append(PerturbedPrompt(release, record_key=digit * 64, fresh=fresh))
    given = {
        "partition_id": PARTITION,
        "slots": CHANNEL.slots,
        "vocabulary_size": CHANNEL.size,
        "channel_hash": CHANNEL.hash,
        "prompt_epsilon": 8.0,
        "spent_record_epsilon": 24.0,
        "spent_record_delta": 2e-6,
        "num_fresh": 1,
        "num_refused": 0,
        "prompts": tuple(made),
    }
    return PerturbReply(**{**given, **changes})


def test_the_fresh_prompts_are_charged_and_what_the_ledger_states_is_reported():
    account = Notes()
    state = take(QUERY_PERTURB, prompts(), account)
    ((event, used),) = account.events
    assert event == PromptsEvent(
        server_round=1,
        partition_id=PARTITION,
        prompt_epsilon=8.0,
        channel_hash=CHANNEL.hash,
        record_keys=("1" * 64,),
        reported_epsilon=24.0,
    )
    assert not used
    assert state.asked.keys() == state.released == {PARTITION}
    assert state.failures == []


def test_prompts_of_another_channel_are_charged_and_not_used():
    account = Notes()
    state = take(QUERY_PERTURB, prompts(channel_hash="cd" * 32), account)
    assert [event.channel_hash for event, _ in account.events] == ["cd" * 32]
    assert not state.asked
    assert state.charged_delta == {PARTITION: 2e-6}
    assert "another channel than granted" in state.failures[0]


def test_a_reply_without_prompts_still_says_what_was_spent():
    account = Notes()
    empty = {"prompts": (), "num_fresh": 0, "prompt_epsilon": 0.0, "num_refused": 2}
    state = take(QUERY_PERTURB, prompts(**empty), account)
    ((event, _),) = account.events
    assert (event.record_keys, event.reported_epsilon) == ((), 24.0)
    assert state.exhausted == {PARTITION}


def test_the_delta_that_a_ledger_states_never_falls():
    state = RoundState(server_round=1, members={PARTITION: member()})
    for stated, kept in ((1e-6, 1e-6), (3e-6, 3e-6), (0.0, 3e-6), (2e-6, 3e-6)):
        state = take(
            QUERY_PERTURB, prompts(spent_record_delta=stated), Notes(), state
        ).next_round()
        assert state.charged_delta == {PARTITION: kept}


RAW = {"raw_prompts": (RawPrompt("3" * 64, "3 books 2 come back"),)}


@pytest.mark.parametrize(
    ("sent", "settings", "said", "reason"),
    [
        (RAW, {}, {}, "as they are"),
        (RAW, {"arm_names": ("fedcot", "distil")}, {}, ""),
        # One node that forbids them has the arm left out for all.
        (RAW, {"arm_names": ("fedcot", "distil")}, {"raw_prompts_allowed": False},
         "as they are"),
        ({}, {"arm_names": ("distil",)}, {}, "Perturbed questions"),
        ({}, {"records_per_round": 2}, {}, ""),
        ({}, {"records_per_round": 1}, {}, "than the 1 asked"),
        ({}, {}, {"num_records": 1}, "than the 1 asked"),
    ],
)  # fmt: skip
def test_prompts_that_nobody_asked_for_are_charged_and_not_used(
    sent, settings, said, reason
):
    """Failure would put a question that was never released to the teacher."""
    account = Notes()
    state = RoundState(server_round=1, members={PARTITION: member(**said)})
    state = take(QUERY_PERTURB, prompts(**sent), account, state, **settings)
    assert len(account.events) == 1
    assert bool(state.asked) == (not reason)
    assert len(state.failures) == bool(reason)
    assert all(reason in line and "come back" not in line for line in state.failures)


ADAPTER = {"a": np.zeros(2, dtype=np.float32)}
TRAINED = DistillReply(
    partition_id=PARTITION, withheld=True, adapters={"fedcot": ADAPTER}
)


def test_an_adapter_that_arrives_is_charged_and_one_that_does_not_is_not():
    account = Notes()
    state = take(TRAIN_DISTILL, TRAINED, account)
    assert account.events == [(training("fedcot"), False)]
    assert state.trained.keys() == {PARTITION}


@pytest.mark.parametrize(("size", "fits"), [(LARGEST_VALUE, True), (1e30, False)])
def test_an_adapter_that_would_drown_all_others_is_a_failure(size, fits):
    huge = {"fedcot": {"a": np.array([0, -size], dtype=np.float32)}}
    reply = DistillReply(partition_id=PARTITION, withheld=True, adapters=huge)
    state = take(TRAIN_DISTILL, reply, Notes())
    assert bool(state.trained) == fits
    assert all("at most 10000 in size" in line for line in state.failures)
    assert len(state.failures) == (not fits)


@pytest.mark.parametrize(
    ("dataset", "records", "fits"),
    [("world", 9, True), ("world", 10, False), ("gsm8k", 10**6, True)],
)
def test_no_node_has_more_than_its_share_of_the_world(dataset, records, fits):
    """Its adapter would weigh more than all others, by its own word."""
    digest = "ab" * 32
    reply = IdentifyReply(
        code_hash=digest, student_hash=digest, vocabulary_hash=digest,
        dataset_hash="", partition_id=0, num_partitions=3, num_records=records,
        simulated=False, raw_prompts_allowed=False,
    )  # fmt: skip
    state = RoundState(server_round=1, expected=3)
    state = take(QUERY_IDENTIFY, reply, Notes(), state, dataset=dataset, num_records=27)
    assert bool(state.members) == fits
    assert all("share (9), found 10" in line for line in state.failures)
    assert len(state.failures) == (not fits)


@pytest.mark.parametrize(
    ("message_type", "reply"), [(QUERY_PERTURB, prompts()), (TRAIN_DISTILL, TRAINED)]
)
def test_what_overspends_is_a_failure_and_nothing_of_it_is_used(message_type, reply):
    account = Notes(refuses=True)
    state = take(message_type, reply, account)
    assert [used for _, used in account.events] == [False]
    assert not state.asked
    assert not state.trained
    assert not state.released
    assert not state.prompts_sent
    assert "Too much." in state.failures[0]
