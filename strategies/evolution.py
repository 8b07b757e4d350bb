"""Selection over rounds: later rounds choose from variations of what was released.

The first round chooses from a public bank of everything. What a client released then
says, at no further cost, which kind of prompt it has; the next round's bank holds
variations of that beside the old bank, so that one draw lands nearer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcot.data.variations import vary
from fedcot.privacy.public_model import PublicModel
from fedcot.privacy.selection import Bank, SelectionChannel
from fedcot.seeding import numpy_generator
from strategies.state import RoundState


@dataclass(frozen=True)
class BankEvolution:
    """Makes each client's bank of a round.

    Parameters
    ----------
    first : SelectionChannel
        Of the first round.
    model : PublicModel
        Writes the variations.
    seed : int
        Of the variations; privacy does not depend on it.
    """

    first: SelectionChannel
    model: PublicModel
    seed: int
    _made: dict[tuple[int, int], SelectionChannel] = field(default_factory=dict)

    def channel(self, state: RoundState, partition: int) -> SelectionChannel:
        """Return the channel of a client in a round; asked again it is the same."""
        place = (state.server_round, partition)
        if place not in self._made:
            released = state.prompts_before.get(partition, ())
            self._made[place] = (
                self._channel(place, released) if released else self.first
            )
        return self._made[place]

    def _channel(
        self, place: tuple[int, int], released: Sequence[tuple[int, ...]]
    ) -> SelectionChannel:
        # In sorted order, so that the order of replies says nothing.
        parents = np.array(sorted(released), dtype=np.int64)
        old = self.first.bank.prompts
        half = len(old) // 2
        generator = numpy_generator(self.seed, "bank-variations", *place)
        varied = vary(parents, self.model, half, generator)
        prompts: NDArray[np.int64] = np.unique(
            np.concatenate([varied, old[:half]]), axis=0
        )
        vocabulary = self.first.bank.vocabulary
        return SelectionChannel(
            vocabulary, self.first.requested_epsilon, bank=Bank(vocabulary, prompts)
        )

    def sent_bank(self, state: RoundState, partition: int) -> tuple[int, ...]:
        """Return the bank as a request carries it; empty for the first one."""
        channel = self.channel(state, partition)
        if channel is self.first:
            return ()
        return tuple(int(word) for word in channel.bank.prompts.reshape(-1))
