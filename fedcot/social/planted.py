"""Canaries as demonstrations of a task, put into clients' silos for an audit.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 5 and table 14. The
student reads its prompt and learns no weights, so a secret may stand in a question too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedcot.errors import ConfigError
from fedcot.evaluation.canaries import PATTERNS, Canary, draw_trials
from fedcot.evaluation.insertion import held_numbers, holders_of
from fedcot.plain_text import normalize
from fedcot.seeding import derive_seed
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.formats import BLANK, WorldFormat
from fedcot.social.settings import WORLD_TASK
from fedcot.tasks.world import WorldTask

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.social.split import Silo

# An answer for formats that take a number only, where the secret is none.
_NUMBER: Final = "1"


@dataclass(frozen=True, slots=True)
class SocialTrial:
    """A canary, the secrets that it is compared with, and who holds it.

    Attributes
    ----------
    canary : Demonstration
        The one to insert.
    secrets : tuple of str
        Its own first; the references are the same demonstration with the others.
    holders : tuple of int
        Partitions.
    """

    canary: Demonstration = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    holders: tuple[int, ...]

    @property
    def size(self) -> int:
        """Canary and references together: N of the Secret Sharer."""
        return len(self.secrets)

    def pairs(self, form: DemonstrationFormat, state: str) -> list[tuple[str, str]]:
        """Return what a student reads and each secret behind it, for `ClientModel`.

        Parameters
        ----------
        state : str
            The student's prompt before any question; may be empty. The demonstration
            stands behind it up to its secret, of which alone the tokens are scored.
        """
        text = form.write(self.canary)
        before = text[: text.index(self.secrets[0])]
        # Most tokenizers put a blank with the word behind it.
        head = before.rstrip(" ")
        blank = before[len(head) :]
        prompt = form.separator.join([state, head] if state else [head])
        return [(prompt, f"{blank}{secret}") for secret in self.secrets]


def social_trial(
    config: RunConfig,
    form: DemonstrationFormat,
    number: int,
    *,
    num_partitions: int,
    size: int,
    with_steps: bool,
) -> SocialTrial:
    """Return a canary of a run with its references, by its number.

    Neither `size` nor how many trials there are decides which canary it is.

    Parameters
    ----------
    size : int
        Canary and references together (N), >= 2.
    with_steps : bool
        Whether the demonstrations of the task show steps, so that the canary should.

    Raises
    ------
    ConfigError
        The format cannot hold the pattern, or the pattern has too few secrets.
    """
    (trial,) = draw_trials(
        PATTERNS[config.canary_pattern],
        # The texts of a canary do not depend on it.
        WorldTask(),
        trials=1,
        size=size,
        seed=derive_seed(config.seed, "social-canary", number),
    )
    return SocialTrial(
        canary=_written(form, trial.canary, with_steps),
        secrets=(trial.canary.secret, *(other.secret for other in trial.references)),
        holders=holders_of(config, number, num_partitions),
    )


def with_canaries(
    config: RunConfig,
    form: DemonstrationFormat,
    silo: Silo,
    *,
    partition_id: int,
    num_partitions: int,
) -> Silo:
    """Return a client's silo with the canaries of an audit run that it holds behind it.

    Raises
    ------
    ConfigError
        See `social_trial`.
    """
    canaries = (
        social_trial(
            config,
            form,
            number,
            num_partitions=num_partitions,
            size=2,
            with_steps=has_steps(config, silo),
        ).canary
        for number in held_numbers(config, partition_id, num_partitions)
    )
    repeats = config.canary_repeats
    return silo + tuple(one for one in canaries for _ in range(repeats))


def has_steps(config: RunConfig, silo: Sequence[Demonstration]) -> bool:
    """Whether a client's model is shown steps.

    On the built-in world it writes them itself, where it can; of a canary it never
    could, so that one has them from the start.
    """
    return config.task == WORLD_TASK or any(one.reasoning for one in silo)


def _shapes(
    form: DemonstrationFormat, canary: Canary, with_steps: bool
) -> list[Demonstration]:
    """Return how a canary could be written as a demonstration, the best first."""
    asked = canary.question
    if isinstance(form, WorldFormat):
        asked = normalize(asked)
    told = ("", canary.reasoning)
    return [
        Demonstration(question, answer, steps)
        for steps in (told[::-1] if with_steps else told)
        for answer in (canary.answer, *form.labels[:1], _NUMBER)
        for question in _questions(asked, canary)
    ]


def _questions(asked: str, canary: Canary) -> Iterator[str]:
    """Yield a question alone, with a blank, and with what is told of it."""
    yield asked
    yield f"{asked} {BLANK}"
    yield f"{asked} {canary.reasoning}"
    yield f"{asked} {canary.reasoning} {BLANK}"
    yield f"{canary.reasoning}\n{asked}"
    yield f"{asked} {canary.secret}"


def _written(
    form: DemonstrationFormat, canary: Canary, with_steps: bool
) -> Demonstration:
    """Return the first shape that the format can write with the secret in it."""
    for one in _shapes(form, canary, with_steps):
        try:
            text = form.write(one)
        except ConfigError:
            continue
        if canary.secret in text:
            return one
    raise ConfigError(
        "`canary-pattern` must be one that the task's format can hold, found that "
        f"`{form.name}` cannot; pass another one, for example "
        "`-c canary-pattern=codes`."
    )
