"""Serve a causal model of this machine by the OpenAI protocol, on 127.0.0.1 alone.

What `fedcot.social.endpoint_model` asks for: ``/models``, ``/completions`` and
``/chat/completions`` with log-probabilities, stop texts and a seed, and texts scored by
``echo``. `transformers serve` has neither `echo` nor `logprobs`, llama.cpp no `echo`.
Requests are answered one after the other. Nothing that is asked or written is logged,
and no error quotes it. What is not known or cannot be done is refused.

    python benchmarks/completion_server.py FOLDER --port 8000
"""

from __future__ import annotations

import argparse
import json
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import torch
from completion_requests import Asked, RequestError, read_request, unknown_path
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fedcot.errors import ConfigError, FedcotError
from fedcot.models.sequences import position_limit, text_ids
from fedcot.social.local_model import LocalModel

HOST: Final = "127.0.0.1"
LARGEST_BODY: Final = 2**20  # bytes
LONGEST_WAIT: Final = 60.0  # seconds for a request to come in
_BYTES: Final = {sign: byte for byte, sign in bytes_to_unicode().items()}


class ListingModel(LocalModel):
    """A local model that also tells which tokens it wrote, and how likely each was.

    Raises
    ------
    ConfigError
        The tokenizer is not one of bytes, so that tokens have no bytes of their own.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source, batch_size=1)
        tokenizer = self._loaded.tokenizer
        special = set(tokenizer.all_special_tokens)
        if self._loaded.is_encoder_decoder or not all(
            token in special or set(token) <= _BYTES.keys()
            for token in tokenizer.get_vocab()
        ):
            raise ConfigError(
                "`model` must be a decoder whose tokenizer is BPE over bytes, found "
                f"another at {source!r}; serve it with vLLM."
            )
        self._special = special
        self._listed: list[tuple[list[int], list[float]]] = []

    def write(self, asked: Asked) -> tuple[str, list[dict[str, Any]]]:
        """Return what the model goes on with, and its tokens."""
        (sampled,) = self.sample(
            [asked.prompt],
            temperature=asked.temperature,
            max_new_tokens=asked.limit,
            stop=asked.stop,
            seeds=[asked.seed],
        )
        ((ids, values),) = self._listed
        return sampled.text, self._rows(ids, values)

    def echo(self, prompt: str, limit: int) -> list[dict[str, Any]]:
        """Return the tokens of a text, and the likeliest next one if `limit` is 1."""
        ids = self._read(prompt)
        self._check_length([len(ids)], position_limit(self._loaded.model), "a prompt")
        with torch.inference_mode():
            given = torch.tensor([ids], device=self._loaded.device)
            logits = self._loaded.model(input_ids=given).logits[0]
        shares = torch.log_softmax(logits.double(), dim=-1)
        new = [int(shares[-1].argmax())][:limit]
        following = torch.tensor([*ids[1:], *new], device=shares.device)
        found = shares[: len(following)].gather(-1, following[:, None])[:, 0]
        return self._rows(ids + new, [None, *found.tolist()])

    def count(self, prompt: str) -> int:
        """Return how many tokens a text has."""
        return len(text_ids(self._loaded, prompt))

    def _token_log_probabilities(
        self, encoded: Sequence[tuple[list[int], list[int]]]
    ) -> list[list[float]]:
        found = super()._token_log_probabilities(encoded)
        targets = [target for _, target in encoded]
        self._listed = list(zip(targets, found, strict=True))
        return found

    def _rows(
        self, ids: Sequence[int], values: Sequence[float | None]
    ) -> list[dict[str, Any]]:
        names: list[str] = self._loaded.tokenizer.convert_ids_to_tokens(list(ids))
        rows = []
        for name, value in zip(names, values, strict=True):
            # A special token has no text, in spite of its name.
            spelled = b""
            if name not in self._special:
                spelled = bytes(_BYTES[sign] for sign in name)
            text = spelled.decode("utf-8", "replace")
            rows.append({"token": text, "logprob": value, "bytes": list(spelled)})
        return rows


class CompletionServer(ThreadingHTTPServer):
    """Answers with one model.

    Parameters
    ----------
    model : ListingModel
    name : str
        As clients name the model.
    port : int
        0: one that is free.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, model: ListingModel, name: str, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.model = model
        self.name = name
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://{HOST}:{self.server_port}/v1"

    def server_bind(self) -> None:
        """Bind without asking a name server who this machine is."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = HOST
        self.server_port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what kind of error it was: its traceback may quote a prompt."""
        kind = sys.exc_info()[0]
        print(f"request failed: {kind.__name__ if kind else ''}", file=sys.stderr)


@contextmanager
def serving(folder: str, *, name: str = "", port: int = 0) -> Iterator[str]:
    """Serve the model in a folder; yield the base URL.

    Raises
    ------
    ConfigError
        There is no such model, or it cannot be served.
    """
    model = ListingModel(folder)
    with CompletionServer(model, name or Path(folder).name, port) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: CompletionServer
    protocol_version = "HTTP/1.1"
    timeout = LONGEST_WAIT

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._refuse(unknown_path())
            return
        row = {"id": self.server.name, "object": "model", "owned_by": "fedcot"}
        self._send(200, {"object": "list", "data": [row]})

    def do_POST(self) -> None:
        try:
            asked = read_request(self.path, self._body(), self.server.name)
            reply = _completed(self.server, asked)
        except RequestError as refused:
            self._refuse(refused)
        except ConfigError:
            # A prompt that is too long, or leaves no token; the text says no more.
            text = "the prompt must hold a token and leave room for the answer"
            self._refuse(RequestError(400, text, code="context_length_exceeded"))
        except FedcotError as error:
            self._refuse(RequestError(503, f"no answer: {type(error).__name__}"))
        else:
            self._send(200, reply)

    def _body(self) -> object:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= LARGEST_BODY):
            # What follows cannot be told from the next request.
            self.close_connection = True
            raise RequestError(413, f"the body must have at most {LARGEST_BODY} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise RequestError(400, "the body must be JSON") from None

    def _refuse(self, refused: RequestError) -> None:
        error = {
            "message": str(refused),
            "type": "invalid_request_error",
            "param": refused.param or None,
            "code": refused.code or None,
        }
        self._send(refused.status, {"error": error})

    def _send(self, status: int, reply: Mapping[str, Any]) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _completed(server: CompletionServer, asked: Asked) -> dict[str, Any]:
    """Return the reply to a request."""
    model = server.model
    with server.lock:
        read = model.count(asked.prompt)
        if asked.is_echo:
            rows = model.echo(asked.prompt, asked.limit)
            text = asked.prompt + "".join(row["token"] for row in rows[read:])
        else:
            text, rows = model.write(asked)
    written = len(rows) - read if asked.is_echo else len(rows)
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "length" if written == asked.limit else "stop",
        "logprobs": _listed(rows, asked.is_chat) if asked.has_values else None,
    }
    if asked.is_chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    return {
        "object": "chat.completion" if asked.is_chat else "text_completion",
        "model": server.name,
        "choices": [choice],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
    }


def _listed(rows: Sequence[dict[str, Any]], is_chat: bool) -> dict[str, Any]:
    """Return tokens as both interfaces have them; completions list their bytes too."""
    listed: dict[str, Any] = {"content": list(rows)}
    if not is_chat:
        listed["tokens"] = [row["token"] for row in rows]
        listed["token_logprobs"] = [row["logprob"] for row in rows]
    return listed


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of a model and its tokenizer")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with serving(given.folder, port=given.port) as url:
            print(f"{url} until interrupted", flush=True)
            threading.Event().wait()
    except ConfigError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
