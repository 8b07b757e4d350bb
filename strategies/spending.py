"""What a strategy asks before a request goes out that makes clients release something.

A strategy states events (`strategies.events`) and obeys; it knows nothing of accounts.
"""

import math
from typing import Protocol

from fedcot.errors import FedcotError
from strategies.events import PrivacyEvent
from strategies.state import RoundState


class Spending(Protocol):
    """Says whether a release may be asked for, and learns what came back."""

    def before_send(self, state: RoundState, event: PrivacyEvent) -> bool:
        """Whether the request may be sent; a client that is refused gets none."""
        ...

    def after_receive(self, state: RoundState, event: PrivacyEvent) -> None:
        """Take note of a release, before anything of its reply is used.

        Raises
        ------
        PrivacyBudgetExhausted
            More was released than may be: the reply must not be used.
        """
        ...


class Unaccounted:
    """Lets through only what no account could bound, and says so in the state.

    Everything else fails: an epsilon that nobody adds up must not be spent.
    """

    def before_send(self, state: RoundState, event: PrivacyEvent) -> bool:
        """Grant what has no finite epsilon anyway.

        Raises
        ------
        FedcotError
            The event has one.
        """
        if event.is_bounded:
            raise unaccounted()
        for partition in event.partitions:
            state.granted[partition] = True
            state.charged[partition] = math.inf
        return True

    def after_receive(self, state: RoundState, event: PrivacyEvent) -> None:
        """Count what has no finite epsilon as infinite.

        Raises
        ------
        FedcotError
            The event has a finite epsilon.
        """
        self.before_send(state, event)


def unaccounted() -> FedcotError:
    """Return the error of a strategy that spends and is not wrapped."""
    return FedcotError(
        "a strategy that releases something private must be accounted for; wrap it: "
        "AccountedStrategy(strategy, accountant)"
    )
