"""A client's model behind an OpenAI-compatible endpoint: vLLM, llama.cpp, hosted.

What an endpoint reads leaves the client: its owner has to trust it like the client.

Log-probabilities are those that the server states. vLLM (``--logprobs-mode
raw_logprobs``, its default) and llama.cpp state those of the model itself, whatever the
temperature. A whole text is scored by ``echo`` on ``/completions``, as
lm-evaluation-harness does: vLLM offers it, llama.cpp's server refuses it or leaves it
out (https://github.com/ggml-org/llama.cpp/issues/27174), most hosted ones too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fedcot.errors import ConfigError
from fedcot.plain_text import normalize, valid_unicode
from fedcot.social.client_model import (
    EndpointSettings,
    Sampled,
    check_pairs,
    check_sampling,
)
from fedcot.social.endpoint_tokens import (
    Replied,
    as_replied,
    echoed_tokens,
    replied_tokens,
    sampled_text,
)
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.endpoint import KEY_STATUS, MOST_STOPS, EndpointWriter
from fedcot.teacher.endpoint_client import EndpointClient
from fedcot.teacher.failures import PassingFailure, Refusal
from fedcot.teacher.teacher import Described, Written

# Public: it tells whether a server scores texts before it is sent a private one.
PROBE: Final = "The quick brown fox jumps over the lazy dog."
# Every server takes seeds of this size.
_SEEDS: Final = 2**31
# Servers that do not know a parameter say so with one of these.
_UNKNOWN_STATUS: Final = frozenset({400, 404, 405, 422, 500, 501})


@dataclass(frozen=True, slots=True)
class _Asked(TeacherPrompt):
    """One request: sampling, or scoring where `is_echo`."""

    user: str = field(repr=False)
    temperature: float = 0.0
    max_new_tokens: int = 1
    seed: int = 0
    is_echo: bool = False


class EndpointModel:
    """See `fedcot.social.client_model.ClientModel`.

    The key is read from ``$OPENAI_API_KEY``. Requests that fail are repeated as those
    of a teacher are; no error quotes a text. Prompts are sent as the one turn of a
    user, or as they are with the API ``completions``; a server that is asked the same
    twice may still answer otherwise, in spite of a seed.

    Parameters
    ----------
    base_url : str
        For example ``http://localhost:8000/v1``.
    settings : EndpointSettings
    pause : callable, optional
        Waits so many seconds before another try.

    Raises
    ------
    ConfigError
        The URL is refused.
    """

    def __init__(
        self,
        base_url: str,
        settings: EndpointSettings,
        *,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._requests = _Requests(
            base_url,
            model=settings.model,
            api=settings.api,
            concurrency=settings.concurrency,
            retries=settings.retries,
            timeout=settings.timeout,
            requests_per_minute=settings.requests_per_minute,
            pause=pause,
        )
        self.name = self._requests.name
        self._api = settings.api
        self._can_score: bool | None = None  # not known yet

    def describe(self) -> Described:
        """Return endpoint, model and API.

        Raises
        ------
        ConfigError
            No model is named, and the endpoint does not list exactly one.
        TeacherError
            It would have to be asked, and does not answer.
        """
        described = self._requests.describe()
        return {
            "client_model": "endpoint",
            "base_url": self.name,
            "model": described["model"],
            "api": self._api,
        }

    def fits(self, prompt: str, *, max_new_tokens: int) -> bool:
        """Whether `sample` takes a prompt: only the server could tell."""
        return True

    def sample(
        self,
        prompts: Sequence[str],
        *,
        temperature: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Sampled]:
        """Return one continuation for each prompt; see `ClientModel.sample`.

        The end token never counts: not every server lists it. The server gets the
        first `MOST_STOPS` stop strings; texts are cut at all of them here.

        Raises
        ------
        ConfigError
            An argument is out of range.
        TeacherError
            A request failed for good, or the server only ever wrote empty texts.
        """
        check_sampling(
            prompts,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seeds=seeds,
        )
        asked = [
            _Asked("", (), prompt, temperature, max_new_tokens, seed % _SEEDS)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        stops = [word for word in stop if word]
        return [sampled_text(one) for one in self._requests.write(asked, stop=stops)]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the mean log-probability of each continuation, in nats per token.

        The continuation's tokens are those of the whole text that the prompt alone
        does not begin with: one that the tokenizer merges over the boundary counts.

        Raises
        ------
        ConfigError
            A text is empty, or the server does not score texts.
        TeacherError
            A request failed for good.
        """
        check_pairs(pairs)
        if not pairs:
            return []
        if self._can_score is None:
            self._can_score = self._probe()
        if not self._can_score:
            raise self._no_scores()
        prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
        texts = [*prompts, *(prompt + text for prompt, text in pairs)]
        asked = [_Asked("", (), text, is_echo=True) for text in texts]
        echoed = [as_replied(one) for one in self._requests.write(asked)]
        alone = dict(zip(prompts, echoed[: len(prompts)], strict=True))
        wholes = echoed[len(prompts) :]
        return [
            self._continued(alone[prompt], whole)
            for (prompt, _), whole in zip(pairs, wholes, strict=True)
        ]

    def _continued(self, alone: Replied, whole: Replied) -> float:
        shared = 0
        for one, other in zip(alone.tokens, whole.tokens, strict=False):
            if one != other:
                break
            shared += 1
        values = whole.log_probabilities[shared:]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            raise self._no_scores()
        return sum(known) / len(known)

    def _probe(self) -> bool:
        """Whether the server says how likely each token of a public text is."""
        with self._requests.opened() as client:
            return self._requests.persistently(
                lambda: self._requests.can_echo(client), threading.Event()
            )

    def _no_scores(self) -> ConfigError:
        return ConfigError(
            "`aggregators` must be `random` with a model that cannot tell how likely a "
            f"text is, found that {self.name} does not state the log-probabilities of "
            "a prompt (/completions with `echo`), which voting needs; pass "
            "`-c aggregators=random`, or use a local model or vLLM."
        )


