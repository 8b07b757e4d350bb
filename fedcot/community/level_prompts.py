"""Ask a provider for a rationale of a stated level, by one worked example.

One-shot prompting as in https://arxiv.org/abs/2502.18001; the wording and the example
are ours. A prompted level is a request, which a model need not follow. Whether an
answer has stayed right is for `trace-filter=answer` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedcot.community.settings import PROVIDER_LEVELS
from fedcot.errors import ConfigError
from fedcot.tasks.mapping import load_mapping
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.cache import prompt_hash
from fedcot.teacher.teacher import Described, Writer, Written

if TYPE_CHECKING:
    from fedcot.config import RunConfig

# The answer of the example is a number; other kinds need an example of their own.
KINDS: Final = ("numeric", "equation")


@dataclass(frozen=True, slots=True)
class LevelExample:
    """A public question with one rationale for each level.

    Attributes
    ----------
    asked : str
        The question as a user of the task would ask it.
    rationales : tuple of str
        Coarse to fine, one more sentence each.
    concluded : str
        The answer as the task's strict extractor reads it, behind each rationale.
    """

    asked: str
    rationales: tuple[str, ...]
    concluded: str


ARITHMETIC: Final = LevelExample(
    asked=(
        "Q: A ferry leaves with 3 rows of 14 seats taken. At the first pier 9 people "
        "get off and 4 get on. How many people are on board then?\nA:"
    ),
    rationales=(
        "3 x 14 - 9 + 4 = 37.",
        "The ferry leaves with 3 x 14 = 42 people. Then 42 - 9 + 4 = 37.",
        (
            "The ferry leaves with 3 x 14 = 42 people. When 9 get off, 42 - 9 = 33 "
            "are left. When 4 get on, there are 33 + 4 = 37."
        ),
        (
            "First count the people at the start. There are 3 rows of 14 seats, so "
            "that is 3 x 14 = 42 people. At the pier 9 people get off, and 42 - 9 = "
            "33 are left on board. Then 4 people get on, which makes 33 + 4 = 37."
        ),
        (
            "First count the people at the start. Every taken seat is one person. "
            "There are 3 rows of 14 seats, so that is 3 x 14 = 42 people. At the "
            "pier 9 people get off, so subtract them, and 42 - 9 = 33 are left on "
            "board. Then 4 people get on, so add them, which makes 33 + 4 = 37."
        ),
        (
            "We are asked how many people are on board after the first pier. First "
            "count the people at the start, where every taken seat is one person. "
            "There are 3 rows of 14 seats, so multiply the two, and that is 3 x 14 "
            "= 42 people. At the pier 9 people get off, so subtract them, and 42 - "
            "9 = 33 are left on board. Then 4 people get on, so add them, which "
            "makes 33 + 4 = 37. Nobody else gets on or off, so this is the number "
            "that was asked for."
        ),
    ),
    concluded="The answer is 37.",
)


def level_prompt(task_prompt: TeacherPrompt, level: int) -> TeacherPrompt:
    """Return a prompt that asks for a rationale of a level.

    The task's instruction stays, its demonstrations give way to one that shows the
    level, and the question at hand is the task's own.

    Parameters
    ----------
    task_prompt : TeacherPrompt
        As `Task.teacher_prompt` returns it.
    level : int
        From 1, coarse, to `PROVIDER_LEVELS`, fine; also the number of sentences asked
        for.

    Raises
    ------
    ConfigError
        There is no such level.
    """
    if not 1 <= level <= PROVIDER_LEVELS:
        raise ConfigError(
            f"`level` must be 1 to {PROVIDER_LEVELS}, from coarse to fine, found "
            f"{level}; pass one of these."
        )
    sentences = "one sentence" if level == 1 else f"{level} sentences"
    detail = (
        f"Reason at level {level} of {PROVIDER_LEVELS}, where level 1 is the briefest "
        f"and level {PROVIDER_LEVELS} the most detailed: write {sentences} of "
        "reasoning, then the answer in the form of the example. More detail must never "
        "change the answer."
    )
    instruction = "\n".join(filter(None, (task_prompt.instruction, detail)))
    shown = f"{ARITHMETIC.rationales[level - 1]} {ARITHMETIC.concluded}"
    return TeacherPrompt(instruction, ((ARITHMETIC.asked, shown),), task_prompt.user)


class LevelledWriter:
    """A writer that is asked for one level; see `fedcot.teacher.teacher.Writer`.

    Parameters
    ----------
    writer : Writer
    level : int
        As for `level_prompt`.
    """

    def __init__(self, writer: Writer, level: int) -> None:
        self.name = writer.name
        self._writer = writer
        self._level = level

    def describe(self) -> Described:
        """Return what the writer says, the level, and a hash of how it is asked for.

        Caches find an answer by the task's own prompt and by this, so that levels, and
        other words for one level, are never mixed up.
        """
        asked = level_prompt(TeacherPrompt("", (), ""), self._level)
        return {
            **self._writer.describe(),
            "level": self._level,
            "level_prompt": prompt_hash(asked),
        }

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """Return one completion of the level for each prompt, in order.

        Raises
        ------
        ConfigError, TeacherError
            As `level_prompt` and as the writer's.
        """
        levelled = [level_prompt(one, self._level) for one in prompts]
        return self._writer.write(levelled, stop=stop, on_written=on_written)


def at_provider_level(writer: Writer, config: RunConfig) -> Writer:
    """Return the writer as `provider-level` of a run of communities asks for it.

    Raises
    ------
    ConfigError
        As `check_answer_kind`.
    """
    if not config.provider_level:
        return writer
    check_answer_kind(config)
    return LevelledWriter(writer, config.provider_level)


def check_answer_kind(config: RunConfig) -> None:
    """Refuse a level where the answers have another form than the example's.

    Raises
    ------
    ConfigError
        The dataset's answers are no numbers, or there is no such dataset.
    """
    if not config.provider_level:
        return
    kind = load_mapping(config.dataset).kind
    if kind not in KINDS:
        raise ConfigError(
            "`provider-level` must be 0 where answers are no numbers, because the "
            f"example that shows a level ends in one, found {config.provider_level} "
            f"with answers of the kind {kind}; pass `-c provider-level=0`."
        )
