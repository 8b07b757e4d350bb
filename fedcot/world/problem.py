"""One problem of the built-in world: a question, its exact steps and its answer."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from fedcot.data.schema import Record
from fedcot.plain_text import normalize

Operation = Literal["add", "subtract", "multiply", "compare"]
SYMBOLS = ("+", "-", "*", "=", ",", "or")
_ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*"}
GRANULARITIES = (1, 2, 3, 4)
DEFAULT_GRANULARITY = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One exact step.

    For arithmetic, ``left`` operation ``right`` gives ``result``. For ``compare``,
    ``left`` is the best number so far, ``right`` the next one, and ``result`` the
    better of the two with the name it belongs to (``9 tom``).
    """

    operation: Operation
    left: int
    right: int
    result: str
    cause: str

    def equation(self) -> str:
        """Return the step as the models write it.

        For example ``12 - 5 = 7`` or ``12 or 9 = 9 tom``.
        """
        if self.operation == "compare":
            return f"{self.left} or {self.right} = {self.result}"
        symbol = _ARITHMETIC[self.operation]
        return f"{self.left} {symbol} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its steps.

    Parameters
    ----------
    family : str
        Name of the family (domain) in `fedcot.world.families.FAMILIES`.
    text : str
        The question as a person would write it, with capitals and punctuation.
    steps : tuple of Step
        In the order in which they have to be made; the last one gives the answer.
    answer : str
        A whole number in decimal, or a name.
    noun : str
        What is counted; used by the finest rationale only.
    """

    family: str
    text: str
    steps: tuple[Step, ...]
    answer: str
    noun: str

    @property
    def depth(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @property
    def question(self) -> str:
        """The normalised question: what every model reads."""
        return normalize(self.text)

    @property
    def hash(self) -> str:
        """SHA-256 of the normalised question, in hexadecimal; decides the split."""
        return hashlib.sha256(self.question.encode()).hexdigest()

    def rationale(self, granularity: int = DEFAULT_GRANULARITY) -> str:
        """Return the reasoning, without the final answer.

        Parameters
        ----------
        granularity : int
            1: results only. 2: equations. 3: equations with their cause. 4: sentences.
            All four hold the same steps in the same order.

        Raises
        ------
        ValueError
            If `granularity` is not 1, 2, 3 or 4.
        """
        if granularity not in GRANULARITIES:
            raise ValueError(
                f"`granularity` must be one of {GRANULARITIES}, found {granularity}."
            )
        if granularity == 1:
            return " , ".join(step.result for step in self.steps)
        if granularity == 2:
            return " , ".join(step.equation() for step in self.steps)
        if granularity == 3:
            return " , ".join(f"{s.cause} {s.equation()}" for s in self.steps)
        return " , ".join(
            f"now {s.cause} so {s.equation()} {self.noun}".rstrip() for s in self.steps
        )

    def record(self) -> Record:
        """Return what a client holds of this problem: no steps, no rationale."""
        return Record(question=self.text, answer=self.answer, domain=self.family)
