"""What an export of fedcot says of a trace besides its texts, and how it is read again.

It stands under the key `fedcot`, so that nothing is lost on the way through a format
that has no place for it. Texts beside it are taken as they are.
"""

from __future__ import annotations

from typing import Any, Final

from fedcot.data.traces import Scope, Trace, TraceClass
from fedcot.errors import ConfigError

KEY: Final = "fedcot"
VERSION: Final = 1
_TEXTS: Final = ("provider", "model", "created", "subject")


def metadata_of(trace: Trace) -> dict[str, Any]:
    """Return what stands under the key `fedcot`."""
    return {
        "version": VERSION,
        **{name: getattr(trace, name) for name in _TEXTS},
        "trace_class": trace.trace_class.value,
        "scope": trace.scope.value,
    }


def own_trace(metadata: Any, question: Any, reasoning: Any, answer: Any) -> Trace:
    """Return the trace that was exported.

    Raises
    ------
    ValueError
        It is not what `metadata_of` returns, or a part is no text. The error has no
        text of the trace.
    """
    if not isinstance(metadata, dict) or metadata.get("version") != VERSION:
        raise ValueError(f"not version {VERSION}")
    names = {"version", *_TEXTS, "trace_class", "scope"}
    if set(metadata) != names or type(metadata["version"]) is not int:
        raise ValueError("a key is missing or unknown")
    texts = (question, reasoning, answer, *(metadata[name] for name in _TEXTS))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a part is no text")
    try:
        return Trace(
            question=question,
            reasoning=reasoning,
            answer=answer,
            **{name: metadata[name] for name in _TEXTS},
            trace_class=TraceClass(metadata["trace_class"]),
            scope=Scope(metadata["scope"]),
        )
    except (ValueError, ConfigError):
        pass
    raise ValueError("class or scope is unknown, or does not fit the reasoning")
