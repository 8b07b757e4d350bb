"""Texts that a teacher's model wrote, on their way to the student.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3. A text leaves its
client as a `SharedDemonstration` or a `SharedInstruction`. The first is built from a
`Candidate`, the second from an `Instruction`, and both only where the gate allowed the
text: what it refused cannot be put into a message. What was received has a type of its
own, which no message takes onto the wire again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from fedcot.community.messages import LONGEST_TEXT
from fedcot.errors import WireError
from fedcot.plain_text import valid_unicode
from fedcot.social.generation import Candidate
from fedcot.social.instructions import Instruction


@dataclass(frozen=True, slots=True, init=False)
class SharedDemonstration:
    """A demonstration that a teacher's model wrote, on its way to the student.

    Parameters
    ----------
    candidate : Candidate
        One that the gate allowed. There is no other way to build one.
    """

    question: str
    answer: str
    reasoning: str

    def __init__(self, candidate: Candidate) -> None:
        if type(candidate) is not Candidate or candidate.verdict.allowed is not True:
            raise WireError(
                "A shared demonstration must be built from a Candidate that the gate "
                f"allowed, found {type(candidate).__name__}."
            )
        written = candidate.demonstration
        self._fill(
            valid_unicode(written.question),
            valid_unicode(written.answer),
            valid_unicode(written.reasoning),
        )

    # A frozen class with slots would get these two, and the second fills any object.
    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise _not_to_be_copied()

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse to be filled."""
        raise _not_to_be_copied()

    def _fill(self, question: str, answer: str, reasoning: str) -> None:
        values = (question, answer, reasoning)
        if max(map(len, values)) > LONGEST_TEXT or not (question and answer):
            raise WireError(
                "A shared demonstration must have a question, an answer and texts of "
                f"at most {LONGEST_TEXT} signs."
            )
        for key, value in zip(SharedDemonstration.__slots__, values, strict=True):
            object.__setattr__(self, key, value)

    @staticmethod
    def from_wire(question: str, answer: str, reasoning: str) -> ReceivedDemonstration:
        """Return a demonstration that was received; it cannot be sent."""
        received = object.__new__(ReceivedDemonstration)
        received._fill(question, answer, reasoning)
        return received


class ReceivedDemonstration(SharedDemonstration):
    """One out of a message; `Wire.encode` takes a `SharedDemonstration` itself only."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, init=False)
class SharedInstruction:
    """An instruction that a teacher's model wrote, on its way to the student.

    Parameters
    ----------
    instruction : Instruction
        With a text that the gate allowed. There is no other way to build one.
    """

    text: str

    def __init__(self, instruction: Instruction) -> None:
        if type(instruction) is not Instruction or not any(
            one.text == instruction.text and one.left and one.verdict is not None
            for one in instruction.considered
        ):
            raise WireError(
                "A shared instruction must be built from an Instruction whose text the "
                f"gate allowed, found {type(instruction).__name__}."
            )
        self._fill(valid_unicode(instruction.text or ""))

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise _not_to_be_copied()

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse to be filled."""
        raise _not_to_be_copied()

    def _fill(self, text: str) -> None:
        if not 0 < len(text) <= LONGEST_TEXT:
            raise WireError(
                f"A shared instruction must have from 1 to {LONGEST_TEXT} signs."
            )
        object.__setattr__(self, "text", text)

    @staticmethod
    def from_wire(text: str) -> ReceivedInstruction:
        """Return an instruction that was received; it cannot be sent."""
        received = object.__new__(ReceivedInstruction)
        received._fill(text)
        return received


class ReceivedInstruction(SharedInstruction):
    """An instruction out of a message; no message takes it onto the wire again."""

    __slots__ = ()


def _not_to_be_copied() -> TypeError:
    return TypeError("A text on its way must be built anew from what the gate allowed.")
