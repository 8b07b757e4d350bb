"""A member's side of the community mode, without Flower.

Server side: `strategies.community.Community`. What leaves here is a message of
`fedcot.community.messages`; which traces may leave is decided by the member's store and
by nothing that a server sends.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from fedcot.community.coalitions import Coalition, label
from fedcot.community.consent import TraceStore
from fedcot.community.manifest import joint_hash, names_hash, run_manifest
from fedcot.community.member_traces import HISTORY, MemberTraces, Sharing
from fedcot.community.member_training import MemberTraining
from fedcot.community.messages import (
    COUNT,
    PROVIDER,
    CoalitionTrainReply,
    CoalitionTrainRequest,
    SharedTrace,
    StudentScore,
    StudentsReply,
    StudentsRequest,
    SyntheticReply,
    SyntheticRequest,
    SyntheticTrace,
    TracesReply,
    TracesRequest,
)
from fedcot.community.pool import trace_examples
from fedcot.community.scoring import score_student, student_score
from fedcot.community.settings import FEDERATED, SYNTHETIC
from fedcot.community.synthetic import generator_examples, write_traces
from fedcot.config import RunConfig
from fedcot.errors import ConfigError
from fedcot.evaluation.evaluate import evaluate_teacher
from fedcot.node import Node
from fedcot.node_state import Owner, private_files, read_json
from fedcot.node_training import student_base, tensors
from fedcot.runs import METRICS, append_line
from fedcot.seeding import derive_seed

_FILTERED: Final = ("num_wrong", "num_unlevelled", "num_left_out")


class Member:
    """One member of a community: its traces, its consent and its test questions.

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
        self.node = Node(config, owner)
        self.config = self.node.config
        self.owner = owner
        self.traces = MemberTraces(self.node)

    @private_files()
    def offer(self, request: TracesRequest) -> TracesReply:
        """Return the traces that may reach the coalitions that ask.

        Raises
        ------
        ConfigError
            The owner of a deployed node has named no community, or not allowed one of
            a coalition's.
        """
        coalitions = self.traces.coalitions(request.coalitions)
        with self.traces.open(request) as store:
            counts = self._counts(store, request)
            run = self.traces.run(request)
            if request.purpose == COUNT and self._is_private:
                # How many traces there are depends on them; the records are public.
                size = len(self.node.partition.train)
                own = (size if self.traces.community in c else 0 for c in coalitions)
                return self._reply(counts, tuple(own))
            if request.purpose == COUNT:
                offered = self.traces.offered(store, coalitions)
                gone = self.traces.withdrawn(store, request)
                return self._reply(
                    counts,
                    tuple(
                        sum(one in reached for reached in offered.values())
                        for one in coalitions
                    ),
                    manifest_hash=names_hash(store.pseudonyms(list(offered), run=run)),
                    withdrawn=tuple(sorted(store.pseudonyms(gone, run=run))),
                )
            grants = self.traces.granted(
                store, request, coalitions, request.purpose, limit=request.limit
            )
            keys = [grant.key for grant in grants]
            names = dict(zip(keys, store.pseudonyms(keys, run=run), strict=True))
            manifests = [
                run_manifest(store, grants, one, run=run, purpose=request.purpose)
                for one in coalitions
                if self.traces.community in one
            ]
        return self._reply(
            counts,
            tuple(sum(one in g.audiences for g in grants) for one in coalitions),
            manifest_hash=joint_hash(manifests),
            withdrawn=tuple(sorted({n for one in manifests for n in one.withdrawn})),
            traces=tuple(
                SharedTrace(grant, name=names[grant.key], coalitions=coalitions)
                for grant in grants
            ),
        )

    @private_files()
    def train(self, request: CoalitionTrainRequest) -> CoalitionTrainReply:
        """Train, for each coalition, on the traces that may reach it."""
        self._check_delta()
        coalitions = self.traces.coalitions(request.coalitions)
        with self.traces.open(request) as store:
            grants = self.traces.granted(store, request, coalitions, FEDERATED)
        training = self._training(request)
        adapters, losses = {}, []
        for coalition, name in zip(coalitions, request.coalitions, strict=True):
            traces = [grant.trace for grant in grants if coalition in grant.audiences]
            # A private adapter is sent whatever there is: its absence would tell.
            always = self._is_private and self.traces.community in coalition
            if traces or always:
                given = request.adapters.get(name)
                adapter, loss = training.train(
                    f"{FEDERATED}.{name}",
                    request.server_round,
                    traces,
                    examples=lambda some: trace_examples(
                        some, self.node.task, label_share=self.config.label_share
                    ),
                    rounds=self.config.num_server_rounds,
                    start=None if given is None else tensors(given),
                )
                adapters[name] = {k: v.numpy() for k, v in adapter.items()}
                # Nothing was drawn where it is no number.
                losses += [loss] if math.isfinite(loss) else []
        return CoalitionTrainReply(
            partition_id=self.owner.partition_id,
            withheld=not self.owner.simulated,
            losses=tuple(losses) if self.owner.simulated else (),
            adapters=adapters,
        )

    @private_files()
    def write(self, request: SyntheticRequest) -> SyntheticReply:
        """Train a generator on traces that may reach all who ask, and let it write."""
        self._check_delta()
        coalitions = tuple(
            one
            for one in self.traces.coalitions(request.coalitions)
            if self.traces.community in one
        )
        with self.traces.open(request) as store:
            grants = self.traces.granted(store, request, coalitions, SYNTHETIC)
        used = [g for g in grants if len(g.audiences) == len(coalitions)]
        own = [grant.trace for grant in used]
        simulated = self.owner.simulated
        if not coalitions or not (own or self._is_private):
            return SyntheticReply(
                partition_id=self.owner.partition_id,
                withheld=not simulated,
                num_trained=0,
            )
        training = self._training(request)
        adapter, _ = training.train(
            _generator(coalitions),
            1,
            own,
            examples=lambda some: generator_examples(some, self.node.task),
            rounds=1,
        )
        # How many are written must not tell how many were learnt.
        count = self.config.synthetic_traces or len(self.node.partition.train)
        made = write_traces(
            student_base(self.config),
            adapter,
            # What is held back for its likeness to an own trace depends on it, so the
            # gate has no part in what DP-SGD alone protects.
            () if self._is_private else own,
            count=count,
            task=self.node.task,
            settings=training.settings(SYNTHETIC),
            temperature=self.config.synthetic_temperature,
            seed=derive_seed(self.config.seed, "write", self.owner.partition_id),
            max_new_tokens=2 * self.config.max_new_tokens,
            batch_size=self.config.evaluation_batch_size,
        )
        counts = {k: v for k, v in made.counts.items() if simulated}
        return SyntheticReply(
            partition_id=self.owner.partition_id,
            withheld=not simulated,
            num_trained=len(own) if simulated else 0,
            traces=tuple(map(SyntheticTrace, made.written)),
            **counts,
        )

    @private_files()
    def score(self, request: StudentsRequest) -> StudentsReply:
        """Score students on this member's own test questions.

        The provider too, in a simulation: a deployed member puts no question to it.
        """
        records = self.node.partition.test
        texts = {one.student: one.text for one in request.prompts}
        scores = []
        for student in request.students:
            if student == PROVIDER:
                if not self.owner.simulated:
                    # The run names the provider: it may be an endpoint of anybody.
                    continue
                provider = self.traces.provider(request)
                found = evaluate_teacher(provider, records, task=self.node.task)
                scores.append(student_score(student, found))
                continue
            scores.append(
                score_student(
                    self.config,
                    student,
                    records,
                    adapter=request.adapters.get(student),
                    text=texts.get(student, ""),
                )
            )
        self._note(request, scores)
        return StudentsReply(
            partition_id=self.owner.partition_id,
            withheld=not self.owner.simulated,
            scores=tuple(scores) if self.owner.simulated else (),
        )

    def _note(self, request: StudentsRequest, scores: Sequence[StudentScore]) -> None:
        """Write a deployed member's scores to its own file, as `Node` does."""
        if self.owner.simulated:
            return
        for score in scores:
            place = {"round": request.server_round, "phase": "evaluate"}
            append_line(
                self.traces.folder(request) / METRICS, {**place, **asdict(score)}
            )

    def _counts(self, store: TraceStore, request: TracesRequest) -> dict[str, int]:
        """Return what became of the provider's answers; nothing on a deployed node."""
        counts: dict[str, int] = read_json(
            self.traces.folder(request) / HISTORY, default={}
        )
        if self.owner.simulated:
            counts["num_left_out"] = self.traces.left_out(store)
        return counts

    def _training(self, request: Sharing) -> MemberTraining:
        return MemberTraining(
            self.config,
            partition_id=self.owner.partition_id,
            folder=self.traces.folder(request),
            records=self.node.partition.train,
            open_ledger=lambda: self.traces.ledger(request),
            run=self.traces.run(request),
        )

    @property
    def _is_private(self) -> bool:
        """Whether adapters and generators leave under DP-SGD."""
        return self.config.noise_multiplier > 0

    def _check_delta(self) -> None:
        """Refuse private training at a delta above the owner's."""
        limit = self.owner.max_record_delta
        if self._is_private and self.config.delta > limit:
            raise ConfigError(
                f"`delta` must be at most the node's `max-record-delta` ({limit}) "
                f"where adapters are trained privately, found {self.config.delta}; "
                f"pass `-c delta={min(limit, 1e-6)}`."
            )

    def _reply(
        self,
        counts: Mapping[str, int],
        offered: tuple[int, ...],
        *,
        manifest_hash: str = "",
        withdrawn: tuple[str, ...] = (),
        traces: tuple[SharedTrace, ...] = (),
    ) -> TracesReply:
        return TracesReply(
            partition_id=self.owner.partition_id,
            community=self.traces.community,
            manifest_hash=manifest_hash,
            num_offered=offered,
            withdrawn=withdrawn,
            num_asked=counts.get("num_asked", 0),
            num_unparsed=counts.get("num_unparsed", 0),
            num_filtered=sum(counts.get(name, 0) for name in _FILTERED),
            traces=traces,
        )


def _generator(coalitions: Sequence[Coalition]) -> str:
    """Return what the generator for some coalitions is called: folder and charge.

    By whom it may write for and by nothing else. Under DP-SGD how many generators a
    member trains and pays for must not depend on its traces; without noise other traces
    make another adapter, see `MemberTraining`.
    """
    labels = ",".join(sorted(map(label, coalitions)))
    return f"{SYNTHETIC}.{hashlib.sha256(labels.encode()).hexdigest()[:16]}"
