"""A phased strategy that asks the nodes of a run and takes in what they answer."""

import logging
from abc import abstractmethod
from collections.abc import Sized
from typing import Protocol

from flwr.serverapp import Grid

from fedcot.config import RunConfig
from fedcot.errors import FedcotError
from fedcot.records import QUERY_IDENTIFY, IdentifyRequest, Wire
from strategies.exchange import Answer, Exchange, wait_for_nodes
from strategies.phased import PhasedStrategy
from strategies.results import Results
from strategies.state import RoundState, sample_partitions

logger = logging.getLogger("flwr.fedcot")


class Replies(Protocol):
    """Puts replies into the state of a round."""

    def take(self, state: RoundState, answer: Answer) -> None:
        """Put one reply into the state, or a line about it into `failures`."""
        ...

    def fail(
        self, state: RoundState, node_id: int, message_type: str, reason: str
    ) -> None:
        """Count a client that failed in a phase."""
        ...

    def phase_of(self, message_type: str) -> str:
        """Return what users call the phase of a message."""
        ...


class TalkingStrategy(PhasedStrategy):
    """Sends requests by partition and hands the replies to its intake.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    results : Results
        Takes the measurements.
    """

    def __init__(self, config: RunConfig, results: Results) -> None:
        super().__init__(results)
        self.config = config
        self._exchange: Exchange | None = None

    @property
    @abstractmethod
    def replies(self) -> Replies:
        """What takes replies in."""

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of all messages so far, both ways."""
        exchange = self._exchange
        return {
            "uplink_bytes": exchange.uplink_bytes if exchange else 0,
            "downlink_bytes": exchange.downlink_bytes if exchange else 0,
        }

    def meet(self, grid: Grid, state: RoundState, request: IdentifyRequest) -> bool:
        """Learn once which partition each node holds, then sample this round's.

        Returns
        -------
        bool
            Whether the nodes were met for the first time.
        """
        if self._exchange is None:
            self._exchange = Exchange(
                grid, timeout=self.config.phase_timeout, on_failure=self._on_failure
            )
        is_first = not state.members
        if is_first:
            nodes = wait_for_nodes(
                grid,
                self.config.num_partitions,
                timeout=self.config.phase_timeout,
                on_change=self._on_nodes,
            )
            state.expected = len(nodes)
            for node_id in nodes:
                self.talk.send(node_id, QUERY_IDENTIFY, request, group_id="0")
            self.receive_all(QUERY_IDENTIFY)
            self.require(state.members, QUERY_IDENTIFY)
            self.results.run.keep_members(len(state.members))
        state.sampled = sample_partitions(
            state.members,
            fraction=self.config.fraction_train,
            seed=self.config.seed,
            server_round=state.server_round,
        )
        return is_first

    @property
    def talk(self) -> Exchange:
        """The exchange of this run."""
        if self._exchange is None:
            raise RuntimeError("A phase ran before `identify` opened the exchange.")
        return self._exchange

    def send_to(self, partition: int, message_type: str, request: Wire) -> None:
        """Queue one request for the node of a partition."""
        node_id = self.state.members[partition].node_id
        group = str(self.state.server_round)
        self.talk.send(node_id, message_type, request, group_id=group)

    def receive(self) -> None:
        """Take in what has arrived, by partition so that the order says nothing."""
        place = {m.node_id: p for p, m in self.state.members.items()}
        answers = self.talk.poll()
        for answer in sorted(answers, key=lambda a: place.get(a.node_id, a.node_id)):
            self.replies.take(self.state, answer)

    def receive_all(self, message_type: str) -> None:
        """Wait until every request of a type has its reply, or failed."""
        while self.talk.waits_for(message_type):
            self.receive()

    def require(self, done: Sized, message_type: str) -> None:
        """Go on with those that are left; without any, the run is over."""
        if done:
            return
        phase = self.replies.phase_of(message_type)
        reasons = self.state.failures[-1:] or ["no reply"]
        raise FedcotError(f"no client came through the phase {phase}: {reasons[0]}")

    def _on_failure(self, node_id: int, message_type: str, reason: str) -> None:
        self.replies.fail(self.state, node_id, message_type, reason)

    def _on_nodes(self, connected: int) -> None:
        """Say how many nodes are there: the first sign of life of a run."""
        total = max(connected, self.config.num_partitions, 1)
        self.results.progress("identify", 1, 0, total, nodes_connected=connected)
