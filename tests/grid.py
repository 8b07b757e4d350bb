"""A Flower grid in one process: it calls the ClientApp itself, without Ray.

Contents are serialised and read back, as a deployed node would, and everything that a
client sends is kept so that a test can search it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedcot.records import serialise

Handler = Callable[[Message, Context], Message]


class LocalGrid(Grid):
    """Nodes that answer when they are pulled.

    Parameters
    ----------
    app : ClientApp
        What the nodes run.
    node_configs : sequence of dict
        One node each.
    run_config : dict
        What the clients see.
    seed : int
        Of node ids and of the order in which replies come.
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
        # Flower keeps the identity of a task per process and refuses messages without.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self._random = np.random.default_rng(seed)
        self._app = app
        ids = self._random.permutation(np.arange(100, 100 + 10 * len(node_configs), 10))
        self.contexts = {
            int(node): Context(
                1, int(node), dict(config), RecordDict(), dict(run_config)
            )
            for node, config in zip(ids, node_configs, strict=True)
        }
        self._late = late
        self._waiting: dict[str, tuple[int, Message]] = {}
        self.log: list[tuple[int, str]] = []  # partition and type, in order of arrival
        self.uplink: list[tuple[str, bytes]] = []  # message type, bytes
        self.replies: list[tuple[str, RecordDict]] = []

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            name = f"m{len(self._waiting)}-{self._random.integers(1 << 40)}"
            message.metadata.__dict__["_message_id"] = name
            context = self.contexts[message.metadata.dst_node_id]
            held = self._late if context.node_config["partition-id"] == 0 else 0
            self._waiting[name] = (held, message)
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = [name for name in message_ids if name in self._waiting]
        replies = []
        for name in self._random.permutation(wanted):
            held, message = self._waiting[name]
            if held:
                self._waiting[name] = (held - 1, message)
                continue
            del self._waiting[name]
            replies.append(self._call(message))
        return replies

    def _call(self, message: Message) -> Message:
        context = self.contexts[message.metadata.dst_node_id]
        kind = message.metadata.message_type
        self.log.append((int(context.node_config["partition-id"]), kind))
        message.content = as_deployed(message.content)
        try:
            reply = self._app(message, context)
        except Exception as error:
            # What Flower does, and what must never happen to us.
            text = f"{type(error)}:<'{error}'>"
            reply = Message(Error(code=2, reason=text), reply_to=message)
        if reply.has_error():
            self.uplink.append((kind, (reply.error.reason or "").encode()))
        else:
            self.uplink.append((kind, serialise(reply.content)))
            reply.content = as_deployed(reply.content)
            self.replies.append((kind, reply.content))
        return reply


def as_deployed(content: RecordDict) -> RecordDict:
    """Return the records after a trip through bytes."""
    received = RecordDict()
    for name, record in content.items():
        if isinstance(record, ConfigRecord):
            received[name] = ConfigRecord.inflate(record.deflate())
        else:
            assert isinstance(record, ArrayRecord)
            received[name] = record
    return received
