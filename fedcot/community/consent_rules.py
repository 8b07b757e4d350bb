"""Whom a trace may reach, and what may be asked of a member's store."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from fedcot.community.coalitions import Coalition
from fedcot.community.consent_tables import keys_like
from fedcot.community.setting_rules import NAME
from fedcot.data.traces import Scope, Trace
from fedcot.errors import ConfigError, LedgerError

KEY: Final = re.compile(r"[0-9a-f]{64}")
PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")


def permits(scope: Scope, community: str, audience: Coalition) -> bool:
    """Return whether a trace of a member may reach the audience of a coalition.

    Parameters
    ----------
    scope : Scope
        The trace's. Public reaches everybody; coalition reaches the coalitions that
        the member's community is in; community reaches the community by itself; own
        reaches nobody. Anything that is no `Scope` reaches nobody.
    community : str
        The member's.
    audience : Coalition
        A tuple of names, each once; anything else is reached by nothing.
    """
    if not _is_coalition(audience):
        return False
    if scope is Scope.PUBLIC:
        return True
    if scope is Scope.COALITION:
        return community in audience
    if scope is Scope.COMMUNITY:
        return audience == (community,)
    return False


@dataclass(frozen=True, slots=True, init=False)
class Grant:
    """A trace that may be sent, and to whom; a `TraceStore` builds it, nobody else.

    Attributes
    ----------
    key : str
        `Trace.key`. It never leaves the member: it is the same in every run, and the
        text behind it could be guessed.
    trace : Trace
        As the owner added it, with the scope of now. It is not in the `repr`.
    audiences : tuple of Coalition
        Those it may reach, out of those asked for, in that order; never empty.
    """

    key: str
    trace: Trace = field(repr=False)
    audiences: tuple[Coalition, ...]

    def __init__(self, *values: object, **named: object) -> None:
        _refuse_grant()

    # A frozen class with slots would get these two, and the second fills any object.
    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled: a grant is for here and now."""
        _refuse_grant()

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse to be filled."""
        _refuse_grant()

    def __init_subclass__(cls) -> None:
        """Refuse: a subclass could be built in another way."""
        _refuse_grant()


def require_permitted(
    grants: Iterable[Grant], scopes: Mapping[str, Scope], community: str
) -> None:
    """Check that the scopes of now permit what was granted.

    Parameters
    ----------
    grants : iterable of Grant
        Of a member's store.
    scopes : mapping of str to Scope
        Of the traces that are there, by key.
    community : str
        The member's.

    Raises
    ------
    LedgerError
        If a trace is not there, or its scope is too narrow.
    """
    for grant in grants:
        scope = scopes.get(grant.key, Scope.OWN)
        if not all(permits(scope, community, audience) for audience in grant.audiences):
            raise LedgerError(
                f"The grant of {grant.key[:8]} must still hold: the trace was "
                "withdrawn or narrowed, or is of another store; ask for new grants."
            )


def checked_audiences(audiences: Sequence[Coalition]) -> tuple[Coalition, ...]:
    """Return audiences as they are.

    Raises
    ------
    ConfigError
        If one is no tuple of names of communities, each once, or stands twice.
    """
    asked = tuple(audiences)
    if not all(map(_is_coalition, asked)):
        raise ConfigError(
            "`audiences` must be coalitions, tuples of names of communities, each "
            "once, found something else; take them from `parse_coalitions`."
        )
    if len(set(asked)) != len(asked):
        raise ConfigError(
            f"`audiences` must stand once each, found {len(asked)} of which "
            f"{len(set(asked))} differ; leave out those that repeat."
        )
    return asked


def checked_keys(keys: Iterable[str]) -> list[str]:
    """Return keys in order, each once.

    Raises
    ------
    ConfigError
        If one is no hex digest of 64 digits. What it is could be private.
    """
    # The letters of one string would pass for many keys.
    asked = [] if isinstance(keys, str) else list(keys)
    good = not isinstance(keys, str)
    for key in asked:
        good = good and type(key) is str and KEY.fullmatch(key) is not None
    if not good:
        raise ConfigError(
            "`keys` must be a list of hex digests of 64 digits, found something else; "
            "take them from `Trace.key` or `TraceStore.find`."
        )
    return list(dict.fromkeys(asked))


def require_known(asked: Sequence[str], known: Collection[str]) -> None:
    """Check that a store has all that is asked for.

    Raises
    ------
    ConfigError
        If it has not.
    """
    unknown = [key for key in asked if key not in known]
    if unknown:
        raise ConfigError(
            f"`key` must be that of a trace that is there, found {unknown[0][:16]} "
            f"({len(unknown)} of {len(asked)} are not); `fedcot traces list --keys` "
            "shows them."
        )


def stated(name: str, text: str, *, may_be_empty: bool = False) -> str:
    """Return a text that can be written down.

    Raises
    ------
    ConfigError
        If it is empty where it must not be, or is not Unicode.
    """
    if type(text) is str and (text or may_be_empty):
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    raise ConfigError(
        f"`{name}` must be a text of Unicode signs, found "
        f"{'signs that are none' if text else 'nothing'}; say it in words."
    )


def found_key(database: sqlite3.Connection, prefix: str) -> str:
    """Return the one key that begins with some hex digits.

    Raises
    ------
    ConfigError
        If they are too few, or no hex digits, or fit no trace, or several.
    """
    digits = prefix.lower()
    if PREFIX.fullmatch(digits) is None:
        raise ConfigError(
            "`key` must be at least the first 8 hex digits of a trace's key, found "
            f"{len(prefix)} signs; `fedcot traces list --keys` shows them."
        )
    found = keys_like(database, digits)
    if len(found) != 1:
        raise ConfigError(
            f"`key` must fit one trace, found {len(found)} for {digits}; "
            "`fedcot traces list --keys` shows them."
        )
    return found[0]


def _is_coalition(audience: object) -> bool:
    # Of a plain string, `in` would look for a part of a name.
    if type(audience) is not tuple or not audience:
        return False
    if not all(type(name) is str and NAME.fullmatch(name) for name in audience):
        return False
    return len(set(audience)) == len(audience)


def _refuse_grant() -> NoReturn:
    raise TypeError("A Grant must come from `TraceStore.grant`; nothing else makes it.")
