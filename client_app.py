"""The Flower ClientApp: a message in, one call of `fedcot.node`, a reply out."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedcot.community.member import Member
from fedcot.community.messages import (
    CoalitionTrainRequest,
    StudentsRequest,
    SyntheticRequest,
    TracesRequest,
)
from fedcot.config import RunConfig
from fedcot.node import Node
from fedcot.node_errors import describe, keep_traceback
from fedcot.node_state import Owner, inside_simulation
from fedcot.records import (
    DistillRequest,
    EvaluateRequest,
    IdentifyRequest,
    PerturbRequest,
    Wire,
)
from fedcot.settings import SOCIAL
from fedcot.social.messages import (
    BallotRequest,
    ExamplesRequest,
    InstructionRequest,
    PromptsRequest,
)
from fedcot.social.teacher_client import TeacherClient

Request = TypeVar("Request", bound=Wire)
Side = TypeVar("Side")
logger = logging.getLogger("flwr.fedcot")
app = ClientApp()


@app.query("identify")
def identify(message: Message, context: Context) -> Message:
    """Say who this node is."""
    return _answer(message, context, IdentifyRequest, _identify, _identified)


@app.query("perturb")
def perturb(message: Message, context: Context) -> Message:
    """Release this round's prompts."""
    return _answer(message, context, PerturbRequest, Node.perturb, Node)


@app.train("distill")
def distill(message: Message, context: Context) -> Message:
    """Train the students on the rationales that came back."""
    return _answer(message, context, DistillRequest, Node.distil, Node)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the students."""
    return _answer(message, context, EvaluateRequest, Node.evaluate, Node)


@app.query("traces")
def traces(message: Message, context: Context) -> Message:
    """Offer the traces that their owner lets reach the coalitions that ask."""
    return _answer(message, context, TracesRequest, Member.offer, Member)


@app.train("coalition")
def coalition(message: Message, context: Context) -> Message:
    """Train the adapters of this member's coalitions."""
    return _answer(message, context, CoalitionTrainRequest, Member.train, Member)


@app.train("generator")
def generator(message: Message, context: Context) -> Message:
    """Train a generator and send what it writes."""
    return _answer(message, context, SyntheticRequest, Member.write, Member)


@app.evaluate("students")
def students(message: Message, context: Context) -> Message:
    """Score students of coalitions on this member's questions."""
    return _answer(message, context, StudentsRequest, Member.score, Member)


@app.query("examples")
def examples(message: Message, context: Context) -> Message:
    """Write demonstrations after private ones."""
    return _answer(
        message, context, ExamplesRequest, TeacherClient.teach, TeacherClient
    )


@app.query("instruction")
def instruction(message: Message, context: Context) -> Message:
    """Write an instruction after private demonstrations."""
    return _answer(
        message, context, InstructionRequest, TeacherClient.instruct, TeacherClient
    )


@app.query("ballot")
def ballot(message: Message, context: Context) -> Message:
    """Vote on what all teacher clients wrote."""
    return _answer(message, context, BallotRequest, TeacherClient.vote, TeacherClient)


@app.evaluate("prompts")
def prompts(message: Message, context: Context) -> Message:
    """Score students that are prompts on this client's questions."""
    return _answer(message, context, PromptsRequest, TeacherClient.score, TeacherClient)


def _identified(config: RunConfig, owner: Owner) -> Node | TeacherClient:
    """Return whoever speaks for this node in the run's mode."""
    side = TeacherClient if config.mode == SOCIAL else Node
    return side(config, owner)


def _identify(side: Node | TeacherClient, request: IdentifyRequest) -> Wire:
    return side.identify(request)


def _answer(
    message: Message,
    context: Context,
    request_type: type[Request],
    handle: Callable[[Side, Request], Wire],
    side: Callable[[RunConfig, Owner], Side],
) -> Message:
    """Run one handler; whatever fails, no text of it goes to the server."""
    request: Request | None = None
    try:
        config = RunConfig.from_run_config(context.run_config)
        request = request_type.decode(message.content)
        with _time_limit(config.phase_timeout):
            own = side(config, Owner.from_node_config(context.node_config))
            content = handle(own, request).encode()
        return Message(content, reply_to=message)
    # Everything is caught, because an exception's text may quote a private question
    # and Flower would send it. It is kept on the node.
    except Exception as error:
        code, sentence = describe(error)
        # A simulation's log stays on the machine that holds all the data anyway.
        detail: object = error if inside_simulation() else sentence
        logger.error("%s: %s", message.metadata.message_type, detail)
        with suppress(Exception):
            _keep(error, context, request)
        return Message(Error(code=code, reason=sentence), reply_to=message)


def _keep(error: Exception, context: Context, request: Any) -> None:
    owner = Owner.from_node_config(context.node_config)
    folder = owner.folder(getattr(request, "run_dir", ""))
    keep_traceback(error, Path(folder))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in this thread after some seconds.

    Flower never stops a client that hangs, and its process would be lost for the run.
    Signals reach the main thread only, which is where Ray and SuperNodes call us.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
