"""A local grid that keeps everything that clients send, so that tests can search it."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from flwr.app import Message, RecordDict

from fedcot.records import serialise
from strategies import talking
from strategies.exchange import wait_for_nodes
from strategies.local_grid import Handler, as_deployed
from strategies.local_grid import LocalGrid as PlainGrid

__all__ = ["LocalGrid", "as_deployed"]

# All nodes are there from the start: nothing is waited for until their number settles.
talking.wait_for_nodes = partial(wait_for_nodes, settle=0.0)


class LocalGrid(PlainGrid):
    """Nodes that are listened to.

    Parameters
    ----------
    late : int
        Pulls that a partition 0 reply is held back.
    """

    def __init__(
        self,
        app: Handler,
        node_configs: Sequence[dict[str, Any]],
        run_config: dict[str, Any],
        *,
        seed: int = 0,
        late: int = 0,
    ) -> None:
        super().__init__(app, node_configs, run_config, seed=seed)
        self._late = late
        self._held: dict[str, int] = {}
        self.log: list[tuple[int, str]] = []  # partition and type, in order of arrival
        self.uplink: list[tuple[str, bytes]] = []  # message type, bytes
        self.replies: list[tuple[str, RecordDict]] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        listed = list(messages)
        names = list(super().push_messages(listed))
        for name, message in zip(names, listed, strict=True):
            if self._partition(message) == 0:
                self._held[name] = self._late
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = []
        for name in message_ids:
            if self._held.get(name, 0):
                self._held[name] -= 1
            else:
                ready.append(name)
        return super().pull_messages(ready)

    def _call(self, message: Message) -> Message:
        kind = message.metadata.message_type
        self.log.append((self._partition(message), kind))
        reply = super()._call(message)
        if reply.has_error():
            self.uplink.append((kind, (reply.error.reason or "").encode()))
        else:
            self.uplink.append((kind, serialise(reply.content)))
            self.replies.append((kind, reply.content))
        return reply

    def _partition(self, message: Message) -> int:
        context = self.contexts[message.metadata.dst_node_id]
        return int(context.node_config["partition-id"])
