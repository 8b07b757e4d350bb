"""What each way of teaching gives away, planned or measured."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fedcot.budget import ArmEpsilons
from fedcot.privacy.exact import float_up
from fedcot.privacy.sampler import SEEDED_GUARANTEE
from fedcot.social.settings import PRIVATE_VOTING, VOTING
from fedcot.social.votes import GUARANTEE

if TYPE_CHECKING:
    from fedcot.config import RunConfig
    from fedcot.social.votes import VoteClaims

TEXTS: Final = (
    "none: models write what leaves after private examples; a gate keeps copies back, "
    "which bounds nothing"
)
VOTES: Final = "none: the server counts votes as they are"
PRIVATE_VOTES: Final = (
    f"{GUARANTEE}, for one teacher client with all of its records; the candidates "
    "themselves are not covered, and the server, which counts the votes, is trusted"
)


def teaching_epsilons(
    config: RunConfig, claims: VoteClaims | None = None
) -> dict[str, ArmEpsilons]:
    """Return what each part of the conversation gives away of one record.

    Parameters
    ----------
    config : RunConfig
        With ``mode=social``.
    claims : VoteClaims, optional
        What private votes cost in a run; without them, the most that was asked for.
    """
    found = {name: _unbounded(TEXTS) for name in config.teaching_names}
    for name in config.aggregator_names:
        if name == VOTING:
            found[name] = _unbounded(VOTES)
        elif name == PRIVATE_VOTING:
            found[name] = _votes(config, claims)
    return found


def _votes(config: RunConfig, claims: VoteClaims | None) -> ArmEpsilons:
    planned = float_up(Fraction(config.vote_epsilon) * config.counts[-1])
    epsilon = planned if claims is None else claims.epsilon
    if config.test_tape:
        return _unbounded(SEEDED_GUARANTEE)
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=epsilon,
        record_epsilon_at_delta=epsilon,
        guarantee=PRIVATE_VOTES,
    )


def _unbounded(guarantee: str) -> ArmEpsilons:
    return ArmEpsilons(
        token_epsilon=math.inf,
        prompt_epsilon=math.inf,
        record_epsilon=math.inf,
        record_epsilon_at_delta=math.inf,
        guarantee=guarantee,
    )
