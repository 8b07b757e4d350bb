"""What a channel claims: for which neighbours, and what one whole prompt is charged."""

import math
from fractions import Fraction

from fedcot.privacy.nats import cost_in_nano_nats, nats

ADJACENCY = (
    "zero-out: one token (token epsilon) or all tokens of one prompt (prompt and "
    "record epsilon) replaced by padding; the bounds hold for any replacement too"
)
PROMPT_ADJACENCY = (
    "zero-out: all tokens of one prompt replaced by padding; the bound holds for any "
    "replacement of the prompt too, so one token is not cheaper than all"
)


class TokenClaims:
    """The claims of a channel that treats every token alike and by itself.

    Attributes
    ----------
    token_epsilon : float
        Nats, one token.
    slots : int
        Tokens of a prompt, padding included.
    """

    token_epsilon: float
    slots: int
    adjacency = ADJACENCY

    @property
    def prompt_epsilon(self) -> float:
        """Nats of one prompt: the sum over its slots, rounded up to a nano-nat."""
        return nats(cost_in_nano_nats(self.token_epsilon, self.slots))


def shown_nats(epsilon: float) -> str:
    """Return an epsilon with four decimals, rounded up."""
    if math.isinf(epsilon):
        return "inf"
    return f"{math.ceil(Fraction(epsilon) * 10**4) / 10**4:.4f}"
