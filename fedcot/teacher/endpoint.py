"""A teacher behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, hosted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fedcot.errors import ConfigError, TeacherError
from fedcot.plain_text import valid_unicode
from fedcot.rules import shown
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher.failures import PassingFailure, Refusal
from fedcot.teacher.rate_limit import RateLimit, growing_pause
from fedcot.teacher.replies import listed_models, written_reply
from fedcot.teacher.teacher import Described, Written
from fedcot.teacher_source import checked_base_url

if TYPE_CHECKING:
    from fedcot.teacher.endpoint_client import EndpointClient

# More are refused by the interface; all of them are cut off here.
MOST_STOPS: Final = 4
MOST_SHOWN_MODELS: Final = 10
KEY_STATUS: Final = frozenset({401, 403})

Result = TypeVar("Result")


class EndpointWriter:
    """Asks an endpoint, many prompts at a time; see `fedcot.teacher.teacher.Writer`.

    The key is read from ``$OPENAI_API_KEY`` and goes nowhere but to the endpoint.

    Parameters
    ----------
    base_url : str
        For example ``http://localhost:8000/v1``.
    model : str
        As the endpoint names it; empty: the only one it lists.
    api : str
        ``chat`` or ``completions``: roles and contents, or one text.
    max_new_tokens : int
        A completion is cut there.
    temperature, top_p, seed : float, float, int
        0 is greedy; `top_p` and `seed` matter, and are sent, for sampling only.
    concurrency : int
        Requests at a time.
    retries : int
        How often one request is sent again, at most.
    timeout : float
        Seconds that one request may take until its reply begins, and again until it
        ends.
    requests_per_minute : float
        0: no limit. Retries count.
    pause : callable, optional
        Waits so many seconds; by default also until the writer gives up.

    Raises
    ------
    ConfigError
        The URL is refused.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str = "",
        api: str = "chat",
        max_new_tokens: int = 80,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        concurrency: int = 8,
        retries: int = 8,
        timeout: float = 120.0,
        requests_per_minute: float = 0.0,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.name = checked_base_url(base_url)
        self._model = model
        self._api = api
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._seed = seed
        self._concurrency = concurrency
        self._retries = retries
        self._timeout = timeout
        self._limit = RateLimit(requests_per_minute)
        self._pause = pause
        # Newer hosted models know only the other name.
        self._length_parameter = "max_tokens"
        self._has_written = False

    def describe(self) -> Described:
        """Return endpoint, model and the settings that decide what is written.

        Raises
        ------
        ConfigError
            No model is named, and the endpoint does not list exactly one.
        TeacherError
            It would have to be asked, and does not answer.
        """
        described: dict[str, str | int | float | bool] = {
            "writer": "endpoint",
            "base_url": self.name,
            "model": self._named_model(),
            "api": self._api,
            "max_new_tokens": self._max_new_tokens,
            "temperature": float(self._temperature),
        }
        if self._temperature > 0:
            described |= {"top_p": float(self._top_p), "seed": self._seed}
        return described

    def check(self) -> None:
        """Ask for the list of models, so that a wrong key or address shows early.

        Not every server keeps such a list; only that it answers and takes the key
        counts, unless the list has to name the model.

        Raises
        ------
        ConfigError, TeacherError
            As `describe`, or the key is refused.
        """
        if not self._model:
            self._named_model()
            return

        def ask() -> None:
            try:
                client.get("/models")
            except Refusal as refused:
                if refused.status not in KEY_STATUS:
                    return
                raise
            except PassingFailure as failure:
                # Any reply at all shows that a server is there.
                if failure.status == 0:
                    raise

        with self._opened(1) as client:
            self._persistently(ask, threading.Event())

    def write(
        self,
        prompts: Sequence[TeacherPrompt],
        *,
        stop: Sequence[str] = (),
        on_written: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """Return one completion for each prompt, in order.

        When a request fails for good, no further one goes out; those under way are
        still handed to `on_written`.

        Raises
        ------
        ConfigError
            As `describe`.
        TeacherError
            A request failed for good, or no completion ever held any text.
        """
        if not prompts:
            return []
        self._named_model()
        stopping = threading.Event()
        threads = min(self._concurrency, len(prompts))
        with self._opened(threads) as client, ThreadPoolExecutor(threads) as pool:
            asked = {
                pool.submit(self._ask, client, prompt, stop, stopping): index
                for index, prompt in enumerate(prompts)
            }
            try:
                written = _collected(asked, on_written)
            finally:
                # After an interrupt, too, nothing more goes out.
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
        self._require_text(written)
        return [written[index] for index in range(len(prompts))]

    def _ask(
        self,
        client: EndpointClient,
        prompt: TeacherPrompt,
        stop: Sequence[str],
        stopping: threading.Event,
    ) -> Written:
        try:
            return self._persistently(
                lambda: self._completed(client, prompt, stop), stopping
            )
        except BaseException:
            # Set here, since this thread goes on to the next prompt at once.
            stopping.set()
            raise

    def _persistently(
        self, send: Callable[[], Result], stopping: threading.Event
    ) -> Result:
        """Send until there is a reply, the retries are used up, or all is stopped."""
        failures = 0
        while True:
            if not stopping.is_set():
                self._wait(self._limit.reserve(), stopping)
            if stopping.is_set():
                raise _Stopped
            try:
                return send()
            except Refusal as refused:
                raise TeacherError(str(refused)) from None
            except PassingFailure as failure:
                failures += 1
                if failures > self._retries:
                    raise self._given_up(failure, failures) from None
                if failure.pause:
                    self._limit.hold(failure.pause)
                else:
                    self._wait(growing_pause(failures), stopping)

    def _wait(self, seconds: float, stopping: threading.Event) -> None:
        if seconds <= 0:
            return
        if self._pause is None:
            stopping.wait(seconds)
        else:
            self._pause(seconds)

    def _completed(
        self, client: EndpointClient, prompt: TeacherPrompt, stop: Sequence[str]
    ) -> Written:
        """Send one request once, or twice where the server wants other words."""
        path = "/chat/completions" if self._api == "chat" else "/completions"
        body = self._body(prompt, stop)
        try:
            reply = client.post(path, body)
        except Refusal as refused:
            if self._api != "chat" or refused.parameter != "max_tokens":
                raise
            self._length_parameter = "max_completion_tokens"
            reply = client.post(path, self._body(prompt, stop))
        return written_reply(reply, api=self._api, stop=stop)

    def _body(self, prompt: TeacherPrompt, stop: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "temperature": self._temperature}
        if self._api == "chat":
            body["messages"] = [
                {**message, "content": valid_unicode(message["content"])}
                for message in prompt.messages
            ]
            body[self._length_parameter] = self._max_new_tokens
        else:
            body["prompt"] = valid_unicode(prompt.text)
            body["max_tokens"] = self._max_new_tokens
        if self._temperature > 0:
            body |= {"top_p": self._top_p, "seed": self._seed}
        if stop:
            body["stop"] = list(stop[:MOST_STOPS])
        return body

    def _named_model(self) -> str:
        """Return the model; asks the endpoint for it once if the settings name none."""
        if not self._model:
            with self._opened(1) as client:
                models = self._persistently(
                    lambda: listed_models(client.get("/models")), threading.Event()
                )
            if len(models) != 1:
                listed = ", ".join(shown(name) for name in models[:MOST_SHOWN_MODELS])
                raise ConfigError(
                    f"`teacher-model` must name one of the models at {self.name}, "
                    f"found none named and {len(models)} listed ({listed or 'none'}); "
                    "pass `-c teacher-model=NAME`."
                )
            self._model = models[0]
        return self._model

    def _opened(self, connections: int) -> EndpointClient:
        # Imported where it is needed: `openai` takes half a second to import.
        from fedcot.teacher.endpoint_client import EndpointClient

        return EndpointClient(self.name, timeout=self._timeout, connections=connections)

    def _given_up(self, failure: PassingFailure, tries: int) -> TeacherError:
        times = "1 try" if tries == 1 else f"{tries} tries"
        return TeacherError(
            f"The teacher at {self.name} must answer requests, found "
            f"{failure.reason} after {times} (`teacher-retries` {self._retries}); "
            f"{failure.remedy}."
        )

    def _require_text(self, written: dict[int, Written]) -> None:
        """Refuse to go on with an endpoint that has only ever sent empty texts."""
        texts = [one for one in written.values() if one.text.strip()]
        self._has_written = self._has_written or bool(texts)
        if self._has_written:
            return
        cut = sum(one.is_cut for one in written.values())
        raise TeacherError(
            f"The teacher at {self.name} must write rationales, found {len(written)} "
            f"completions without text, {cut} of them at the length limit; raise "
            "`max-new-tokens` if the model thinks first, or try the other "
            "`teacher-api`."
        )


class _Stopped(Exception):
    """Another request failed for good."""


def _collected(
    asked: dict[Future[Written], int],
    on_written: Callable[[int, Written], None] | None,
) -> dict[int, Written]:
    """Hand on each completion as it comes; raise the first failure after the last."""
    written: dict[int, Written] = {}
    failure: BaseException | None = None
    for future in as_completed(asked):
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            written[asked[future]] = future.result()
            if on_written is not None:
                on_written(asked[future], future.result())
        elif failure is None:
            failure = error
            for other in asked:
                other.cancel()
    if failure is not None:
        raise failure
    return written
