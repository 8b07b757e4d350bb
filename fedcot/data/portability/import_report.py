"""What an import found, and why it left things out. It holds no text of a trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from fedcot.data.portability.reading import order_of, time_of
from fedcot.data.traces import Trace

# Reasons to leave something out. An exchange is counted once.
NO_QUESTION: Final = "no question"
NO_ANSWER: Final = "no answer"
UNFINISHED: Final = "reasoning without an end"
OFF_PATH: Final = "branch not on the current path"
MALFORMED: Final = "malformed"
EARLY_END: Final = "file ends early"
TOO_LONG: Final = "too long"
WRONG: Final = "marked wrong"

# What else is worth knowing; nothing was lost as a trace.
NULL_MESSAGE: Final = "null message"
HIDDEN: Final = "hidden message"
NOT_VISIBLE: Final = "message to a tool, or comment on one"
NO_TEXT_PART: Final = "part without text"
CUT_OFF: Final = "reasoning cut off by the provider"
TRUNCATED: Final = "answer that looks cut off"
REPAIRED: Final = "text with half of a surrogate pair"
MARKED_CORRECT: Final = "marked correct"
MARKED_WRONG: Final = "marked wrong"
NOT_MARKED: Final = "not marked"

# Why a file was not read.
NOT_AN_EXPORT: Final = "not a known export"
UNSAFE_NAME: Final = "unsafe name in the archive"
LINK: Final = "link"
NESTED: Final = "archive in an archive"
ENCRYPTED: Final = "encrypted"
COMPRESSION: Final = "unknown compression"

_MOST_WARNINGS: Final = 20


@dataclass(slots=True)
class ImportReport:
    """Counts of an import; they grow while the traces are read.

    Attributes
    ----------
    traces, conversations : int
        Traces that were handed out; conversations, events or rows that were read.
    skipped : Counter of str
        Exchanges, or conversations that could not be read, by reason.
    notes : Counter of str
        Messages, texts and rows by what is worth knowing of them.
    trace_classes : Counter of str
        Traces by how much reasoning they have.
    models : Counter of (provider, model)
    files, files_left : Counter of str
        Files that were read by format, and the others by reason.
    first, last : str
        The time span of the traces that have a time, ISO 8601 in UTC.
    warnings : list of str
        One sentence each, at most 20.
    """

    traces: int = 0
    conversations: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    trace_classes: Counter[str] = field(default_factory=Counter)
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    files_left: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    warnings: list[str] = field(default_factory=list)

    def skip(self, reason: str) -> None:
        """Count one thing that was left out."""
        self.skipped[reason] += 1

    def note(self, what: str, count: int = 1) -> None:
        """Count what is worth knowing."""
        if count:
            self.notes[what] += count

    def warn(self, sentence: str) -> None:
        """Keep a warning, unless there are many already."""
        if len(self.warnings) < _MOST_WARNINGS and sentence not in self.warnings:
            self.warnings.append(sentence)

    def add(self, trace: Trace) -> None:
        """Count a trace that is handed out."""
        self.traces += 1
        self.trace_classes[trace.trace_class.value] += 1
        self.models[trace.provider, trace.model] += 1
        created = time_of(trace.created)
        if created:
            self.first = min(self.first or created, created, key=order_of)
            self.last = max(self.last, created, key=order_of)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it, names in order."""
        models = [
            {"provider": provider, "model": model, "traces": count}
            for (provider, model), count in sorted(self.models.items())
        ]
        return {
            "traces": self.traces,
            "conversations": self.conversations,
            "skipped": dict(sorted(self.skipped.items())),
            "notes": dict(sorted(self.notes.items())),
            "trace_classes": dict(sorted(self.trace_classes.items())),
            "models": models,
            "files": dict(sorted(self.files.items())),
            "files_left": dict(sorted(self.files_left.items())),
            "first": self.first,
            "last": self.last,
            "warnings": list(self.warnings),
        }
