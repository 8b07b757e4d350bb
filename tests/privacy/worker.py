"""A client process for the ledger's tests: releases prompts and says what it sent.

Arguments: folder, first record, number of records, records per call.
"""

import json
import sys
from pathlib import Path

import numpy as np

from fedcot.privacy.ledger import Ledger
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import SystemRandomSource
from fedcot.privacy.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of([f"w{chr(97 + index)}" for index in range(26)], 6)
# Nearly uniform: two draws of one prompt agree with probability 28**-6.
CHANNEL = RankChannel(VOCABULARY, 0.1)
COST = 0.6
CONTENTS = [f"record {index}" for index in range(400)]


def prompt(index: int) -> np.ndarray:
    return np.full(VOCABULARY.length, index % len(VOCABULARY.words), dtype=np.int64)


def main(folder: Path, first: int, count: int, step: int) -> None:
    with Ledger(folder, record_epsilon=1.0) as ledger:
        keys = ledger.record_keys(CONTENTS)
        for start in range(first, first + count, step):
            batch = [(keys[i], prompt(i)) for i in range(start, start + step)]
            made = ledger.release(batch, CHANNEL, source=SystemRandomSource())
            sent = {release.record_key: release.ids for release in made}
            sys.stdout.write(json.dumps(sent) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
