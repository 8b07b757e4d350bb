"""One question that a person put to a model, with the reasoning and the answer."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from fedcot.errors import ConfigError


class TraceClass(StrEnum):
    """How much of a model's reasoning its provider handed out."""

    FULL = "full"
    SUMMARY = "summary"
    RECAP_ONLY = "recap-only"  # a status such as "Thought for 8 s", never reasoning
    ABSENT = "absent"


class Scope(StrEnum):
    """Whom the owner of a trace lets it reach; each includes the ones before."""

    OWN = "own"
    COMMUNITY = "community"
    COALITION = "coalition"
    PUBLIC = "public"


REASONED = frozenset({TraceClass.FULL, TraceClass.SUMMARY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a person exported of one exchange; its `repr` holds no text of it.

    Attributes
    ----------
    question : str
        What the person wrote.
    reasoning : str
        The model's intermediate text; empty where `trace_class` has none. It never
        stands in `answer`.
    answer : str
        The model's reply.
    provider, model : str
        Who answered; empty where an export does not say.
    created : str
        ISO 8601 in UTC, for example ``2026-01-31T12:00:00Z``; empty if unknown.
    subject : str
        Pseudonym of the person whose trace it is; empty if not given.
    trace_class : TraceClass
    scope : Scope
        Nothing leaves its owner unless the owner widens it.

    Raises
    ------
    ConfigError
        There is reasoning where the class says that there is none, or none where there
        must be.
    """

    question: str = field(repr=False)
    reasoning: str = field(default="", repr=False)
    answer: str = field(default="", repr=False)
    provider: str = ""
    model: str = ""
    created: str = ""
    subject: str = field(default="", repr=False)
    trace_class: TraceClass = TraceClass.ABSENT
    scope: Scope = Scope.OWN

    def __post_init__(self) -> None:
        """Check that class and reasoning agree."""
        if bool(self.reasoning) != (self.trace_class in REASONED):
            raise ConfigError(
                "`trace-class` must be full or summary exactly where a trace has "
                f"reasoning, found {self.trace_class.value}; correct the trace."
            )

    @property
    def key(self) -> str:
        """SHA-256 of question, reasoning and answer, in hex: what makes it this trace.

        Not who holds it, nor its scope: a trace that was withdrawn stays withdrawn when
        it is imported again under another scope.
        """
        parts = (self.question, self.reasoning, self.answer)
        joined = "\x1f".join(parts).encode("utf-8", "replace")
        return hashlib.sha256(joined).hexdigest()
