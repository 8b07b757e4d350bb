"""What one client was granted and has released, in nano-nats."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

from fedcot.privacy.nats import NANO, nats, whole_nano_nats
from strategies.events import AggregateEvent, PromptsEvent, TrainingEvent

# Whole nano-nats; a float is infinite.
Amount = int | float
Training = tuple[int, str, float, float, int]


@dataclass(slots=True)
class ClientAccount:
    """The account of one client's records; `strategies.accounting` keeps the limit.

    Attributes
    ----------
    granted : dict of str to Amount
        What one prompt may cost, by channel. A record is drawn once per channel, so
        a second grant of the same channel adds nothing.
    unanswered : dict of str to set of int
        Rounds of a channel's grants whose reply has not arrived. Without any, what the
        channel has cost is known record by record.
    spent : dict of str to dict of str to Amount
        What is known to be released, by record and channel.
    reported : Amount
        The most that the client's own ledger has stated for one record, earlier runs
        included.
    reported_after, asked_after : Counter of (float, float)
        The `gaussians` when the prompts were asked for whose reply stated it; and when
        prompts were asked for last. What came later is added to `reported`.
    gaussians : Counter of (float, float)
        Steps that every record pays for, by noise multiplier and sampling rate.
    aggregates : Counter of (float, float)
        Noised means that hold the client's updates, for the unit `client`.
    trainings : set of tuple
        Trainings that were charged. A client trains once per round and arm and sends
        the same adapter again when asked again.
    num_releases : int
        Releases that arrived.
    """

    granted: dict[str, Amount] = field(default_factory=dict)
    unanswered: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    spent: dict[str, dict[str, Amount]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    reported: Amount = 0
    reported_after: Counter[tuple[float, float]] = field(default_factory=Counter)
    asked_after: Counter[tuple[float, float]] = field(default_factory=Counter)
    gaussians: Counter[tuple[float, float]] = field(default_factory=Counter)
    aggregates: Counter[tuple[float, float]] = field(default_factory=Counter)
    trainings: set[Training] = field(default_factory=set)
    num_releases: int = 0

    def known(self, key: str) -> Amount:
        """Return what a record's prompts are known to have cost."""
        return sum(self.spent.get(key, {}).values())

    def most_known(self) -> Amount:
        """Return what the prompts of the most charged record are known to have cost."""
        return max((sum(of.values()) for of in self.spent.values()), default=0)

    def most_possible(self) -> Amount:
        """Return what prompts may have cost one record if no reply comes any more."""
        open_grants = {
            channel: cost
            for channel, cost in self.granted.items()
            if self.unanswered.get(channel)
        }
        worst: Amount = sum(open_grants.values())
        for released in self.spent.values():
            channels = open_grants.keys() | released.keys()
            total = sum(
                max(open_grants.get(channel, 0), released.get(channel, 0))
                for channel in channels
            )
            worst = max(worst, total)
        return worst

    def grant_prompts(self, event: PromptsEvent) -> None:
        """Note that prompts may be released."""
        before = self.granted.get(event.channel_hash, 0)
        self.granted[event.channel_hash] = max(before, amount(event.prompt_epsilon))
        self.unanswered[event.channel_hash].add(event.server_round)
        self.asked_after = self.gaussians.copy()

    def add_prompts(self, event: PromptsEvent, count: int) -> None:
        """Charge each record of the event."""
        cost = amount(event.prompt_epsilon) * count
        for key in event.record_keys:
            released = self.spent[key]
            released[event.channel_hash] = released.get(event.channel_hash, 0) + cost
        self.num_releases += count * len(event.record_keys)
        self.unanswered[event.channel_hash].discard(event.server_round)

    def charge_training(self, event: TrainingEvent) -> None:
        """Charge a training once, whether it is asked for or arrives."""
        if not self.is_charged(event):
            self.trainings.add(_training(event))
            self.gaussians += steps_of(event)

    def is_charged(self, event: TrainingEvent) -> bool:
        """Whether a training was charged before, when it was granted or arrived."""
        return _training(event) in self.trainings

    def report(self, charged: Amount) -> None:
        """Note what the client's ledger states."""
        self.reported = charged
        self.reported_after = self.asked_after.copy()

    def add_aggregate(self, event: AggregateEvent, count: int) -> None:
        """Charge means that hold this client's updates."""
        self.aggregates += steps_of(event, count)
        if event.counts_for_records:
            self.gaussians += steps_of(event, count)
        self.num_releases += count

    def state_dict(self) -> dict[str, Any]:
        """Return the account as JSON-able values, sorted."""
        return {
            "granted": {k: _stored(v) for k, v in sorted(self.granted.items())},
            "unanswered": {
                channel: sorted(rounds)
                for channel, rounds in sorted(self.unanswered.items())
                if rounds
            },
            "spent": {
                key: {channel: _stored(v) for channel, v in sorted(of.items())}
                for key, of in sorted(self.spent.items())
            },
            "reported": _stored(self.reported),
            "reported_after": _rows(self.reported_after),
            "asked_after": _rows(self.asked_after),
            "gaussians": _rows(self.gaussians),
            "aggregates": _rows(self.aggregates),
            "trainings": [list(training) for training in sorted(self.trainings)],
            "num_releases": self.num_releases,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return a stored account."""
        account = cls(
            granted={str(k): _restored(v) for k, v in state["granted"].items()},
            reported=_restored(state["reported"]),
            reported_after=_counter(state["reported_after"]),
            asked_after=_counter(state["asked_after"]),
            gaussians=_counter(state["gaussians"]),
            aggregates=_counter(state["aggregates"]),
            trainings={(r, arm, s, q, n) for r, arm, s, q, n in state["trainings"]},
            num_releases=int(state["num_releases"]),
        )
        for channel, rounds in state["unanswered"].items():
            account.unanswered[str(channel)] = {int(number) for number in rounds}
        for key, of in state["spent"].items():
            account.spent[key] = {str(c): _restored(v) for c, v in of.items()}
        return account


def amount(epsilon: float) -> Amount:
    """Return the nano-nats that a ledger charged.

    A charge is a whole number of them that travelled as a float rounded up, so the
    nearest whole number is the charge. Rounding up again would add one each time.
    """
    whole = whole_nano_nats(epsilon)
    return math.inf if whole is None else whole


def amount_up(epsilon: float) -> Amount:
    """Return an epsilon that was computed in floats, rounded up to nano-nats."""
    return math.inf if math.isinf(epsilon) else math.ceil(Fraction(epsilon) * NANO)


def in_nats(value: Amount) -> float:
    """Return nats, rounded up."""
    return nats(value if isinstance(value, int) else None)


def steps_of(
    event: TrainingEvent | AggregateEvent, count: int = 1
) -> Counter[tuple[float, float]]:
    """Return the Gaussian steps of some events of one kind."""
    if isinstance(event, TrainingEvent):
        place = (event.noise_multiplier, event.sampling_rate)
        return Counter({place: event.steps * count})
    # No client is left out by chance that an observer could not know.
    return Counter({(event.noise_multiplier, 1.0): count})


def _training(event: TrainingEvent) -> Training:
    return (
        event.server_round,
        event.arm,
        event.noise_multiplier,
        event.sampling_rate,
        event.steps,
    )


def _stored(value: Amount) -> int | None:
    return value if isinstance(value, int) else None


def _restored(value: int | None) -> Amount:
    return math.inf if value is None else int(value)


def _rows(steps: Mapping[tuple[float, float], int]) -> list[list[float]]:
    return [[noise, rate, count] for (noise, rate), count in sorted(steps.items())]


def _counter(rows: Iterable[Sequence[Any]]) -> Counter[tuple[float, float]]:
    return Counter({(noise, rate): int(count) for noise, rate, count in rows})
