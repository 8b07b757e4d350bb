"""What a teacher client votes with, and how its votes are written and counted.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning), appendix H. Each teacher
client holds demonstrations out, and votes for the candidate that they make most likely;
the server takes the winner out, and repeats.

A client's scores do not change between votes, so all votes of a client travel in one
message, its ballot. It holds no more places than candidates are chosen: of the first n
choices, at most n - 1 are gone when the last vote is counted. That gives the winners of
n messages with one vote each, in one message, and shows less of the client's held-out
demonstrations than an order of all candidates, let alone its scores. Whoever counts
takes one vote of each ballot at a time, so that private votes have the sensitivity of
single ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from fedcot.errors import ConfigError, FedcotError
from fedcot.evaluation.copying import plain
from fedcot.seeding import numpy_generator
from fedcot.social.demonstrations import (
    Demonstration,
    DemonstrationFormat,
    few_shot_prompt,
)

# A turn at which candidates of every label may be chosen.
ANY_LABEL: Final = ""

Ballot = Sequence[int]
"""Candidates in the order in which a teacher client wants them, the best first."""


def held_out_split(
    demonstrations: Sequence[Demonstration], share: float, seed: int
) -> tuple[tuple[Demonstration, ...], tuple[Demonstration, ...]]:
    """Split a teacher client's demonstrations into those to generate and to vote with.

    Parameters
    ----------
    demonstrations : sequence of Demonstration
    share : float
        Of the demonstrations to hold out, in (0, 1); rounded to the nearest number
        that keeps repeated questions together, at least one on either side.
    seed : int

    Returns
    -------
    generation, held_out : tuples of Demonstration
        In the order given. No question stands on both sides, whatever its case and
        spacing.

    Raises
    ------
    ConfigError
        If the share lies outside its range or there are fewer than two questions.
    """
    if not 0 < share < 1:
        raise ConfigError(
            f"`held-out-share` must be in (0, 1), found {share}; pass for example 0.5."
        )
    groups: dict[str, list[int]] = {}
    for index, demonstration in enumerate(demonstrations):
        groups.setdefault(plain(demonstration.question), []).append(index)
    if len(groups) < 2:
        raise ConfigError(
            "`held-out-share` needs at least 2 different questions for each teacher "
            f"client, found {len(groups)}; use the random aggregator or more data."
        )
    wanted = min(max(1, round(share * len(demonstrations))), len(demonstrations) - 1)
    listed = list(groups.values())
    order = numpy_generator(seed, "held-out").permutation(len(listed))
    held_out: set[int] = set()
    for place in order:
        if len(held_out) + len(listed[place]) <= wanted:
            held_out.update(listed[place])
    if not held_out:
        sizes = [len(group) for group in listed]
        held_out.update(listed[sizes.index(min(sizes))])
    pairs = list(enumerate(demonstrations))
    return (
        tuple(one for index, one in pairs if index not in held_out),
        tuple(one for index, one in pairs if index in held_out),
    )


def vote_pairs(
    form: DemonstrationFormat,
    held_out: Sequence[Demonstration],
    candidates: Sequence[Demonstration],
) -> list[tuple[str, str]]:
    """Return a prompt and a continuation for each candidate, to be scored.

    Parameters
    ----------
    form : DemonstrationFormat
    held_out : sequence of Demonstration
        Not empty; the prompt, which ends in the format's opening.
    candidates : sequence of Demonstration
        The continuations, written behind the opening.

    Returns
    -------
    list of (str, str)
        For `ClientModel.score`, whose mean over tokens is the normalisation by length
        of appendix H.

    Raises
    ------
    ConfigError
        If nothing was held out, or a text does not begin with the opening.
    """
    if not held_out:
        raise ConfigError(
            "`held_out` must not be empty, found 0 demonstrations; hold some out first."
        )
    prompt = few_shot_prompt(form, held_out)
    written = [form.write(candidate) for candidate in candidates]
    if not all(text.startswith(form.opening) for text in written):
        raise ConfigError(
            f"`format` must write demonstrations that begin with its opening, found "
            f"{form.name} that does not; correct its `write`."
        )
    return [(prompt, text.removeprefix(form.opening)) for text in written]


def cast_vote(scores: Sequence[float]) -> int:
    """Return which candidate a teacher client votes for: the first of the best.

    Parameters
    ----------
    scores : sequence of float
        Mean log-probability of each candidate in nats per token; at most 0, may be
        minus infinity.

    Raises
    ------
    ConfigError
        If there are no scores, or one is not a number or above 0.
    """
    return cast_ballot(scores, [ANY_LABEL] * len(scores), open_turns(1))[0]


def cast_ballot(
    scores: Sequence[float], labels: Sequence[str], turns: Sequence[str]
) -> tuple[int, ...]:
    """Return the candidates that a teacher client may vote for at some turn.

    Parameters
    ----------
    scores : sequence of float
        See `cast_vote`.
    labels : sequence of str
        The answer of each candidate.
    turns : sequence of str
        Of the server's message.

    Returns
    -------
    tuple of int
        The best candidates of each label, as many as it has turns, together in falling
        order of their scores; of equal ones the first comes first.

    Raises
    ------
    ConfigError
        If the scores are none, or do not fit the candidates or the turns.
    """
    check_turns(labels, turns)
    if len(scores) != len(labels) or not all(score <= 0 for score in scores):
        raise ConfigError(
            f"`scores` must be {len(labels)} mean log-probabilities <= 0, found "
            f"{len(scores)} of which {sum(not s <= 0 for s in scores)} are none; score "
            "every candidate with a model that can."
        )
    places = {label: turns.count(label) for label in turns}
    ballot: list[int] = []
    # Sorting is stable: equal scores keep the order of the candidates.
    for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
        turn = ANY_LABEL if ANY_LABEL in places else labels[index]
        if places.get(turn, 0) > 0:
            places[turn] -= 1
            ballot.append(index)
    return tuple(ballot)


def open_turns(num_choices: int) -> tuple[str, ...]:
    """Return turns at which every candidate may be chosen, as in the paper.

    Raises
    ------
    ConfigError
        If nothing is to be chosen.
    """
    if num_choices < 1:
        raise ConfigError(
            f"`num_choices` must be at least 1, found {num_choices}; ask the student "
            "without demonstrations instead."
        )
    return (ANY_LABEL,) * num_choices


def balanced_turns(
    labels: Sequence[str], num_choices: int, seed: int
) -> tuple[str, ...]:
    """Return turns that give every label the same number of demonstrations.

    Parameters
    ----------
    labels : sequence of str
        The task's closed set of answers, at least two.
    num_choices : int
        At least 1.
    seed : int
        Which labels get one more where the number cannot be divided, and which comes
        first.

    Returns
    -------
    tuple of str
        Round-robin: the label that has the most of its quota left.

    Raises
    ------
    ConfigError
        If the task has no closed set of answers, or nothing is to be chosen.
    """
    open_turns(num_choices)
    if len(set(labels)) < 2 or len(set(labels)) != len(labels) or ANY_LABEL in labels:
        raise ConfigError(
            "`balanced` needs a task with a closed set of at least 2 labels, found "
            f"{len(labels)}; pass balanced=false for this task."
        )
    order = numpy_generator(seed, "balanced-turns").permutation(len(labels))
    return tuple(labels[order[turn % len(labels)]] for turn in range(num_choices))


def possible_turns(turns: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Leave out the turns for which no candidate would be left.

    Parameters
    ----------
    turns : sequence of str
        Of `open_turns` or `balanced_turns`.
    labels : sequence of str
        The answer of each candidate.
    """
    is_open = ANY_LABEL in turns
    left = Counter({ANY_LABEL: len(labels)} if is_open else labels)
    found = []
    for turn in turns:
        if left[turn] > 0:
            left[turn] -= 1
            found.append(turn)
    return tuple(found)


