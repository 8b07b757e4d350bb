"""Rewrite a trace to a coarser or finer level, without a model.

Levels of the built-in world are those of `fedcot.world.problem.Problem.rationale`:
results, equations, equations with their cause, sentences. A trace is rewritten only
where its own steps are exactly those of its question: no level may repair a wrong
trace. Levels of any other text keep more of its last steps the finer they are.

What a level is, and the control that pads a coarse one, are our definitions; the source
of the factor (https://arxiv.org/abs/2512.18174) names it without them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fedcot.community.step_text import (
    TEXT_FILLER,
    WORLD_FILLER,
    Measure,
    coarsen,
    join_steps,
    pad_to,
    split_steps,
)
from fedcot.data.schema import Rationale
from fedcot.data.traces import TraceClass
from fedcot.errors import ConfigError
from fedcot.settings import WORLD
from fedcot.world.problem import GRANULARITIES, Problem, Step
from fedcot.world.reading import read_problem

if TYPE_CHECKING:
    from fedcot.config import RunConfig

ANSWER_ONLY: Final = 0
TEXT_LEVELS: Final = 6  # as in https://arxiv.org/abs/2502.18001

NOT_OF_WORLD: Final = "the question is none of the built-in world"
OTHER_STEPS: Final = "the steps are not those of the question"

# A step of the world at level 2, 3 or 4; the group that matches is its result.
_STEP: Final = re.compile(
    r"(?:now [a-z]+ so |[a-z]+ )?(?:"
    r"[0-9]{1,4} [+*-] [0-9]{1,4} = ([0-9]{1,6})(?: [a-z]+)?"
    r"|[0-9]{1,4} or [0-9]{1,4} = ([0-9]{1,4} [a-z]+))"
)


def world_level(
    question: str | Problem, rationale: Rationale, level: int
) -> Rationale | None:
    """Return a correct rationale of the built-in world at another level.

    Parameters
    ----------
    question : str or Problem
        As the provider was asked; it decides the causes and the noun.
    rationale : Rationale
        What the provider wrote.
    level : int
        0: no reasoning. 1: results only. 2: equations. 3: with their cause. 4:
        sentences.

    Returns
    -------
    Rationale or None
        None where the question is none of the world, or the rationale does not make
        exactly its steps, in order, up to its answer. Results without their equations
        (level 1) make no steps: they can become coarser, never finer.

    Raises
    ------
    ConfigError
        There is no such level.
    """
    if level not in (ANSWER_ONLY, *GRANULARITIES):
        raise ConfigError(
            f"`level` must be 0 to {GRANULARITIES[-1]} in the built-in world, found "
            f"{level}; pass one of these."
        )
    problem = question if isinstance(question, Problem) else read_problem(question)
    if problem is None or not _makes_steps(rationale, problem, level):
        return None
    text = problem.rationale(level) if level else ""
    return Rationale(text, rationale.answer)


def _makes_steps(rationale: Rationale, problem: Problem, level: int) -> bool:
    parts = [" ".join(part.split()) for part in rationale.text.split(",")]
    if rationale.answer != problem.answer or len(parts) != problem.depth:
        return False
    if level <= 1 and parts == [step.result for step in problem.steps]:
        return True
    pairs = zip(parts, problem.steps, strict=True)
    return all(part in _writings(step, problem.noun) for part, step in pairs)


def _writings(step: Step, noun: str) -> tuple[str, str, str]:
    """Return how the levels that show a step write it."""
    equation = step.equation()
    caused = f"{step.cause} {equation}"
    return equation, caused, f"now {step.cause} so {equation} {noun}".rstrip()


def text_level(
    rationale: Rationale, level: int, levels: int = TEXT_LEVELS
) -> Rationale:
    """Return a rationale of any task at a coarser level: its last steps.

    Parameters
    ----------
    level : int
        0: no reasoning; `levels`: all of it. See `fedcot.community.step_text.coarsen`.
    levels : int

    Raises
    ------
    ConfigError
        There is no such level.
    """
    steps = coarsen(split_steps(rationale.text), level, levels)
    return replace(rationale, text=join_steps(steps))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Traces at another level.

    Attributes
    ----------
    rationales : tuple of (Rationale or None)
        In the order of the questions; None where one was dropped.
    dropped : dict of str to int
        How many, for which reason.
    """

    rationales: tuple[Rationale | None, ...]
    dropped: Mapping[str, int]


