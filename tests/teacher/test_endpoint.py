"""The endpoint writer against a server that misbehaves in every way we could name."""

import email.utils
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.errors import ConfigError, TeacherError
from fedcot.tasks.task import TeacherPrompt
from fedcot.teacher import endpoint_client
from fedcot.teacher.endpoint import EndpointWriter
from fedcot.teacher.failures import PassingFailure
from fedcot.teacher.rate_limit import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    RateLimit,
    asked_pause,
)
from fedcot.teacher.replies import listed_models, written_reply
from fedcot.teacher.teacher import Written
from fedcot.teacher_source import checked_base_url, is_endpoint
from tests.teacher.fault_server import (
    PATIENCE,
    FaultServer,
    Handler,
    Request,
    answer_to,
    answering,
    body,
    completion,
    first,
    flooding,
    hanging,
    hanging_up,
    serving,
    status,
    trickling,
)

KEY = "sk-secret-key"
SECRET = "what-only-one-patient-asks"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-key")


def prompts(*users: str) -> list[TeacherPrompt]:
    return [TeacherPrompt("", (), user) for user in users]


def numbered(total: int) -> list[TeacherPrompt]:
    return prompts(*(f"question {index}" for index in range(total)))


def writer(server: FaultServer | str, **settings: Any) -> EndpointWriter:
    url = server if isinstance(server, str) else server.url
    settings = {"model": "tiny", "pause": lambda seconds: None, **settings}
    return EndpointWriter(url, **settings)


def failure_of(work: Callable[[], object]) -> str:
    """Return the one line of the error that ends a run with exit code 3."""
    with pytest.raises(TeacherError) as caught:
        work()
    line = str(caught.value)
    assert caught.value.exit_code == 3
    assert caught.value.__cause__ is None
    assert "\n" not in line
    for private in (SECRET, KEY, "sk-admin-key", "cannot do"):
        assert private not in line
    return line


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


# What is sent


def test_a_chat_request_holds_roles_limit_and_temperature_and_nothing_else() -> None:
    prompt = TeacherPrompt("Think.", (("one?", "1"),), "two?")
    with serving(answering) as server:
        (written,) = writer(server, max_new_tokens=33).write([prompt])
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "one?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "two?"},
        ],
        "max_tokens": 33,
        "temperature": 0.0,
    }
    assert written == Written("answer to two?", 7, 3, False, "tiny fp_1")


def test_a_completion_request_holds_one_text_and_sampling_its_seed() -> None:
    prompt = TeacherPrompt("Think.", (("one?", "1"),), "two?")
    stops = ["v", "x", "y", "z", " to"]
    with serving(answering) as server:
        asked = writer(server, api="completions", temperature=0.5, top_p=0.9, seed=11)
        (written,) = asked.write([prompt], stop=stops)
    (request,) = server.requests
    assert request.path == "/v1/completions"
    assert request.body == {
        "model": "tiny",
        "prompt": "Think.\n\none? 1\n\ntwo?",
        "max_tokens": 80,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 11,
        "stop": stops[:4],
    }
    # The interface takes no more than four; all five hold.
    assert written.text == "answer"


def test_without_a_key_no_other_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(answering) as server:
        writer(server).write(numbered(1))
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer none"


