"""The students of a run of social learning: a model each with another prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fedcot.config import RunConfig
from fedcot.social.aggregation import Chosen, Pool
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.instructions import MergedInstruction, student_prompt
from fedcot.social.settings import INSTRUCTION

ZERO_SHOT = "zero-shot"
MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a student reads before each question.

    Attributes
    ----------
    name : str
        Kind and number of examples, as ``voting.8``.
    instruction : str
        Empty where there is none.
    demonstrations : tuple of Demonstration
    """

    name: str
    instruction: str = field(default="", repr=False)
    demonstrations: tuple[Demonstration, ...] = field(default=(), repr=False)

    def text(self, form: DemonstrationFormat) -> str:
        """Return the state of the student, to which any question can be added."""
        return student_prompt(form, self.instruction, self.demonstrations)


def prompts_of(
    config: RunConfig,
    pool: Pool,
    chosen: Mapping[str, Chosen],
    instruction: MergedInstruction | None,
) -> tuple[Prompt, ...]:
    """Return every student of a run that the server can score.

    A shorter prompt holds the first examples that were chosen; one that would need more
    than there are is left out.
    """
    return tuple(_prompts(config, pool, chosen, instruction))


def _prompts(
    config: RunConfig,
    pool: Pool,
    chosen: Mapping[str, Chosen],
    instruction: MergedInstruction | None,
) -> Iterator[Prompt]:
    yield Prompt(ZERO_SHOT)
    if config.manual_prompt:
        yield Prompt(MANUAL, config.manual_prompt)
    longest: dict[str, Prompt] = {}
    for name, found in chosen.items():
        for count in config.counts:
            if 0 < count <= len(found.indices):
                shown = tuple(pool.demonstrations[i] for i in found.indices[:count])
                longest[name] = Prompt(f"{name}.{count}", "", shown)
                yield longest[name]
    if instruction is None:
        return
    yield Prompt(INSTRUCTION, instruction.text)
    for prompt in longest.values():
        yield Prompt(
            f"{INSTRUCTION}+{prompt.name}", instruction.text, prompt.demonstrations
        )
