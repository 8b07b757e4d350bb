"""How the student of a conversation in one process chooses what it was told.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), section 3 and appendix H;
merging several instructions is its future work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

from fedcot.privacy.sampler import RandomSource, SystemRandomSource
from fedcot.seeding import numpy_generator
from fedcot.social.aggregation import Pool, aggregator_named
from fedcot.social.ballot_scores import score_examples, score_instructions
from fedcot.social.ballots import (
    balanced_turns,
    cast_ballot,
    cast_vote,
    open_turns,
    possible_turns,
)
from fedcot.social.demonstrations import Demonstration, DemonstrationFormat
from fedcot.social.instructions import (
    instruction_style,
    merge_instructions,
)
from fedcot.social.settings import RANDOM, SINGLE

if TYPE_CHECKING:
    from fedcot.social.client_model import ClientModel
    from fedcot.social.conversation import ConversationSettings
    from fedcot.social.split import Silo

VOTE: Final = "vote"


def chosen_demonstrations(
    held_out: Mapping[int, Silo],
    pool: Pool,
    form: DemonstrationFormat,
    models: Mapping[int, ClientModel],
    settings: ConversationSettings,
    seed: int,
    source: RandomSource | None,
) -> dict[str, tuple[Demonstration, ...]]:
    """Return what each aggregator of a conversation chooses, by its name.

    Parameters
    ----------
    held_out : mapping of int to Silo
        What each client votes with, by partition; read only where there are votes.
    pool : Pool
        Of all candidates; where it has too few, all that may be chosen are.
    models : mapping of int to ClientModel
    seed : int
    source : RandomSource or None
        Of private votes; the operating system if None.
    """
    turns = _turns(pool, form, settings, seed)
    if not turns:
        return dict.fromkeys(settings.aggregators, ())
    ballots: dict[int, tuple[int, ...]] = {}
    if any(name != RANDOM for name in settings.aggregators):
        for partition, own in held_out.items():
            model = models[partition]
            scores = score_examples(model, form, own, pool.demonstrations)
            ballots[partition] = cast_ballot(scores.values, pool.labels, turns)
    found = {}
    for name in settings.aggregators:
        aggregator = aggregator_named(
            name,
            seed=seed,
            vote_epsilon=settings.vote_epsilon,
            num_teachers=len(held_out),
            source=source or SystemRandomSource(),
        )
        given = ballots if aggregator.needs_votes else {}
        indices = aggregator.choose(pool.labels, turns, given).indices
        found[name] = tuple(pool.demonstrations[index] for index in indices)
    return found


def _turns(
    pool: Pool, form: DemonstrationFormat, settings: ConversationSettings, seed: int
) -> tuple[str, ...]:
    """Return as many turns as there are candidates for."""
    if not settings.aggregators or not settings.num_chosen:
        return ()
    wanted = open_turns(settings.num_chosen)
    if settings.is_balanced:
        wanted = balanced_turns(form.labels, settings.num_chosen, seed)
    return possible_turns(wanted, pool.labels)


def merged_instruction(
    held_out: Mapping[int, Silo],
    instructions: Mapping[int, str],
    form: DemonstrationFormat,
    models: Mapping[int, ClientModel],
    settings: ConversationSettings,
    seed: int,
    student: ClientModel | None,
) -> str:
    """Return the instruction that the student gets of those that passed a gate.

    Parameters
    ----------
    held_out : mapping of int to Silo
        What each client votes with, for ``vote``.
    instructions : mapping of int to str
        By partition, at least one.
    student : ClientModel or None
        For ``model``.
    """
    how = settings.instruction_merging
    if how == SINGLE:
        order = sorted(instructions)
        rng = numpy_generator(seed, "single-instruction")
        return instructions[order[int(rng.integers(len(order)))]]
    votes = None
    if how == VOTE:
        votes = _instruction_votes(held_out, instructions, form, models)
    return merge_instructions(
        instructions,
        cast(Literal["concat", "vote", "model"], how),
        style=instruction_style(form),
        votes=votes,
        model=student,
        max_new_tokens=settings.generation.max_new_tokens,
        seed=seed,
    ).text


def _instruction_votes(
    held_out: Mapping[int, Silo],
    instructions: Mapping[int, str],
    form: DemonstrationFormat,
    models: Mapping[int, ClientModel],
) -> dict[int, float]:
    """Count the clients that vote for each instruction."""
    authors = sorted(instructions)
    texts = [instructions[author] for author in authors]
    votes = dict.fromkeys(authors, 0.0)
    for partition, own in held_out.items():
        scores = score_instructions(models[partition], form, own, texts)
        votes[authors[cast_vote(scores.values)]] += 1
    return votes
