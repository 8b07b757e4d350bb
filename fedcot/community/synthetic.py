"""Traces that a member's own generator writes, so that its own need not leave.

The route is Social Learning's (https://arxiv.org/abs/2312.11441, section 3: synthetic
examples), with a small fine-tuned generator in place of a large prompted one. What is
written may repeat what was read; a gate keeps copies back, and only DP-SGD bounds the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from fedcot.evaluation.copying import nearest, plain
from fedcot.models.generation import generate
from fedcot.models.sequences import prompt_ids
from fedcot.seeding import derive_seed
from fedcot.student.base import Adapter, Base, TrainingSettings, adapted
from fedcot.student.examples import Example

if TYPE_CHECKING:
    from fedcot.community.pool import Shown
    from fedcot.tasks.task import Task

# Stands where a question does while its template is split; no text holds it.
_MARK: Final = "\x1aquestion\x1a"
NEAR: Final = 0.1
TRIES: Final = 4


@dataclass(frozen=True, slots=True, init=False)
class Written:
    """A trace that a generator wrote and the gate let through.

    `write_traces` makes it; there is no other way, so that no member's own trace can
    take its place.
    """

    question: str
    reasoning: str
    answer: str

    def __init__(self, *values: object, **named: object) -> None:
        _refuse()

    def __reduce__(self) -> NoReturn:
        """Refuse: a copy would be built in another way."""
        _refuse()


@dataclass(frozen=True, slots=True)
class Writing:
    """What became of everything that a generator wrote.

    Attributes
    ----------
    written : tuple of Written
    num_malformed : int
        No question, no reasoning or no answer could be read.
    num_invalid : int
        Steps that do not hold by public rules.
    num_copied : int
        Kept back: a copy of an own trace's question, or nearer than `NEAR` to one.
    num_repeated : int
        The generator had written it before.
    """

    written: tuple[Written, ...]
    num_malformed: int
    num_invalid: int
    num_copied: int
    num_repeated: int

    @property
    def counts(self) -> dict[str, int]:
        """What was left out, by reason."""
        return {
            name: getattr(self, name)
            for name in self.__slots__
            if name.startswith("num_")
        }


def generator_examples(traces: Sequence[Shown], task: Task) -> tuple[Example, ...]:
    """Return what a generator learns: to write question, reasoning and answer."""
    before, between = split_template(task)
    return tuple(
        Example(before, f"{question}{between}{completed}", "explain")
        for trace in traces
        if trace.reasoning
        for question, completed in [_parts(trace, task, before, between)]
    )


def write_traces(
    base: Base,
    adapter: Adapter,
    own: Sequence[Shown],
    *,
    count: int,
    task: Task,
    settings: TrainingSettings,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    batch_size: int = 64,
) -> Writing:
    """Let a generator write until there are enough traces, or it has had its tries.

    Parameters
    ----------
    base, adapter, settings
        The generator, trained on `generator_examples`.
    own : sequence of traces
        Nothing near one of them passes the gate; none under DP-SGD, where what is
        sent must not depend on them in another way.
    count : int
        Traces wanted; at most `TRIES` times as many are written.
    temperature : float
        > 0.
    seed : int
        Public chance: of the sampling.

    Returns
    -------
    Writing
        Fewer than `count` where the tries did not suffice.
    """
    before, between = split_template(task)
    sources = [_parts(trace, task, before, between)[0] for trace in own]
    copies = {plain(source) for source in sources}
    ids = prompt_ids(base, before)
    found: dict[str, Written] = {}
    counts = dict.fromkeys(("malformed", "invalid", "copied", "repeated"), 0)
    with adapted(base, settings, seed=0, adapter=adapter) as model:
        for attempt in range(TRIES):
            completions = generate(
                model.eval(),
                base,
                [ids] * count,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seeds=[derive_seed(seed, attempt, row) for row in range(count)],
            )
            for completion in completions:
                question, marker, rest = completion.text.partition(between.strip())
                question = question.strip()
                rationale = task.parse_completion(rest) if marker else None
                if not question or rationale is None:
                    counts["malformed"] += 1
                elif not task.is_valid(rationale):
                    counts["invalid"] += 1
                elif plain(question) in copies or (
                    sources and nearest(question, sources).distance < NEAR
                ):
                    counts["copied"] += 1
                elif plain(question) in found:
                    counts["repeated"] += 1
                else:
                    found[plain(question)] = _written(
                        question, rationale.text, rationale.answer
                    )
            if len(found) >= count:
                break
    return Writing(
        written=tuple(found.values())[:count],
        **{f"num_{reason}": number for reason, number in counts.items()},
    )


def split_template(task: Task) -> tuple[str, str]:
    """Return what stands before and behind the question in an `explain` prompt."""
    before, _, behind = task.explain_prompt(_MARK).partition(_MARK)
    if not _:
        # A prompt that normalises its question cannot hold the mark.
        before, _, behind = task.explain_prompt("question").rpartition("question")
    return before.strip(), f" {behind.strip()} "


def _parts(trace: Shown, task: Task, before: str, between: str) -> tuple[str, str]:
    """Return a question as the student reads it, and what it should write."""
    from fedcot.data.schema import Rationale

    prompt = task.explain_prompt(trace.question)
    question = prompt.removeprefix(before).removesuffix(between.strip()).strip()
    return question, task.completion(Rationale(trace.reasoning, trace.answer))


def _written(question: str, reasoning: str, answer: str) -> Written:
    made = object.__new__(Written)
    for name, value in zip(
        Written.__slots__, (question, reasoning, answer), strict=True
    ):
        object.__setattr__(made, name, value)
    return made


def _refuse() -> NoReturn:
    raise TypeError("A written trace is made by `write_traces` only.")
