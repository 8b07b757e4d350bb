"""Whatever is lost, late or delivered twice, the account covers what is out."""

import contextlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcot.errors import PrivacyBudgetExhausted
from strategies.accounting import PrivacyAccountant
from strategies.composition import gaussian_epsilon
from strategies.events import PromptsEvent, TrainingEvent

LIMIT, DELTA, ORDER = 30.0, 1e-6, 8.0
CHANNELS = {"a": 7.0, "b": 11.5, "c": 31.0}
NOISES = (1.5, 3.0, 0.5)
RECORDS = ("r0", "r1", "r2")
PARTITIONS = (0, 1)

asks = st.tuples(
    st.just("ask"),
    st.sampled_from(PARTITIONS),
    st.sampled_from(sorted(CHANNELS)),
    st.sets(st.sampled_from(RECORDS), min_size=1),
    st.sampled_from(("arrives", "lost", "twice", "late")),
)
trainings = st.tuples(
    st.just("train"),
    st.sampled_from(PARTITIONS),
    st.sampled_from(NOISES),
    st.integers(1, 3),
    st.sampled_from(("arrives", "lost", "twice", "late")),
)
stories = st.lists(st.one_of(asks, trainings), max_size=14)


class NoBook:
    """Writes nothing: a disk that syncs would take all of the time here."""

    def __init__(self, path, *, record_epsilon) -> None:
        pass

    def write_grant(self, event) -> None:
        pass

    def write_release(self, event, count) -> None:
        pass


@pytest.fixture(autouse=True, scope="module")
def no_book():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strategies.accounting.AccountBook", NoBook)
        yield


class Client:
    """A client whose ledger keeps the limit, draws once per channel, trains once."""

    def __init__(self) -> None:
        self.prompts: dict[str, dict[str, float]] = defaultdict(dict)
        self.steps: dict[str, Counter] = defaultdict(Counter)
        self.trained: set = set()

    def spent(self, record: str, more: Counter | None = None) -> float:
        steps = self.steps[record] + (more or Counter())
        noise = gaussian_epsilon(steps, delta=DELTA, order=ORDER)
        return sum(self.prompts[record].values()) + noise

    def most(self) -> float:
        return max(self.spent(record) for record in RECORDS)

    def ask(self, channel: str, records: set[str]) -> tuple[str, ...]:
        fresh = []
        for record in sorted(records):
            cost = CHANNELS[channel]
            is_new = channel not in self.prompts[record]
            if is_new and self.spent(record) + cost <= LIMIT:
                self.prompts[record][channel] = cost
                fresh.append(record)
        return tuple(fresh)

    def train(self, event: TrainingEvent) -> None:
        if event in self.trained:
            return
        self.trained.add(event)
        steps = Counter({(event.noise_multiplier, event.sampling_rate): event.steps})
        for record in RECORDS:
            if self.spent(record, steps) <= LIMIT:
                self.steps[record] += steps


class Careless(Client):
    """A client that draws again and again and keeps no limit."""

    def ask(self, channel: str, records: set[str]) -> tuple[str, ...]:
        return tuple(sorted(records))


class Federation:
    """One account and its clients."""

    def __init__(self, client: type[Client] = Client) -> None:
        self.account = self.opened()
        self.clients = {partition: client() for partition in PARTITIONS}
        self.late: list[PromptsEvent | TrainingEvent] = []

    def opened(self) -> PrivacyAccountant:
        return PrivacyAccountant(
            Path("unused"), record_epsilon=LIMIT, delta=DELTA, order=ORDER
        )

    def restart(self) -> None:
        stored = json.loads(json.dumps(self.account.state_dict()))
        self.account = self.opened()
        self.account.load_state_dict(stored)

    def play(self, act) -> None:
        kind, partition, *rest, fate = act
        reply = (self._ask if kind == "ask" else self._train)(partition, *rest)
        if reply is None or fate == "lost":
            return
        if fate == "late":
            self.late.append(reply)
        for _ in range({"arrives": 1, "twice": 2, "late": 0}[fate]):
            self.receive(reply)

    def receive(self, reply: PromptsEvent | TrainingEvent) -> None:
        if isinstance(reply, PromptsEvent):
            self.account.observe(reply)
        # Only what was delivered twice adds up to more than the client may spend.
        with contextlib.suppress(PrivacyBudgetExhausted):
            self.account.compose(reply)

    def _ask(self, partition, channel, records) -> PromptsEvent | None:
        place = {"server_round": 1, "partition_id": partition, "channel_hash": channel}
        request = PromptsEvent(**place, prompt_epsilon=CHANNELS[channel])
        if not self.account.grant(request):
            return None
        client = self.clients[partition]
        fresh = client.ask(channel, records)
        return PromptsEvent(
            **place,
            prompt_epsilon=CHANNELS[channel] if fresh else 0.0,
            record_keys=fresh,
            reported_epsilon=client.most(),
        )

    def _train(self, partition, noise, number) -> TrainingEvent | None:
        event = TrainingEvent(
            server_round=number,
            partition_id=partition,
            noise_multiplier=noise,
            sampling_rate=0.25,
            steps=5,
        )
        if not self.account.grant(event):
            return None
        self.clients[partition].train(event)
        return event

    def check(self) -> None:
        for partition, client in self.clients.items():
            charged = self.account.get_epsilon(partition_id=partition)
            # The account rounds up to nano-nats; the client's sum here does not.
            assert client.most() - 1e-9 <= charged <= LIMIT
        assert self.account.get_epsilon() == max(
            self.account.get_epsilon(partition_id=partition) for partition in PARTITIONS
        )


@given(stories)
@settings(max_examples=200, deadline=None)
def test_the_account_covers_every_release_and_never_passes_the_limit(story):
    federation = Federation()
    for act in story:
        federation.play(act)
        federation.check()
    for reply in federation.late:
        federation.receive(reply)
        federation.check()


@given(stories)
@settings(max_examples=100, deadline=None)
def test_what_a_careless_client_overspends_is_refused_by_the_account(story):
    federation = Federation(Careless)
    # Its own ledger is not asked here: what it states may be above any limit.
    federation.account.observe = lambda event: None
    for act in story:
        federation.play(act)
        assert federation.account.get_epsilon() <= LIMIT


@given(stories, st.integers(0, 14))
@settings(max_examples=60, deadline=None)
def test_an_account_that_is_stored_and_taken_up_goes_on_as_if_nothing_was(story, stop):
    steady, stopped = Federation(), Federation()
    for number, act in enumerate(story):
        if number == stop:
            stopped.restart()
        steady.play(act)
        stopped.play(act)
    assert stopped.account.state_dict() == steady.account.state_dict()
    assert stopped.account.get_privacy_spent() == steady.account.get_privacy_spent()


@given(stories)
@settings(max_examples=60, deadline=None)
def test_the_order_of_clients_does_not_matter(story):
    # Each client sees its own requests in the same order; only the clients interleave.
    sorted_story = sorted(story, key=lambda act: act[1])
    one, other = Federation(), Federation()
    for act in story:
        one.play(act)
    for act in sorted_story:
        other.play(act)
    assert one.account.state_dict() == other.account.state_dict()
    assert one.account.get_privacy_spent() == other.account.get_privacy_spent()


def test_the_model_catches_an_account_that_forgets_lost_replies(monkeypatch):
    # The properties above must be able to fail.
    monkeypatch.setattr(
        "strategies.account.ClientAccount.grant_prompts", lambda self, event: None
    )
    federation = Federation()
    federation.play(("ask", 0, "a", {"r0"}, "lost"))
    with pytest.raises(AssertionError):
        federation.check()
