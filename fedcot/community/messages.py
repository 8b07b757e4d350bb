"""What members and the server of a coalition say to each other; part of the wire.

A trace leaves its member as a `SharedTrace`, which is built from a `Grant` of the
member's `TraceStore` only: a trace whose scope does not permit an audience, or that was
withdrawn, cannot be put into a message. The store has written down whom a trace reaches
before a grant exists. What was received has a type of its own, which no message takes
onto the wire again, so that reading a message is no second way to build one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from fedcot.community.coalitions import Coalition
from fedcot.community.consent import Grant
from fedcot.community.setting_rules import NAME
from fedcot.community.settings import POOLED, PROMPT
from fedcot.community.synthetic import Written
from fedcot.data.traces import TraceClass
from fedcot.errors import WireError
from fedcot.plain_text import valid_unicode
from fedcot.records import Adapters, Wire, check_names, check_run

QUERY_TRACES: Final = "query.traces"
TRAIN_COALITION: Final = "train.coalition"
TRAIN_GENERATOR: Final = "train.generator"
EVALUATE_STUDENTS: Final = "evaluate.students"

LONGEST_TEXT: Final = 100_000
RECORD_KEY: Final = re.compile(r"[0-9a-f]{64}")
# An arm and a coalition; it becomes a folder name.
STUDENT: Final = re.compile(r"[a-z-]{1,32}\.[a-z0-9][a-z0-9+-]{0,400}")
COUNT: Final = "count"
PURPOSES: Final = (POOLED, PROMPT, COUNT)
PROVIDER: Final = "provider"
BEFORE: Final = "zero-shot"


@dataclass(frozen=True, slots=True, init=False)
class SharedTrace:
    """One trace on its way to coalitions.

    Parameters
    ----------
    grant : Grant
        Of the member's store. There is no other way to build one.
    name : str
        The trace's pseudonym in this run, 64 hex digits.
    coalitions : sequence of Coalition
        Those that were asked for, in the order of the request.
    """

    name: str
    question: str
    reasoning: str
    answer: str
    trace_class: str
    audiences: tuple[int, ...]  # places among the coalitions of the request

    def __init__(
        self, grant: Grant, *, name: str, coalitions: Sequence[Coalition]
    ) -> None:
        if type(grant) is not Grant:
            raise WireError(
                "A shared trace must be built from a store's Grant, "
                f"found {type(grant).__name__}."
            )
        permitted = frozenset(grant.audiences)
        trace = grant.trace
        self._fill(
            name,
            valid_unicode(trace.question),
            valid_unicode(trace.reasoning),
            valid_unicode(trace.answer),
            trace.trace_class.value,
            tuple(place for place, one in enumerate(coalitions) if one in permitted),
        )

    # A frozen class with slots would get these two, and the second fills any object.
    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled: a copy would outlive a withdrawal."""
        raise _not_to_be_copied()

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse to be filled."""
        raise _not_to_be_copied()

    def _fill(
        self,
        name: str,
        question: str,
        reasoning: str,
        answer: str,
        trace_class: str,
        audiences: tuple[int, ...],
    ) -> None:
        if not isinstance(name, str) or RECORD_KEY.fullmatch(name) is None:
            raise WireError("A trace's name must be a hex digest of 64 digits.")
        if max(map(len, (question, reasoning, answer))) > LONGEST_TEXT:
            raise WireError(f"A trace's texts must have at most {LONGEST_TEXT} signs.")
        if trace_class not in set(TraceClass):
            raise WireError("`trace-class` is not known.")
        if not audiences or len(set(audiences)) != len(audiences) or min(audiences) < 0:
            raise WireError("`audiences` must name coalitions, each once.")
        values = (name, question, reasoning, answer, trace_class, audiences)
        for key, value in zip(SharedTrace.__slots__, values, strict=True):
            object.__setattr__(self, key, value)

    @staticmethod
    def from_wire(
        name: str,
        question: str,
        reasoning: str,
        answer: str,
        trace_class: str,
        audiences: tuple[int, ...],
    ) -> ReceivedTrace:
        """Return a trace that was received; it cannot be sent."""
        received = object.__new__(ReceivedTrace)
        received._fill(name, question, reasoning, answer, trace_class, audiences)
        return received


class ReceivedTrace(SharedTrace):
    """A trace out of a message; `Wire.encode` takes a `SharedTrace` itself only."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesRequest(Wire):
    """Which coalitions ask for traces, or for how many there would be."""

    server_round: int
    coalitions: tuple[str, ...]  # labels
    purpose: str  # `pooled` or `prompt`: with texts; `count`: how many there are
    # Texts of one member at most, times the coalitions that it is in; 0: all. One that
    # several coalitions may have counts for each, so one of these may get more.
    limit: int
    run_key: str
    run_dir: str  # empty for a deployed node

    def __post_init__(self) -> None:
        """Check what becomes file names on the client, and the purpose."""
        check_run(self.run_key, self.server_round)
        check_names("purpose", (self.purpose,), PURPOSES)
        if self.limit < 0:
            raise WireError("`limit` must be >= 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesReply(Wire):
    """What a member offers.

    `num_offered` counts, for each coalition of the request, the traces that may reach
    it; without traces it is the member's word. `withdrawn` are the names of traces that
    an earlier round of this run held and that nobody may use any more.
    """

    partition_id: int
    community: str
    manifest_hash: str
    num_offered: tuple[int, ...]
    withdrawn: tuple[str, ...] = ()
    num_asked: int = 0  # questions put to the provider; 0 for a deployed node
    num_unparsed: int = 0
    num_filtered: int = 0
    traces: tuple[SharedTrace, ...] = ()

    def __post_init__(self) -> None:
        """Check names and counts, and that no withdrawn trace is offered."""
        if NAME.fullmatch(self.community) is None:
            raise WireError("`community` must be a name of a-z, 0-9 and '-'.")
        hashes = (*self.withdrawn, *filter(None, (self.manifest_hash,)))
        if not all(map(RECORD_KEY.fullmatch, hashes)):
            raise WireError("`manifest-hash` and `withdrawn` must be hex digests.")
        names = {trace.name for trace in self.traces}
        if len(names) != len(self.traces) or names & set(self.withdrawn):
            raise WireError("A trace stands twice, or was withdrawn.")
        places = range(len(self.num_offered))
        for trace in self.traces:
            known = type(trace) in (SharedTrace, ReceivedTrace)
            if not known or not set(trace.audiences) <= set(places):
                raise WireError("`traces` may hold SharedTrace only, for who asked.")
        offered = [
            sum(place in trace.audiences for trace in self.traces) for place in places
        ]
        if self.traces and offered != list(self.num_offered):
            raise WireError("`num-offered` must count the traces.")
        counts = (self.num_asked, self.num_unparsed, self.num_filtered)
        if min(*self.num_offered, *counts) < 0:
            raise WireError("Counts must be >= 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalitionTrainRequest(Wire):
    """Federated distillation: the adapters that a member goes on from."""

    server_round: int
    coalitions: tuple[str, ...]
    run_key: str
    run_dir: str
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})

    def __post_init__(self) -> None:
        """Check what becomes file names on the client."""
        check_run(self.run_key, self.server_round)
        check_names("adapters", tuple(self.adapters), self.coalitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalitionTrainReply(Wire):
    """A member's adapters, one for each coalition that may have its traces."""

    partition_id: int
    withheld: bool
    losses: tuple[float, ...] = ()  # last epoch of each adapter; simulation only
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})