@pytest.mark.parametrize("key", ["sk-two words", "sk-line\nbreak", "sk-ключ"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_quoted(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(answering) as server, pytest.raises(ConfigError) as caught:
        writer(server).write(numbered(1))
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "sk-" not in str(caught.value)
    assert not server.requests


def test_not_even_the_most_talkative_log_holds_key_prompt_or_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(first(1, status(503))) as server:
        writer(server).write(prompts(SECRET))
    assert len(server.requests) == 2
    assert "POST" in caplog.text
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


def test_any_text_can_be_asked_and_answered() -> None:
    odd = [
        "emoji 🧮",
        "right to left אבג",
        "nul \0",
        "lone \ud800 surrogate",
        "x" * 10**5,
    ]

    def echo(handler: Handler, request: Request) -> None:
        # JSON may carry what is no valid Unicode.
        handler.send_json(completion(request, request.prompt + "\udfff"))

    with serving(echo) as server:
        written = writer(server).write(prompts(*odd))
    expected = [text.replace("\ud800", "?") + "?" for text in odd]
    assert [one.text for one in written] == expected


def test_answers_come_in_order_and_are_handed_on_by_the_calling_thread() -> None:
    handed: dict[int, Written] = {}
    threads = set()

    def late_first(handler: Handler, request: Request) -> None:
        time.sleep(0.1 if request.prompt == "question 0" else 0.0)
        answering(handler, request)

    def keep(index: int, one: Written) -> None:
        assert index not in handed
        handed[index] = one
        threads.add(threading.current_thread())

    with serving(late_first) as server:
        written = writer(server, concurrency=3).write(numbered(20), on_written=keep)
    assert [one.text for one in written] == [
        answer_to(f"question {index}") for index in range(20)
    ]
    assert [handed[index] for index in range(20)] == written
    assert list(handed) != sorted(handed)
    assert threads == {threading.current_thread()}
    assert len(server.requests) == 20


def test_as_many_requests_as_allowed_are_under_way_and_no_more() -> None:
    together = threading.Barrier(4)
    under_way, most, lock = 0, 0, threading.Lock()

    def meet(handler: Handler, request: Request) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(PATIENCE)
        with lock:
            under_way -= 1
        answering(handler, request)

    with serving(meet) as server:
        writer(server, concurrency=4).write(numbered(12))
    assert most == 4


# What fails for good: asked once


@pytest.mark.parametrize(
    ("code", "error", "named"),
    [
        (400, {}, "teacher-model"),
        (400, {"code": "context_length_exceeded"}, "max-new-tokens"),
        (400, {"code": "unsupported_value", "param": "temperature"}, "temperature"),
        (400, {"code": SECRET, "param": SECRET}, "teacher-api"),
        (401, {"code": "invalid_api_key"}, "OPENAI_API_KEY"),
        (403, {}, "OPENAI_API_KEY"),
        (404, {"code": "model_not_found"}, "teacher-model"),
        (413, {}, "max-new-tokens"),
        (422, {}, "teacher-api"),
        (429, {"code": "insufficient_quota"}, "quota"),
    ],
)
def test_a_refusal_is_not_asked_again(code: int, error: dict, named: str) -> None:
    with serving(status(code, error)) as server:
        asked = writer(server, concurrency=1)
        line = failure_of(lambda: asked.write(prompts(SECRET, "two", "three")))
    assert len(server.requests) == 1
    assert named in line
    assert f"status {code}" in line
    assert server.url in line


def test_a_redirect_is_not_followed() -> None:
    with (
        serving(answering) as elsewhere,
        serving(status(307, Location=f"{elsewhere.url}/chat/completions")) as server,
    ):
        asked = writer(server, concurrency=1)
        line = failure_of(lambda: asked.write(prompts(SECRET)))
    assert len(server.requests) == 1
    assert not elsewhere.requests
    assert "final URL" in line


def test_a_pause_of_an_hour_is_not_waited_for() -> None:
    with serving(status(429, Retry_After="3600")) as server:
        asked = writer(server, concurrency=1)
        line = failure_of(lambda: asked.write(prompts(SECRET)))
    assert len(server.requests) == 1
    assert "3600 s" in line


def test_a_hosted_model_may_want_the_limit_by_its_other_name() -> None:
    def newer(handler: Handler, request: Request) -> None:
        if "max_tokens" in request.body:
            refuse = {"code": "unsupported_parameter", "param": "max_tokens"}
            status(400, refuse)(handler, request)
        else:
            answering(handler, request)

    with serving(newer) as server:
        asked = writer(server, concurrency=1, retries=0)
        assert len(asked.write(numbered(3))) == 3
    limits = [request.body.get("max_completion_tokens") for request in server.asked]
    assert limits == [None, 80, 80, 80]
    with serving(newer) as server:
        asked = writer(server, api="completions", concurrency=1)
        failure_of(lambda: asked.write(numbered(3)))
    assert len(server.requests) == 1


# What may pass: asked again, a bounded number of times


def packed(handler: Handler, request: Request) -> None:
    """A reply that was asked for unpacked; unpacked it would fill the memory."""
    content = gzip.compress(json.dumps(completion(request, "x" * 10**6)).encode())
    handler.send(200, content, {"Content-Encoding": "gzip"})


PASSING = {
    "429": (status(429), "teacher-requests-per-minute"),
    "429 with a pause": (status(429, Retry_After="2"), "status 429"),
    "408": (status(408), "status 408"),
    "500": (status(500), "log of the server"),
    "503": (status(503), "status 503"),
    "malformed": (body(b'{"choices": [{"te'), "not JSON"),
    "not UTF-8": (body(b"\xff\xfe\xfa"), "not JSON"),
    "nested": (body(b"[" * 10**5), "not JSON"),
    "a page": (body(b"<html>welcome</html>", Content_Type="text/html"), "/v1"),
    "nothing": (body(b""), "not JSON"),
    "no choices": (body(b'{"error": "busy"}'), "without choices"),
    "empty choices": (body(b'{"choices": []}'), "without choices"),
    "no text": (body(b'{"choices": [{}]}'), "without a text"),
    "a list": (body(b"[1, 2]"), "without choices"),
    "hanging": (hanging, "teacher-timeout"),
    "trickling": (trickling, "teacher-timeout"),
    "flooding": (flooding, "bytes"),
    "packed": (packed, "DecodingError"),
    "hanging up": (hanging_up, "no connection"),
}
SLOW = ("hanging", "trickling")


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_is_asked_again_until_the_retries_are_used_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_client, "LARGEST_REPLY", 2**20)
    fault, named = PASSING[name]
    pauses: list[float] = []
    started = time.monotonic()
    with serving(fault) as server:
        asked = writer(
            server,
            concurrency=1,
            retries=2,
            timeout=0.3 if name in SLOW else 10.0,
            pause=pauses.append,
        )
        line = failure_of(lambda: asked.write(prompts(SECRET, "two", "three")))
    # Each of the three tries may take its time twice: to begin and to end.
    assert time.monotonic() - started < PATIENCE / 3
    assert [request.prompt for request in server.requests] == [SECRET] * 3
    assert len(pauses) == 2
    assert named in line
    assert "3 tries (`teacher-retries` 2)" in line


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_forgotten(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_client, "LARGEST_REPLY", 2**20)
    with serving(first(2, PASSING[name][0])) as server:
        # Answers must be in time on a busy machine, too.
        timeout = 1.0 if name in SLOW else 10.0
        asked = writer(server, concurrency=2, retries=2, timeout=timeout)
        written = asked.write(numbered(4))
    assert [one.text for one in written] == [
        answer_to(f"question {index}") for index in range(4)
    ]
    assert len(server.requests) == 6


def test_a_server_that_is_not_there_is_called_a_bounded_number_of_times() -> None:
    pauses: list[float] = []
    asked = writer(
        f"http://127.0.0.1:{free_port()}/v1",
        concurrency=1,
        retries=6,
        pause=pauses.append,
    )
    line = failure_of(lambda: asked.write(prompts(SECRET)))
    assert "no connection (ConnectError) after 7 tries" in line
    assert len(pauses) == 6
    for index, seconds in enumerate(pauses):
        longest = min(FIRST_PAUSE * 2**index, LONGEST_PAUSE)
        assert 0.75 * longest <= seconds <= longest


def test_a_pause_that_the_server_asks_for_holds_for_all_threads() -> None:
    pauses: list[float] = []
    with serving(first(1, status(429, Retry_After="7"))) as server:
        asked = writer(server, concurrency=1, pause=pauses.append)
        asked.write(numbered(3))
    assert len(server.requests) == 4
    # The clock goes on, but nobody sleeps: every later request has some of it left.
    assert len(pauses) == 3
    assert all(4 < seconds <= 7 for seconds in pauses)


def test_a_storm_that_never_ends_is_bounded_for_all_threads_together() -> None:
    with serving(status(429, Retry_After="1")) as server:
        asked = writer(server, concurrency=4, retries=3)
        line = failure_of(lambda: asked.write(numbered(50)))
    assert 4 <= len(server.requests) <= 4 * 4
    assert "429" in line


# What was answered before a failure


def test_what_is_under_way_when_a_request_fails_is_handed_on() -> None:
    slow_began, refused = threading.Event(), threading.Event()

    def one_bad(handler: Handler, request: Request) -> None:
        if request.prompt == "slow":
            slow_began.set()
            assert refused.wait(PATIENCE)
            # The refusal has been read by then.
            time.sleep(0.3)
            answering(handler, request)
        elif request.prompt == "bad":
            assert slow_began.wait(PATIENCE)
            status(400)(handler, request)
            refused.set()
        else:
            answering(handler, request)

    handed: list[int] = []
    asked = prompts("good", "slow", "bad", *(f"later {i}" for i in range(20)))
    with serving(one_bad) as server:
        line = failure_of(
            lambda: writer(server, concurrency=2).write(
                asked, on_written=lambda index, one: handed.append(index)
            )
        )
    assert "status 400" in line
    assert handed == [0, 1]
    # Two are under way at once, so either may arrive first.
    arrived = [request.prompt for request in server.requests]
    assert sorted(arrived) == ["bad", "good", "slow"]


def test_nobody_waits_for_a_retry_once_a_request_has_failed_for_good() -> None:
    bad_came, storm_told = threading.Event(), threading.Event()

    def behave(handler: Handler, request: Request) -> None:
        if request.prompt == "storm":
            assert bad_came.wait(PATIENCE)
            status(503, Retry_After="200")(handler, request)
            storm_told.set()
        else:
            bad_came.set()
            assert storm_told.wait(PATIENCE)
            # The pause has begun by then.
            time.sleep(0.3)
            status(401)(handler, request)

    started = time.monotonic()
    with serving(behave) as server:
        asked = writer(server, concurrency=2, pause=None)
        line = failure_of(lambda: asked.write(prompts("storm", "bad")))
    assert "status 401" in line
    assert time.monotonic() - started < PATIENCE
    assert len(server.requests) == 2


def test_when_nobody_takes_the_answers_nothing_more_is_asked() -> None:
    def full(index: int, one: Written) -> None:
        raise TeacherError("the disk is full")

    with serving(answering) as server:
        line = failure_of(
            lambda: writer(server, concurrency=1).write(numbered(50), on_written=full)
        )
    assert line == "the disk is full"
    assert len(server.requests) < 50


# Completions without text


def test_an_endpoint_that_never_writes_text_is_refused() -> None:
    def thinking(handler: Handler, request: Request) -> None:
        said = completion(request, None, finish_reason="length")
        handler.send_json(said)

    handed: list[Written] = []
    with serving(thinking) as server:
        asked = writer(server)
        line = failure_of(
            lambda: asked.write(
                numbered(5), on_written=lambda index, one: handed.append(one)
            )
        )
    assert len(server.requests) == 5
    assert handed == [Written("", 7, 3, True, "tiny fp_1")] * 5
    assert "5 completions without text, 5 of them at the length limit" in line
    assert "max-new-tokens" in line


def test_an_empty_text_between_others_is_an_answer() -> None:
    def now_and_then(handler: Handler, request: Request) -> None:
        text = "" if request.prompt == "question 1" else "text"
        handler.send_json(completion(request, text))

    with serving(now_and_then) as server:
        asked = writer(server)
        texts = [one.text for one in asked.write(numbered(3))]
        assert texts == ["text", "", "text"]
        # It has shown that it writes.
        assert [one.text for one in asked.write(prompts("question 1"))] == [""]


# Address and model


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///v1",
        "https://user:password@host/v1",
        "https://user@host/v1",
        "http://host/v1?key=password",
        "http://host/v1#password",
        "http://host:99999/v1",
        "http://[::1/v1",
        "ftp://host/v1",
        "http://ho\nst/v1",
    ],
)
def test_a_url_that_is_none_or_carries_more_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EndpointWriter(url, model="tiny")
    assert "password" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://ho st/v1", "http://xn--/v1"])
