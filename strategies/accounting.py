"""What the server granted and what was released: it plans and reports.

The client's ledger enforces; see `fedcot.privacy.ledger`. The protocol is that of
Flower's privacy accountants (`compose`, `would_exceed`, `get_privacy_spent`,
`state_dict`), for prompts instead of Gaussian updates: the unit is a record, and the
epsilons of one record's prompts add up.
"""

import math
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from fedcot.errors import PrivacyBudgetExhausted
from fedcot.privacy.nats import NANO, limit_in_nano_nats, nats

SCHEMA_VERSION: Final = 1
METHOD: Final = "sum of pure epsilons per record"
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS grants (
        round INTEGER NOT NULL, partition INTEGER NOT NULL,
        token_epsilon REAL NOT NULL, prompt_epsilon REAL NOT NULL,
        record_epsilon REAL NOT NULL, channel TEXT NOT NULL, time REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS releases (
        round INTEGER NOT NULL, partition INTEGER NOT NULL,
        record_key TEXT NOT NULL, prompt_epsilon REAL NOT NULL,
        channel TEXT NOT NULL, time REAL NOT NULL)""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsEvent:
    """Fresh releases of one client in one round, each at `prompt_epsilon` nats."""

    server_round: int
    partition_id: int
    record_keys: tuple[str, ...]
    prompt_epsilon: float
    channel_hash: str


@dataclass(frozen=True, slots=True)
class PromptsSpent:
    """What was spent, in nats, as Flower's `PrivacySpent` states it."""

    epsilon: float  # of the record that was charged most
    delta: float
    num_releases: int
    accounting_method: str = METHOD


class PromptAccountant:
    """Adds up the prompts of each record and refuses what would overspend.

    Parameters
    ----------
    path : Path
        The server's ledger, an SQLite file; it never holds private text.
    record_epsilon : float
        Nats that one record may cost over the whole run, > 0; infinite only for runs
        without a mechanism.

    Raises
    ------
    ValueError
        If the limit is not positive.
    """

    def __init__(self, path: Path, *, record_epsilon: float) -> None:
        if not record_epsilon > 0:
            raise ValueError(f"`record_epsilon` must be > 0, found {record_epsilon}.")
        self.path = path
        self.record_epsilon = record_epsilon
        self._limit = limit_in_nano_nats(record_epsilon)
        # Nano-nats by partition and record; None is infinite.
        self._spent: dict[tuple[int, str], int | None] = {}
        self._num_releases = 0
        with closing(self._connect()) as database, database:
            for table in _TABLES:
                database.execute(table)

    @property
    def num_releases(self) -> int:
        """How many fresh prompts were composed."""
        return self._num_releases

    def would_exceed(
        self, event: PromptsEvent, max_epsilon: float | None = None
    ) -> bool:
        """Whether composing the event would pass the limit of some record."""
        limit = self._limit if max_epsilon is None else limit_in_nano_nats(max_epsilon)
        if limit is None:
            return False
        return any(
            charged is None or charged > limit
            for charged in self._after(event).values()
        )

    def grant(
        self,
        *,
        server_round: int,
        partition_id: int,
        token_epsilon: float,
        prompt_epsilon: float,
        channel_hash: str,
    ) -> bool:
        """Grant a client one prompt per record, if an unused record may cost it.

        Returns
        -------
        bool
            Whether it was granted; what is granted is written down first.
        """
        cost = _whole_nano_nats(prompt_epsilon)
        if self._limit is not None and (cost is None or cost > self._limit):
            return False
        row = (
            server_round,
            partition_id,
            token_epsilon,
            prompt_epsilon,
            self.record_epsilon,
            channel_hash,
            time.time(),
        )
        with closing(self._connect()) as database, database:
            database.execute("INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return True

    def compose(self, event: PromptsEvent) -> None:
        """Charge an event; nothing changes if it would overspend.

        Raises
        ------
        PrivacyBudgetExhausted
            A record's limit would be passed: the client released what it must not.
        """
        if self.would_exceed(event):
            raise PrivacyBudgetExhausted(
                f"Partition {event.partition_id} released more than `record-epsilon` "
                f"({self.record_epsilon} nats) allows for one record."
            )
        after = self._after(event)
        self._write(event)
        self._spent.update(after)
        self._num_releases += len(event.record_keys)

    def get_epsilon(self, partition_id: int | None = None) -> float:
        """Return the nats of the record that was charged most, of one client or all."""
        charged = [
            spent
            for (partition, _), spent in self._spent.items()
            if partition_id in (None, partition)
        ]
        return max((nats(spent) for spent in charged), default=0.0)

    def get_privacy_spent(self, partition_id: int | None = None) -> PromptsSpent:
        """Return what one client, or the client that spent most, has spent."""
        releases = sum(partition_id in (None, place[0]) for place in self._spent)
        return PromptsSpent(self.get_epsilon(partition_id), 0.0, releases)

    def state_dict(self) -> dict[str, Any]:
        """Return the account as JSON-able values."""
        spent = [[*place, charged] for place, charged in sorted(self._spent.items())]
        return {
            "schema_version": SCHEMA_VERSION,
            "num_releases": self._num_releases,
            "spent_nano_nats": spent,
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
        rows: Sequence[Any] = state["spent_nano_nats"]
        self._spent = {(int(p), str(key)): charged for p, key, charged in rows}
        self._num_releases = int(state["num_releases"])

    def _after(self, event: PromptsEvent) -> dict[tuple[int, str], int | None]:
        """Return what each record of the event would have spent after it."""
        cost = _whole_nano_nats(event.prompt_epsilon)
        after: dict[tuple[int, str], int | None] = {}
        for key in event.record_keys:
            place = (event.partition_id, key)
            before = after.get(place, self._spent.get(place, 0))
            after[place] = None if before is None or cost is None else before + cost
        return after

    def _write(self, event: PromptsEvent) -> None:
        now = time.time()
        place = (event.server_round, event.partition_id)
        charge = (event.prompt_epsilon, event.channel_hash, now)
        with closing(self._connect()) as database, database:
            database.executemany(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)",
                [(*place, key, *charge) for key in event.record_keys],
            )

    def _connect(self) -> sqlite3.Connection:
        # One short connection per call: Flower runs the app in a thread of its own.
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA synchronous = FULL")
        return database


def _whole_nano_nats(epsilon: float) -> int | None:
    """Return the nano-nats that a ledger charged; None is infinite.

    A charge is a whole number of them that travelled as a float rounded up, so the
    nearest whole number is the charge. Rounding up again would add one each time.
    """
    return None if math.isinf(epsilon) else round(Fraction(epsilon) * NANO)
