"""What teacher clients and the student's server say to each other; part of the wire.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3 and appendix H.
Which texts a reply takes is decided in `fedcot.social.shared_texts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from fedcot.codec import kebab
from fedcot.errors import WireError
from fedcot.records import Wire, check_names, check_run
from fedcot.social.ballots import ANY_LABEL
from fedcot.social.demonstrations import Demonstration
from fedcot.social.flow import (
    CANDIDATES,
    TEACH_EXAMPLES,
    TEACH_INSTRUCTION,
    VOTE,
    StepMessage,
)
from fedcot.social.generation import DISCARDED
from fedcot.social.instructions import REFUSED
from fedcot.social.settings import EXAMPLES, MOST_EXAMPLES
from fedcot.social.shared_texts import (
    ReceivedDemonstration,
    ReceivedInstruction,
    SharedDemonstration,
    SharedInstruction,
)

QUERY_EXAMPLES: Final = "query.examples"
QUERY_INSTRUCTION: Final = "query.instruction"
QUERY_BALLOT: Final = "query.ballot"
EVALUATE_PROMPTS: Final = "evaluate.prompts"

INSTRUCTIONS: Final = "instructions"
SUBJECTS: Final = (EXAMPLES, INSTRUCTIONS)
# What a client adds to the students that it is asked about.
ORIGINAL: Final = "original"
OWN: Final = "own/"
STUDENT: Final = re.compile(r"[a-z]+(?:[-+][a-z]+)*(?:\.[1-9][0-9]?)?")
RANKINGS: Final = ("perplexity", "order")
# Prompts, samples or places; a client would never come to the end of more.
MOST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest(Wire):
    """Which step of the conversation a message is, and of which run."""

    step: int  # from 0
    server_round: int
    run_key: str
    run_dir: str  # empty for a deployed node

    def __post_init__(self) -> None:
        """Check what becomes file names on the client."""
        check_run(self.run_key, self.server_round)
        _check_counts(0, step=self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesRequest(StepRequest):
    """How demonstrations are to be written; see `GenerationSettings`."""

    per_prompt: int
    keep: int
    num_prompts: int
    samples_per_prompt: int
    temperature: float
    max_new_tokens: int

    def __post_init__(self) -> None:
        """Check every number; how they go together is checked where they are used."""
        # Classes with slots know no `super()`.
        StepRequest.__post_init__(self)
        names = ("per_prompt", "keep", "num_prompts", "samples_per_prompt")
        _check_counts(1, **{name: getattr(self, name) for name in names})
        _check_sampling(self.temperature, self.max_new_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesReply(Wire):
    """What a teacher client teaches, the best first.

    A deployed node withholds all that follows but the demonstrations: counts of texts
    for each reason of `DISCARDED`, of those sampled, checked and found wrong, of the
    distinct private demonstrations that stood in a prompt, and of those that its model
    could not explain; and what ranked the texts.
    """

    partition_id: int
    withheld: bool
    num_malformed: int = 0
    num_invalid: int = 0
    num_verbatim: int = 0
    num_normalised: int = 0
    num_near: int = 0
    num_run: int = 0
    num_repeated: int = 0
    num_outranked: int = 0
    num_sampled: int = 0
    num_checked: int = 0
    num_wrong: int = 0
    num_drawn: int = 0
    num_unexplained: int = 0
    ranking: str = ""
    demonstrations: tuple[SharedDemonstration, ...] = ()

    def __post_init__(self) -> None:
        """Check that texts may leave, and that counts add up or are withheld."""
        known = (SharedDemonstration, ReceivedDemonstration)
        if any(type(one) not in known for one in self.demonstrations):
            raise WireError("`demonstrations` may hold SharedDemonstration only.")
        others = ("sampled", "checked", "wrong", "drawn", "unexplained")
        counts = _counts_of(self, (*DISCARDED, *others), self.withheld)
        if self.withheld != (not self.ranking) or (
            self.ranking and self.ranking not in RANKINGS
        ):
            raise WireError("`ranking` must be known, or empty where withheld.")
        discarded = sum(counts[name] for name in DISCARDED)
        if not self.withheld and (
            counts["sampled"] != len(self.demonstrations) + discarded
            or not counts["wrong"] <= counts["checked"] <= counts["sampled"]
        ):
            raise WireError("`num-sampled` must count what was kept and discarded.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionRequest(StepRequest):
    """How an instruction is to be written; see `write_instruction`."""

    temperature: float
    max_new_tokens: int
    tries: int

    def __post_init__(self) -> None:
        """Check every number."""
        StepRequest.__post_init__(self)
        _check_counts(1, tries=self.tries)
        _check_sampling(self.temperature, self.max_new_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionReply(Wire):
    """One instruction, or none; counts as in `ExamplesReply`, by `REFUSED`."""

    partition_id: int
    withheld: bool
    num_empty: int = 0
    num_verbatim: int = 0
    num_normalised: int = 0
    num_near: int = 0
    num_run: int = 0
    num_unexplained: int = 0
    instruction: tuple[SharedInstruction, ...] = ()

    def __post_init__(self) -> None:
        """Check that the text may leave, and that counts are withheld if they must."""
        known = (SharedInstruction, ReceivedInstruction)
        if any(type(one) not in known for one in self.instruction):
            raise WireError("`instruction` may hold SharedInstruction only.")
        if len(self.instruction) > 1:
            raise WireError("`instruction` must hold one at most.")
        _counts_of(self, (*REFUSED, "unexplained"), self.withheld)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateText:
    """A demonstration that all teacher clients vote on."""

    question: str
    answer: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotRequest(StepRequest):
    """What teacher clients vote on: demonstrations or instructions of all of them."""

    subject: str  # of `SUBJECTS`
    turns: tuple[str, ...]  # see `fedcot.social.ballots`; for instructions one, open
    candidates: tuple[CandidateText, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is one kind of candidate, and as many turns as choices."""
        StepRequest.__post_init__(self)
        check_names("subject", (self.subject,), SUBJECTS)
        of_examples = self.subject == EXAMPLES
        asked, other = (
            (self.candidates, self.texts)
            if of_examples
            else (self.texts, self.candidates)
        )
        if not asked or other:
            raise WireError("A ballot must be about candidates of its subject only.")
        _check_counts(1, candidates=len(asked), turns=len(self.turns))
        if not of_examples and self.turns != (ANY_LABEL,):
            raise WireError("`turns` must be one open turn for instructions.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotReply(Wire):
    """Places of candidates, the best first."""

    partition_id: int
    ballot: tuple[int, ...]
    num_shown: int = 0  # held-out demonstrations that were used; simulation only

    def __post_init__(self) -> None:
        """Check that each place is named once."""
        _check_counts(0, num_shown=self.num_shown, ballot=min(self.ballot, default=-1))
        if len(set(self.ballot)) != len(self.ballot):
            raise WireError("`ballot` must name each candidate once.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPrompt:
    """A student: what it reads before a question, an instruction or demonstrations."""

    student: str
    instruction: str = ""
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    reasonings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the name, and that every demonstration is whole."""
        is_own = self.student.split(".")[0] == ORIGINAL
        if STUDENT.fullmatch(self.student) is None or is_own:
            raise WireError("`student` must be a name such as zero-shot or random.8.")
        if not len(self.questions) == len(self.answers) == len(self.reasonings):
            raise WireError("`students` must hold whole demonstrations.")

    @classmethod
    def of(
        cls, student: str, instruction: str, demonstrations: Sequence[Demonstration]
    ) -> Self:
        """Return a student as it travels."""
        return cls(
            student=student,
            instruction=instruction,
            questions=tuple(one.question for one in demonstrations),
            answers=tuple(one.answer for one in demonstrations),
            reasonings=tuple(one.reasoning for one in demonstrations),
        )

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The demonstrations, in the order of the prompt."""
        return tuple(map(Demonstration, self.questions, self.answers, self.reasonings))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsRequest(StepRequest):
    """Which students a client scores, and with how many demonstrations of its own."""

    students: tuple[SentPrompt, ...]
    original_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check that each student is there once."""
        StepRequest.__post_init__(self)
        names = {one.student for one in self.students}
        counts = self.original_counts
        if len(names) != len(self.students) or len(set(counts)) != len(counts):
            raise WireError("A student stands twice.")
        if not all(0 <= count <= MOST_EXAMPLES for count in counts):
            raise WireError(f"`original-counts` must be from 0 to {MOST_EXAMPLES}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScore:
    """How often one student was right on one client's questions."""

    student: str  # of the request, `original.N`, or one of these behind `own/`
    num_records: int
    correct: str  # "1" or "0" for each question in order; paired tests need it
    num_answered: int  # readable answers

    def __post_init__(self) -> None:
        """Check the name and the counts."""
        if STUDENT.fullmatch(self.student.removeprefix(OWN)) is None:
            raise WireError("`student` must be a name such as zero-shot or random.8.")
        hits = self.correct.count("1")
        digits = hits + self.correct.count("0")
        if not digits == len(self.correct) == self.num_records:
            raise WireError("`correct` must hold 0 or 1 for each record.")
        if not hits <= self.num_answered <= self.num_records:
            raise WireError("`num-answered` must count the right answers at least.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsReply(Wire):
    """The scores of one client; a deployed node withholds them."""

    partition_id: int
    withheld: bool
    scores: tuple[PromptScore, ...] = ()

    def __post_init__(self) -> None:
        """Check that nothing is told that is withheld."""
        if self.withheld and self.scores:
            raise WireError("`scores` must be empty where they are withheld.")


_KINDS: Final[dict[type[StepRequest], str]] = {
    ExamplesRequest: TEACH_EXAMPLES,
    InstructionRequest: TEACH_INSTRUCTION,
    BallotRequest: VOTE,
    PromptsRequest: EVALUATE_PROMPTS,
}


def step_message(request: StepRequest) -> StepMessage:
    """Return a request as a step of the conversation, for its guard and its hash.

    Everything but the run directory is its content. A `PromptsRequest` is no step of a
    `Flow`: it measures when the conversation is over.
    """
    content: dict[str, Any] = {kebab(k): v for k, v in asdict(request).items()}
    del content["run-dir"]
    if isinstance(request, BallotRequest):
        content[CANDIDATES] = content.pop("texts") or content[CANDIDATES]
    return StepMessage(request.step, _KINDS[type(request)], content)


def _check_counts(least: int, **counts: int) -> None:
    for name, count in counts.items():
        if not least <= count <= MOST:
            raise WireError(f"`{kebab(name)}` must be from {least} to {MOST}.")


def _check_sampling(temperature: float, max_new_tokens: int) -> None:
    _check_counts(1, max_new_tokens=max_new_tokens)
    if not 0 <= temperature <= MOST:
        raise WireError("`temperature` must be >= 0.")


def _counts_of(reply: Wire, names: Sequence[str], withheld: bool) -> dict[str, int]:
    """Return the counts of a reply by reason; all 0 where they are withheld."""
    counts = {name: getattr(reply, f"num_{name}") for name in names}
    if min(counts.values()) < 0 or (withheld and any(counts.values())):
        raise WireError("Counts must be >= 0, and 0 where they are withheld.")
    return counts


def protocol_words() -> tuple[str, ...]:
    """Return what requests hold beside what somebody said: the names of their parts."""
    names = {kebab(item.name) for kind in _KINDS for item in fields(kind)}
    return tuple(sorted({*names, *SUBJECTS, CANDIDATES}))
