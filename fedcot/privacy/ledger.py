"""What a node released about each record: charged first, drawn once, kept for ever.

The order is charge and sync, draw, store and sync, return. A crash at any point leaves
a charge at least as high as what was sent, and a retry returns the stored output or
draws for a charge that nothing was sent for. A prompt is never perturbed twice.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy.adoption import adopt_secret
from fedcot.privacy.charging import charge_prompts, charge_trainings
from fedcot.privacy.database import files_of, open_database, transaction
from fedcot.privacy.layout import PROMPT_SLOT
from fedcot.privacy.nats import (
    cost_in_nano_nats,
    delta_in_femto,
    delta_of,
    limit_in_nano_nats,
    nats,
    whole_nano_nats,
)
from fedcot.privacy.prompts import Release, distinct_keys, draw_outputs, stacked_prompts
from fedcot.privacy.secret import keys_of, pseudonyms_of
from fedcot.privacy.tables import (
    LedgerTotals,
    Place,
    Training,
    add_exposures,
    add_outputs,
    charged,
    charged_deltas,
    count_call,
    is_exposed,
    ledger_totals,
    stored_outputs,
)

if TYPE_CHECKING:
    from fedcot.privacy.channels import Channel
    from fedcot.privacy.sampler import RandomSource


__all__ = ["Ledger", "Release"]


class Ledger:
    """A node's durable account, shared safely by its processes.

    Parameters
    ----------
    folder : Path
        The node's state folder; the secret and the database are made in it.
    record_epsilon : float
        Nats that one record may cost over all rounds and mechanisms, > 0. Infinite
        only where the owner allows unperturbed releases.
    record_delta : float
        What the deltas of one record's trainings may add up to, in (0, 1). It is
        rounded up to whole units of 1e-15 as each of them is, so that a training at
        just this delta fits.

    Raises
    ------
    ConfigError
        If a limit is out of range.
    LedgerError
        If the folder cannot hold a durable ledger, its secret was replaced, or its
        database is gone while the secret is there.

    Notes
    -----
    A node whose folder is deleted or restored from a backup forgets what it released.
    """

    def __init__(
        self, folder: Path, *, record_epsilon: float, record_delta: float = 1e-5
    ) -> None:
        if not record_epsilon > 0:
            raise ConfigError(
                f"`record-epsilon` must be > 0, found {record_epsilon}; pass for "
                "example `-c record-epsilon=250.0`."
            )
        if not 0 < record_delta < 1:
            raise ConfigError(
                f"`max-record-delta` must be in (0, 1), found {record_delta}; pass for "
                "example --node-config 'max-record-delta=1e-5'."
            )
        self.folder = folder
        self.record_epsilon = record_epsilon
        self.record_delta = record_delta
        self._limit = limit_in_nano_nats(record_epsilon)
        self._delta_limit = delta_in_femto(record_delta)
        self._process = os.getpid()
        self._connection = open_database(folder)
        try:
            self._secret = adopt_secret(self._connection, folder)
            self._files = files_of(folder)
        except LedgerError:
            self._connection.close()
            raise

    def __enter__(self) -> Ledger:
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
        self._require_same_files()

    def release(
        self,
        records: Sequence[tuple[str, NDArray[np.int64]]],
        channel: Channel,
        *,
        source: RandomSource,
        slot: str = PROMPT_SLOT,
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
        slot : str
            Which prompt of the record it is, not empty. The same slot always returns
            the same output; another one, say of a later turn or of the words that a
            prompt has grown by, is another charge.

        Returns
        -------
        list of Release
            In the order asked, without the records that are over their limit.

        Raises
        ------
        ValueError
            If a key repeats, a prompt has not the public length or `slot` is empty.
        LedgerError
            If the ledger cannot be written; nothing may be sent then.
        """
        keys = distinct_keys([key for key, _ in records])
        ids = stacked_prompts([ids for _, ids in records], channel)
        if not slot:
            raise ValueError("`slot` must name a prompt of the record.")
        artefact = channel.hash if source.private else f"seeded:{channel.hash}"
        place = Place(artefact, slot)
        with transaction(self._database()) as database:
            grants = charge_prompts(
                database,
                keys,
                place,
                cost=whole_nano_nats(channel.prompt_epsilon),
                slots=channel.slots,
                is_seeded=not source.private,
                limit=self._limit,
            )
        pending = [row for row, key in enumerate(keys) if grants[key] == "draw"]
        # The charge is on the disk; only now may randomness be drawn.
        drawn = draw_outputs(ids[pending], channel, source)
        outputs = {keys[row]: made for row, made in zip(pending, drawn, strict=True)}
        granted = [key for key in keys if grants[key] != "refuse"]
        with transaction(self._database()) as database:
            fresh = add_outputs(database, outputs, place)
            # A commit that writes syncs the whole log, so also what a process that
            # was killed had left there and this call may be about to return.
            count_call(database)
            # What the store holds is all that is ever sent.
            stored = stored_outputs(database, granted, place)
        self._require_same_files()
        return [
            Release(
                key, stored[key][0], channel.hash, nats(stored[key][1]), key in fresh
            )
            for key in granted
        ]

    def charge_training(
        self,
        record_keys: Sequence[str],
        *,
        run: str,
        epsilon: float,
        description: str,
        delta: float = 0.0,
    ) -> list[str]:
        """Charge records for a run's private training, before it starts.

        The epsilons of prompts and of training add up, and so do the deltas; each sum
        has its limit, and a delta near 1 would make any epsilon worthless. A training
        that was charged before costs nothing more, so a run that crashed may go on;
        whoever trains again with new noise after anything of the first training was
        sent has to describe it in other words, and pays again.

        Parameters
        ----------
        record_keys : sequence of str
            Of the records it may use, distinct.
        run, description : str
            Together they name the training.
        epsilon : float
            Nats that the whole training costs each record, > 0; may be infinite.
        delta : float
            Up to which the epsilon holds, in [0, 1).

        Returns
        -------
        list of str
            The keys that it may use, in the order asked; the others are over their
            limit and were not charged. Nothing else may enter the training.

        Raises
        ------
        ValueError
            If a key repeats or a number lies outside its range.
        LedgerError
            If the same training was charged at another cost, or the ledger cannot be
            written; nothing may be trained then.
        """
        keys = distinct_keys(record_keys)
        if not (epsilon > 0 and 0 <= delta < 1):
            raise ValueError(
                "`epsilon` must be > 0 and `delta` in [0, 1), found "
                f"{epsilon} and {delta}."
            )
        cost = cost_in_nano_nats(epsilon, 1)
        training = Training(run, description, cost, delta_in_femto(delta))
        with transaction(self._database()) as database:
            allowed = charge_trainings(
                database,
                keys,
                training,
                limit=self._limit,
                delta_limit=self._delta_limit,
            )
            # As in `release`: a commit without a write would sync nothing.
            count_call(database)
        self._require_same_files()
        return allowed

    def spent(self, record_key: str, *, run: str | None = None) -> float:
        """Return the nats charged to a record so far; infinite if it went out raw.

        Prompts and private training, whose deltas `spent_delta` returns.

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
        return nats(charged(database, [record_key])[record_key])

    def spent_delta(self, record_key: str) -> float:
        """Return the sum of deltas charged to a record so far, rounded up; >= 0.

        What `spent` returns holds up to it.

        Parameters
        ----------
        record_key : str
            The record.
        """
        return delta_of(charged_deltas(self._database(), [record_key])[record_key])

    def totals(self) -> LedgerTotals:
        """Return the sums over all records."""
        return ledger_totals(self._database())

    def _database(self) -> sqlite3.Connection:
        """Return the connection after checking that it was not carried over a fork."""
        if os.getpid() != self._process:
            raise LedgerError("A ledger must be opened in the process that uses it.")
        return self._connection

    def _require_same_files(self) -> None:
        """Check after a commit that it is in the files that the next process opens."""
        if files_of(self.folder) != self._files:
            raise LedgerError(
                f"The ledger in {self.folder} was replaced while it was in use; "
                "restore the files that it had, and start the node again."
            )
