"""One request to an OpenAI-compatible endpoint: bounded in time and size, sent once.

Nothing here repeats a request. What came of it is the reply, a `PassingFailure` that
another try may get over, or a `Refusal`, which it cannot. Neither quotes what was
asked, what the server said about it, or the key.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import openai

from fedcot.errors import ConfigError
from fedcot.teacher.failures import PassingFailure, Refusal, malformed
from fedcot.teacher.rate_limit import LONGEST_WAIT, asked_pause

KEY_VARIABLE: Final = "OPENAI_API_KEY"
# Servers without keys take any.
NO_KEY: Final = "none"
LARGEST_REPLY: Final = 16 * 2**20  # bytes
LONGEST_CONNECT: Final = 10.0  # seconds
PASSING_STATUS: Final = frozenset({408, 409, 425, 429})
# Of what a server says about a refusal only these are repeated: all else may echo the
# prompt.
SHOWN_CODES: Final = frozenset(
    {
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "unsupported_parameter",
        "unsupported_value",
    }
)
SHOWN_PARAMETERS: Final = frozenset(
    {"max_completion_tokens", "max_tokens", "model", "seed", "stop", "temperature"}
    | {"top_p"}
)


class EndpointClient:
    """A pool of connections to one endpoint, to be used as a context.

    Parameters
    ----------
    base_url : str
        As `checked_base_url` returns it.
    timeout : float
        Seconds that one request may take until its reply begins, and again until it
        ends.
    connections : int
        At a time, at most.

    Raises
    ------
    ConfigError
        The URL, or the key in the environment, cannot be used.
    """

    def __init__(self, base_url: str, *, timeout: float, connections: int) -> None:
        self._base_url = base_url
        self._timeout = timeout
        http_client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, LONGEST_CONNECT)),
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
            # The key and the prompts go to the host that was named and to no other.
            follow_redirects=False,
            event_hooks={"response": [self._bound]},
        )
        try:
            self._client = openai.OpenAI(
                api_key=_key(),
                base_url=base_url,
                max_retries=0,
                timeout=http_client.timeout,
                http_client=http_client,
            )
        except httpx2.InvalidURL:
            raise ConfigError(
                "`teacher` must be a URL that can be asked, found a host or path that "
                "cannot; pass for example `-c teacher=http://localhost:8000/v1`."
            ) from None

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self._client.close()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a request once and return the JSON of its reply.

        Raises
        ------
        PassingFailure
            Another try may work.
        Refusal
            The same request would fail again.
        """
        return self._sent("POST", path, body)

    def get(self, path: str) -> Any:
        """Ask once and return the JSON of the reply; raises as `post`."""
        return self._sent("GET", path, None)

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        # Only the key of the documented variable, never an administrator's. A reply is
        # small; of a packed one the size would be known too late.
        options: openai.RequestOptions = {
            "security": {"bearer_auth": True},
            "headers": {"Accept-Encoding": "identity"},
        }
        try:
            if method == "GET":
                reply = self._client.get(path, cast_to=httpx2.Response, options=options)
            else:
                reply = self._client.post(
                    path, cast_to=httpx2.Response, body=body, options=options
                )
        except openai.APITimeoutError:
            raise PassingFailure(
                f"no reply within {self._timeout:g} s",
                "see whether the server still works, or raise `teacher-timeout`",
            ) from None
        except openai.APIConnectionError as error:
            raise _unconnected(error) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        return _parsed(reply)

    def _bound(self, response: httpx2.Response) -> None:
        """Make sure that reading a reply ends."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("packed", request=response.request)
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _BoundedStream(response.stream, self._timeout)

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        """Return what a status outside 200 to 299 means."""
        status = error.status_code
        pause = asked_pause(error.response.headers)
        code, parameter = _known(error.code), _named(error.param)
        passes = status in PASSING_STATUS or status >= 500
        if code == "insufficient_quota" or pause > LONGEST_WAIT:
            passes = False
        if passes:
            remedy = "see the log of the server"
            if status == 429:
                remedy = (
                    "lower `teacher-concurrency` or set `teacher-requests-per-minute`"
                )
            return PassingFailure(
                f"status {status}", remedy, status=status, pause=pause
            )
        what = ": ".join(filter(None, (code, parameter)))
        shown = f"status {status} ({what})" if what else f"status {status}"
        line = (
            f"The teacher at {self._base_url} must answer requests, found {shown}; "
            f"{_remedy(status, code, pause)}."
        )
        is_unknown = status == 400 and code == "unsupported_parameter"
        return Refusal(line, status=status, parameter=parameter if is_unknown else "")


class _TooLarge(httpx2.ReadError):
    """A reply is larger than any completion."""


class _BoundedStream(httpx2.SyncByteStream):
    """The blocks of a reply, up to a size and a time.

    The time limit of the library is one for each block, so that a reply which trickles
    in would never end.
    """

    def __init__(self, stream: httpx2.SyncByteStream, seconds: float) -> None:
        self._stream = stream
        self._deadline = time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for block in self._stream:
            size += len(block)
            if size > LARGEST_REPLY:
                raise _TooLarge("too large")
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("too slow")
            yield block

    def close(self) -> None:
        self._stream.close()


def _key() -> str:
    """Return the key; a bad one is refused here, since the library would quote it."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise ConfigError(
            f"`{KEY_VARIABLE}` must be ASCII text without blanks, found other signs in "
            "it; set it again."
        )
    return key or NO_KEY


def _unconnected(error: openai.APIConnectionError) -> PassingFailure:
    cause = error.__cause__
    if isinstance(cause, _TooLarge):
        return PassingFailure(
            f"a reply of more than {LARGEST_REPLY} bytes", "see the log of the server"
        )
    return PassingFailure(
        f"no connection ({type(cause).__name__})",
        "see that the server runs and that `teacher` is its address",
    )


def _parsed(reply: httpx2.Response) -> Any:
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        raise malformed("a reply that is not JSON") from None


def _known(code: str | None) -> str:
    return code if code in SHOWN_CODES else ""


def _named(parameter: object) -> str:
    known = isinstance(parameter, str) and parameter in SHOWN_PARAMETERS
    return str(parameter) if known else ""


def _remedy(status: int, code: str, pause: float) -> str:
    """Return what to check after a refusal that no other try gets over."""
    if status in (401, 403):
        state = "is set" if os.environ.get(KEY_VARIABLE) else "is not set"
        return f"check the key in ${KEY_VARIABLE} (it {state}) and what it may use"
    if code == "insufficient_quota":
        return "the account has no quota left: check its plan, then start again"
    if pause > LONGEST_WAIT:
        return f"the server asks to wait {pause:.0f} s: start again after that"
    if 300 <= status < 400:
        return "it sends requests elsewhere: name the final URL as `teacher`"
    if status == 404:
        return (
            "check `teacher-model`, `teacher-api` and that `teacher` is the base URL "
            "(most end in /v1)"
        )
    if code == "context_length_exceeded":
        return "a prompt does not fit: lower `max-new-tokens` or use another model"
    return (
        "check `teacher-model`, `teacher-api`, `max-new-tokens` and "
        "`teacher-temperature`, and see the log of the server"
    )