def check_turns(labels: Sequence[str], turns: Sequence[str]) -> None:
    """Check that there are enough candidates for all turns.

    Raises
    ------
    ConfigError
        If a label has fewer candidates than turns, or labelled and open turns mix.
    """
    if ANY_LABEL in turns and set(turns) != {ANY_LABEL}:
        raise ConfigError(
            "`turns` must be all open or all of one label each, found both; take them "
            "from open_turns or balanced_turns."
        )
    for turn in sorted(set(turns)):
        there = len(eligible_candidates(labels, turn, ()))
        needed = turns.count(turn)
        if there < needed:
            named = "of any label" if turn == ANY_LABEL else f"labelled {turn!r}"
            raise ConfigError(
                f"`num_choices` needs {needed} candidates {named}, found {there}; let "
                "teacher clients generate more, choose fewer or pass balanced=false."
            )


def check_ballots(ballots: Mapping[int, Ballot], num_candidates: int) -> None:
    """Check that teacher clients voted for candidates that exist, each once.

    Raises
    ------
    FedcotError
        If there is no ballot, or one is none; it names the partition.
    """
    if not ballots:
        raise FedcotError("No teacher client sent a ballot; nothing can be chosen.")
    for partition, ballot in ballots.items():
        is_known = all(0 <= index < num_candidates for index in ballot)
        if not is_known or len(set(ballot)) != len(ballot):
            raise FedcotError(
                f"The ballot of partition {partition} does not name distinct "
                f"candidates below {num_candidates}; it must come from cast_ballot."
            )


def tally(
    ballots: Mapping[int, Ballot], eligible: Sequence[int], num_candidates: int
) -> tuple[int, ...]:
    """Count one vote of each ballot: its best candidate that may be chosen.

    Parameters
    ----------
    ballots : mapping of int to Ballot
    eligible : sequence of int
        Candidates of this turn.
    num_candidates : int
        Altogether.

    Returns
    -------
    tuple of int
        Votes for each candidate.

    Raises
    ------
    FedcotError
        If a ballot names none that may be chosen: it has too few places.
    """
    allowed = set(eligible)
    counts = [0] * num_candidates
    for partition in sorted(ballots):
        vote = next((index for index in ballots[partition] if index in allowed), None)
        if vote is None:
            raise FedcotError(
                f"The ballot of partition {partition} has no candidate left to vote "
                "for; it must have as many places as candidates are chosen."
            )
        counts[vote] += 1
    return tuple(counts)


def eligible_candidates(
    labels: Sequence[str], turn: str, taken: Sequence[int]
) -> list[int]:
    """Return the candidates that may be chosen at a turn, in order.

    Parameters
    ----------
    labels : sequence of str
        The answer of each candidate.
    turn : str
        A label, or `ANY_LABEL`.
    taken : sequence of int
        Candidates chosen before.
    """
    gone = set(taken)
    return [
        index
        for index, label in enumerate(labels)
        if index not in gone and turn in (ANY_LABEL, label)
    ]
