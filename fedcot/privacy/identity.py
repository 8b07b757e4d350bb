"""No mechanism: every token is released as it is, and the account says so."""

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from fedcot.privacy.claims import TokenClaims
from fedcot.privacy.sampler import RandomSource
from fedcot.privacy.tokens import checked_ids
from fedcot.privacy.vocabulary import Vocabulary


class IdentityChannel(TokenClaims):
    """Release tokens unchanged; epsilon is infinite.

    Parameters
    ----------
    vocabulary : Vocabulary
        The words that tokens stand for.
    """

    name = "none"
    guarantee = "none: raw"
    requested_epsilon = math.inf
    token_epsilon = math.inf

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.slots = vocabulary.length
        self.size = len(vocabulary.words)
        law = json.dumps([self.name, vocabulary.hash])
        self.hash = hashlib.sha256(law.encode()).hexdigest()

    def weights_row(self, token: int) -> list[int]:
        """Return weight 1 for the token itself and 0 for every other."""
        return [int(output == token) for output in range(self.size)]

    def sample(self, ids: NDArray[np.int64], source: RandomSource) -> NDArray[np.int64]:
        """Return `ids` unchanged; `source` is not used.

        Raises
        ------
        ValueError
            If an id lies outside the vocabulary.
        """
        return checked_ids(ids, self.size)