def test_a_host_that_cannot_be_asked_is_refused_when_it_is(url: str) -> None:
    with pytest.raises((ConfigError, TeacherError)):
        writer(url, retries=0).write(numbered(1))


def test_only_http_names_an_endpoint() -> None:
    assert is_endpoint("http://localhost:8000/v1")
    assert is_endpoint("HTTPS://api.example.com/v1")
    assert not any(map(is_endpoint, ["builtin", "Qwen/Qwen3-0.6B", "httpx", "./http:"]))
    assert checked_base_url(" http://localhost:8000/v1/ ") == "http://localhost:8000/v1"


def listing(*names: str):
    def behave(handler: Handler, request: Request) -> None:
        if request.method == "GET":
            assert request.path == "/v1/models"
            handler.send_json({"data": [{"id": name} for name in names]})
        else:
            answering(handler, request)

    return behave


def test_the_only_model_is_taken_and_asked_for_once() -> None:
    with serving(listing("owner/only")) as server:
        asked = writer(server, model="")
        assert asked.describe()["model"] == "owner/only"
        asked.write(numbered(2))
    assert [request.method for request in server.requests] == ["GET", "POST", "POST"]
    assert {request.body["model"] for request in server.asked} == {"owner/only"}


@pytest.mark.parametrize("names", [(), ("one", "two")])
def test_without_a_model_the_endpoint_must_list_exactly_one(names: tuple) -> None:
    with serving(listing(*names)) as server, pytest.raises(ConfigError) as caught:
        writer(server, model="").describe()
    assert "teacher-model" in str(caught.value)
    assert all(name in str(caught.value) for name in names)