def rewrite_world(
    questions: Sequence[str],
    rationales: Sequence[Rationale],
    level: int,
    *,
    padded_to: int = 0,
    measure: Measure | None = None,
) -> Rewritten:
    """Return rationales of the built-in world at a level, and what had to go.

    Parameters
    ----------
    questions : sequence of str
    rationales : sequence of Rationale
        One for each question.
    level : int
        As for `world_level`.
    padded_to : int
        Finer level whose length each gets with `WORLD_FILLER` before it; 0: none.
    measure : callable, optional
        Length of a text; needed with `padded_to`.

    Raises
    ------
    ConfigError
        There is no such level, or no `measure` for padding.
    """
    if padded_to and measure is None:
        raise ConfigError(
            "`measure` must be given with `padded_to`, found none; pass the length of "
            "a text in tokens of the student."
        )
    dropped: Counter[str] = Counter()
    found: list[Rationale | None] = []
    for question, rationale in zip(questions, rationales, strict=True):
        problem = read_problem(question)
        one = None if problem is None else world_level(problem, rationale, level)
        if problem is None or one is None:
            dropped[NOT_OF_WORLD if problem is None else OTHER_STEPS] += 1
        elif padded_to and measure is not None:
            length = measure(problem.rationale(padded_to))
            one = replace(one, text=pad_to(one.text, length, WORLD_FILLER, measure))
        found.append(one)
    return Rewritten(tuple(found), dict(dropped))


def rewrite(question: str, rationale: Rationale, config: RunConfig) -> str | None:
    """Return the reasoning of a trace as `granularity` of a run asks for it.

    Parameters
    ----------
    question : str
    rationale : Rationale
        As the provider handed it out.
    config : RunConfig
        `dataset`, `granularity`, `granularity_padding` and `student` decide.

    Returns
    -------
    str or None
        With filler before it where `granularity-padding` is set, in tokens of the
        student. None where the trace cannot be rewritten and is to be dropped.

    Raises
    ------
    ConfigError
        There is no such level, or the student's tokenizer is not there.
    """
    level, padding = config.granularity, config.granularity_padding
    if not level:
        return rationale.text
    measure = student_measure(config.student) if padding else None
    if config.dataset == WORLD:
        (found,) = rewrite_world(
            [question], [rationale], level, padded_to=padding, measure=measure
        ).rationales
        return None if found is None else found.text
    if max(level, padding) > TEXT_LEVELS:
        raise ConfigError(
            f"`granularity` must be 0 to {TEXT_LEVELS} outside the built-in world, "
            f"found {max(level, padding)}; pass for example `-c granularity=3`."
        )
    text = text_level(rationale, level).text
    if measure is not None:
        finer = text_level(rationale, padding).text
        text = pad_to(text, measure(finer), TEXT_FILLER, measure)
    return text or None


def reduce_reasoning(text: str, handed_out: TraceClass) -> str:
    """Return what a provider hands out of its reasoning.

    Our definition of a summary, as no provider says how it makes its own: of equations
    of the built-in world the results, of any other text the last step.

    Parameters
    ----------
    text : str
        All of it.
    handed_out : TraceClass
        ``full``: all; ``summary``; ``recap-only`` and ``absent``: nothing.
    """
    if handed_out == TraceClass.FULL:
        return text
    if handed_out != TraceClass.SUMMARY:
        return ""
    parts = [_STEP.fullmatch(" ".join(part.split())) for part in text.split(",")]
    results = [part[1] or part[2] for part in parts if part is not None]
    if len(results) == len(parts):
        return " , ".join(results)
    return join_steps(split_steps(text)[-1:])


@lru_cache(maxsize=4)
def student_measure(source: str) -> Measure:
    """Return what counts the tokens of a text as a student reads it.

    Parameters
    ----------
    source : str
        The setting `student`.

    Raises
    ------
    ConfigError
        The student is not on this machine.
    """
    from transformers import AutoTokenizer

    from fedcot.models.sources import model_folder

    folder = model_folder(source, "student", fetch=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    def measure(text: str) -> int:
        return len(
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        )

    return measure
