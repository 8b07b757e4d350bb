"""What the server granted and what was released: it plans and reports.

The client's ledger enforces; see `fedcot.privacy.ledger`. The protocol is that of
Flower's accountants (`flwr.supercore.privacy_accounting.PrivacyAccountant`:
`compose`, `would_exceed`, `get_privacy_spent`, `state_dict`, `load_state_dict`). Theirs
know one Gaussian event and one population. Here the unit is a record: the prompts,
private trainings and noised means that touch one record add up.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedcot.budget import record_limit
from fedcot.config import RunConfig
from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.accounting import NEIGHBORING_RELATION
from fedcot.privacy.nats import limit_in_nano_nats
from strategies.account import (
    Amount,
    ClientAccount,
    amount,
    amount_up,
    in_nats,
    steps_of,
)
from strategies.account_book import AccountBook
from strategies.composition import (
    DEFAULT_ORDER,
    Gaussians,
    best_order,
    gaussian_epsilon,
)
from strategies.events import (
    AggregateEvent,
    PrivacyEvent,
    PromptsEvent,
    TrainingEvent,
)

# The sums of deltas that clients' ledgers have stated, by partition.
StatedDeltas = Callable[[], Mapping[int, float]]
SCHEMA_VERSION: Final = 2
METHOD: Final = (
    "pure epsilons of a record's prompts added up; Gaussian steps by Renyi privacy at "
    f"one fixed order under {NEIGHBORING_RELATION}"
)


def configured_accountant(
    config: RunConfig,
    path: Path,
    planned: Gaussians,
    stated_deltas: StatedDeltas | None = None,
) -> "PrivacyAccountant":
    """Return the accountant of a run.

    Parameters
    ----------
    config : RunConfig
        Its limit for one record, and delta.
    path : Path
        The server's ledger.
    planned : mapping of (float, float) to int
        Steps of DP-SGD that the run plans, by noise multiplier and sampling rate.
    stated_deltas : callable, optional
        As for `PrivacyAccountant`.
    """
    return PrivacyAccountant(
        path,
        record_epsilon=record_limit(config),
        delta=config.delta,
        order=best_order(planned, delta=config.delta),
        stated_deltas=stated_deltas,
    )


@dataclass(frozen=True, slots=True)
class PrivacySpent:
    """What was charged, in nats, as Flower's `PrivacySpent` states it.

    Attributes
    ----------
    epsilon, delta : float
        Of the record that was charged most; delta is 0 if only prompts were charged,
        and holds what clients' ledgers stated of their records' trainings.
    num_releases : int
        Releases that arrived.
    accounting_method : str
        How they were added up.
    optimal_order : float or None
        The Rényi order; None where no Gaussian step was charged.
    prompts_epsilon, gaussian_epsilon, client_epsilon : float
        The record's prompts and its Gaussian steps; and the noised means alone, for
        the unit client.
    """

    epsilon: float
    delta: float
    num_releases: int
    accounting_method: str = METHOD
    optimal_order: float | None = None
    prompts_epsilon: float = 0.0
    gaussian_epsilon: float = 0.0
    client_epsilon: float = 0.0


class PrivacyAccountant:
    """Adds up what touches each record and refuses what would overspend.

    Parameters
    ----------
    path : Path
        The server's ledger, an SQLite file; it never holds private text.
    record_epsilon : float
        Nats that one record may cost over the whole run, > 0; infinite only for runs
        without a mechanism.
    delta : float
        In [0, 1); at which Gaussian steps are stated. With 0 none is granted.
    order : float
        Rényi order of the Gaussian steps, > 1, fixed before the run.
    stated_deltas : callable, optional
        Returns the largest sum of deltas that each client's ledger has stated for a
        record, by partition: what `PromptsEvent.reported_epsilon` holds at. Without it
        none was stated.

    Raises
    ------
    ValueError
        A value breaks its rule.
    """

    def __init__(
        self,
        path: Path,
        *,
        record_epsilon: float,
        delta: float = 0.0,
        order: float = DEFAULT_ORDER,
        stated_deltas: StatedDeltas | None = None,
    ) -> None:
        if not record_epsilon > 0:
            raise ValueError(f"`record_epsilon` must be > 0, found {record_epsilon}.")
        if not 0 <= delta < 1 or not order > 1:
            raise ValueError(
                f"`delta` must lie in [0, 1) and `order` be > 1, found {delta} and "
                f"{order}."
            )
        self.path = path
        self.record_epsilon = record_epsilon
        self.delta = delta
        self.order = order
        self._stated_deltas = stated_deltas
        self._limit = _limit(record_epsilon)
        self._clients: dict[int, ClientAccount] = {}
        self._book = AccountBook(path, record_epsilon=record_epsilon)

    @property
    def num_releases(self) -> int:
        """How many fresh prompts, private trainings and noised updates arrived."""
        return sum(account.num_releases for account in self._clients.values())

    def would_exceed(
        self, event: PrivacyEvent, max_epsilon: float | None = None, count: int = 1
    ) -> bool:
        """Whether some record would pass the limit; nothing changes.

        A `PromptsEvent` without record keys is a request: it asks whether a record
        that has released nothing may pay. The client's ledger refuses for the others.

        Parameters
        ----------
        max_epsilon : float or None
            Nats; None: the limit of this account.
        count : int
            How many times the event.
        """
        limit = self._limit if max_epsilon is None else _limit(max_epsilon)
        return any(
            self._after(event, self._account(partition), count) > limit
            for partition in event.partitions
        )

    def grant(self, event: PrivacyEvent) -> bool:
        """Grant what a request makes clients release; it counts from now on.

        Its reply may be lost or late, and then nobody says what was released.

        Returns
        -------
        bool
            Whether it was granted; what is granted is written down first.
        """
        if self.would_exceed(event):
            return False
        if isinstance(event, AggregateEvent):
            # It leaves the server: there is no reply to wait for.
            self.compose(event)
            return True
        self._book.write_grant(event)
        account = self._open(event.partition_id)
        if isinstance(event, PromptsEvent):
            account.grant_prompts(event)
        else:
            account.charge_training(event)
        return True

    def compose(self, event: PrivacyEvent, count: int = 1) -> None:
        """Charge what was released; nothing changes if it would overspend.

        Raises
        ------
        PrivacyBudgetExhausted
            A record's limit would be passed: the client released what it must not.
        """
        if count < 1:
            raise ValueError(f"`count` must be >= 1, found {count}.")
        if isinstance(event, PromptsEvent) and not event.record_keys:
            # What was released before and is sent again tells nothing new.
            return
        if self.would_exceed(event, count=count):
            raise PrivacyBudgetExhausted(
                f"Partition {_listed(event)} released more than `record-epsilon` "
                f"({self.record_epsilon} nats) allows for one record."
            )
        self._book.write_release(event, count)
        for partition in event.partitions:
            account = self._open(partition)
            if isinstance(event, PromptsEvent):
                account.add_prompts(event, count)
            elif isinstance(event, TrainingEvent):
                account.charge_training(event)
                account.num_releases += 1
            else:
                account.add_aggregate(event, count)

    def observe(self, event: PromptsEvent) -> None:
        """Note what a client says it released, whatever else is wrong with its reply.

        Its ledger remembers earlier runs, which this server has not seen.
        """
        account = self._open(event.partition_id)
        said = amount(max(event.prompt_epsilon, event.reported_epsilon))
        if said > self._reported(account, account.gaussians, self.delta):
            account.report(said)

    def get_epsilon(
        self, delta: float | None = None, *, partition_id: int | None = None
    ) -> float:
        """Return an upper bound for the record that was charged most, in nats.

        Parameters
        ----------
        delta : float or None
            For the Gaussian steps; None: the account's own.
        partition_id : int or None
            One client; None: the client that was charged most.
        """
        at = self.delta if delta is None else delta
        return in_nats(
            max((self._charged(a, at) for a in self._chosen(partition_id)), default=0)
        )

    def get_privacy_spent(
        self, delta: float | None = None, *, partition_id: int | None = None
    ) -> PrivacySpent:
        """Return what one client, or the client that was charged most, has spent."""
        at = self.delta if delta is None else delta
        chosen = self._chosen(partition_id)
        if not chosen:
            return PrivacySpent(0.0, 0.0, 0)
        worst = max(chosen, key=lambda account: self._charged(account, at))
        members = [self._gaussian(account.aggregates, at) for account in chosen]
        noised = bool(worst.gaussians) or any(account.aggregates for account in chosen)
        gaussian = self._gaussian(worst.gaussians, at)
        total = self._charged(worst, at)
        return PrivacySpent(
            epsilon=in_nats(total),
            delta=(at if noised else 0.0) + self._stated_delta(partition_id),
            num_releases=sum(account.num_releases for account in chosen),
            optimal_order=self.order if noised else None,
            prompts_epsilon=in_nats(total if math.isinf(total) else total - gaussian),
            gaussian_epsilon=in_nats(gaussian),
            client_epsilon=in_nats(max(members)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the account as JSON-able values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "clients": {
                str(partition): self._clients[partition].state_dict()
                for partition in sorted(self._clients)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the account by a stored one.

        Raises
        ------
        ValueError
            The state has another schema.
        """
        if state.get("schema_version") != SCHEMA_VERSION:
            raise ValueError("`schema_version` of the accountant's state is not known.")
        self._clients = {
            int(partition): ClientAccount.from_state(account)
            for partition, account in state["clients"].items()
        }

    def _after(self, event: PrivacyEvent, account: ClientAccount, count: int) -> Amount:
        """Return what the most charged record of an event would have paid after it."""
        if isinstance(event, PromptsEvent):
            cost = amount(event.prompt_epsilon) * count
            gaussian = self._gaussian(account.gaussians, self.delta)
            if not event.record_keys:
                return cost + gaussian
            times = Counter(event.record_keys)
            return gaussian + max(account.known(k) + cost * n for k, n in times.items())
        if isinstance(event, TrainingEvent):
            is_free = account.is_charged(event)
        else:
            is_free = not event.counts_for_records
        if is_free:
            return 0
        steps = account.gaussians + steps_of(event, count)
        prompts = max(account.most_known(), account.most_possible())
        gaussian = self._gaussian(steps, self.delta)
        return max(prompts + gaussian, self._reported(account, steps, self.delta))

    def _charged(self, account: ClientAccount, delta: float) -> Amount:
        """Return the bound for one client's most charged record.

        What may have been released beyond what is known was within the limit: the
        client's ledger keeps it.
        """
        gaussian = self._gaussian(account.gaussians, delta)
        possible = min(self._limit, account.most_possible() + gaussian)
        reported = self._reported(account, account.gaussians, delta)
        return max(account.most_known() + gaussian, possible, reported)

    def _reported(
        self, account: ClientAccount, steps: Gaussians, delta: float
    ) -> Amount:
        """Return what the client's ledger stated and what came on top since."""
        after = self._gaussian(steps, delta)
        if not account.reported or math.inf in (after, account.reported):
            return math.inf if account.reported else 0
        return account.reported + after - self._gaussian(account.reported_after, delta)

    def _stated_delta(self, partition: int | None) -> float:
        """Return the largest sum of deltas that one client, or any, has stated."""
        stated = self._stated_deltas() if self._stated_deltas else {}
        if partition is None:
            return max(stated.values(), default=0.0)
        return stated.get(partition, 0.0)

    def _gaussian(self, steps: Gaussians, delta: float) -> Amount:
        return amount_up(gaussian_epsilon(steps, delta=delta, order=self.order))

    def _account(self, partition: int) -> ClientAccount:
        return self._clients.get(partition) or ClientAccount()

    def _open(self, partition: int) -> ClientAccount:
        return self._clients.setdefault(partition, ClientAccount())

    def _chosen(self, partition: int | None) -> list[ClientAccount]:
        if partition is None:
            return list(self._clients.values())
        return [self._account(partition)]


def _limit(epsilon: float) -> Amount:
    limit = limit_in_nano_nats(epsilon)
    return math.inf if limit is None else limit


def _listed(event: PrivacyEvent) -> str:
    return ", ".join(str(partition) for partition in event.partitions)
