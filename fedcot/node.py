"""A client's side of every message, without Flower.

Server side: `strategies.fedcot.FedCoT`. What leaves here is a message of
`fedcot.records`; private text, adapters and stores stay in the node's state folder.

How long an answer takes, and whether it fails, is seen by the server and covered by no
epsilon (see `fedcot.records`).
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fedcot import provenance
from fedcot.arms import RAW_SOURCE
from fedcot.budget import record_limit
from fedcot.config import RunConfig
from fedcot.data.partition import load_own_partition, load_partition
from fedcot.data.schema import Partition, Record
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.mechanism import (
    configured_vocabulary,
    granted_channel,
    vocabulary_hash,
)
from fedcot.models.sources import artefact_hash
from fedcot.node_checks import (
    check_audit_run,
    check_delta,
    check_shared,
    check_sources,
    own_config,
)
from fedcot.node_pairs import used_indices
from fedcot.node_runs import run_name
from fedcot.node_state import Owner, PairStore, private_files
from fedcot.node_training import NodeTraining
from fedcot.privacy.ledger import Ledger, Release
from fedcot.privacy.sampler import RandomSource, SystemRandomSource, TapeRandomSource
from fedcot.privacy.vocabulary import Vocabulary
from fedcot.records import (
    DistillReply,
    DistillRequest,
    EvaluateReply,
    EvaluateRequest,
    IdentifyReply,
    IdentifyRequest,
    PerturbReply,
    PerturbRequest,
)
from fedcot.rows import PerturbedPrompt, RawPrompt
from fedcot.runs import METRICS, append_line
from fedcot.seeding import derive_seed
from fedcot.settings import WORLD
from fedcot.tasks.registry import configured_task
from fedcot.tasks.task import Task

Request = PerturbRequest | DistillRequest | EvaluateRequest


class Node:
    """One client: its data, its ledger and its students.

    Parameters
    ----------
    config : RunConfig
        Settings of the run; they may narrow what the owner allows, never widen it.
    owner : Owner
        Settings of the node's owner.

    Raises
    ------
    ConfigError
        The run asks for what this node cannot or must not do.
    """

    def __init__(self, config: RunConfig, owner: Owner) -> None:
        # Two threads per client on two busy cores ran five to ten times slower.
        torch.set_num_threads(1)
        if config.test_tape and not owner.simulated:
            raise ConfigError(
                "`test-tape` must be false on a deployed node, found true: seeded "
                "draws have no guarantee; pass `-c test-tape=false`."
            )
        if config.num_partitions not in (0, owner.num_partitions):
            raise ConfigError(
                "`num-partitions` must be 0 or the node's own number "
                f"({owner.num_partitions}), found {config.num_partitions}; pass "
                "`-c num-partitions=0`."
            )
        check_audit_run(config, owner)
        self.config = own_config(config, owner)
        self.owner = owner

    @property
    def partition(self) -> Partition:
        """The node's records, read once per process.

        A deployed node holds a dataset of its own, which is not split any more.
        """
        if self.config.dataset != WORLD and not self.owner.simulated:
            return load_own_partition(
                self.config.dataset,
                self.config.data_dir,
                test_records=self.config.test_records,
            )
        return _partition(
            self.config, self.owner.partition_id, self.owner.num_partitions
        )

    @property
    def task(self) -> Task:
        """What the questions are."""
        return configured_task(self.config)

    def identify(self, request: IdentifyRequest) -> IdentifyReply:
        """Say who this node is, if it runs what the server runs.

        Raises
        ------
        CodeMismatchError
            The code, the student's files or the vocabulary differ.
        """
        own = IdentifyRequest(
            code_hash=provenance.code_hash(),
            student_hash=artefact_hash(self.config.student, "student"),
            vocabulary_hash=vocabulary_hash(self.config),
            dataset_hash=self.task.hash,
        )
        if own != request:
            raise CodeMismatchError("The node runs other code or other artefacts.")
        return IdentifyReply(
            code_hash=own.code_hash,
            student_hash=own.student_hash,
            vocabulary_hash=own.vocabulary_hash,
            dataset_hash=own.dataset_hash,
            partition_id=self.owner.partition_id,
            num_partitions=self.owner.num_partitions,
            num_records=len(self.partition.train),
            simulated=self.owner.simulated,
            raw_prompts_allowed=self.owner.allow_raw_prompts,
        )

    @private_files()
    def perturb(self, request: PerturbRequest) -> PerturbReply:
        """Charge, draw and store this round's prompts, then hand out what was stored.

        Raises
        ------
        ConfigError
            Raw prompts are asked for where the owner did not allow them.
        CodeMismatchError
            The server's channel is another than the one built here.
        """
        check_sources(self.owner, request)
        vocabulary, run = (
            configured_vocabulary(self.config),
            self._run_name(request.run_key),
        )
        with closing(self._ledger(request.run_dir, request.record_epsilon)) as ledger:
            records = self._asked_records(ledger, request.server_round)
            names = dict(
                zip(records, ledger.pseudonyms(list(records), run=run), strict=True)
            )
            releases: Sequence[Release] = ()
            spent = spent_delta = 0.0
            if "fedcot" in request.sources:
                releases = self._release(ledger, request, records, vocabulary)
                spent = max(ledger.spent(key, run=run) for key in records)
                spent_delta = max(ledger.spent_delta(key) for key in records)
            raw = records if RAW_SOURCE in request.sources else {}
            if raw:
                # First of all: once they are written down anywhere, they may be sent.
                ledger.expose(list(raw), run=run)
        new = self._remember(request, names, releases, raw, vocabulary)
        asked = len(records) if "fedcot" in request.sources else 0
        prompts = tuple(
            PerturbedPrompt(
                release,
                record_key=names[release.record_key],
                fresh=names[release.record_key] in new,
            )
            for release in releases
        )
        return PerturbReply(
            partition_id=self.owner.partition_id,
            slots=vocabulary.length,
            vocabulary_size=len(vocabulary.words),
            channel_hash=request.channel_hash,
            prompt_epsilon=max((r.prompt_epsilon for r in releases), default=0.0),
            spent_record_epsilon=spent,
            spent_record_delta=spent_delta,
            num_fresh=sum(prompt.fresh for prompt in prompts),
            num_refused=asked - len(releases),
            prompts=prompts,
            raw_prompts=tuple(RawPrompt(names[k], r.question) for k, r in raw.items()),
        )

    @private_files()
    def distil(self, request: DistillRequest) -> DistillReply:
        """Store the rationales and train every arm on all pairs held so far.

        Raises
        ------
        ConfigError
            An adapter would leave that saw private labels or questions, and the owner
            did not allow it, or not at this delta.
        """
        check_shared(self.config, self.owner, request.arms)
        check_delta(self.config, self.owner, request.arms)
        run = self._run_name(request.run_key)
        trainer = self._training(request)
        limit = record_limit(self.config)
        with closing(self._ledger(request.run_dir, limit)) as ledger:
            keys = self._keys(ledger)
            names = ledger.pseudonyms(keys, run=run)
            records = dict(zip(names, self.partition.train, strict=True))
            trainer.pairs.store(request, records)
            known = dict(zip(names, keys, strict=True))
            # Before anything is trained that could be sent.
            if exposed := trainer.exposed_keys(request.arms):
                ledger.expose([known[name] for name in exposed], run=run)
            used = {name: known[name] for name in trainer.used_keys(request, records)}
            granted = trainer.private.charge(
                ledger,
                used,
                num_records=len(records),
                run=run,
                trainings=trainer.private_trainings(request.arms).values(),
            )
        outcomes, adapters = trainer.train(request, records, granted=granted)
        self._note(request, "distil", [asdict(outcome) for outcome in outcomes])
        return DistillReply(
            partition_id=self.owner.partition_id,
            withheld=not self.owner.simulated,
            training=outcomes if self.owner.simulated else (),
            adapters=adapters,
        )

    @private_files()
    def evaluate(self, request: EvaluateRequest) -> EvaluateReply:
        """Score every arm on this node's test records."""
        trainer = self._training(request)
        scores = trainer.evaluate(request, self.partition)
        self._note(request, "evaluate", [asdict(score) for score in scores])
        return EvaluateReply(
            partition_id=self.owner.partition_id,
            withheld=not self.owner.simulated,
            scores=scores if self.owner.simulated else (),
        )

    def _release(
        self,
        ledger: Ledger,
        request: PerturbRequest,
        records: Mapping[str, Record],
        vocabulary: Vocabulary,
    ) -> Sequence[Release]:
        channel = granted_channel(
            self.config,
            mechanism=request.mechanism,
            token_epsilon=request.token_epsilon,
            prompt_epsilon=request.prompt_epsilon,
            bank=request.bank,
        )
        if channel.hash != request.channel_hash:
            raise CodeMismatchError("The node has another channel than the server.")
        encoded = [(k, vocabulary.encode_parts(r.parts)) for k, r in records.items()]
        source = self._source(request.server_round)
        return ledger.release(encoded, channel, source=source)

    def _source(self, server_round: int) -> RandomSource:
        if not self.config.test_tape:
            return SystemRandomSource()
        path = ("tape", self.owner.partition_id, server_round)
        return TapeRandomSource(derive_seed(self.config.seed, *path))

    def _ledger(self, run_dir: str, limit: float = float("inf")) -> Ledger:
        """Open the node's ledger under the lower of the two limits, in nats.

        The limit of the deltas is the owner's alone.
        """
        record_epsilon = min(limit, self.owner.max_record_epsilon)
        folder = self.owner.folder(run_dir) / "ledger"
        return Ledger(
            folder,
            record_epsilon=record_epsilon,
            record_delta=self.owner.max_record_delta,
        )

    def _keys(self, ledger: Ledger) -> list[str]:
        """Return the key of each training record.

        Always over all records at once: equal questions differ by occurrence number.
        The answer is no part of the key: a corrected label must not make the same
        question a new record, which would be drawn and charged a second time.
        """
        return ledger.record_keys([record.identity for record in self.partition.train])

    def _asked_records(self, ledger: Ledger, server_round: int) -> dict[str, Record]:
        """Return this round's records by key; which ones is public chance."""
        keys, train = self._keys(ledger), self.partition.train
        chosen = used_indices(
            self.config, self.owner.partition_id, server_round, len(train)
        )[-1]
        return {keys[index]: train[index] for index in chosen}

    def _remember(
        self,
        request: PerturbRequest,
        names: Mapping[str, str],
        releases: Sequence[Release],
        raw: Mapping[str, Record],
        vocabulary: Vocabulary,
    ) -> set[str]:
        """Keep which question the teacher will see for each name.

        Returns
        -------
        set of str
            The names of the releases that this run sends for the first time.
        """
        folder = self._run_folder(request)
        new: set[str] = set()
        if releases:
            store = PairStore(folder, "fedcot")
            asked = [names[release.record_key] for release in releases]
            by = releases[0].channel_hash
            new = {name for name in asked if not store.has_question(name, by=by)}
            for name, release in zip(asked, releases, strict=True):
                asked_for = self.task.question(vocabulary.decode_parts(release.ids))
                store.put_question(name, asked_for, by=by)
            store.save()
        if raw:
            store = PairStore(folder, RAW_SOURCE)
            for key, record in raw.items():
                store.put_question(names[key], record.question)
            store.save()
        return new

    def _run_name(self, run_key: str) -> str:
        return run_name(self.config, self.owner, run_key)

    def _run_folder(self, request: Request) -> Path:
        folder = self.owner.folder(request.run_dir)
        return folder / self._run_name(request.run_key)

    def _training(self, request: Request) -> NodeTraining:
        folder = self._run_folder(request)
        # A simulation's adapters belong to the run's results; a deployed node keeps
        # its own.
        adapters = Path(request.run_dir) if self.owner.simulated else folder
        return NodeTraining(
            self.config,
            partition_id=self.owner.partition_id,
            folder=folder,
            adapter_root=adapters,
        )

    def _note(
        self,
        request: DistillRequest | EvaluateRequest,
        phase: str,
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a deployed node's own metrics, which never leave it."""
        if self.owner.simulated:
            return
        path = self._run_folder(request) / METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        for row in rows:
            place = {"round": request.server_round, "phase": phase}
            append_line(path, {**place, **row})


@lru_cache(maxsize=8)
def _partition(config: RunConfig, partition_id: int, num_partitions: int) -> Partition:
    return load_partition(config, partition_id, num_partitions)