@dataclass(frozen=True, slots=True, init=False)
class SyntheticTrace:
    """One trace that a member's generator wrote.

    Parameters
    ----------
    written : Written
        What the gate let through. There is no other way to build one.
    """

    question: str
    reasoning: str
    answer: str

    def __init__(self, written: Written) -> None:
        if type(written) is not Written:
            raise WireError(
                "A synthetic trace must be built from what a generator wrote, "
                f"found {type(written).__name__}."
            )
        self._fill(
            valid_unicode(written.question),
            valid_unicode(written.reasoning),
            valid_unicode(written.answer),
        )

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled, as a `SharedTrace`."""
        raise _not_to_be_copied()

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse to be filled."""
        raise _not_to_be_copied()

    def _fill(self, question: str, reasoning: str, answer: str) -> None:
        values = (question, reasoning, answer)
        if max(map(len, values)) > LONGEST_TEXT or not all(values):
            raise WireError(
                f"A synthetic trace must have texts of at most {LONGEST_TEXT} signs."
            )
        for key, value in zip(SyntheticTrace.__slots__, values, strict=True):
            object.__setattr__(self, key, value)

    @staticmethod
    def from_wire(question: str, reasoning: str, answer: str) -> ReceivedSynthetic:
        """Return a trace that was received; it cannot be sent."""
        received = object.__new__(ReceivedSynthetic)
        received._fill(question, reasoning, answer)
        return received


