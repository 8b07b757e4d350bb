"""What the setting `teacher` names: an endpoint, a recording or a model."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fedcot.errors import ConfigError
from fedcot.settings import RECORDED

ENDPOINT_SCHEMES: Final = ("http://", "https://")


def is_endpoint(source: str) -> bool:
    """Whether the setting `teacher` names an endpoint."""
    return source.lower().startswith(ENDPOINT_SCHEMES)


def is_local(source: str) -> bool:
    """Whether the teacher is a model in the server's process."""
    return source != RECORDED and not is_endpoint(source)


def checked_base_url(source: str) -> str:
    """Return a base URL without a slash at its end.

    Raises
    ------
    ConfigError
        It is no http or https URL, or carries what does not belong into one: the
        message never quotes it.
    """
    try:
        parts = urlsplit(source.strip())
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise _bad_url("a URL that cannot be read") from None
    if not is_endpoint(source.strip()) or not is_address:
        raise _bad_url("no such URL")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("credentials in it, which would end up in files and logs")
    if "?" in source or "#" in source or not source.strip().isprintable():
        raise _bad_url("a query, a fragment or signs that are not printable")
    return source.strip().rstrip("/")


def _bad_url(found: str) -> ConfigError:
    return ConfigError(
        "`teacher` must be an http or https URL of host and path alone, found "
        f"{found}; pass for example `-c teacher=http://localhost:8000/v1`, and the key "
        "in $OPENAI_API_KEY."
    )
