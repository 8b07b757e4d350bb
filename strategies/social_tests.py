"""Permutation tests between the students of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcot.config import RunConfig
from fedcot.evaluation.permutation import paired_permutation_test
from fedcot.seeding import derive_seed
from fedcot.social.messages import ORIGINAL, OWN, PromptScore
from fedcot.social.settings import INSTRUCTION, RANDOM, VOTING
from strategies.social_students import MANUAL, ZERO_SHOT


def student_tests(
    config: RunConfig,
    correct: Mapping[str, Sequence[bool]],
    scores: Mapping[str, Mapping[int, PromptScore]],
    *,
    clients: int,
) -> list[dict[str, Any]]:
    """Return paired permutation tests on the public questions.

    Generated against original and votes against chance at each number of examples, the
    instruction against the most originals and against what needs no teacher.

    Parameters
    ----------
    config : RunConfig
    correct : mapping of str to sequence of bool
        Whether a student that the server scored answered each question rightly.
    scores : mapping of str to mapping of int to PromptScore
        Of what clients scored, by student and partition.
    clients : int
        Among which the questions were dealt out.

    Notes
    -----
    The tests are over questions: prompts, seeds and splits are taken as given. Their
    p-values are those of single tests; among many, some are small by chance.
    """
    outcomes = {**_joined(scores, clients), **correct}
    counts = [count for count in config.counts if count]
    names = config.aggregator_names
    pairs = [(f"{a}.{n}", f"{ORIGINAL}.{n}") for n in counts for a in names]
    pairs += [(f"{VOTING}.{n}", f"{RANDOM}.{n}") for n in counts]
    pairs += [(INSTRUCTION, f"{ORIGINAL}.{n}") for n in counts[-1:]]
    pairs += [(INSTRUCTION, name) for name in (ZERO_SHOT, MANUAL)]
    found = []
    for first, second in pairs:
        one, other = outcomes.get(first, ()), outcomes.get(second, ())
        # A client that failed leaves its share of the questions without an answer.
        if not one or len(one) != len(other):
            continue
        test = paired_permutation_test(
            [one],
            [other],
            seed=derive_seed(config.seed, "permutation", first, second),
        )
        found.append(
            {
                "first": first,
                "second": second,
                "difference": test.difference,
                "p_value": test.p_value,
                "permutations": test.num_permutations,
                "paired": test.is_paired,
            }
        )
    return found


def _joined(
    scores: Mapping[str, Mapping[int, PromptScore]], clients: int
) -> dict[str, list[bool]]:
    """Put the clients' shares of the public questions together, in their order."""
    found = {}
    for name, held in scores.items():
        if name.startswith(OWN) or set(held) != set(range(clients)):
            continue
        total = sum(one.num_records for one in held.values())
        found[name] = [
            held[place % clients].correct[place // clients] == "1"
            for place in range(total)
        ]
    return found