def test_a_list_of_models_is_asked_for_again_like_anything_else() -> None:
    with serving(first(2, status(503), listing("tiny"))) as server:
        assert writer(server, model="", retries=2).describe()["model"] == "tiny"
    assert len(server.requests) == 3
    with serving(body(b'{"data": [7]}')) as server:
        asked = writer(server, model="", retries=1)
        assert "list of models" in failure_of(asked.describe)
    assert len(server.requests) == 2


def test_a_wrong_key_shows_before_anything_is_asked() -> None:
    with serving(status(401)) as server:
        assert "OPENAI_API_KEY" in failure_of(writer(server).check)
    assert [request.method for request in server.requests] == ["GET"]
    absent = writer(f"http://127.0.0.1:{free_port()}/v1", retries=2)
    assert "no connection" in failure_of(absent.check)


@pytest.mark.parametrize("behaviour", [status(404), status(500), body(b"hello")])
def test_a_server_without_a_list_of_models_will_do(behaviour: Any) -> None:
    with serving(behaviour) as server:
        writer(server).check()
    assert len(server.requests) == 1


def test_what_decides_the_texts_is_described_and_nothing_else() -> None:
    greedy = EndpointWriter("http://localhost:8000/v1/", model="tiny", seed=5)
    assert greedy.describe() == {
        "writer": "endpoint",
        "base_url": "http://localhost:8000/v1",
        "model": "tiny",
        "api": "chat",
        "max_new_tokens": 80,
        "temperature": 0.0,
    }
    hurried = EndpointWriter(
        "http://localhost:8000/v1", model="tiny", concurrency=1, retries=1, timeout=1
    )
    assert hurried.describe() == greedy.describe()
    sampled = EndpointWriter(
        "http://localhost:8000/v1", model="tiny", temperature=1.0, top_p=0.5, seed=5
    )
    added = dict(sampled.describe().items() - greedy.describe().items())
    assert added == {"temperature": 1.0, "top_p": 0.5, "seed": 5}


