"""What a member offers the audience of a coalition, without its texts.

A server that holds a manifest knows how many traces a member offers, how much of a
model's reasoning each one has, its scope, and which provider and model it came from. It
knows nothing of a text: the names of the traces are pseudonyms of one run. The format
is ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedcot.community.coalitions import Coalition, label
from fedcot.community.consent import Grant, TraceStore, permits
from fedcot.community.consent_rules import KEY
from fedcot.data.traces import Scope, TraceClass
from fedcot.errors import WireError

_ENTRY: Final = ("name", "scope", "trace_class", "provider", "model")
_MANIFEST: Final = ("community", "audience", "run", "entries", "withdrawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One trace of a manifest.

    Attributes
    ----------
    name : str
        64 hex digits: its pseudonym in the run, or its key where the manifest has no
        run.
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
        Whose pseudonyms the names are; empty where they are keys. Such a manifest is
        for the member alone: whoever guesses a text can look for its key.
    entries : tuple of Entry
        Sorted by name, each once.
    withdrawn : tuple of str
        Names of traces that this audience was offered before and that nobody may use
        any more; sorted, each once, none of them among the entries.

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """Return a manifest that was received.

        Raises
        ------
        WireError
            If anything is missing, left over, of another type or against the rules.
        """
        _require_fields(values, _MANIFEST)
        lists = [values[name] for name in ("audience", "entries", "withdrawn")]
        if not all(isinstance(part, list) for part in lists):
            raise WireError("A manifest must hold lists where it has several.")
        _require_texts(values["community"], values["run"], *lists[0], *lists[2])
        return cls(
            community=values["community"],
            audience=tuple(values["audience"]),
            run=values["run"],
            entries=tuple(_entry_of(entry) for entry in values["entries"]),
            withdrawn=tuple(values["withdrawn"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDifference:
    """What changed from one manifest of a run to the next; names, sorted.

    Attributes
    ----------
    added : tuple of str
        Offered now and not before.
    gone : tuple of str
        Offered before, and not now: the owner narrowed their scope.
    withdrawn : tuple of str
        Offered before, and withdrawn since: nobody may use them any more.
    changed : tuple of str
        Offered before and now, with something else about them, their scope say.
    """

    added: tuple[str, ...]
    gone: tuple[str, ...]
    withdrawn: tuple[str, ...]
    changed: tuple[str, ...]


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
        Names the run.
    purpose : str
        What the grants were made for. A withdrawn trace is listed where it had been
        granted to this audience for this purpose, so nobody learns of one that they
        were never offered.

    Raises
    ------
    ConfigError
        If `run` is empty.
    LedgerError
        If a grant does not hold any more, or is of another store.
    """
    chosen = _reaching(grants, audience)
    store.require_current(chosen)
    buried = [
        stone.key
        for stone in store.tombstones()
        if any(
            (one.audience, one.purpose) == (label(audience), purpose)
            for one in stone.reached
        )
    ]
    return Manifest(
        community=store.community,
        audience=audience,
        run=run,
        entries=_entries(chosen, lambda keys: store.pseudonyms(keys, run=run)),
        withdrawn=tuple(sorted(store.pseudonyms(buried, run=run))),
    )


def key_manifest(
    grants: Iterable[Grant], audience: Coalition, *, community: str
) -> Manifest:
    """Return what a member offers, named by keys; for its own records only.

    The same traces give the same hash on every machine and in every run, which
    pseudonyms do not. It must not be sent: see `Manifest.run`.

    Parameters
    ----------
    grants : iterable of Grant
        Those that do not reach the audience are left out.
    audience : Coalition
    community : str
        The member's.
    """
    return Manifest(
        community=community,
        audience=audience,
        run="",
        entries=_entries(_reaching(grants, audience), list),
    )


def joint_hash(manifests: Iterable[Manifest]) -> str:
    """Return one hash of several manifests, in any order; SHA-256 in hex."""
    return _hash(sorted(manifest.hash for manifest in manifests))


def names_hash(names: Iterable[str]) -> str:
    """Return one hash of the names of traces, in any order; SHA-256 in hex."""
    return _hash(sorted(names))


def difference(previous: Manifest, current: Manifest) -> ManifestDifference:
    """Return what changed between two manifests of one member, audience and run.

    Raises
    ------
    WireError
        If they are not of the same one: their names cannot be compared.
    """
    if _whose(previous) != _whose(current):
        raise WireError("Manifests must be of one community, audience and run.")
    before = {entry.name: entry for entry in previous.entries}
    now = {entry.name: entry for entry in current.entries}
    buried = set(current.withdrawn)
    return ManifestDifference(
        added=tuple(sorted(now.keys() - before.keys())),
        gone=tuple(sorted(before.keys() - now.keys() - buried)),
        withdrawn=tuple(sorted(before.keys() & buried)),
        changed=tuple(
            sorted(n for n in before.keys() & now.keys() if before[n] != now[n])
        ),
    )


def check_manifest(
    previous_tombstones: Collection[str], manifest: Manifest
) -> frozenset[str]:
    """Return the names that no later manifest of the member in this run may offer.

    Parameters
    ----------
    previous_tombstones : collection of str
        What the last call returned for this member and run; empty at the start.
    manifest : Manifest
        What the member says now.

    Raises
    ------
    WireError
        If it offers a trace that was withdrawn, or is named by keys.
    """
    if not manifest.run:
        raise WireError(
            "A manifest that is sent must have the pseudonyms of a run, found keys."
        )
    known = frozenset(previous_tombstones)
    again = [entry.name for entry in manifest.entries if entry.name in known]
    if again:
        raise WireError(
            f"A manifest must not offer traces that were withdrawn, found "
            f"{len(again)} of {len(manifest.entries)}; nothing of it is used."
        )
    return known | frozenset(manifest.withdrawn)


def _reaching(grants: Iterable[Grant], audience: Coalition) -> list[Grant]:
    chosen = list(grants)
    if not all(type(grant) is Grant for grant in chosen):
        raise WireError("A manifest must be built from a store's grants.")
    return [grant for grant in chosen if audience in grant.audiences]


def _entries(
    grants: Sequence[Grant], named: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[Entry, ...]:
    names = named([grant.key for grant in grants])
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


def _entry_of(values: object) -> Entry:
    if not isinstance(values, dict):
        raise WireError("An entry of a manifest must be a table.")
    _require_fields(values, _ENTRY)
    _require_texts(*values.values())
    if values["scope"] not in set(Scope):
        raise WireError("`scope` is not known.")
    if values["trace_class"] not in set(TraceClass):
        raise WireError("`trace-class` is not known.")
    return Entry(
        name=values["name"],
        scope=Scope(values["scope"]),
        trace_class=TraceClass(values["trace_class"]),
        provider=values["provider"],
        model=values["model"],
    )


def _require_fields(values: Mapping[str, Any], fields: Sequence[str]) -> None:
    if set(values) != set(fields):
        raise WireError(f"A manifest must have just the fields {', '.join(fields)}.")


def _require_texts(*values: object) -> None:
    if not all(type(value) is str for value in values):
        raise WireError("A manifest must hold texts.")


def _whose(manifest: Manifest) -> tuple[str, Coalition, str]:
    return manifest.community, manifest.audience, manifest.run


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
