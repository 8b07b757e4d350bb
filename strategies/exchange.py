"""Messages out in waves, replies in as they come, failures as one line each.

Flower's `send_and_receive` waits for the slowest client; here a reply is handed over
when it arrives, so that its client can go on.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedcot.errors import CodeMismatchError, FedcotError
from fedcot.node_errors import CODE_MISMATCH
from fedcot.node_state import inside_simulation
from fedcot.records import Wire, count_bytes

# Flower's simulation scans every stored message for every node; more than this at once
# slows the process that hosts the teacher.
WAVE: Final = 50
SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
# What Flower reports for a simulated client whose process died.
UNKNOWN_ERROR: Final = 0
DEAD_ACTOR: Final = re.compile(r"ActorDied|ActorUnavailable|OutOfMemory|WorkerCrashed")
BURST: Final = 3
SIMULATION_WAIT: Final = 20.0  # seconds

logger = logging.getLogger("flwr.fedcot")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with what it cost."""

    node_id: int
    message_type: str
    content: RecordDict
    uplink_bytes: int
    downlink_bytes: int
    seconds: float


@dataclass(slots=True)
class _Outstanding:
    node_id: int
    message_type: str
    downlink_bytes: int
    sent_at: float


class Exchange:
    """Talks to the nodes of one run.

    Parameters
    ----------
    grid : Grid
        Flower's.
    timeout : float
        Seconds that one message may take until its reply.
    on_failure : callable
        Called with node id, message type and reason for every message that failed.
    """

    def __init__(
        self, grid: Grid, *, timeout: float, on_failure: Callable[[int, str, str], None]
    ) -> None:
        self.grid = grid
        self.timeout = timeout
        self._on_failure = on_failure
        self._queue: deque[tuple[int, str, Wire, str]] = deque()
        self._outstanding: dict[str, _Outstanding] = {}
        self._pause = SHORTEST_PAUSE
        self._deaths = 0
        self.uplink_bytes = 0
        self.downlink_bytes = 0

    def send(
        self, node_id: int, message_type: str, request: Wire, *, group_id: str
    ) -> None:
        """Queue one request; it leaves when the wave has room."""
        self._queue.append((node_id, message_type, request, group_id))
        self._fill()

    def waits_for(self, *message_types: str) -> bool:
        """Whether a request of one of these types has no reply yet."""
        queued = any(kind in message_types for _, kind, _, _ in self._queue)
        return queued or any(
            item.message_type in message_types for item in self._outstanding.values()
        )

    def poll(self) -> list[Answer]:
        """Return what has arrived, and pause a little if nothing has.

        Raises
        ------
        CodeMismatchError
            A client runs other code or has other artefacts.
        FedcotError
            Simulated clients died; Flower does not start them again.
        """
        self._fill()
        replies = list(self.grid.pull_messages(list(self._outstanding)))
        answers = [answer for r in replies if (answer := self._take(r)) is not None]
        self._expire()
        if replies:
            self._pause = SHORTEST_PAUSE
        elif self._outstanding:
            time.sleep(self._pause)
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return answers

    def _fill(self) -> None:
        while self._queue and len(self._outstanding) < WAVE:
            node_id, message_type, request, group_id = self._queue.popleft()
            message = Message(
                request.encode(),
                node_id,
                message_type,
                group_id=group_id,
                # The last reply must not find its request expired.
                ttl=2 * self.timeout,
            )
            size = count_bytes(message)
            # One at a time, because Flower leaves out the ids of those it refuses.
            ids = [i for i in self.grid.push_messages([message]) if i]
            if not ids:
                self._on_failure(node_id, message_type, "the message was not accepted")
                continue
            self.downlink_bytes += size
            self._outstanding[ids[0]] = _Outstanding(
                node_id, message_type, size, time.monotonic()
            )

    def _take(self, reply: Message) -> Answer | None:
        request = self._outstanding.pop(reply.metadata.reply_to_message_id, None)
        if request is None:
            return None
        size = count_bytes(reply)
        self.uplink_bytes += size
        if reply.has_error():
            self._fail(request, reply.error.code, reply.error.reason or "")
            return None
        self._deaths = 0
        return Answer(
            node_id=request.node_id,
            message_type=request.message_type,
            content=reply.content,
            uplink_bytes=size,
            downlink_bytes=request.downlink_bytes,
            seconds=time.monotonic() - request.sent_at,
        )

    def _fail(self, request: _Outstanding, code: int, reason: str) -> None:
        if code == CODE_MISMATCH:
            raise CodeMismatchError(reason)
        died = DEAD_ACTOR.search(reason) is not None
        self._deaths += died or code == UNKNOWN_ERROR
        if died or self._deaths >= BURST:
            raise FedcotError(
                "a simulated client's process died, mostly for lack of memory, and "
                "Flower does not start it again; run fewer clients at once or use a "
                "smaller `batch-size`"
            )
        # Own codes carry a fixed sentence. Flower's may carry a whole traceback.
        shown = reason if code >= CODE_MISMATCH else _short(code, reason)
        self._on_failure(request.node_id, request.message_type, shown)

    def _expire(self) -> None:
        now = time.monotonic()
        for message_id, request in list(self._outstanding.items()):
            if now - request.sent_at > self.timeout:
                del self._outstanding[message_id]
                self._on_failure(
                    request.node_id,
                    request.message_type,
                    f"no reply within `phase-timeout` ({self.timeout:g} s)",
                )


def wait_for_nodes(
    grid: Grid,
    expected: int,
    *,
    timeout: float,
    settle: float = 1.0,
    on_change: Callable[[int], None] = lambda connected: None,
) -> list[int]:
    """Return the ids of the connected nodes, once enough are there.

    Parameters
    ----------
    expected : int
        How many; 0 takes those that are connected once their number has not changed
        for `settle` seconds. (A simulation starts the server before its nodes.)
    timeout : float
        Seconds to wait at most.
    on_change : callable
        Called with the number of connected nodes: at once, and when it changes.

    Raises
    ------
    FedcotError
        Too few nodes connected in time.
    """
    started = changed = time.monotonic()
    found: list[int] = []
    on_change(0)
    while True:
        nodes = sorted(grid.get_node_ids())
        now = time.monotonic()
        if nodes != found:
            found, changed = nodes, now
            logger.info("├── Nodes connected: %d of %s", len(found), expected or "any")
            on_change(len(found))
        if expected and len(found) >= expected:
            return found
        if not expected and found and now - changed >= settle:
            return found
        # A simulation registers all its nodes at once; more will not come.
        limit = min(timeout, SIMULATION_WAIT) if inside_simulation() else timeout
        if now - started > limit:
            raise FedcotError(
                f"`num-partitions` is {expected or 'not set'}, but {len(found)} nodes "
                f"connected within {limit:g} s; start more nodes (`fedcot run "
                "--num-supernodes N`) or pass `-c num-partitions=0`"
            )
        time.sleep(SHORTEST_PAUSE)


def _short(code: int, reason: str) -> str:
    """Return the class of an exception that Flower caught, without its text."""
    found = re.search(r"<class '([\w.]+)'>", reason)
    name = found.group(1).rsplit(".", 1)[-1] if found else "no details"
    return f"Flower reported error {code} ({name}); see the client's log"