# Replies of any form

PARTS = "choices message content text usage model data id finish_reason prompt_tokens"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(PARTS.split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    reply=anything,
    choice=anything,
    api=st.sampled_from(["chat", "completions"]),
)
def test_any_json_is_a_completion_or_a_fault(reply: Any, choice: Any, api: str) -> None:
    if isinstance(reply, dict) and isinstance(choice, dict):
        reply["choices"] = [choice]
    try:
        first_choice = reply["choices"][0]
        inner = first_choice["message"] if api == "chat" else first_choice
        expected = [inner["content" if api == "chat" else "text"]]
    except (TypeError, KeyError, IndexError):
        expected = []
    if not expected or not isinstance(expected[0], str | None):
        with pytest.raises(PassingFailure):
            written_reply(reply, api=api)
        return
    written = written_reply(reply, api=api)
    assert written.text == (expected[0] or "")
    assert written.prompt_tokens >= 0
    assert written.served_by.isprintable()


@given(reply=anything)
def test_any_json_lists_models_or_is_a_fault(reply: Any) -> None:
    try:
        names = listed_models(reply)
    except PassingFailure:
        return
    assert len(names) == len(reply["data"])
    assert all(names)


@given(
    text=st.text(alphabet="abc", max_size=12),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=3),
)
def test_a_text_ends_before_the_first_stop_text(text: str, stop: list[str]) -> None:
    reply = {"choices": [{"text": text, "finish_reason": "length"}]}
    written = written_reply(reply, api="completions", stop=stop)
    ends = [
        end
        for end in range(len(text))
        if any(text[end:].startswith(word) for word in stop)
    ]
    assert written.text == text[: min(ends, default=len(text))]
    # Whoever stopped it, it was not the limit.
    assert written.is_cut == (not ends)


