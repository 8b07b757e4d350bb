"""Instructions that a teacher's model writes from private examples, and their merging.

Paper: https://arxiv.org/abs/2312.11441, section 3 (verbal instruction) and figure 2,
whose idea is kept and whose wording is not. Merging several teachers' instructions is
the paper's future work: an extension here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from fedcot.data.prompts import HINT
from fedcot.errors import ConfigError, FedcotError
from fedcot.seeding import derive_seed
from fedcot.social.demonstrations import (
    Demonstration,
    DemonstrationFormat,
    few_shot_prompt,
)
from fedcot.social.formats import WorldFormat
from fedcot.social.inspection import REFUSALS, Considered, Gate

if TYPE_CHECKING:
    from fedcot.social.client_model import ClientModel

NUM_EXAMPLES: Final = 8
HOW: Final = ("concat", "vote", "model")
REFUSED: Final = ("empty", *REFUSALS)

_BEFORE: Final = (
    "The following examples of a task are private. The people who will do the task "
    "never see them, so do not repeat an example, nor a name, a number or a phrase "
    "that only an example holds."
)
_BEHIND: Final = (
    "Write down what somebody needs to know to do this task without any example: how "
    "input and answer are laid out, with every special mark and every answer that is "
    "allowed; the general patterns that lead from the one to the other; and whatever "
    "else has to be noted. This is the only hint that they get."
)
_CUE: Final = "Task format with detailed instructions:"
_MERGE_BEFORE: Final = (
    "Several people have each written instructions for the same task. Make one text of "
    "them: keep the layout, the special marks and the allowed answers exactly, keep "
    "what most of them say where they disagree, and say nothing twice."
)
_MERGE_CUE: Final = "Merged instructions:"


@dataclass(frozen=True, slots=True)
class InstructionStyle:
    """How a model is asked for an instruction.

    Attributes
    ----------
    before, behind : str
        What stands before and behind the examples; empty for a model that was trained
        to go on from examples alone.
    cue : str
        The end of the prompt.
    opening : str
        What an instruction begins with in a student's prompt.
    stop : tuple of str
        What ends an instruction.
    separator : str
        Between the parts of a prompt.
    merge_before, merge_cue : str
        How a model is asked to merge several; empty where it cannot be asked.
    """

    before: str
    behind: str
    cue: str
    opening: str
    stop: tuple[str, ...]
    separator: str
    merge_before: str = ""
    merge_cue: str = ""


ENGLISH: Final = InstructionStyle(
    before=_BEFORE,
    behind=_BEHIND,
    cue=_CUE,
    opening="",
    stop=(),
    separator="\n\n",
    merge_before=_MERGE_BEFORE,
    merge_cue=_MERGE_CUE,
)


def instruction_style(form: DemonstrationFormat) -> InstructionStyle:
    """Return the style of a format.

    The built-in world's models say the rule behind the marker ``hint:``; all others
    are asked in English.
    """
    if isinstance(form, WorldFormat):
        return InstructionStyle("", "", HINT, HINT, form.stop, form.separator)
    return ENGLISH


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a teacher's model wrote, and what became of it.

    Attributes
    ----------
    text : str or None
        As a student's prompt begins; None if nothing passed the gate.
    counts : mapping of str to int
        Texts that were discarded, for each reason in `REFUSED`.
    considered : tuple of Considered
        For the `MessageLog`: every text that the gate judged.
    """

    text: str | None = field(repr=False)
    counts: Mapping[str, int]
    considered: tuple[Considered, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MergedInstruction:
    """The instruction that a student gets.

    Attributes
    ----------
    text : str
    how : str
        One of `HOW`.
    partitions : tuple of int
        Whose instructions are in it.
    is_extension : bool
        Whether several were merged, of which the paper says nothing.
    """

    text: str = field(repr=False)
    how: str
    partitions: tuple[int, ...]
    is_extension: bool


def instruction_prompt(
    form: DemonstrationFormat, demonstrations: Sequence[Demonstration]
) -> str:
    """Return the prompt that asks a teacher's model for an instruction.

    Parameters
    ----------
    form : DemonstrationFormat
    demonstrations : sequence of Demonstration
        Exactly `NUM_EXAMPLES` private ones.

    Raises
    ------
    ConfigError
        There are more or fewer, or the format cannot hold one of them.
    """
    if len(demonstrations) != NUM_EXAMPLES:
        raise ConfigError(
            f"`demonstrations` must be {NUM_EXAMPLES} for an instruction, found "
            f"{len(demonstrations)}; draw as many."
        )
    style = instruction_style(form)
    examples = form.separator.join(map(form.write, demonstrations))
    parts = (style.before, examples, style.behind, style.cue)
    return style.separator.join(part for part in parts if part)


def write_instruction(
    model: ClientModel,
    form: DemonstrationFormat,
    demonstrations: Sequence[Demonstration],
    *,
    gate: Gate,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    tries: int = 1,
) -> Instruction:
    """Let a teacher's model write an instruction that passes the gate.

    Parameters
    ----------
    model : ClientModel
        The client's own.
    form : DemonstrationFormat
    demonstrations : sequence of Demonstration
        Exactly `NUM_EXAMPLES` private ones.
    gate : Gate
        Over all private texts of the client, with `refused_run`: as a whole, a long
        instruction is far from a private text that it embeds.
    temperature : float
        >= 0; 0 is greedy, with one try.
    max_new_tokens : int
        >= 1.
    seed : int
        Public chance: of the sampling.
    tries : int
        Texts that are written at most, one after the other, until one passes; the
        paper has one.

    Raises
    ------
    ConfigError
        A number is out of its range, the gate does not look for runs, or there is
        another number of demonstrations.
    """
    if gate.refused_run is None:
        raise ConfigError(
            "`refused_run` must be given for instructions, found a gate without it; "
            "set how many consecutive words of a private text are too many."
        )
    _check_sampling(temperature, max_new_tokens, tries)
    style = instruction_style(form)
    prompt = instruction_prompt(form, demonstrations)
    counts = dict.fromkeys(REFUSED, 0)
    considered = []
    text = None
    for attempt in range(tries):
        (sampled,) = model.sample(
            [prompt],
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            stop=style.stop,
            seeds=[derive_seed(seed, "instruction", attempt)],
        )
        written = sampled.text.strip()
        if not written:
            counts["empty"] += 1
            continue
        verdict = gate.judge(written)
        whole = f"{style.opening} {written}" if style.opening else written
        considered.append(Considered(whole, verdict, verdict.allowed))
        if verdict.allowed:
            text = whole
            break
        counts[verdict.reason] += 1
    return Instruction(text, MappingProxyType(counts), tuple(considered))


def merge_instructions(
    texts: Mapping[int, str],
    how: Literal["concat", "vote", "model"],
    *,
    style: InstructionStyle,
    votes: Mapping[int, float] | None = None,
    model: ClientModel | None = None,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    seed: int = 0,
) -> MergedInstruction:
    """Return one instruction of those of several teachers.

    A single one is forwarded as it is, as in the paper.

    Parameters
    ----------
    texts : mapping of int to str
        By partition; all passed a gate.
    how : {"concat", "vote", "model"}
        All of them in the order of partitions; the one with most votes, of several the
        lowest partition's; or what a model makes of them.
    style : InstructionStyle
    votes : mapping of int to float
        For ``vote``: of each partition's instruction.
    model : ClientModel
        For ``model``: the student's.
    temperature, max_new_tokens, seed
        For ``model``; 0 is greedy.

    Raises
    ------
    ConfigError
        There are no texts or one is empty, no such way, or what it needs is missing.
    FedcotError
        The model wrote nothing.
    """
    if not texts or not all(text.strip() for text in texts.values()):
        raise ConfigError(
            "`texts` must hold one or more instructions that are not empty, found "
            f"{len(texts)}; leave out teachers that have none."
        )
    if how not in HOW:
        raise ConfigError(
            f"`how` must be one of {', '.join(HOW)}, found {how!r}; choose one of them."
        )
    order = tuple(sorted(texts))
    if len(order) == 1:
        return MergedInstruction(texts[order[0]], how, order, is_extension=False)
    if how == "vote":
        best = _most_votes(order, votes)
        return MergedInstruction(texts[best], how, (best,), is_extension=True)
    ordered = [texts[partition] for partition in order]
    if how == "concat":
        text = style.separator.join(ordered)
        return MergedInstruction(text, how, order, is_extension=True)
    if model is None:
        raise ConfigError(
            "`model` must be given to merge by a model, found none; pass the student's "
            "model, or merge by concat or vote."
        )
    _check_sampling(temperature, max_new_tokens, 1)
    (sampled,) = model.sample(
        [merge_prompt(ordered, style)],
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        stop=style.stop,
        seeds=[derive_seed(seed, "merge")],
    )
    if not sampled.text.strip():
        raise FedcotError("the model merged the instructions into an empty text")
    return MergedInstruction(sampled.text.strip(), how, order, is_extension=True)


def merge_prompt(texts: Sequence[str], style: InstructionStyle) -> str:
    """Return the prompt that asks a model to merge instructions.

    Raises
    ------
    ConfigError
        A model of this style cannot be asked.
    """
    if not style.merge_cue:
        raise ConfigError(
            "`how` must not be `model` for the built-in world, found it there; its "
            "models follow no English, so merge by concat or vote."
        )
    numbered = [f"Instructions {i}:\n{text}" for i, text in enumerate(texts, 1)]
    return style.separator.join([style.merge_before, *numbered, style.merge_cue])


def student_prompt(
    form: DemonstrationFormat,
    instruction: str,
    demonstrations: Sequence[Demonstration] = (),
    question: str | None = None,
) -> str:
    """Return the prompt of a student: what it learnt, then what it is asked.

    Parameters
    ----------
    form : DemonstrationFormat
    instruction : str
        May be empty.
    demonstrations : sequence of Demonstration
        Stand behind the instruction; may be empty.
    question : str, optional
        Without one it is the student's state, to which any question can be added.

    Raises
    ------
    ConfigError
        The format cannot hold one of them.
    """
    head = [instruction] if instruction else []
    if question is not None:
        return form.separator.join(
            [*head, few_shot_prompt(form, demonstrations, question)]
        )
    return form.separator.join([*head, *map(form.write, demonstrations)])


def _most_votes(order: Sequence[int], votes: Mapping[int, float] | None) -> int:
    if votes is None or set(votes) != set(order):
        raise ConfigError(
            "`votes` must be given for each of the "
            f"{len(order)} instructions, found {0 if votes is None else len(votes)}; "
            "count them by partition, 0 where there is none."
        )
    if not all(math.isfinite(vote) for vote in votes.values()):
        raise ConfigError(
            "`votes` must be finite, found one that is not; count them again."
        )
    return max(order, key=lambda partition: (votes[partition], -partition))


def _check_sampling(temperature: float, max_new_tokens: int, tries: int) -> None:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigError(
            f"`temperature` must be finite and >= 0, found {temperature}; 0 is greedy."
        )
    for name, value in {"max_new_tokens": max_new_tokens, "tries": tries}.items():
        if value < 1:
            raise ConfigError(f"`{name}` must be at least 1, found {value}; raise it.")
    if temperature == 0 and tries > 1:
        raise ConfigError(
            f"`temperature` must be > 0 with several tries, found 0 and {tries} tries; "
            "greedy decoding writes the same again."
        )
