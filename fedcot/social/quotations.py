"""What a message says, and what counts as quoting a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from fedcot.errors import ConfigError
from fedcot.evaluation.copying import plain

# Characters; ordinary phrases are shorter.
RUN: Final = 24


def quotable_runs(texts: Iterable[str]) -> set[str]:
    """Return what another text must not hold if it is to quote none of these.

    Parameters
    ----------
    texts : iterable of str

    Returns
    -------
    set of str
        Every run of `RUN` characters and every text that is shorter, whatever their
        case and spacing. Two sets of texts quote each other where these meet.
    """
    parts = [part for part in map(plain, texts) if part]
    # Joined: a text that is sent in pieces is still a quotation.
    joined = " ".join(parts)
    runs = {joined[start : start + RUN] for start in range(len(joined) - RUN + 1)}
    return runs | {part for part in parts if len(part) < RUN}


def texts_in(content: object) -> Iterator[str]:
    """Yield every string of nested sequences and mappings, keys included, in order."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from texts_in(key)
            yield from texts_in(value)
    elif isinstance(content, Sequence):
        for value in content:
            yield from texts_in(value)


def canonical(content: object) -> str:
    """Return the one JSON text of a content, whatever the order of its keys.

    Raises
    ------
    ConfigError
        It holds something that JSON does not.
    """
    try:
        return json.dumps(
            content, sort_keys=True, allow_nan=False, default=_plain_value
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "`content` must hold text, numbers, truth values, sequences and mappings, "
            f"found something else ({type(error).__name__}); convert it first."
        ) from None


def _plain_value(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