# Rate limit


@given(
    steps=st.lists(st.floats(0, 10), min_size=1, max_size=30),
    rate=st.floats(1, 600),
)
def test_requests_are_evenly_spaced_and_never_early(
    steps: list[float], rate: float
) -> None:
    now = 0.0
    limit = RateLimit(rate, clock=lambda: now)
    moments = []
    for step in steps:
        now += step
        waited = limit.reserve()
        assert waited >= 0
        moments.append((now, now + waited))
    free = 0.0
    for asked, granted in moments:
        assert granted == pytest.approx(max(asked, free))
        free = granted + 60 / rate


def test_nothing_is_spaced_without_a_rate_but_all_is_held() -> None:
    now = 0.0
    limit = RateLimit(clock=lambda: now)
    assert [limit.reserve() for _ in range(3)] == [0, 0, 0]
    limit.hold(5)
    limit.hold(2)
    assert [limit.reserve() for _ in range(3)] == [5, 5, 5]
    now = 4.0
    assert limit.reserve() == 1
    now = 6.0
    assert limit.reserve() == 0


def test_a_pause_is_asked_for_in_seconds_milliseconds_or_by_a_date() -> None:
    assert asked_pause({}) == 0
    assert asked_pause({"retry-after": "7"}) == 7
    assert asked_pause({"retry-after": "0.5"}) == 0.5
    assert asked_pause({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert asked_pause({"retry-after-ms": "soon", "retry-after": "7"}) == 7
    now = datetime.now(UTC)
    for moment in (now, now.astimezone(timezone(timedelta(hours=5)))):
        later = email.utils.format_datetime(moment + timedelta(seconds=100))
        assert 90 < asked_pause({"retry-after": later}) <= 100
    earlier = email.utils.format_datetime(now - timedelta(seconds=100))
    for value in ("", "0", "-3", "nan", "soon", earlier, "Mon, 99 Foo 2026"):
        assert asked_pause({"retry-after": value}) == 0


def test_the_writer_keeps_to_its_rate() -> None:
    pauses: list[float] = []
    started = time.monotonic()
    with serving(answering) as server:
        asked = writer(server, requests_per_minute=6, pause=pauses.append)
        asked.write(numbered(5))
    passed = time.monotonic() - started
    # The first goes at once, then one every ten seconds.
    assert len(pauses) == 4
    for index, seconds in enumerate(sorted(pauses), start=1):
        assert 10 * index - passed <= seconds <= 10 * index
