"""The scope of traces, as commands are told it."""

from __future__ import annotations

from typing import Final

from fedcot.data.traces import Scope
from fedcot.errors import ConfigError

AS_GIVEN: Final = "as-given"  # what the file says
SCOPES: Final = ", ".join(Scope)


def scope_of(text: str, name: str, *, known: str = SCOPES) -> Scope:
    """Return a scope that was named.

    Parameters
    ----------
    text : str
        What was given.
    name : str
        Of the parameter, for the error.
    known : str
        What may be given, for the error.

    Raises
    ------
    ConfigError
        It is no scope.
    """
    if text not in set(Scope):
        raise ConfigError(
            f"`{name}` must be one of {known}, found {text!r}; pass for example "
            f"{Scope.COMMUNITY}."
        )
    return Scope(text)


def scope_or_given(text: str) -> Scope | None:
    """Return the scope that `--scope` names; None for what the file says.

    Raises
    ------
    ConfigError
        It is neither a scope nor `AS_GIVEN`.
    """
    if text == AS_GIVEN:
        return None
    return scope_of(text, "--scope", known=f"{SCOPES}, {AS_GIVEN}")
