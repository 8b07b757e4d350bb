"""What a member offers the audience of a coalition, without its texts.

A server that holds a manifest knows how many traces a member offers, how much of a
model's reasoning each one has, its scope, and which provider and model it came from. It
knows nothing of a text: the names of the traces are pseudonyms of one run. The format
is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedcot.community.coalitions import Coalition, label
from fedcot.community.consent import Grant, TraceStore, permits
from fedcot.community.consent_rules import KEY
from fedcot.data.traces import Scope, TraceClass
from fedcot.errors import WireError

_ENTRY: Final = ("name", "scope", "trace_class", "provider", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One trace of a manifest.

    Attributes
    ----------
    name : str
        64 hex digits: its pseudonym in the run.
    scope : Scope
    trace_class : TraceClass
    provider, model : str
        Who answered, as the export says; empty if unknown.
    """

    name: str
    scope: Scope
    trace_class: TraceClass
    provider: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The traces that a member offers one audience.

    Attributes
    ----------
    community : str
        The member's.
    audience : Coalition
    run : str
        Whose pseudonyms the names are.
    entries : tuple of Entry
        Sorted by name, each once.
    withdrawn : tuple of str
        Names of traces that this audience was offered before in this run and that
        nobody may use any more; sorted, each once, none of them among the entries.

    Raises
    ------
    WireError
        If an entry's scope does not permit the audience, or a name is none, is out of
        order or was withdrawn.
    """

    community: str
    audience: Coalition
    run: str
    entries: tuple[Entry, ...]
    withdrawn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the rule for every entry, and the names."""
        for entry in self.entries:
            if not permits(entry.scope, self.community, self.audience):
                raise WireError(
                    f"The entry {str(entry.name)[:8]} must have a scope that permits "
                    f"{label(self.audience)}, found {entry.scope}; leave it out."
                )
            if type(entry.trace_class) is not TraceClass:
                raise WireError("`trace-class` is not known.")
        names = [entry.name for entry in self.entries]
        for part in (names, list(self.withdrawn)):
            if not all(type(name) is str and KEY.fullmatch(name) for name in part):
                raise WireError("A trace's name must be a hex digest of 64 digits.")
            if part != sorted(set(part)):
                raise WireError("Names in a manifest must be sorted, each once.")
        if not set(names).isdisjoint(self.withdrawn):
            raise WireError("A manifest must not offer a trace that was withdrawn.")

    @property
    def hash(self) -> str:
        """SHA-256 of all that it says, in hex; the same for traces in any order."""
        return _hash(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "community": self.community,
            "audience": list(self.audience),
            "run": self.run,
            "entries": [
                {name: str(getattr(entry, name)) for name in _ENTRY}
                for entry in self.entries
            ],
            "withdrawn": list(self.withdrawn),
        }


def run_manifest(
    store: TraceStore,
    grants: Iterable[Grant],
    audience: Coalition,
    *,
    run: str,
    purpose: str,
) -> Manifest:
    """Return what a member tells a server, under the pseudonyms of a run.

    Parameters
    ----------
    store : TraceStore
        The member's.
    grants : iterable of Grant
        Of that store; those that do not reach the audience are left out.
    audience : Coalition
        Who is told.
    run : str
        Names the run: its key and, after a hyphen, what else tells it apart. Ids of
        models that were trained in it begin with the key and a slash.
    purpose : str
        What the grants were made for. A withdrawn trace is listed where it had been
        granted in this run to this audience for this purpose, so nobody learns of one
        that they were never offered, as another run's server.

    Raises
    ------
    ConfigError
        If `run` is empty.
    LedgerError
        If a grant does not hold any more, or is of another store.
    """
    chosen = _reaching(grants, audience)
    store.require_current(chosen)
    own = f"{run.partition('-')[0]}/"
    buried = [
        stone.key
        for stone in store.tombstones()
        if any(
            (one.audience, one.purpose) == (label(audience), purpose)
            and one.model.startswith(own)
            for one in stone.reached
        )
    ]
    return Manifest(
        community=store.community,
        audience=audience,
        run=run,
        entries=_entries(
            chosen, store.pseudonyms([grant.key for grant in chosen], run=run)
        ),
        withdrawn=tuple(sorted(store.pseudonyms(buried, run=run))),
    )


def joint_hash(manifests: Iterable[Manifest]) -> str:
    """Return one hash of several manifests, in any order; SHA-256 in hex."""
    return _hash(sorted(manifest.hash for manifest in manifests))


def names_hash(names: Iterable[str]) -> str:
    """Return one hash of the names of traces, in any order; SHA-256 in hex."""
    return _hash(sorted(names))


def _reaching(grants: Iterable[Grant], audience: Coalition) -> list[Grant]:
    chosen = list(grants)
    if not all(type(grant) is Grant for grant in chosen):
        raise WireError("A manifest must be built from a store's grants.")
    return [grant for grant in chosen if audience in grant.audiences]


def _entries(grants: Sequence[Grant], names: Sequence[str]) -> tuple[Entry, ...]:
    entries = [
        Entry(
            name=name,
            scope=grant.trace.scope,
            trace_class=grant.trace.trace_class,
            provider=grant.trace.provider,
            model=grant.trace.model,
        )
        for name, grant in zip(names, grants, strict=True)
    ]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
