"""A Flower grid in one process: clients are called in turn, without Ray.

For measurements that need many short runs, where starting Flower's simulation costs
more than the run. Contents are serialised and read back, as a deployed node would do.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Handler = Callable[[Message, Context], Message]


class LocalGrid(Grid):
    """Nodes that answer when they are pulled, in an order that a seed decides.

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
    """

    def __init__(
        self,
        app: Handler,
        node_configs: Sequence[dict[str, Any]],
        run_config: dict[str, Any],
        *,
        seed: int = 0,
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
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Refuse: there is no SuperLink that knows runs."""
        self._refuse()

    @property
    def run(self) -> Run:
        """Refuse: there is no SuperLink that knows runs."""
        self._refuse()

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Refuse: messages are built by their class."""
        self._refuse()

    def send_and_receive(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        """Refuse: strategies push and pull."""
        self._refuse()

    def get_node_ids(self) -> Iterable[int]:
        """Return every node."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until they are pulled, and return a name for each."""
        names = []
        for message in messages:
            name = f"m{len(self._waiting)}-{self._random.integers(1 << 40)}"
            message.metadata.__dict__["_message_id"] = name
            self._waiting[name] = message
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the clients answer, in random order."""
        wanted = [name for name in message_ids if name in self._waiting]
        return [
            self._call(self._waiting.pop(str(name)))
            for name in self._random.permutation(wanted)
        ]

    def _call(self, message: Message) -> Message:
        context = self.contexts[message.metadata.dst_node_id]
        message.content = as_deployed(message.content)
        try:
            reply = self._app(message, context)
        # What Flower makes of a client that fails.
        except Exception as error:
            text = f"{type(error)}:<'{error}'>"
            reply = Message(Error(code=2, reason=text), reply_to=message)
        if reply.has_content():
            reply.content = as_deployed(reply.content)
        return reply

    def _refuse(self) -> NoReturn:
        raise NotImplementedError("A local grid only pushes and pulls messages.")


def as_deployed(content: RecordDict) -> RecordDict:
    """Return the records after a trip through bytes."""
    received = RecordDict()
    for name, record in content.items():
        if isinstance(record, ConfigRecord):
            received[name] = ConfigRecord.inflate(record.deflate())
        else:
            received[name] = record
    return received
