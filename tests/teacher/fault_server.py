"""An HTTP server on this machine that answers by a script and counts what comes in."""

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a test may wait for at most; a fault that hangs ends with the test.
PATIENCE = 30.0


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    number: int  # from 1
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: Any

    @property
    def prompt(self) -> str:
        """The last thing that was asked, in either interface."""
        if "messages" in self.body:
            return self.body["messages"][-1]["content"]
        return self.body["prompt"]


Behaviour = Callable[["Handler", Request], None]


class FaultServer(ThreadingHTTPServer):
    """Answers each request as its behaviour says."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.over = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def asked(self) -> list[Request]:
        """The requests for a completion."""
        return [request for request in self.requests if request.method == "POST"]

    def server_bind(self) -> None:
        """Bind without asking for the name of this machine."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._handle(json.loads(self.rfile.read(length).decode("utf-8")))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _handle(self, body: Any) -> None:
        with self.server.lock:
            number = len(self.server.requests) + 1
            request = Request(number, self.command, self.path, dict(self.headers), body)
            self.server.requests.append(request)
        self.server.behaviour(self, request)

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole reply."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, content: object, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(
            status,
            json.dumps(content).encode(),
            {"Content-Type": "application/json", **named},
        )


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[FaultServer]:
    """Run a server for the time of a test."""
    server = FaultServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def completion(request: Request, text: Any, **choice: Any) -> dict[str, Any]:
    """Return what a well-behaved server says."""
    said = {"text": text}
    if request.path.endswith("/chat/completions"):
        said = {"message": {"role": "assistant", "content": text}}
    return {
        "model": "tiny",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "finish_reason": "stop", **said, **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def answer_to(prompt: str) -> str:
    return f"answer to {prompt}"


def answering(handler: Handler, request: Request) -> None:
    """Answer every prompt."""
    if request.method == "GET":
        handler.send_json({"object": "list", "data": [{"id": "tiny"}]})
        return
    handler.send_json(completion(request, answer_to(request.prompt)))


def status(code: int, error: Mapping[str, Any] | None = None, **headers: str):
    """Refuse, and quote prompt and key, as some servers do."""

    def behave(handler: Handler, request: Request) -> None:
        echo = f"{request.body} {request.headers['authorization']}"
        content = {"message": f"cannot do: {echo}", "type": echo, **(error or {})}
        handler.send_json({"error": content}, status=code, **headers)

    return behave


def body(content: bytes, **headers: str) -> Behaviour:
    """Send these bytes as a reply with status 200."""

    def behave(handler: Handler, request: Request) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send(200, content, named)

    return behave


def hanging(handler: Handler, request: Request) -> None:
    """Say nothing until the test is over."""
    handler.server.over.wait(PATIENCE)
    handler.close_connection = True


def hanging_up(handler: Handler, request: Request) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def trickling(handler: Handler, request: Request) -> None:
    """Send a byte now and then, for as long as anybody listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    with suppress(OSError):
        while not handler.server.over.is_set():
            handler.wfile.write(b" ")
            time.sleep(0.02)
    handler.close_connection = True


def flooding(handler: Handler, request: Request) -> None:
    """Send without end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    block = b'{"choices": "' + b"x" * 2**20
    with suppress(OSError):
        while not handler.server.over.is_set():
            handler.wfile.write(block)
    handler.close_connection = True


def first(faults: int, fault: Behaviour, then: Behaviour = answering) -> Behaviour:
    """Fail some times, then behave."""

    def behave(handler: Handler, request: Request) -> None:
        (fault if request.number <= faults else then)(handler, request)

    return behave
