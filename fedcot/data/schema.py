"""What a client holds, and what comes back for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One private question of a client, with its gold answer and its domain."""

    question: str
    answer: str
    domain: str


@dataclass(frozen=True, slots=True)
class Rationale:
    """A rationale that could be parsed: its steps as text, and its answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Partition:
    """The records of one client; the splits never share a question."""

    train: tuple[Record, ...]
    test: tuple[Record, ...]
    deep_test: tuple[Record, ...]
