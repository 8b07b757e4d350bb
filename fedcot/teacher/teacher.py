"""What a teacher is: questions in, rationales out, with where they come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedcot.data.schema import Rationale
from fedcot.tasks.task import TeacherPrompt

Progress = Callable[[int, int], None]
Described = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the teacher wrote, and what could be read from it.

    Attributes
    ----------
    text : str
    rationale : Rationale or None
        None when the text has no steps or not exactly one answer.
    prompt_hash : str
        SHA-256 over the whole prompt; empty for a teacher without one.
    served_by : str
        What an endpoint says wrote it; empty for others.
    """

    text: str
    rationale: Rationale | None
    prompt_hash: str = ""
    served_by: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """One completion with what it cost.

    Attributes
    ----------
    text : str
    prompt_tokens, completion_tokens : int
        As the model counts them; 0 where it does not say.
    is_cut : bool
        Whether it ended at the length limit; false where that is not known.
    served_by : str
        What an endpoint says wrote it: model and, where given, its fingerprint.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_cut: bool = False
    served_by: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a teacher was asked and what that cost so far.

    Attributes
    ----------
    prompts, cached : int
        Distinct prompts that were answered, and how many of them came from the cache.
    prompt_tokens, completion_tokens : int
        Of those that did not.
    cost : float
        Of those tokens, by the prices in the settings; 0 where none are given.
    cut, empty : int
        Prompts whose completion ended at the length limit, or holds nothing but blanks.
    """

    prompts: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cut: int = 0
    empty: int = 0


class Writer(Protocol):
    """Writes a completion for each prompt."""

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    def describe(self) -> Described:
        """Return everything that decides what is written: model, revision, settings."""
        ...

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """Return one completion for each prompt, in order.

        Parameters
        ----------
        stop : sequence of str
            A completion ends before the first of these.
        on_written : callable, optional
            Called with the index and the completion as soon as each is there, in any
            order, from the calling thread.

        Raises
        ------
        TeacherError
            The model cannot be reached or does not answer as it should.
        """
        ...


class Teacher(Protocol):
    """Answers questions with rationales."""

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        ...

    def describe(self) -> Described:
        """Return everything that decides what is written: model, revision, settings."""
        ...

    def for_released(self) -> "Teacher":
        """Return the teacher for questions that were released or are public.

        Mostly itself. It may know nothing of private questions (R6).
        """
        ...

    def answer(
        self, questions: Sequence[str], *, on_progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion for each question, in the order of the questions.

        A rationale depends on its own question only (R6: never on another record's).
        """
        ...
