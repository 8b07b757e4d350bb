"""What every kind of question has to say about itself.

A task turns the parts of a question into text, text into prompts for teacher and
student, and completions into rationales. It never loads data (`fedcot.data.loading`)
and never draws (`fedcot.privacy`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fedcot.data.schema import Rationale, Record


@dataclass(frozen=True, slots=True)
class TeacherPrompt:
    """What a teacher reads; it can be written as one text or as a chat.

    Attributes
    ----------
    instruction : str
        Opens the prompt; may be empty.
    demonstrations : tuple of (str, str)
        Public questions as a user would ask them, with the answer wanted.
    user : str
        The question at hand.
    """

    instruction: str
    demonstrations: tuple[tuple[str, str], ...]
    user: str

    @property
    def text(self) -> str:
        """The prompt for a model that goes on with a text."""
        turns = [f"{asked} {answered}" for asked, answered in self.demonstrations]
        parts = [self.instruction, *turns, self.user]
        return "\n\n".join(part for part in parts if part)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt for a chat model, as roles and contents."""
        rows = [("system", self.instruction)] if self.instruction else []
        for asked, answered in self.demonstrations:
            rows += [("user", asked), ("assistant", answered)]
        rows.append(("user", self.user))
        return [{"role": role, "content": content} for role, content in rows]


class Task(Protocol):
    """How one kind of question is written and read; public, and without state.

    Attributes
    ----------
    name : str
        As the setting `dataset` names it.
    hash : str
        SHA-256 over everything in it that is data rather than code: server and clients
        compare it.
    fields : tuple of (str, int)
        Name and public number of slots of each part of a question, in order; empty
        where a question is one part that fills the vocabulary's own length.
    stop : tuple of str
        A teacher's completion is cut at the first of these.
    checks_steps : bool
        Whether `is_valid` looks at the steps; otherwise it is always true.
    prediction_tokens : int
        Length limit of an answer without a rationale, in tokens.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def hash(self) -> str: ...  # noqa: D102

    @property
    def fields(self) -> tuple[tuple[str, int], ...]: ...  # noqa: D102

    @property
    def stop(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def checks_steps(self) -> bool: ...  # noqa: D102

    @property
    def prediction_tokens(self) -> int: ...  # noqa: D102

    def question(self, parts: Sequence[str]) -> str:
        """Return the text of a question from its parts, raw or perturbed."""
        ...

    def teacher_prompt(self, question: str) -> TeacherPrompt:
        """Return what the teacher reads for a question."""
        ...

    def parse_teacher(self, text: str) -> Rationale | None:
        """Split what a teacher wrote into steps and answer; None if it cannot be."""
        ...

    def predict_prompt(self, question: str) -> str:
        """Return what a student reads to answer without a rationale."""
        ...

    def explain_prompt(self, question: str) -> str:
        """Return what a student reads to write a rationale that ends in the answer."""
        ...

    def adapt_prompt(self, perturbed: str, rationale: Rationale, question: str) -> str:
        """Return what a student reads to carry a rationale over to its own question."""
        ...

    def completion(self, rationale: Rationale) -> str:
        """Return what a student should write after an `explain` or `adapt` prompt."""
        ...

    def prediction(self, answer: str) -> str:
        """Return what a student should write after a `predict` prompt."""
        ...

    def parse_completion(self, text: str) -> Rationale | None:
        """Split what a student wrote into steps and answer, strictly."""
        ...

    def parse_prediction(self, text: str) -> str | None:
        """Return the answer that a student wrote without a rationale, strictly."""
        ...

    def flexible_answer(self, text: str) -> str | None:
        """Return the answer in a text by a lenient rule, for comparison only."""
        ...

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether an answer that was read counts as the gold one."""
        ...

    def is_valid(self, rationale: Rationale) -> bool:
        """Whether the steps hold by public rules alone."""
        ...

    def candidates(self, record: Record) -> tuple[str, ...]:
        """Return every possible answer of a record; empty where they are unlimited."""
        ...
