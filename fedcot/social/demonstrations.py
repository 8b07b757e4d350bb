"""Examples of a task, and what a format does with them.

Paper: https://arxiv.org/abs/2312.11441, section 3 and table 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedcot.seeding import numpy_generator


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One example of a task; its texts may be private, so the repr leaves them out.

    Attributes
    ----------
    question : str
    answer : str
    reasoning : str
        The steps; empty where the task has none.
    """

    question: str = field(repr=False)
    answer: str = field(repr=False)
    reasoning: str = field(default="", repr=False)


class DemonstrationFormat(Protocol):
    """How the demonstrations of a task are written, asked for and read."""

    @property
    def name(self) -> str:
        """What settings call it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every possible answer; empty where the set is not closed."""

    @property
    def has_reasoning(self) -> bool:
        """Whether demonstrations show steps."""

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends a generated demonstration: it is cut before the first of these."""

    @property
    def separator(self) -> str:
        """What stands between demonstrations in a prompt."""

    @property
    def opening(self) -> str:
        """What a new demonstration starts with; may be empty."""

    def write(self, demonstration: Demonstration) -> str:
        """Return the text that `read` turns back into the same demonstration.

        Raises
        ------
        ConfigError
            No text does; the message holds none of the demonstration.
        """

    def ask(self, question: str) -> str:
        """Return the end of a student's prompt, behind which its answer stands.

        Raises
        ------
        ConfigError
            The format cannot hold the question; the message does not repeat it.
        """

    def read(self, text: str) -> Demonstration | None:
        """Return the one demonstration that a text is, its opening included.

        None where anything is missing, empty, said twice or too much.
        """

    def read_answer(self, text: str) -> str | None:
        """Return the answer in what a student wrote behind `ask`, if there is one."""

    def is_right(self, answer: str, gold: str) -> bool:
        """Whether two answers are the same."""


def few_shot_prompt(
    form: DemonstrationFormat,
    demonstrations: Sequence[Demonstration],
    question: str | None = None,
) -> str:
    """Return a prompt of demonstrations, without any instruction.

    Parameters
    ----------
    form : DemonstrationFormat
    demonstrations : sequence of Demonstration
        May be empty.
    question : str, optional
        What a student should answer. Without one the prompt ends in the opening, so
        that a model goes on with one more demonstration.

    Returns
    -------
    str
        All parts with the separator between them.

    Raises
    ------
    ConfigError
        The format cannot hold one of them.
    """
    last = form.opening if question is None else form.ask(question)
    return form.separator.join([*map(form.write, demonstrations), last])


def draw_indices(total: int, count: int, seed: int, *path: str | int) -> list[int]:
    """Return which of a teacher's demonstrations go into a prompt.

    Parameters
    ----------
    total : int
        Demonstrations that there are.
    count : int
        How many to draw, without replacement, at most `total`.
    seed : int
    *path : str or int
        What the draw is for, as in `fedcot.seeding.derive_seed`.

    Returns
    -------
    list of int
        In the order of the prompt; every order of every choice is equally likely.

    Raises
    ------
    ValueError
        There are fewer demonstrations than to be drawn.
    """
    if not 0 <= count <= total:
        raise ValueError(f"`count` must be from 0 to {total}, found {count}.")
    order = numpy_generator(seed, "demonstrations", *path).permutation(total)
    return [int(index) for index in order[:count]]