class _Requests(EndpointWriter):
    """Sends requests that each have a seed, and keeps what tokens a reply lists."""

    # Until a server refuses to state them.
    _states_log_probabilities = True

    def opened(self) -> EndpointClient:
        """Return one connection."""
        self._named_model()
        return self._opened(1)

    def persistently(self, send: Callable[[], bool], stopping: threading.Event) -> bool:
        """Send until there is a reply; see `EndpointWriter`."""
        return self._persistently(send, stopping)

    def can_echo(self, client: EndpointClient) -> bool:
        """Send the public text once; whether every token of it has a score."""
        try:
            reply = client.post("/completions", self._echo_body(PROBE))
        except (Refusal, PassingFailure) as failure:
            if failure.status in KEY_STATUS or failure.status not in _UNKNOWN_STATUS:
                raise
            return False
        try:
            echoed = echoed_tokens(reply)
        except PassingFailure:
            return False
        # A token may stand there with the mark of its tokenizer for a blank.
        spelled = normalize("".join(echoed.tokens))
        return spelled.endswith(normalize(PROBE)) and len(echoed.tokens) > 1

    def _completed(
        self, client: EndpointClient, prompt: TeacherPrompt, stop: Sequence[str]
    ) -> Written:
        asked = _as_asked(prompt)
        if asked.is_echo:
            return echoed_tokens(
                client.post("/completions", self._echo_body(asked.user))
            )
        states = self._states_log_probabilities
        try:
            return self._sent(client, asked, stop, states)
        except Refusal as refused:
            if not states or refused.status not in _UNKNOWN_STATUS:
                raise
        written = self._sent(client, asked, stop, False)
        # Only now is it clear that nothing else was wrong.
        self._states_log_probabilities = False
        return written

    def _sent(
        self, client: EndpointClient, asked: _Asked, stop: Sequence[str], states: bool
    ) -> Replied:
        path = "/chat/completions" if self._api == "chat" else "/completions"
        extra: dict[str, Any] = {}
        if states:
            extra["logprobs"] = True if self._api == "chat" else 1
        try:
            reply = client.post(path, self._body(asked, stop) | extra)
        except Refusal as refused:
            if self._api != "chat" or refused.parameter != "max_tokens":
                raise
            self._length_parameter = "max_completion_tokens"
            reply = client.post(path, self._body(asked, stop) | extra)
        return replied_tokens(reply, self._api, stop)

    def _body(self, prompt: TeacherPrompt, stop: Sequence[str]) -> dict[str, Any]:
        asked = _as_asked(prompt)
        body: dict[str, Any] = {"model": self._model, "temperature": asked.temperature}
        text = valid_unicode(asked.user)
        if self._api == "chat":
            body["messages"] = [{"role": "user", "content": text}]
            body[self._length_parameter] = asked.max_new_tokens
        else:
            body |= {"prompt": text, "max_tokens": asked.max_new_tokens}
        if asked.temperature > 0:
            body |= {"top_p": 1.0, "seed": asked.seed}
        if stop:
            body["stop"] = list(stop[:MOST_STOPS])
        return body

    def _echo_body(self, text: str) -> dict[str, Any]:
        # Not every server takes 0 new tokens; the one that is written is left out.
        return {
            "model": self._model,
            "prompt": valid_unicode(text),
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }


def _as_asked(prompt: TeacherPrompt) -> _Asked:
    if not isinstance(prompt, _Asked):
        raise TypeError("requests must be made by `EndpointModel`.")
    return prompt
