"""A whole conversation of a student with its teacher clients, in this process.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3. It takes the same
steps as a run of mode social, without messages: for audits, which replay it many times,
for tests and for benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedcot.errors import ConfigError
from fedcot.privacy.sampler import RandomSource
from fedcot.seeding import derive_seed
from fedcot.social.aggregation import pool_candidates
from fedcot.social.ballots import held_out_split
from fedcot.social.choice import VOTE, chosen_demonstrations, merged_instruction
from fedcot.social.demonstrations import (
    Demonstration,
    DemonstrationFormat,
    draw_indices,
)
from fedcot.social.generation import Check, Generated, GenerationSettings, generate
from fedcot.social.inspection import Gate, gate_texts
from fedcot.social.instructions import (
    NUM_EXAMPLES,
    student_prompt,
    write_instruction,
)
from fedcot.social.settings import INSTRUCTION, RANDOM, SINGLE

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.social.client_model import ClientModel
    from fedcot.social.split import Silo


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSettings:
    """What is taught and how it is chosen; see `fedcot.social.settings`.

    Attributes
    ----------
    generation : GenerationSettings
        How examples, and with its temperature and length also instructions, are
        written.
    aggregators : tuple of str
        Empty: no examples are taught.
    num_chosen : int
        Examples in the student's prompt (n), at most as many as there are.
    teaches_instruction : bool
    instruction_merging : str
        ``single``, ``concat``, ``vote`` or ``model``.
    instruction_tries : int
    held_out_share : float
        Of a client's examples; only where there are votes.
    is_balanced : bool
    vote_epsilon : float
        Nats for one vote, for ``private-voting``.
    gate_distance : float
    gate_run : int
        Words; 0: not looked for.
    """

    generation: GenerationSettings
    aggregators: tuple[str, ...] = (RANDOM,)
    num_chosen: int = 8
    teaches_instruction: bool = False
    instruction_merging: str = SINGLE
    instruction_tries: int = 1
    held_out_share: float = 0.25
    is_balanced: bool = False
    vote_epsilon: float = 0.0
    gate_distance: float = 0.1
    gate_run: int = 12

    @property
    def has_votes(self) -> bool:
        """Whether clients hold examples out in order to vote."""
        by_vote = self.teaches_instruction and self.instruction_merging == VOTE
        return by_vote or any(name != RANDOM for name in self.aggregators)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a student was told, and of what clients' models had been shown.

    Attributes
    ----------
    chosen : mapping of str to tuple of Demonstration
        By aggregator, in the order of choice.
    instruction : str or None
        None if none is taught, or none passed a gate.
    shared : mapping of int to tuple of str
        Every text that left a client, by partition.
    drawn, drawn_for_instruction : mapping of int to frozenset of Demonstration
        By partition, the private demonstrations that stood in a prompt of the client's
        model.
    """

    chosen: Mapping[str, tuple[Demonstration, ...]] = field(repr=False)
    instruction: str | None = field(repr=False)
    shared: Mapping[int, tuple[str, ...]] = field(repr=False)
    drawn: Mapping[int, frozenset[Demonstration]] = field(repr=False)
    drawn_for_instruction: Mapping[int, frozenset[Demonstration]] = field(repr=False)

    def prompts(self, form: DemonstrationFormat) -> dict[str, str]:
        """Return what a student reads before each question.

        By aggregator; under ``instruction`` by the instruction alone, if there is one.
        """
        found = {
            name: student_prompt(form, "", chosen)
            for name, chosen in self.chosen.items()
        }
        if self.instruction is not None:
            found[INSTRUCTION] = student_prompt(form, self.instruction)
        return found


@dataclass(frozen=True, slots=True)
class _Taught:
    """What one client did."""

    held_out: Silo
    generated: Generated | None
    drawn: frozenset[Demonstration]
    instruction: str | None
    drawn_for_instruction: frozenset[Demonstration]


def conversation_settings(config: RunConfig) -> ConversationSettings:
    """Return the settings of a run of mode social, with its largest number of examples.

    Raises
    ------
    ConfigError
        A number is out of its range.
    """
    from fedcot.social.configured import generation_settings

    return ConversationSettings(
        generation=generation_settings(config),
        aggregators=config.aggregator_names,
        num_chosen=config.counts[-1],
        teaches_instruction=INSTRUCTION in config.teaching_names,
        instruction_merging=config.instruction_merging,
        instruction_tries=config.instruction_tries,
        held_out_share=config.held_out_share,
        is_balanced=config.balanced_choice,
        vote_epsilon=config.vote_epsilon,
        gate_distance=config.gate_distance,
        gate_run=config.gate_run,
    )


