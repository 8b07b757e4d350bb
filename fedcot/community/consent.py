"""Whom a member's traces may reach, whom they reached, and which were withdrawn.

A grant is written down and synced before it is returned, so a crash at any point leaves
a list of reached models that is at least as long as what was sent. The rules are ours.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from fedcot.community.coalitions import Coalition, label
from fedcot.community.consent_database import (
    DATABASE_NAME,
    adopt,
    count_call,
    file_of,
    no_store,
    open_database,
    reading,
    transaction,
)
from fedcot.community.consent_rules import (
    Grant,
    checked_audiences,
    checked_keys,
    found_key,
    permits,
    require_known,
    require_permitted,
    stated,
)
from fedcot.community.consent_tables import (
    Added,
    Reached,
    Tombstone,
    add_reached,
    add_traces,
    bury,
    keys_in,
    read_reached,
    read_tombstones,
    read_traces,
    scopes_of,
)
from fedcot.community.setting_rules import NAME
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError, LedgerError
from fedcot.privacy.secret import pseudonyms_of

__all__ = ["Added", "Grant", "Reached", "Tombstone", "TraceStore", "permits"]


class TraceStore:
    """The traces of one member, on the member's own machine.

    Parameters
    ----------
    folder : Path
        Of the member; the database is made in it, readable by its owner only.
    community : str
        The member's, fixed when the store is made.

    Raises
    ------
    ConfigError
        If `community` is no name, or not the store's.
    LedgerError
        If the store is damaged, is open to other users or cannot promise durability.

    Notes
    -----
    Texts that are withdrawn are overwritten in the database. Backups keep what they
    have, and so may disks and file systems that write changes to a new place. Whoever
    deletes the folder or restores it from a backup forgets what was withdrawn since.
    """

    def __init__(self, folder: Path, *, community: str) -> None:
        if type(community) is not str or NAME.fullmatch(community) is None:
            raise ConfigError(
                "`community` must be a name of a-z, 0-9 and '-', found "
                f"{str(community)[:40]!r}; pass for example `--community library`."
            )
        self._open(folder, community)

    @classmethod
    def existing(cls, folder: Path) -> TraceStore:
        """Open a store that is there, of whichever community it is.

        Raises
        ------
        ConfigError
            If there is none; nothing is made.
        LedgerError
            As for the class.
        """
        if not (folder / DATABASE_NAME).exists():
            raise no_store(folder)
        store = cls.__new__(cls)
        store._open(folder, None)
        return store

    def _open(self, folder: Path, community: str | None) -> None:
        self.folder = folder
        self._process = os.getpid()
        self._connection = open_database(folder)
        try:
            self.community, self._secret = adopt(self._connection, community, folder)
            self._file = file_of(folder)
        except (ConfigError, LedgerError):
            self._connection.close()
            raise

    def __enter__(self) -> TraceStore:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the database; what it holds stays."""
        self._connection.close()

    def add(self, traces: Iterable[Trace]) -> Added:
        """Add traces with the scope that each one has, all of them or none.

        One that is known keeps its scope, and one that was withdrawn stays withdrawn.

        Raises
        ------
        ConfigError
            If one is no `Trace`.
        LedgerError
            If they cannot be written.
        """
        given = list(traces)
        if not all(type(trace) is Trace for trace in given):
            raise ConfigError("`traces` must hold traces only; read them from a file.")
        distinct: dict[str, Trace] = {}
        for trace in given:
            distinct.setdefault(trace.key, trace)
        with transaction(self._database()) as database:
            known = keys_in(database, "traces", distinct)
            buried = keys_in(database, "tombstones", distinct)
            fresh = distinct.keys() - known - buried
            add_traces(database, [distinct[key] for key in sorted(fresh)])
            count_call(database)
        self._require_same_file()
        withdrawn = sum(trace.key in buried for trace in given)
        return Added(len(fresh), len(given) - len(fresh) - withdrawn, withdrawn)

    def set_scope(self, keys: Iterable[str], scope: Scope) -> int:
        """Let traces reach more or fewer, all of them or none; the owner decides.

        What was granted before is not called back.

        Returns
        -------
        int
            Traces whose scope is another one now.

        Raises
        ------
        ConfigError
            If a key is not that of an active trace, or `scope` is no `Scope`.
        LedgerError
            If it cannot be written.
        """
        if type(scope) is not Scope:
            raise ConfigError(
                f"`scope` must be one of {', '.join(Scope)}, found another value; "
                "pass for example `Scope.COMMUNITY`."
            )
        asked = checked_keys(keys)
        with transaction(self._database()) as database:
            require_known(asked, keys_in(database, "traces", asked))
            changed = database.executemany(
                "UPDATE traces SET scope = ? WHERE key = ? AND scope <> ?",
                [(scope.value, key, scope.value) for key in asked],
            ).rowcount
            count_call(database)
        self._require_same_file()
        return max(0, changed)

    def withdraw(
        self, keys: Iterable[str], *, reason: str = ""
    ) -> tuple[Tombstone, ...]:
        """Delete the texts of traces for good and return what they had reached.

        Parameters
        ----------
        keys : iterable of str
            Of traces, all of them or none. One that was withdrawn before keeps the
            tombstone that it has.
        reason : str
            Kept on this machine, for the owner.

        Raises
        ------
        ConfigError
            If a key is not known.
        LedgerError
            If it cannot be written; the traces are still there then.
        """
        asked = checked_keys(keys)
        words = stated("reason", reason, may_be_empty=True)
        with transaction(self._database()) as database:
            active = keys_in(database, "traces", asked)
            require_known(asked, active | keys_in(database, "tombstones", asked))
            bury(database, sorted(active), time=_now(), reason=words)
            count_call(database)
            found = {one.key: one for one in read_tombstones(database)}
        self._require_same_file()
        return tuple(found[key] for key in asked)

    def tombstones(self) -> tuple[Tombstone, ...]:
        """Return what stays of the traces that were withdrawn, the earliest first."""
        with transaction(self._database()) as database:
            return read_tombstones(database)

    def grant(
        self,
        audiences: Sequence[Coalition],
        *,
        model: Callable[[Coalition], str],
        purpose: str,
        only: Collection[str] | None = None,
    ) -> tuple[Grant, ...]:
        """Return the traces that may reach some audiences, after writing that down.

        Parameters
        ----------
        audiences : sequence of Coalition
            Each once.
        model : callable
            Returns the id of the model that an audience distils.
        purpose : str
            What for; a trace's list has it.
        only : collection of str, optional
            Keys of those that are offered at all; every active one, if not given.

        Returns
        -------
        tuple of Grant
            Sorted by key, without the traces that may reach none of the audiences.

        Raises
        ------
        ConfigError
            If an audience is no coalition or stands twice, or a name is empty.
        LedgerError
            If the store is damaged or cannot be written; nothing may be sent then.
        """
        asked = checked_audiences(audiences)
        models = {audience: stated("model", model(audience)) for audience in asked}
        stated("purpose", purpose)
        time = _now()
        with transaction(self._database()) as database:
            granted = [
                (trace, reached)
                for trace in read_traces(database)
                if (only is None or trace.key in only)
                and (reached := self._reach(trace, asked))
            ]
            add_reached(
                database,
                [
                    (trace.key, models[audience], label(audience), purpose, time)
                    for trace, reached in granted
                    for audience in reached
                ],
            )
            count_call(database)
        self._require_same_file()
        return tuple(_issue(trace, reached) for trace, reached in granted)

    def require_current(self, grants: Iterable[Grant]) -> None:
        """Check, before they are sent, that grants of this store still hold.

        Raises
        ------
        LedgerError
            If a trace was withdrawn or its scope narrowed since, or is of another
            store; nothing may be sent then.
        """
        given = list(grants)
        with reading(self._database()) as database:
            scopes = scopes_of(database, [grant.key for grant in given])
        require_permitted(given, scopes, self.community)

    def reached(self, key: str) -> tuple[Reached, ...]:
        """Return what a trace was granted to, withdrawn or not, the earliest first.

        Raises
        ------
        ConfigError
            If the key is not known.
        """
        asked = checked_keys([key])
        with transaction(self._database()) as database:
            known = keys_in(database, "traces", asked)
            require_known(asked, known | keys_in(database, "tombstones", asked))
            return read_reached(database, asked)[key]

    def active(self) -> tuple[Trace, ...]:
        """Return all traces that were not withdrawn, sorted by key, for their owner.

        Raises
        ------
        LedgerError
            If one is damaged.
        """
        with transaction(self._database()) as database:
            return tuple(read_traces(database))

    def find(self, prefixes: Iterable[str]) -> tuple[str, ...]:
        """Return the keys that begin with some hex digits, in the order asked.

        Parameters
        ----------
        prefixes : iterable of str
            8 to 64 hex digits each, of an active or a withdrawn trace.

        Raises
        ------
        ConfigError
            If one is no such prefix, or fits no trace, or several.
        """
        with reading(self._database()) as database:
            return tuple(found_key(database, prefix) for prefix in prefixes)

    def pseudonyms(self, keys: Sequence[str], *, run: str) -> tuple[str, ...]:
        """Return names for traces that only one run knows, in the order asked.

        A key is a plain hash: whoever has a guess at a short text could check it, and
        could follow a trace from run to run and from member to member. Names hang on
        a secret of this store and on the run.

        Parameters
        ----------
        keys : sequence of str
            `Trace.key` of each.
        run : str
            Names the run; a server that uses a name again sees the same.

        Raises
        ------
        ConfigError
            If a key is none, or `run` is empty.
        """
        checked_keys(keys)
        return tuple(pseudonyms_of(self._secret, keys, run=stated("run", run)))

    def _reach(self, trace: Trace, asked: Sequence[Coalition]) -> tuple[Coalition, ...]:
        return tuple(one for one in asked if permits(trace.scope, self.community, one))

    def _database(self) -> sqlite3.Connection:
        """Return the connection after checking that it was not carried over a fork."""
        if os.getpid() != self._process:
            raise LedgerError("Traces must be opened in the process that uses them.")
        return self._connection

    def _require_same_file(self) -> None:
        """Check after a commit that it is in the file that the next process opens."""
        if file_of(self.folder) != self._file:
            raise LedgerError(
                f"The traces in {self.folder} were replaced while they were in use; "
                "restore the file that was there, and start again."
            )


def _issue(trace: Trace, audiences: tuple[Coalition, ...]) -> Grant:
    grant = object.__new__(Grant)
    for name, value in zip(Grant.__slots__, (trace.key, trace, audiences), strict=True):
        object.__setattr__(grant, name, value)
    return grant


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
