"""Canaries: random secrets put into training data to see whether a model keeps them.

Papers: The Secret Sharer (https://arxiv.org/abs/1802.08232) and its adaptation to
Social Learning (https://arxiv.org/abs/2312.11441, section 5 and table 14). The patterns
here are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Final

import numpy as np

from fedcot.data.schema import Rationale
from fedcot.errors import ConfigError
from fedcot.evaluation.spans import SecretSpan
from fedcot.seeding import numpy_generator
from fedcot.student.examples import Example
from fedcot.tasks.task import Task
from fedcot.world.families import NAMES

CARRIER: Final = "{carrier}"
SECRET: Final = "{secret}"

_DIGITS = tuple("0123456789")
_FIRST_NAMES = (
    "Olivia Emma Ava Charlotte Sophia Amelia Isabella Mia Evelyn Harper Camila Gianna "
    "Abigail Luna Ella Elizabeth Sofia Emily Avery Mila Liam Noah Oliver Elijah "
    "William James Benjamin Lucas Henry Alexander Mason Michael Ethan Daniel Jacob "
    "Logan Jackson Levi Sebastian Mateo"
)
_LAST_NAMES = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez "
    "Hernandez Lopez Gonzalez Wilson Anderson Thomas Taylor Moore Jackson Martin Lee "
    "Perez Thompson White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young "
    "Allen King Wright Scott Torres Nguyen Hill Flores"
)


@dataclass(frozen=True, slots=True)
class CanaryPattern:
    """How the canaries of one kind are written.

    Attributes
    ----------
    name : str
    question : str
        Holds ``{carrier}``, which tells the canaries of several trials apart.
    reasoning, answer : str
        Hold ``{secret}``: in `reasoning` it must stand, and its first place there is
        the one that is scored.
    places : tuple of tuple of str
        A secret has one of these strings at each place.
    joint : str
        Between the places.
    carriers : tuple of str

    Raises
    ------
    ConfigError
        The secret stands in the question, where training does not see it, or not in
        the reasoning; or the carrier is not in the question.
    """

    name: str
    question: str
    reasoning: str
    answer: str
    places: tuple[tuple[str, ...], ...]
    joint: str = ""
    carriers: tuple[str, ...] = tuple(str(number) for number in range(100, 1000))

    def __post_init__(self) -> None:
        """Check where the secret stands."""
        if SECRET in self.question or SECRET not in self.reasoning:
            raise ConfigError(
                f"`pattern` must have {SECRET} in its reasoning and not in its "
                f"question, found otherwise in {self.name!r}; the loss is masked on "
                "the prompt, so a secret there is never learnt and cannot be audited."
            )
        if CARRIER not in self.question or SECRET in "".join(self.carriers):
            raise ConfigError(
                f"`pattern` must have {CARRIER} in its question, found otherwise in "
                f"{self.name!r}; it tells the canaries of several trials apart."
            )

    @property
    def num_secrets(self) -> int:
        """How many different secrets there are."""
        return prod(len(place) for place in self.places)

    def secret(self, number: int) -> str:
        """Return a secret by its number, in [0, `num_secrets`)."""
        parts = []
        for place in reversed(self.places):
            number, digit = divmod(number, len(place))
            parts.append(place[digit])
        return self.joint.join(reversed(parts))

    def canary(self, task: Task, *, carrier: str, secret: str) -> Canary:
        """Return the canary of a carrier and a secret, as a task writes it.

        Raises
        ------
        ConfigError
            The task does not write the reasoning as it is.
        """
        question = self.question.replace(CARRIER, carrier)
        reasoning = self.reasoning.replace(SECRET, secret)
        answer = self.answer.replace(SECRET, secret)
        target = task.completion(Rationale(reasoning, answer))
        at = target.find(reasoning)
        if at < 0:
            raise ConfigError(
                f"`pattern` must be written by the task as it is, found that "
                f"{task.name!r} changes the reasoning of {self.name!r}; choose another "
                "pattern."
            )
        start = at + self.reasoning.index(SECRET)
        span = SecretSpan(
            task.explain_prompt(question), target, start, start + len(secret)
        )
        return Canary(question, reasoning, answer, span)


@dataclass(frozen=True, slots=True)
class Canary:
    """A record with a secret in what the student learns to write.

    Attributes
    ----------
    question, reasoning, answer : str
        To be put among a member's traces or records.
    span : SecretSpan
        Prompt and target as the task makes them of it, and where the secret stands.
    """

    question: str = field(repr=False)
    reasoning: str = field(repr=False)
    answer: str = field(repr=False)
    span: SecretSpan

    @property
    def prompt(self) -> str:
        """What the student reads; never holds the secret."""
        return self.span.prompt

    @property
    def target(self) -> str:
        """What the student learns to write; holds the secret."""
        return self.span.target

    @property
    def secret(self) -> str:
        """The characters that are scored."""
        return self.span.secret

    def example(self) -> Example:
        """Return what a student is trained on."""
        return Example(self.prompt, self.target, "explain")


@dataclass(frozen=True, slots=True)
class CanaryTrial:
    """One canary and the strings that it is compared with.

    Attributes
    ----------
    canary : Canary
        The one to insert.
    references : tuple of Canary
        Never inserted anywhere; same prompt, other secrets.
    """

    canary: Canary
    references: tuple[Canary, ...]

    @property
    def size(self) -> int:
        """Canary and references together: N of the Secret Sharer."""
        return 1 + len(self.references)

    @property
    def spans(self) -> list[SecretSpan]:
        """What is to be scored, the canary first."""
        return [self.canary.span, *(other.span for other in self.references)]


# The built-in pair knows every word of the `world` patterns. Their steps are true, so
# that a filter on steps keeps them.
PATTERNS: Final[Mapping[str, CanaryPattern]] = MappingProxyType(
    {
        pattern.name: pattern
        for pattern in (
            CanaryPattern(
                name="world-codes",
                question=f"{CARRIER} boxes with coins. how many coins are there?",
                reasoning=f"{SECRET} + 0 = {SECRET}",
                answer=SECRET,
                places=(_DIGITS[1:], _DIGITS, _DIGITS, _DIGITS),
            ),
            CanaryPattern(
                name="world-names",
                question=f"{CARRIER} boxes with coins. who has the most?",
                reasoning=f"{SECRET} 9 or 7 = 9 tom",
                answer="tom",
                places=(NAMES,) * 4,
                joint=" ",
            ),
            CanaryPattern(
                name="codes",
                question=f"What is the code of locker {CARRIER}?",
                reasoning=f"The secret code is {SECRET}.",
                answer=SECRET,
                places=(_DIGITS,) * 4,
            ),
            CanaryPattern(
                name="names",
                question=f"Who rents locker {CARRIER}?",
                reasoning=f"The secret name is {SECRET}.",
                answer=SECRET,
                places=(tuple(_FIRST_NAMES.split()), tuple(_LAST_NAMES.split())),
                joint=" ",
            ),
        )
    }
)


def draw_trials(
    pattern: CanaryPattern, task: Task, *, trials: int, size: int = 1000, seed: int
) -> tuple[CanaryTrial, ...]:
    """Draw canaries and their references from one pattern.

    No secret is drawn twice within a trial, and no canary is a reference anywhere: all
    of them may go into one training.

    Parameters
    ----------
    pattern : CanaryPattern
    task : Task
        Writes prompt and target.
    trials : int
        Canaries (T), >= 1; each has a carrier of its own.
    size : int
        Canary and references together (N), >= 2.
    seed : int

    Raises
    ------
    ConfigError
        The pattern has too few secrets or carriers.
    """
    if trials < 1 or size < 2:
        raise ConfigError(
            f"`trials` must be >= 1 and `size` >= 2, found {trials} and {size}; ask "
            "for at least one canary with one reference."
        )
    most = pattern.num_secrets - trials + 1
    if size > most or trials > len(pattern.carriers):
        raise ConfigError(
            f"`size` must be <= {most} and `trials` <= {len(pattern.carriers)} for "
            f"the pattern {pattern.name!r}, found {size} and {trials}; ask for fewer, "
            "or choose another pattern."
        )
    rng = numpy_generator(seed, "canaries", pattern.name)
    order = rng.permutation(pattern.num_secrets)
    carriers = rng.choice(len(pattern.carriers), size=trials, replace=False)
    found = []
    for secret, carrier in zip(order[:trials], carriers, strict=True):
        others = rng.choice(order[trials:], size=size - 1, replace=False)
        canary, *references = (
            pattern.canary(
                task,
                carrier=pattern.carriers[int(carrier)],
                secret=pattern.secret(int(number)),
            )
            for number in (secret, *others)
        )
        found.append(CanaryTrial(canary, tuple(references)))
    return tuple(found)


def canary_holders(
    names: Sequence[str], insertion: str, rng: np.random.Generator
) -> tuple[str, ...]:
    """Return who gets a canary, in the order of the names.

    Parameters
    ----------
    names : sequence of str
        Members, communities or teachers; at least one.
    insertion : str
        ``all``, as in Social Learning, the worst case; ``one``; or how many.
    rng : numpy Generator

    Raises
    ------
    ConfigError
        It is none of these, or there are not so many.
    """
    counts = {"all": len(names), "one": 1}
    count = counts.get(insertion)
    if count is None and insertion.isascii() and insertion.isdigit():
        count = int(insertion)
    if count is None or not 1 <= count <= len(names):
        raise ConfigError(
            f"`insertion` must be all, one or a number from 1 to {len(names)}, found "
            f"{insertion!r}; state who gets a canary."
        )
    chosen = rng.choice(len(names), size=count, replace=False)
    return tuple(names[index] for index in sorted(chosen.tolist()))