def converse(
    silos: Mapping[int, Silo],
    form: DemonstrationFormat,
    models: Mapping[int, ClientModel],
    settings: ConversationSettings,
    *,
    seed: int,
    student: ClientModel | None = None,
    source: RandomSource | None = None,
    check: Check | None = None,
) -> Conversation:
    """Let every client teach, and the student choose.

    Parameters
    ----------
    silos : mapping of int to Silo
        The private demonstrations of each client, by partition.
    form : DemonstrationFormat
    models : mapping of int to ClientModel
        One for each client.
    settings : ConversationSettings
    seed : int
        Public chance: of draws, sampling, choices and ties.
    student : ClientModel, optional
        Merges instructions, with ``instruction_merging=model``.
    source : RandomSource, optional
        Of private votes; the operating system if not given.
    check : callable, optional
        Whether a written demonstration is right by public rules.

    Returns
    -------
    Conversation
        Where fewer candidates passed than should be chosen, all of them are.

    Raises
    ------
    ConfigError
        A client has too few demonstrations, or a setting is out of its range.
    FedcotError
        A model wrote nothing where it had to.
    """
    taught = {
        partition: _teach(
            silo,
            form,
            models[partition],
            settings,
            derive_seed(seed, "teacher", partition),
            check,
        )
        for partition, silo in sorted(silos.items())
    }
    pool = pool_candidates(
        {
            partition: [one.demonstration for one in own.generated.candidates]
            for partition, own in taught.items()
            if own.generated is not None
        }
    )
    instructions = {
        partition: own.instruction
        for partition, own in taught.items()
        if own.instruction is not None
    }
    held_out = {partition: own.held_out for partition, own in taught.items()}
    common = (form, models, settings, seed)
    merged = None
    if instructions:
        merged = merged_instruction(held_out, instructions, *common, student)
    return Conversation(
        chosen=chosen_demonstrations(held_out, pool, *common, source),
        instruction=merged,
        shared={p: _shared(own, form) for p, own in taught.items()},
        drawn={p: own.drawn for p, own in taught.items()},
        drawn_for_instruction={
            p: own.drawn_for_instruction for p, own in taught.items()
        },
    )


def _teach(
    silo: Silo,
    form: DemonstrationFormat,
    model: ClientModel,
    settings: ConversationSettings,
    seed: int,
    check: Check | None,
) -> _Taught:
    own, held_out = silo, silo[:0]
    if settings.has_votes:
        own, held_out = held_out_split(silo, settings.held_out_share, seed)
    gate = Gate(
        gate_texts(silo), settings.gate_distance, refused_run=settings.gate_run or None
    )
    generated, instruction = None, None
    shown: list[Demonstration] = []
    if settings.aggregators:
        generated = generate(
            model, form, own, settings.generation, gate=gate, seed=seed, check=check
        )
    if settings.teaches_instruction:
        shown = _instructive(own, seed)
        instruction = write_instruction(
            model,
            form,
            shown,
            gate=gate,
            temperature=settings.generation.temperature,
            max_new_tokens=settings.generation.max_new_tokens,
            seed=seed,
            tries=settings.instruction_tries,
        ).text
    indices = generated.drawn_indices if generated is not None else frozenset()
    return _Taught(
        held_out=held_out,
        generated=generated,
        drawn=frozenset(own[index] for index in indices),
        instruction=instruction,
        drawn_for_instruction=frozenset(shown),
    )


def _instructive(own: Silo, seed: int) -> list[Demonstration]:
    if len(own) < NUM_EXAMPLES:
        raise ConfigError(
            f"`num-records` must leave every teacher client {NUM_EXAMPLES} examples "
            f"for an instruction, found {len(own)}; raise it, or pass "
            "`-c teaching=examples`."
        )
    indices = draw_indices(len(own), NUM_EXAMPLES, seed, INSTRUCTION)
    return [own[index] for index in indices]


def _shared(own: _Taught, form: DemonstrationFormat) -> tuple[str, ...]:
    candidates = own.generated.candidates if own.generated is not None else ()
    texts = [form.write(one.demonstration) for one in candidates]
    return (*texts, *([own.instruction] if own.instruction is not None else []))
