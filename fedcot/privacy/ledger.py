"""What a node released about each record: charged first, drawn once, kept for ever.

The order is charge and sync, draw, store and sync, return. A crash at any point leaves
a charge at least as high as what was sent, and a retry returns the stored output or
draws for a charge that nothing was sent for. A prompt is never perturbed twice.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy.channels import Channel
from fedcot.privacy.database import DATABASE_NAME, open_database, transaction
from fedcot.privacy.nats import limit_in_nano_nats, nats, whole_nano_nats
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.secret import (
    SECRET_NAME,
    fingerprint,
    finish_secret,
    keys_of,
    pseudonyms_of,
    read_secret,
    write_secret,
)
from fedcot.privacy.tables import (
    LedgerTotals,
    add_charge,
    add_exposures,
    add_outputs,
    add_secret_fingerprint,
    charged,
    count_call,
    create_tables,
    has_row,
    is_exposed,
    ledger_totals,
    secret_fingerprint,
    stored_output,
)
from fedcot.privacy.tokens import checked_ids

Prompts = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Release:
    """A perturbed prompt that may be sent, again and again.

    Attributes
    ----------
    record_key : str
        The record's key; says nothing about its content.
    ids : tuple of int
        Public length, tokens of the public vocabulary.
    channel_hash : str
        The artefact that perturbed it.
    prompt_epsilon : float
        Nats charged for it; infinite where nothing was perturbed.
    fresh : bool
        Whether this call drew it; otherwise it came from the store and cost nothing.
    """

    record_key: str
    ids: tuple[int, ...]
    channel_hash: str
    prompt_epsilon: float
    fresh: bool


class Ledger:
    """A node's durable account, shared safely by its processes.

    Parameters
    ----------
    folder : Path
        The node's state folder; the secret and the database are made in it.
    record_epsilon : float
        Nats that one record may cost over all rounds and mechanisms, > 0. Infinite
        only where the owner allows unperturbed releases.

    Raises
    ------
    ConfigError
        If the limit is not positive.
    LedgerError
        If the folder cannot hold a durable ledger, its secret was replaced, or its
        database is gone while the secret is there.

    Notes
    -----
    A node whose folder is deleted or restored from a backup forgets what it released.
    """

    def __init__(self, folder: Path, *, record_epsilon: float) -> None:
        if not record_epsilon > 0:
            raise ConfigError(
                f"`record-epsilon` must be > 0, found {record_epsilon}; pass for "
                "example `-c record-epsilon=250.0`."
            )
        self.folder = folder
        self.record_epsilon = record_epsilon
        self._limit = limit_in_nano_nats(record_epsilon)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The folder {folder} cannot be made: {error}."
            ) from error
        self._process = os.getpid()
        self._connection = open_database(folder)
        try:
            self._secret = self._adopt_secret()
        except LedgerError:
            self._connection.close()
            raise

    def __enter__(self) -> "Ledger":
        """Return the ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the ledger."""
        self.close()

    def close(self) -> None:
        """Close the database; what was released stays."""
        self._connection.close()

    def record_keys(self, contents: Sequence[str]) -> list[str]:
        """Return the key of each record, see `fedcot.privacy.secret.keys_of`.

        Parameters
        ----------
        contents : sequence of str
            All the node's records, not a selection: equal ones are numbered.
        """
        return keys_of(self._secret, contents)

    def pseudonyms(self, record_keys: Sequence[str], *, run: str) -> list[str]:
        """Return a name for each record key that only one run knows.

        A record key is the same for ever, so whoever sees it could follow a record
        from run to run and from server to server. Names of different runs tell nothing
        about each other; a server that uses the name of a run again sees the same.

        Parameters
        ----------
        record_keys : sequence of str
            As `record_keys` returns them.
        run : str
            Names the run.
        """
        return pseudonyms_of(self._secret, record_keys, run=run)

    def expose(self, record_keys: Sequence[str], *, run: str) -> None:
        """Note durably that records are about to go out unprotected.

        To be called before anything is built that could be sent.

        Parameters
        ----------
        record_keys : sequence of str
            Of the records whose question, or an adapter trained on it, is sent.
        run : str
            The run that sends them.

        Raises
        ------
        LedgerError
            If it cannot be written; nothing may be sent then.
        """
        with transaction(self._database()) as database:
            add_exposures(database, record_keys, run)
            # As in `release`: a commit without a write would sync nothing.
            count_call(database)

    def release(
        self,
        records: Sequence[tuple[str, NDArray[np.int64]]],
        channel: Channel,
        *,
        source: RandomSource,
    ) -> list[Release]:
        """Return the one perturbed prompt of each record that its budget allows.

        Parameters
        ----------
        records : sequence of (str, ndarray of int64 of shape (slots,))
            Key and private token ids of each record, keys distinct.
        channel : Channel
            What perturbs a prompt that was not released before.
        source : RandomSource
            Its randomness. Outputs of a source that is not private are kept apart.

        Returns
        -------
        list of Release
            In the order asked, without the records that are over their limit.

        Raises
        ------
        ValueError
            If a key repeats or a prompt has not the public length.
        LedgerError
            If the ledger cannot be written; nothing may be sent then.
        """
        prompts = _checked_prompts(records, channel)
        artefact = channel.hash if source.private else f"seeded:{channel.hash}"
        with transaction(self._database()) as database:
            grants = self._charge(database, prompts, artefact, channel, source)
        pending = [key for key, grant in grants.items() if grant == "draw"]
        # The charge is on the disk; only now may randomness be drawn.
        drawn = _draw([prompts[key] for key in pending], channel, source)
        with transaction(self._database()) as database:
            outputs = dict(zip(pending, drawn, strict=True))
            fresh = add_outputs(database, outputs, artefact)
            # A commit that writes syncs the whole log, so also what a process that
            # was killed had left there and this call may be about to return.
            count_call(database)
            return [
                _stored_release(database, key, artefact, channel.hash, key in fresh)
                for key, grant in grants.items()
                if grant != "refuse"
            ]

    def spent(self, record_key: str, *, run: str | None = None) -> float:
        """Return the nats charged to a record so far; infinite if it went out raw.

        Parameters
        ----------
        record_key : str
            The record.
        run : str, optional
            What this run itself has exposed is left out: it states the privacy of
            each arm, and so of unprotected and of perturbed questions, by itself.
        """
        database = self._database()
        # No run is called "".
        if is_exposed(database, record_key, outside_run=run or ""):
            return nats(None)
        return nats(charged(database, record_key))

    def totals(self) -> LedgerTotals:
        """Return the sums over all records."""
        return ledger_totals(self._database())

    def _database(self) -> sqlite3.Connection:
        """Return the connection after checking that it was not carried over a fork."""
        if os.getpid() != self._process:
            raise LedgerError("A ledger must be opened in the process that uses it.")
        return self._connection

    def _adopt_secret(self) -> bytes:
        """Return the node's secret, made by whichever process came first."""
        # The write lock keeps two processes from making two secrets.
        with transaction(self._connection) as database:
            create_tables(database)
            known = secret_fingerprint(database)
            if known is None:
                known = self._make_secret(database)
        # The fingerprint is on the disk; only now may the secret get its name.
        with transaction(self._connection):
            finish_secret(self.folder, known)
            secret = read_secret(self.folder)
        if known != fingerprint(secret):
            # New keys would let every record be released afresh.
            raise LedgerError(
                f"The secret in {self.folder} is not the one that the ledger was "
                "made with; restore it."
            )
        return secret

    def _make_secret(self, database: sqlite3.Connection) -> str:
        """Make the secret of a new ledger and return its fingerprint."""
        if (self.folder / SECRET_NAME).exists():
            # Drawing again under the same keys would average the noise away.
            raise LedgerError(
                f"{self.folder} holds a node's secret and no ledger made with it: what "
                f"was released is not known any more; restore {DATABASE_NAME} from a "
                "copy."
            )
        made = fingerprint(write_secret(self.folder))
        add_secret_fingerprint(database, made)
        return made

    def _charge(
        self,
        database: sqlite3.Connection,
        prompts: Prompts,
        artefact: str,
        channel: Channel,
        source: RandomSource,
    ) -> dict[str, str]:
        """Charge what is new; say of each record "stored", "draw" or "refuse"."""
        cost = whole_nano_nats(channel.prompt_epsilon)
        grants = {}
        for key in prompts:
            place = (key, artefact)
            if has_row(database, "releases", place):
                grants[key] = "stored"
                continue
            is_charged = has_row(database, "charges", place)
            # Charged but not stored: nothing was sent, so the charge still serves.
            if not self._allows(charged(database, key), 0 if is_charged else cost):
                grants[key] = "refuse"
                continue
            if not is_charged:
                add_charge(
                    database,
                    place,
                    nano_nats=cost,
                    slots=channel.slots,
                    is_seeded=not source.private,
                )
            grants[key] = "draw"
        return grants

    def _allows(self, spent: int | None, cost: int | None) -> bool:
        if self._limit is None:
            return True
        if spent is None or cost is None:
            return False
        return spent + cost <= self._limit


def _checked_prompts(
    records: Sequence[tuple[str, NDArray[np.int64]]], channel: Channel
) -> dict[str, NDArray[np.int64]]:
    """Return the prompts by key; the errors name no content."""
    prompts = {key: checked_ids(ids, channel.size) for key, ids in records}
    if len(prompts) != len(records):
        raise ValueError("Record keys must be distinct; number equal records.")
    if any(ids.shape != (channel.slots,) for ids in prompts.values()):
        raise ValueError(
            f"Every prompt must have the public length of {channel.slots} slots."
        )
    return prompts


def _draw(
    prompts: Sequence[NDArray[np.int64]], channel: Channel, source: RandomSource
) -> list[list[int]]:
    if not prompts:
        return []
    drawn: list[list[int]] = channel.sample(np.stack(prompts), source).tolist()
    return drawn


def _stored_release(
    database: sqlite3.Connection,
    key: str,
    artefact: str,
    channel_hash: str,
    is_fresh: bool,
) -> Release:
    """Return what the store holds, which is all that is ever sent."""
    ids, cost = stored_output(database, (key, artefact))
    return Release(key, ids, channel_hash, nats(cost), is_fresh)
