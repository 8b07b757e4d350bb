"""How a teacher client scores what it votes on, with what it held out.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), appendix H, for examples: how
likely a candidate is behind the held-out demonstrations. For instructions, of which it
says nothing: how likely the held-out answers are behind the instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fedcot.errors import ConfigError
from fedcot.social.ballots import vote_pairs
from fedcot.social.client_model import ClientModel
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.instructions import student_prompt

# Answers that instructions are judged by; each costs a pass for each instruction.
MOST_ANSWERS: Final = 32


@dataclass(frozen=True, slots=True)
class Scores:
    """What a client thinks of candidates.

    Attributes
    ----------
    values : tuple of float
        Mean log-probability for each candidate, in nats per token.
    num_shown : int
        Held-out demonstrations that had a part in each.
    """

    values: tuple[float, ...]
    num_shown: int


def score_examples(
    model: ClientModel,
    form: DemonstrationFormat,
    held_out: Sequence[Demonstration],
    candidates: Sequence[Demonstration],
) -> Scores:
    """Score demonstrations behind as many held-out ones as the context takes.

    Raises
    ------
    ConfigError
        Not even one fits, nothing was held out, or the model cannot score.
    """

    def fits(count: int) -> bool:
        pairs = vote_pairs(form, held_out[:count], candidates)
        return all(_fits(model, *pair) for pair in pairs)

    shown = largest(len(held_out), fits)
    if held_out and not shown:
        raise _no_room()
    pairs = vote_pairs(form, held_out[:shown], candidates)
    return Scores(tuple(model.score(pairs)), shown)


def score_instructions(
    model: ClientModel,
    form: DemonstrationFormat,
    held_out: Sequence[Demonstration],
    texts: Sequence[str],
) -> Scores:
    """Score instructions by the mean over held-out answers, which all count alike.

    A held-out demonstration that does not fit behind each of them counts for none.

    Raises
    ------
    ConfigError
        Not even one fits, nothing was held out, or the model cannot score.
    """
    used: list[list[tuple[str, str]]] = []
    for one in held_out[:MOST_ANSWERS]:
        pairs = [_answer_pair(form, text, one) for text in texts]
        if all(_fits(model, *pair) for pair in pairs):
            used.append(pairs)
    if not used:
        raise _no_room()
    found = model.score([pair for pairs in used for pair in pairs])
    columns = [found[place :: len(texts)] for place in range(len(texts))]
    return Scores(tuple(sum(c) / len(c) for c in columns), len(used))


def largest(most: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that something holds for, or 0.

    Parameters
    ----------
    most : int
    holds : callable
        Whatever it holds for, it holds for every smaller number too.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _answer_pair(
    form: DemonstrationFormat, text: str, one: Demonstration
) -> tuple[str, str]:
    asked, written = form.ask(one.question), form.write(one)
    if not written.startswith(asked):
        raise ConfigError(
            "`format` must write demonstrations that begin with what it asks, found "
            f"{form.name} that does not; correct its `write`."
        )
    prompt = student_prompt(form, text, (), one.question)
    return prompt, written.removeprefix(asked)


def _fits(model: ClientModel, prompt: str, continuation: str) -> bool:
    """Whether a pair can be scored; a token is left free, as behind a prompt."""
    return model.fits(prompt + continuation, max_new_tokens=1)


def _no_room() -> ConfigError:
    return ConfigError(
        "`client-model` must have a context that holds a held-out demonstration and "
        "what is voted on, found none that fits; choose a model with a longer context, "
        "or pass `-c aggregators=random -c instruction-merging=single`."
    )
