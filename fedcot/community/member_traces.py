"""A member's traces in one run: where they come from, and which of them may leave."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Final

from fedcot.budget import record_limit
from fedcot.community.coalitions import JOIN, Coalition
from fedcot.community.consent import Grant, TraceStore, permits
from fedcot.community.history import ask_provider
from fedcot.community.membership import community_of
from fedcot.community.messages import (
    LONGEST_TEXT,
    CoalitionTrainRequest,
    StudentsRequest,
    SyntheticRequest,
    TracesRequest,
)
from fedcot.community.pool import checks_steps, valid_traces
from fedcot.community.scenario import POISON, Behaviour, parse_scenario
from fedcot.data.partition import load_own_partition
from fedcot.data.schema import Record
from fedcot.data.traces import Trace
from fedcot.errors import ConfigError
from fedcot.node import Node
from fedcot.node_runs import run_name
from fedcot.privacy.ledger import Ledger
from fedcot.runs import write_json
from fedcot.seeding import numpy_generator
from fedcot.settings import WORLD
from fedcot.teacher.configured import configured_teacher
from fedcot.teacher.teacher import Teacher

logger = logging.getLogger("flwr.fedcot")

STORE: Final = "traces"
HISTORY: Final = "history.json"

Sharing = TracesRequest | CoalitionTrainRequest | SyntheticRequest
Request = Sharing | StudentsRequest


class MemberTraces:
    """Opens the store of one node, and says what may leave it.

    Parameters
    ----------
    node : Node
        Its settings, its owner and its records.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.config = node.config
        self.owner = node.owner
        self.community = (
            community_of(node.owner.partition_id, node.config.community_names)
            if node.owner.simulated
            else node.owner.community
        )

    def provider(self, request: Request) -> Teacher:
        """Return the model that gave, or gives, this member its traces."""
        return configured_teacher(
            self.config,
            task=self._node.task,
            cache_root=self.owner.folder(request.run_dir),
            check=False,
        )

    def coalitions(self, labels: tuple[str, ...]) -> tuple[Coalition, ...]:
        """Return the coalitions of a request that this member belongs to or knows.

        Raises
        ------
        ConfigError
            As for `offer`.
        """
        coalitions = tuple(tuple(label.split(JOIN)) for label in labels)
        if self.owner.simulated:
            return coalitions
        if not self.community:
            raise ConfigError(
                "`community` must be given in the node config of a deployed member, "
                "found nothing; pass for example --node-config "
                '\'community="clinic" partners="clinic,school"\'.'
            )
        own = [one for one in coalitions if self.community in one]
        strangers = {name for one in own for name in one} - set(self.owner.partners)
        if strangers:
            raise ConfigError(
                "`partners` must name every community of this member's coalitions in "
                "the node config, because a coalition's members see each other's "
                "traces; add them, or leave the coalition."
            )
        return coalitions

    def open(self, request: Request) -> TraceStore:
        """Open the member's traces; a simulated member asks the provider first."""
        if not self.owner.simulated:
            folder = self.owner.folder(request.run_dir) / STORE
            return TraceStore(folder, community=self.community)
        folder = self.folder(request)
        store = TraceStore(folder / STORE, community=self.community)
        if not (folder / HISTORY).is_file():
            try:
                self._ask(request, store, folder)
            except BaseException:
                store.close()
                raise
        return store

    def _ask(self, request: Request, store: TraceStore, folder: Path) -> None:
        canaries = self._canaries()
        planted = {trace.question for trace in canaries}
        history = ask_provider(
            self.provider(request),
            [r for r in self._node.partition.train if r.question not in planted],
            config=self.config,
            task=self._node.task,
            behaviour=self._behaviour,
            rng=numpy_generator(self.config.seed, "scenario", self.owner.partition_id),
        )
        store.add(history.traces + canaries)
        counts = asdict(history)
        del counts["traces"]
        # Last, so that a member that died meanwhile asks again; known traces stay.
        write_json(folder / HISTORY, counts)

    def _canaries(self) -> tuple[Trace, ...]:
        """Return the canaries that this member holds as traces; none but in audits."""
        if not self.config.canaries:
            return ()
        from fedcot.evaluation.insertion import canary_traces

        owner = self.owner
        return canary_traces(self.config, owner.partition_id, owner.num_partitions)

    def offered(
        self, store: TraceStore, coalitions: tuple[Coalition, ...], *, limit: int = 0
    ) -> dict[str, tuple[Coalition, ...]]:
        """Return which traces may reach which coalitions, by key.

        Parameters
        ----------
        limit : int
            Traces, times the member's coalitions, at most, by the order of the keys,
            which is as good as chance and the same in every round; 0: all.
        """
        own = [one for one in coalitions if self.community in one]
        places = dict.fromkeys(own, 0)
        found: dict[str, tuple[Coalition, ...]] = {}
        active = store.active()
        if long := sum(not _fits(trace) for trace in active):
            logger.warning(
                "%d of %d traces have a text of more than %d signs; they are offered "
                "to nobody.",
                long,
                len(active),
                LONGEST_TEXT,
            )
        for trace in active:
            if not self.is_offered(trace):
                continue
            reached = tuple(
                one for one in own if permits(trace.scope, self.community, one)
            )
            if limit and all(places[one] >= limit for one in reached):
                continue
            for one in reached:
                places[one] += 1
            if reached:
                found[trace.key] = reached
        return found

    def left_out(self, store: TraceStore) -> int:
        """Return how many traces are offered to nobody, see `is_offered`."""
        return sum(not self.is_offered(trace) for trace in store.active())

    def granted(
        self,
        store: TraceStore,
        request: Sharing,
        coalitions: tuple[Coalition, ...],
        purpose: str,
        *,
        limit: int = 0,
    ) -> tuple[Grant, ...]:
        """Return what may leave, once store and ledger know that it does."""
        grants = store.grant(
            [one for one in coalitions if self.community in one],
            model=lambda one: model_id(
                request.run_key, purpose, one, request.server_round
            ),
            purpose=purpose,
            only=self.offered(store, coalitions, limit=limit),
        )
        self._expose(request, grants)
        return grants

    def withdrawn(self, store: TraceStore, request: Request) -> list[str]:
        """Return the keys of traces that this run used before they were withdrawn."""
        return [
            stone.key
            for stone in store.tombstones()
            if any(model.startswith(f"{request.run_key}/") for model in stone.models)
        ]

    def is_offered(self, trace: Trace) -> bool:
        """Whether a trace fits a message and passes the filter.

        A simulated member compared answers when it asked its provider.
        """
        if not _fits(trace):
            return False
        if self._checks_steps and not valid_traces([trace], self._node.task)[0]:
            return False
        if self.owner.simulated or self.config.trace_filter != "answer":
            return True
        known = self._own_answers.get(trace.question)
        return known is not None and self._node.task.is_right(trace.answer, known)

    @property
    def _behaviour(self) -> Behaviour | None:
        """What a simulated member does against the plan."""
        config = self.config
        return parse_scenario(config.scenario, config.community_names).get(
            self.community
        )

    @cached_property
    def _checks_steps(self) -> bool:
        """Whether steps are checked here; who poisons would be caught by it."""
        behaviour = self._behaviour if self.owner.simulated else None
        poisons = behaviour is not None and behaviour.kind == POISON
        return checks_steps(self.config, self._node.task) and not poisons

    @cached_property
    def _own_answers(self) -> dict[str, str]:
        """The answers that the node's records have, by question."""
        return {record.question: record.answer for record in self._node.partition.train}

    def _expose(self, request: Sharing, grants: tuple[Grant, ...]) -> None:
        """Write down that these questions leave without a finite epsilon.

        A later run under a mechanism states what its records have cost before.
        """
        if self.config.noise_multiplier > 0 and not isinstance(request, TracesRequest):
            return  # charged instead, by `MemberTraining`
        given = {grant.trace.question for grant in grants}
        if not given:
            return
        exposed: set[str] = set()
        with closing(self.ledger(request)) as ledger:
            for records in self._holdings:
                keys = ledger.record_keys([record.identity for record in records])
                exposed |= {
                    key
                    for key, record in zip(keys, records, strict=True)
                    if record.question in given
                }
            if exposed:
                ledger.expose(sorted(exposed), run=self.run(request))

    @property
    def _holdings(self) -> list[tuple[Record, ...]]:
        """The records that this node's ledger may know: the run's and the owner's.

        A server may ask for a run over the built-in world, whose records are none of
        the owner's; a later run over the owner's dataset must know what left in it.
        """
        found, owner = [self._node.partition.train], self.owner
        if self.config.dataset != WORLD or owner.simulated:
            return found
        if owner.dataset and owner.data_dir is not None:
            folder = str(owner.data_dir)
            own = load_own_partition(owner.dataset, folder, test_records=0)
            found.append(own.train)
        return found

    def ledger(self, request: Sharing) -> Ledger:
        """Open the node's ledger, under the lower of the two limits."""
        return Ledger(
            self.owner.folder(request.run_dir) / "ledger",
            record_epsilon=min(
                record_limit(self.config), self.owner.max_record_epsilon
            ),
            record_delta=self.owner.max_record_delta,
        )

    def run(self, request: Request) -> str:
        """Return what this run is called on this node."""
        return run_name(self.config, self.owner, request.run_key)

    def folder(self, request: Request) -> Path:
        """Return this run's folder inside the node's state folder."""
        folder = self.owner.folder(request.run_dir) / self.run(request)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _fits(trace: Trace) -> bool:
    """Whether a message takes a trace; one that it refused would stop all others."""
    texts = (trace.question, trace.reasoning, trace.answer)
    return max(map(len, texts)) <= LONGEST_TEXT


def model_id(
    run_key: str, purpose: str, coalition: Coalition, server_round: int
) -> str:
    """Return how a member's store names the student that a trace may be part of."""
    return f"{run_key}/{purpose}.{JOIN.join(coalition)}/round-{server_round}"
