"""Which (question, rationale) pairs each arm of a client trains on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedcot.arms import SOURCES
from fedcot.config import RunConfig
from fedcot.data.schema import Rationale, Record
from fedcot.node_state import PairStore
from fedcot.records import DistillRequest
from fedcot.seeding import numpy_generator
from fedcot.student.base import Base
from fedcot.student.examples import Pair, Pairing, pair_examples, self_rationales
from fedcot.tasks.registry import configured_task

PUBLIC_DOMAIN: Final = "public"
SELF: Final = "self-rationale"
# Pairings that read the original question may filter by its label as well.
# Rationales that the base writes together.
GENERATED_TOGETHER: Final = 64
LABEL_FILTERED: Final = ("original", "adapted")


class NodePairs:
    """Keeps rationales from round to round and pairs them for each arm.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    partition_id : int
        Which node.
    folder : Path
        This run's folder inside the node's state folder.
    base : callable
        Returns the frozen base; called only where a pairing generates.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        partition_id: int,
        folder: Path,
        base: Callable[[], Base],
    ) -> None:
        self.config = config
        self.partition_id = partition_id
        self.folder = folder
        self._base = base
        self._task = configured_task(config)

    def pairing(
        self, arm: str, records: Mapping[str, Record], used: Sequence[Record]
    ) -> Pairing:
        """Return the rationale examples of an arm."""
        pairing = self.config.pairing if arm == "fedcot" else "perturbed"
        if arm == SELF:
            # The private label is at hand and nothing is sent, so it may filter.
            pairs, pairing = self._self_pairs(used), "original"
        elif arm in SOURCES:
            pairs = self._pairs(SOURCES[arm], records)
        else:
            pairs = []
        if arm == "shuffled-rationale":
            pairs = self._shuffled(pairs)
        return pair_examples(
            pairs,
            pairing=pairing,
            task=self._task,
            base=self._base(),
            label_filter=pairing in LABEL_FILTERED,
            max_new_tokens=self.config.max_new_tokens,
            batch_size=1 if self.config.noise_multiplier > 0 else GENERATED_TOGETHER,
        )

    def keys_of(self, source: str) -> list[str]:
        """Return the names of the records that answered pairs of a source stem from."""
        return list(PairStore(self.folder, source).answered())

    def _pairs(self, source: str, records: Mapping[str, Record]) -> list[Pair]:
        """Return every answered pair of a source."""
        pairs = []
        for key, entry in PairStore(self.folder, source).answered().items():
            rationale = _rationale(entry["rationale"])
            if source == "random-bank":
                answer = rationale.answer if rationale else ""
                record = Record(key, answer, PUBLIC_DOMAIN)
            else:
                record = records[key]
            pairs.append(Pair(record, entry["question"], rationale))
        return pairs

    def _self_pairs(self, used: Sequence[Record]) -> list[Pair]:
        """Return the frozen base's own rationales; each is written once per run."""
        store = PairStore(self.folder, SELF)
        known = store.answered()
        new = [record for record in used if record.question not in known]
        written = (
            self_rationales(
                self._base(),
                new,
                task=self._task,
                max_new_tokens=self.config.max_new_tokens,
            )
            if new
            else []
        )
        for record, rationale in zip(new, written, strict=True):
            store.put_question(record.question, record.question)
            text, answer = (rationale.text, rationale.answer) if rationale else ("", "")
            store.put_rationale(
                record.question, text, answer, parsed=rationale is not None
            )
        store.save()
        known = store.answered()
        return [
            Pair(
                record, record.question, _rationale(known[record.question]["rationale"])
            )
            for record in used
        ]

    def _shuffled(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Give every question another question's rationale.

        A shift along a seeded order leaves no pair as it was, from two pairs on.
        """
        order = numpy_generator(
            self.config.seed, "shuffled", self.partition_id, len(pairs)
        ).permutation(len(pairs))
        donors = np.roll(order, 1)
        shuffled = [
            Pair(pairs[i].record, pairs[i].question, pairs[j].rationale)
            for i, j in zip(order, donors, strict=True)
        ]
        return shuffled if len(pairs) > 1 else []

    def store(self, request: DistillRequest, records: Mapping[str, Record]) -> None:
        """Keep the rationales that came; keys that this node never asked are left."""
        stores: dict[str, PairStore] = {}
        for sent in request.rationales:
            if sent.source not in stores:
                stores[sent.source] = PairStore(self.folder, sent.source)
            store = stores[sent.source]
            if sent.source == "random-bank":
                store.put_question(sent.key, sent.key)
            elif sent.key not in records:
                continue
            # A teacher that keeps to the length limit writes fewer words. What is
            # dropped here is dropped before any filter looks at a label.
            fits = len(sent.text.split()) <= self.config.max_new_tokens
            parsed = sent.parsed and fits
            store.put_rationale(sent.key, sent.text, sent.answer, parsed=parsed)
        for store in stores.values():
            store.save()

    def used_records(
        self, server_round: int, records: Sequence[Record]
    ) -> list[Record]:
        """Return the records of this round and the earlier ones, each once."""
        rounds = used_indices(
            self.config, self.partition_id, server_round, len(records)
        )
        chosen = dict.fromkeys(index for indices in rounds for index in indices)
        return [records[index] for index in chosen]


def used_indices(
    config: RunConfig, partition_id: int, server_round: int, num_records: int
) -> list[list[int]]:
    """Return the record indices of each round up to this one.

    A seeded permutation is walked without replacement; when it is used up another one
    starts, and what was released before is sent again at no cost.
    """
    size = min(config.records_per_round, num_records)
    rounds: list[list[int]] = []
    for number in range(server_round):
        cycle, place = divmod(number * size, num_records - num_records % size)
        order = numpy_generator(
            config.seed, "records", partition_id, cycle
        ).permutation(num_records)
        rounds.append([int(index) for index in order[place : place + size]])
    return rounds


def _rationale(entry: Mapping[str, Any] | None) -> Rationale | None:
    return None if entry is None else Rationale(entry["text"], entry["answer"])