class ReceivedSynthetic(SyntheticTrace):
    """A synthetic trace out of a message; no message takes it onto the wire again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRequest(Wire):
    """Which coalitions a member's synthetic traces will reach, all of them."""

    server_round: int
    coalitions: tuple[str, ...]
    run_key: str
    run_dir: str

    def __post_init__(self) -> None:
        """Check what becomes file names on the client."""
        check_run(self.run_key, self.server_round)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticReply(Wire):
    """Traces that a member's generator wrote, and how many it did not send."""

    partition_id: int
    withheld: bool
    num_trained: int  # own traces that the generator learnt; simulation only
    num_malformed: int = 0
    num_invalid: int = 0
    num_copied: int = 0
    num_repeated: int = 0
    traces: tuple[SyntheticTrace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentScore:
    """Counts of one student over the test questions of one member; private."""

    student: str  # arm and coalition, `zero-shot` or `provider`
    exact_match: int
    parsed: int
    valid_rationales: int
    num_records: int
    correct: str  # "1" or "0" for each question in order; paired tests need it

    def __post_init__(self) -> None:
        """Check the name and the counts."""
        known = self.student in (PROVIDER, BEFORE)
        if not known and STUDENT.fullmatch(self.student) is None:
            raise WireError("`student` must be an arm and a coalition.")
        digits = self.correct.count("0") + self.correct.count("1")
        if not digits == len(self.correct) == self.num_records:
            raise WireError("`correct` must hold 0 or 1 for each record.")
        if self.correct.count("1") != self.exact_match:
            raise WireError("`exact-match` must count the ones of `correct`.")
        if min(self.parsed, self.valid_rationales) < 0:
            raise WireError("Counts must be >= 0.")
        if max(self.parsed, self.valid_rationales) > self.num_records:
            raise WireError("A score must count at most `num-records`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPrompt:
    """A student that is a text before the question; members of its coalition only."""

    student: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentsRequest(Wire):
    """Which students a member scores on its own test questions."""

    server_round: int
    students: tuple[str, ...]  # an adapter or a prompt for each but two
    run_key: str
    run_dir: str
    prompts: tuple[StudentPrompt, ...] = ()
    adapters: Adapters = field(default_factory=dict, metadata={"wire": False})

    def __post_init__(self) -> None:
        """Check what becomes file names on the client."""
        check_run(self.run_key, self.server_round)
        trained = [name for name in self.students if name not in (PROVIDER, BEFORE)]
        prompted = [one.student for one in self.prompts]
        if sorted(trained) != sorted([*self.adapters, *prompted]):
            raise WireError("Every student must come with its adapter or its prompt.")
        if not all(map(STUDENT.fullmatch, trained)):
            raise WireError("A student must be an arm and a coalition.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentsReply(Wire):
    """The scores of one member; a deployed node withholds them."""

    partition_id: int
    withheld: bool
    scores: tuple[StudentScore, ...] = ()


def _not_to_be_copied() -> TypeError:
    return TypeError("A trace on its way must be built anew from a grant each time.")
