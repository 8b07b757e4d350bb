"""What a request of the OpenAI protocol asks for, or why it is refused.

No message repeats a value of a request, which may be private.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MOST_TOKENS: Final = 4096
DEFAULT_TOKENS: Final = 16
COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
_COMMON: Final = frozenset(
    {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs", "n"}
    | {"stream"}
)
_OWN: Final = {COMPLETIONS: {"prompt", "echo"}, CHAT: {"messages"}}
# What may be there, as long as it asks for nothing.
_FIXED: Final[dict[str, tuple[object, ...]]] = {
    "n": (None, 1),
    "top_p": (None, 1),
    "stream": (None, False),
}


class RequestError(Exception):
    """A request that is refused.

    Attributes
    ----------
    status : int
        Of HTTP.
    code, param : str
        As the protocol has them; may be empty.
    """

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a completion.

    Attributes
    ----------
    prompt : str
    limit : int
        New tokens at most.
    temperature : float
    seed : int
    stop : tuple of str
        None is empty.
    is_echo : bool
        Whether the prompt's own tokens are asked for; then `limit` is 0 or 1.
    is_chat : bool
    has_values : bool
        Whether tokens are to be listed with their log-probabilities.
    """

    prompt: str = field(repr=False)
    limit: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = field(repr=False)
    is_echo: bool
    is_chat: bool
    has_values: bool


def read_request(path: str, body: object, model: str) -> Asked:
    """Return what a request asks for.

    Parameters
    ----------
    path : str
        With ``/v1`` in front.
    body : object
        Parsed JSON, anything at all.
    model : str
        The name of the only model.

    Raises
    ------
    RequestError
        It cannot be answered.
    """
    if path not in _OWN:
        raise unknown_path()
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    _check_known(path, body)
    if body.get("model", model) != model:
        raise RequestError(
            404, "`model` must be as /models lists it", code="model_not_found"
        )
    is_chat, is_echo = path == CHAT, _flag(body, "echo")
    limit = int(_number(body, "max_tokens", DEFAULT_TOKENS, 0, MOST_TOKENS))
    if is_echo and limit > 1:
        raise RequestError(400, "`max_tokens` must be 0 or 1 with `echo`")
    if not is_echo and limit < 1:
        raise RequestError(400, "`max_tokens` must be at least 1")
    return Asked(
        prompt=_chat_text(body) if is_chat else _text(body, "prompt"),
        limit=limit,
        temperature=_number(body, "temperature", 1.0, 0.0, 100.0),
        seed=int(_number(body, "seed", 0, 0, 2**63 - 1)),
        stop=_stops(body),
        is_echo=is_echo,
        is_chat=is_chat,
        # 0 asks for the tokens without any others in their place.
        has_values=body.get("logprobs") not in (None, False)
        or type(body.get("logprobs")) is int,
    )


def unknown_path() -> RequestError:
    """Return the refusal of a path that is none of the protocol's."""
    return RequestError(404, f"the path must be /v1/models, {COMPLETIONS} or {CHAT}")


def _check_known(path: str, body: Mapping[str, Any]) -> None:
    if not body.keys() <= _COMMON | _OWN[path]:
        raise RequestError(
            400, "every parameter must be known", code="unsupported_parameter"
        )
    for name, allowed in _FIXED.items():
        if body.get(name) not in allowed:
            raise RequestError(
                400,
                f"`{name}` must be {allowed[1]}",
                code="unsupported_value",
                param=name,
            )


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not value:
        raise RequestError(400, f"`{name}` must be a text", param=name)
    return value


def _chat_text(body: Mapping[str, Any]) -> str:
    """Return the one turn of a chat: a model without chats goes on with its text."""
    turns = body.get("messages")
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
        raise RequestError(400, "`messages` must hold one turn", param="messages")
    return _text(turns[0], "content")


def _number(
    body: Mapping[str, Any], name: str, default: float, least: float, most: float
) -> float:
    value = default if body.get(name) is None else body[name]
    kinds = (int, float) if isinstance(default, float) else (int,)
    # A truth value is no number, and what is no number compares as false.
    if type(value) not in kinds or not least <= value <= most:
        raise RequestError(
            400, f"`{name}` must be a number from {least} to {most}", param=name
        )
    found: float = value
    return found


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise RequestError(400, f"`{name}` must be true or false", param=name)
    return bool(value)


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    given = body.get("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise RequestError(400, "`stop` must be texts", param="stop")
    return tuple(filter(None, stops))
